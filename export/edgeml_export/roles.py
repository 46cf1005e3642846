"""Which images calibrate, which fit, and which check; no image has two of these roles."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeml.data import Dataset, SplitPlan, resolve_split, split_dataset
from edgeml.data.framestore import cache_or_none
from edgeml.data.run_split import RunSplit
from edgeml.errors import CalibrationError, DataError
from edgeml.measure.evaluation import check_labels
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.calibration import Calibration, choose_calibration

# Fewer images than these are not divided: each part would be too small for its role.
_MIN_TO_DIVIDE = 60
# Images that only calibrate are divided so that some are left to fit with.
_CALIBRATION_SPLIT = SplitPlan(val=0.3, test=0.0)


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The images of an export; `overlap` counts those that have more than one role.

    Attributes:
        calibration: For the ranges of INT8.
        fitting: For every choice: the method for ranges, layers that stay float, thresholds.
        reporting: For the reported figures, and nothing else.
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
    run: RunSplit | None = None,
    allow_overlap: bool = False,
    progress: Progress = SILENT,
) -> Roles:
    """Assign images to their roles.

    If the split of the data is known, the train part calibrates, the validation part fits and the
    test part reports. One data set for both ends is divided here. Other data in `check` only
    report; of other data in `calib`, three of ten fit, unless they are few. Without `calib`, only
    a validation part of `check` fits. `allow_overlap` notes images with two roles.

    If the data changed since the training, `run` states the sides of the images that it knows, and
    the others have no role.

    Raises:
        NotComparableError: The data name a label that the model does not know.
        CalibrationError: There is no image to calibrate with, or an image has two roles.
        DataError: There is no image to report with.
    """
    for dataset in (calib, check):
        if dataset is not None:
            check_labels(dataset, spec)
    same = calib is not None and check is not None and calib.paths == check.paths
    reporting = fitting = calibration = divided = None
    if check is not None:
        divided = _divided(check, spec, run, SplitPlan() if same else None, progress)
        reporting = check if divided is None else divided.part("test")
        fitting = None if divided is None else divided.part("val")
        if not len(reporting):
            raise DataError("The test part of the data to check with is empty.")
    if calib is not None:
        if not same:
            plan = _CALIBRATION_SPLIT if len(calib) >= _MIN_TO_DIVIDE else None
            divided = _divided(calib, spec, run, plan, progress)
        source = calib if divided is None else divided.part("train")
        fitting = fitting if divided is None else divided.part("val")
        calibration = choose_calibration(source, spec.labels, progress=progress)
    roles = Roles(
        calibration=calibration,
        fitting=fitting if fitting is not None and len(fitting) else None,
        reporting=reporting,
    )
    return _count_overlap(roles, allowed=allow_overlap, progress=progress)


def _divided(
    dataset: Dataset,
    spec: ModelSpec,
    run: RunSplit | None,
    default: SplitPlan | None,
    progress: Progress,
) -> Dataset | None:
    """Divide data by their known split, or else by the default; return None without either."""
    divided = resolve_split(dataset, spec, cache=cache_or_none())
    if divided is None and run is not None:
        divided = run.divided(dataset)
        if divided is not None and len(divided) < len(dataset):
            progress.note(
                f"warning: {len(dataset) - len(divided)} of {len(dataset)} images are not in the "
                "run of the model, new or changed: they are not used."
            )
    if divided is None and default is not None:
        divided = split_dataset(dataset, default, cache=cache_or_none())
    return divided


def _count_overlap(roles: Roles, *, allowed: bool, progress: Progress) -> Roles:
    """Count images whose bytes have two roles."""
    hashes = {
        "calibrated": roles.calibration.hashes if roles.calibration else (),
        "fitted": roles.fitting.hashes() if roles.fitting else (),
        "checked": roles.reporting.hashes() if roles.reporting else (),
    }
    overlap: set[str] = set()
    for first, second in (
        ("calibrated", "checked"),
        ("fitted", "checked"),
        ("calibrated", "fitted"),
    ):
        shared = set(hashes[first]) & set(hashes[second])
        if shared and not allowed:
            remedy = (
                "Give --check other images, or one data set for both"
                if second == "checked"
                else "Divide the data again, with edgeml data split"
            )
            count = sum(each in shared for each in hashes[second])
            example = next(
                path.name
                for dataset in (roles.reporting, roles.fitting)  # one of them has it
                if dataset is not None
                for path, each in zip(dataset.paths, dataset.hashes(), strict=True)
                if each in shared
            )
            raise CalibrationError(
                f"{count} of {len(hashes[second])} images that are {second} with are also {first} "
                f"with, for example {example!r}: the figures would flatter the "
                f"model. {remedy}, or --allow-overlap."
            )
        overlap |= shared
    if not overlap:
        return roles
    progress.note(
        f"{len(overlap)} images have more than one role of calibrating, fitting and checking: "
        "the figures flatter the model."
    )
    return replace(roles, overlap=len(overlap))
