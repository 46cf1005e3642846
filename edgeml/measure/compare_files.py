"""Compare two model files on a data set, with a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeml.benchmark.environment import capture_software
from edgeml.data import Dataset, read_dataset
from edgeml.files import sha256_of_file
from edgeml.measure.compare import Fidelity, measure, open_pair, run_both
from edgeml.measure.parts import choose_part
from edgeml.predict.inspection import model_files
from edgeml.progress import SILENT, Progress
from edgeml.report.check import check_report


def compare_files(
    reference: Path,
    candidate: Path,
    data: Path,
    *,
    read: Callable[[Path], Dataset] = read_dataset,
    html: Path | None = None,
    progress: Progress = SILENT,
) -> Fidelity:
    """Run two models on the same labelled images and measure how far they disagree.

    Args:
        reference: The first model, a file or a run folder.
        candidate: The second. A model without a spec uses the spec of the other.
        data: The labelled images; the test part if they are split.
        read: Reads the data set.
        html: The file of the report; None writes none.
        progress: Shows the progress.

    Raises:
        InputError: `html` cannot be written.
        NotComparableError: The models differ in their labels, or there is no image.
    """
    check_report(html)
    with open_pair(reference, candidate, progress=progress) as (first, second):
        dataset = read(data)
        images = choose_part(dataset, first.spec, None, progress=progress)
        outputs = run_both(first, second, images, progress=progress)
        fidelity = measure(outputs, first.spec, second.spec)
    if html:
        from edgeml.measure.page import Comparison, export_report

        page = Comparison(
            title=f"{reference.name} and {candidate.name}",
            reference=reference.name,
            candidate=candidate.name,
            fidelity=fidelity,
            scores=outputs.scores(first.spec, second.spec),
            facts=comparison_facts(reference=reference, candidate=candidate, data=data),
        )
        export_report(page, html)
    return fidelity


def comparison_facts(*, data: Path, **models: Path) -> dict[str, str]:
    """Return the paths and digests of compared files, and the versions of the libraries."""
    facts = {}
    for name, path in models.items():
        facts[name.title()] = str(path)
        facts[f"{name.title()}, SHA-256"] = sha256_of_file(model_files(path)[0])
    facts["Data"] = str(data)
    versions = capture_software()
    facts["Versions"] = ", ".join(f"{name} {v}" for name, v in versions.items() if v)
    return facts
