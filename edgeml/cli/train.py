"""`edgeml train`; `_flags` adds one flag per setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgeml.cli._effect import (
    check_exclusive,
    check_settings,
    check_split_options,
    reading_options,
)
from edgeml.cli._shared import Data, Json, print_json, progress
from edgeml.cli._tables import print_metrics
from edgeml.errors import InputError, needs

if TYPE_CHECKING:
    from edgeml.data import Dataset
    from edgeml.training.config import TrainConfig


def train(
    data: Data,
    out: Annotated[Path | None, typer.Option(help="The run folder to write; default: run.")] = None,
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
    with needs("torch", extra="train", to="train a model"):
        from edgeml.training.find import find_batch, find_lr
        from edgeml.training.loop import train as run

    present = {"--find": find is not None, "--resume": resume, "--overwrite": overwrite}
    present |= {"--find batch": find == "batch", "--out": out is not None}
    check_exclusive(
        present,
        ("--resume", "--overwrite"),
        ("--find", "--resume"),
        ("--find", "--overwrite"),
        ("--find batch", "--out"),
    )
    out = out or Path("run")
    train_config = _config(config, out, settings, resume=resume)
    check_settings(train_config, settings)
    dataset = _read(data, train_config, settings)
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
        special = (c.skip_bad, c.separator, c.labels, c.ignore_labels, c.root, c.delimiter != "_")
        check = out / "split.csv" if any(special) else data
        typer.echo(f"Next: edgeml export {out} --fmt onnx --check {check}")


def _read(data: Path, config: TrainConfig, flags: Mapping[str, Any]) -> Dataset:
    """Read the data; of the settings in a file, those that do not apply to the data are unused."""
    from edgeml.data import read_dataset

    names = ("delimiter", "separator", "root")
    stored = {name: getattr(config, name) for name in names}
    entered = {name: value for name, value in stored.items() if name in flags}
    reading_options(data, entered, strict=True)
    dataset = read_dataset(
        data,
        labels=config.labels,
        ignore_labels=config.ignore_labels,
        skip_bad=config.skip_bad,
        progress=progress(),
        **reading_options(data, stored, strict=False),
    )
    check_split_options(dataset, {name: flags.get(name) for name in ("val", "test", "near")})
    return dataset


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
    for flag, other in (("pretrained", "weights"), ("weights", "pretrained")):
        if flag in flags and other not in flags:
            stored.pop(other, None)
    return TrainConfig(**{**stored, **flags})
