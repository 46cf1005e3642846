"""`edgeml train`; `_flags` adds one flag per setting."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeml.cli._shared import Data, Json, check_shares, print_json, progress
from edgeml.cli._tables import print_metrics
from edgeml.errors import InputError, needs

if TYPE_CHECKING:
    from edgeml.training.config import TrainConfig


def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="The run folder to write.")] = Path("run"),
    config: Annotated[
        Path | None, typer.Option(help="A .yaml of settings; flags override it.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out that was stopped.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in --out.")] = False,
    find: Annotated[
        Literal["lr", "batch"] | None,
        typer.Option(help="Do not train: search a good learning rate, or the fastest batch."),
    ] = None,
    json: Json = False,
    **settings: Any,
) -> None:
    """Train a multi-label classifier."""
    from edgeml.data import read_dataset
    from edgeml.data.chosen_labels import suggest_group

    with needs("torch", extra="train", to="train a model"):
        from edgeml.training.find import find_batch, find_lr
        from edgeml.training.loop import train as run

    train_config = _config(config, out, settings, resume=resume)
    dataset = read_dataset(
        data,
        delimiter=train_config.delimiter,
        separator=train_config.separator,
        labels=train_config.labels,
        ignore_labels=train_config.ignore_labels,
        skip_bad=train_config.skip_bad,
        progress=progress(),
    )
    check_shares(dataset, settings.get("val"), settings.get("test"))
    if not train_config.groups:
        suggest_group(dataset, progress())
    if find is not None:
        search = find_lr if find == "lr" else find_batch
        best = search(dataset, train_config, out, progress=progress())
        if json:
            print_json(asdict(best))
        else:
            typer.echo(best.summary_line())
        return
    result = run(
        dataset, train_config, out, resume=resume, overwrite=overwrite, progress=progress()
    )
    if json:
        print_json({"path": str(result.path), **result.metrics.to_dict()})
    else:
        print_metrics(result.metrics.to_dict())
        typer.echo(f"Report: {out / 'report.html'}")
        # split.csv lists only readable images, and reads back without the options for `data`.
        c = train_config
        special = c.skip_bad or c.separator or c.labels or c.ignore_labels or c.delimiter != "_"
        check = out / "split.csv" if special else data
        typer.echo(f"Next: edgeml export {out} --fmt onnx --check {check}")


def _config(file: Path | None, out: Path, flags: dict[str, Any], *, resume: bool) -> TrainConfig:
    """Apply flags to the settings of a .yaml, or of the run that is resumed."""
    from edgeml.training.config import CONFIG_FILE, TrainConfig, read_settings

    if resume:
        if not (out / CONFIG_FILE).is_file():
            raise InputError(f"There is no run in {str(out)!r} to resume.")
        if file is not None:
            raise InputError("--resume takes the settings of the run: omit --config.")
        file = out / CONFIG_FILE
    stored = read_settings(file) if file else {}
    if flags.get("pretrained") and "weights" not in flags:
        stored.pop("weights", None)
    return TrainConfig(**{**stored, **flags})
