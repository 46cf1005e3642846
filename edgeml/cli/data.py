"""`edgeml data`: make, fetch, audit, split and convert data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgeml.cli._effect import check_split_options
from edgeml.cli._formats import label_pair
from edgeml.cli._shared import (
    Data,
    Json,
    Read,
    Seed,
    SkipBad,
    print_json,
    progress,
    reads_data,
)
from edgeml.cli._tables import print_table
from edgeml.errors import needs

app = typer.Typer(
    name="data", help="Make, fetch, split and convert data sets.", no_args_is_help=True
)


@app.command()
def fetch(
    name: Annotated[Literal["apparel"], typer.Argument(help="Kaggle's kaiska/apparel-dataset.")],
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
) -> None:
    """Download photos: 16,170 of apparel, in folders such as red_shirt."""
    from edgeml.data import report_skipped
    from edgeml.data.fetch import differences_from_apparel, fetch_apparel
    from edgeml.data.synth.apparel import COLOURS, GARMENTS

    show = progress()
    dataset = fetch_apparel(out, progress=show)
    report_skipped(dataset, show)
    typer.echo(out)
    differences = differences_from_apparel(dataset, labels={*COLOURS, *GARMENTS})
    for line in differences:
        show.note(f"Not as expected: {line}")
    if differences:
        raise typer.Exit(1)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    images: Annotated[int, typer.Option(min=1, help="Number of images.")] = 2000,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Side in pixels.")] = 128,
    seed: Seed = 0,
    layout: Annotated[
        Literal["folders", "csv"],
        typer.Option(help="`folders` as in red_shirt/; `csv`: some images show two garments."),
    ] = "folders",
) -> None:
    """Draw apparel: 8 garments in 9 colours, hard enough to need training."""
    from edgeml.data.synth.draw import synthesize

    synthesize(out, images=images, size=size, seed=seed, layout=layout, progress=progress())
    typer.echo(out)


@app.command()
@reads_data
def audit(
    data: Data,
    html: Annotated[Path | None, typer.Option(help="Write an HTML page with the images.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", hidden=True)] = True,  # always on
    json: Json = False,
    *,
    read: Read,
) -> None:
    """Check every row and image: broken, odd, duplicated, or with conflicting labels."""
    from edgeml.data.audit import audit as run
    from edgeml.data.exclusive import suggest_group
    from edgeml.data.framestore import cache_or_none
    from edgeml.files import check_writable

    if html:
        check_writable(html)
        with needs("jinja2", extra="report", to="write the page"):
            from edgeml.data.audit_page import audit_report
    result = run(data, read=read, cache=cache_or_none(), progress=progress())
    suggest_group(result.dataset, progress())
    if html:
        audit_report(result, html)
    if json:
        print_json(result.to_dict())
        return
    summary = result.summary()
    width = max(len(name) for name, _ in summary)
    for name, text in summary:
        typer.echo(f"{name:{width}}  {text}")
    rows = [(name, *counts.values()) for name, counts in result.label_counts().items()]
    print_table("Labels", ("label", "positives", "negatives", "unknown"), rows)
    if html:
        typer.echo(html)


@app.command()
@reads_data
def split(
    data: Data,
    out: Annotated[Path, typer.Option(help="The .csv to write.")],
    val: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share for validation; default: 0.15.")
    ] = None,
    test: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share for testing; default: 0.15.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same result; default: 0.")
    ] = None,
    skip_bad: SkipBad = False,
    near: Annotated[
        bool | None,
        typer.Option("--near/--no-near", help="Also keep near duplicates together; default: yes."),
    ] = None,
    hold_out: Annotated[
        str | None,
        typer.Option(help="Two labels, such as black+dress: images with both go to the test part."),
    ] = None,
    *,
    read: Read,
) -> None:
    """Split a data set: spread labels evenly, keep duplicates and groups together."""
    from edgeml.data import SplitPlan, report_skipped, split_dataset, write_split
    from edgeml.data.exclusive import suggest_group
    from edgeml.data.framestore import cache_or_none
    from edgeml.data.screen import without_unreadable
    from edgeml.files import check_writable

    pair = label_pair(hold_out)
    check_writable(out)
    entered = {"val": val, "test": test, "seed": seed, "near": near}
    given = {name: value for name, value in entered.items() if value is not None}
    plan = SplitPlan(hold_out=pair, **given)  # type: ignore[arg-type]
    dataset = read(data, skip_bad=skip_bad)
    check_split_options(dataset, given)
    suggest_group(dataset, progress())
    dataset = without_unreadable(
        dataset, skip_bad=skip_bad, cache=cache_or_none(), progress=progress()
    )
    report_skipped(dataset, progress())
    divided = split_dataset(dataset, plan, cache=cache_or_none(), progress=progress())
    write_split(divided, out)
    parts = {name: divided.part(name) for name in ("train", "val", "test")}
    rows = [
        (label, *(int(part.present[:, column].sum()) for part in parts.values()))
        for column, label in enumerate(divided.labels)
    ]
    print_table(str(out), ("label", *(f"{n} ({len(p)})" for n, p in parts.items())), rows)


@app.command()
@reads_data
def convert(
    data: Data,
    out: Annotated[Path, typer.Option(help="The .csv to write.")],
    skip_bad: SkipBad = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the .csv.")] = False,
    *,
    read: Read,
) -> None:
    """Write any data set as a .csv with paths and labels; a Parquet file's images as files."""
    from functools import partial

    from edgeml.data import report_skipped
    from edgeml.data.convert import convert as run

    dataset = run(data, out, read=partial(read, skip_bad=skip_bad), overwrite=overwrite)
    report_skipped(dataset, progress())
    typer.echo(out)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove it.")] = False,
) -> None:
    """Show where decoded images are cached for the next training, and their size."""
    from edgeml.data.framestore import cache_size, clear_cache, default_cache

    folder = default_cache()
    size = clear_cache(folder) if clear else cache_size(folder)
    typer.echo(f"{folder}  {size / 1e6:.1f} MB{' removed' if clear else ''}")
