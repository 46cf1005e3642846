"""Which images calibrate, which fit, and which judge; no image does two of these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeml.data import Dataset, SplitPlan, resolve_split, split_dataset
from edgeml.data.framestore import cache_or_none
from edgeml.errors import CalibrationError, DataError
from edgeml.measure.evaluation import check_labels
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.calibration import Calibration, choose_calibration

# Fewer than these are not divided: each part would be too small for what it is for.
_ENOUGH_TO_DIVIDE = 60

_OF_CALIBRATION = SplitPlan(val=0.3, test=0.0)
"""How images for calibration alone are divided, so that some are left to fit with."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The images of an export.

    Attributes:
        calibration: For the ranges of INT8.
        fitting: For every choice: the ranges' method, layers that stay float, thresholds.
        reporting: For the figures that are told, and nothing else.
        overlap: Images that have more than one of these roles.
    """

    calibration: Calibration | None
    fitting: Dataset | None
    reporting: Dataset | None
    overlap: int = 0


def assign_roles(
    spec: ModelSpec,
    calib: Dataset | None,
    check: Dataset | None,
    *,
    allow_overlap: bool = False,
    progress: Progress = SILENT,
) -> Roles:
    """Give each role its images.

    Of data whose split is known the train side calibrates, the validation side fits, and the test
    side reports; data that serve both ends are divided here. Other data to check with report as a
    whole, and of other data to calibrate with three of ten fit, unless they are few.

    Args:
        spec: Of the model; it may know how its data were divided.
        calib: To calibrate and to fit with; None: neither, but for a validation side of `check`.
        check: To report with.
        allow_overlap: Let an image have two roles, and note it.
        progress: Is told of what is doubtful.

    Raises:
        NotComparableError: The data name a label that the model does not know.
        CalibrationError: Nothing is left to calibrate with, or an image has two roles.
        DataError: Nothing is left to report with.
    """
    for dataset in (calib, check):
        if dataset is not None:
            check_labels(dataset, spec)
    together = calib is not None and check is not None and calib.paths == check.paths
    reporting = fitting = calibration = None
    if check is not None:
        divided = _divided(check, spec, anyhow=SplitPlan() if together else None)
        reporting = check if divided is None else divided.part("test")
        fitting = None if divided is None else divided.part("val")
        if not len(reporting):
            raise DataError("The test part of the data to check with is empty.")
    if calib is not None:
        plan = SplitPlan() if together else _OF_CALIBRATION
        enough = together or len(calib) >= _ENOUGH_TO_DIVIDE
        divided = _divided(calib, spec, anyhow=plan if enough else None)
        source = calib if divided is None else divided.part("train")
        fitting = fitting if divided is None else divided.part("val")
        calibration = choose_calibration(source, spec.labels, progress=progress)
    roles = Roles(
        calibration=calibration,
        fitting=fitting if fitting is not None and len(fitting) else None,
        reporting=reporting,
    )
    return _without_overlap(roles, allow_overlap, progress)


def _divided(dataset: Dataset, spec: ModelSpec, *, anyhow: SplitPlan | None) -> Dataset | None:
    """Divide data as they are known to be, or else by a plan of ours, if there is one."""
    divided = resolve_split(dataset, spec, cache=cache_or_none())
    if divided is None and anyhow is not None:
        divided = split_dataset(dataset, anyhow, cache=cache_or_none())
    return divided


def _without_overlap(roles: Roles, allowed: bool, progress: Progress) -> Roles:
    """Refuse, or count, images whose bytes have two roles.

    Raises:
        CalibrationError: There are some, and none are allowed.
    """
    sides = {
        "calibrated": roles.calibration.hashes if roles.calibration else (),
        "fitted": roles.fitting.hashes() if roles.fitting else (),
        "checked": roles.reporting.hashes() if roles.reporting else (),
    }
    shared: set[str] = set()
    for first, second in (
        ("calibrated", "checked"),
        ("fitted", "checked"),
        ("calibrated", "fitted"),
    ):
        both = set(sides[first]) & set(sides[second])
        if both and not allowed:
            mend = (
                "Give --check other images, or one data set for both"
                if second == "checked"
                else "Divide the data anew, with edgeml data split"
            )
            raise CalibrationError(
                f"{_count(sides[second], both)} of {len(sides[second])} images that are {second} "
                f"with are also {first} with, for example {_example(roles, both)!r}: the figures "
                f"would flatter. {mend}, or --allow-overlap."
            )
        shared |= both
    if not shared:
        return roles
    progress.note(
        f"{len(shared)} images have more than one role of calibrating, fitting and checking: "
        "the figures flatter the model."
    )
    return Roles(
        calibration=roles.calibration,
        fitting=roles.fitting,
        reporting=roles.reporting,
        overlap=len(shared),
    )


def _count(hashes: Iterable[str], both: set[str]) -> int:
    return sum(hash in both for hash in hashes)


def _example(roles: Roles, both: set[str]) -> str:
    """Name an image that is in both; fitting and reporting have paths, one of them is meant."""
    for dataset in (roles.reporting, roles.fitting):
        if dataset is not None:
            for path, hash in zip(dataset.paths, dataset.hashes(), strict=True):
                if hash in both:
                    return path.name
    raise AssertionError("calibration shares images with one of the others")
