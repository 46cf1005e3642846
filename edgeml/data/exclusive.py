"""Labels that exclude each other: of which every image has exactly one, in any format of data."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.data.chosen_labels import DOUBTFUL
from edgeml.data.dataset import Dataset, cooccurrence
from edgeml.progress import Progress
from edgeml.spec.labels import LabelGroup
from edgeml.spec.model_spec import some_names

GROUP = "class"
"""The name of a group that was found."""

# A group that occurs by chance in one of so many data sets is no evidence.
_CHANCE = 1e-3

# Labels that more images than this lack are no answer to one question about every image.
_MOST_WITHOUT = 0.2


@dataclass(frozen=True, kw_only=True)
class Exclusive:
    """Labels that never occur together.

    Attributes:
        labels: Two or more of them.
        images: The number of images.
        without: The images that have none of the labels.
        expected: The images that would have two or more if the labels were independent.
        proven: Whether that none has two is more than chance.
        complete: Whether no image has any other label.
    """

    labels: tuple[str, ...]
    images: int
    without: int
    expected: float
    proven: bool
    complete: bool

    @property
    def is_group(self) -> bool:
        """Whether the labels are certainly the classes of data with one label per image."""
        return self.complete and self.proven and not self.without

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence for JSON; `group` is whether training makes a group of the labels."""
        return {
            "labels": list(self.labels),
            "images": self.images,
            "without": self.without,
            "expected_together": round(self.expected, 1),
            "group": self.is_group,
        }


def exclusive_labels(dataset: Dataset) -> Exclusive | None:
    """Find labels that exclude each other; None if there are none, or they prove nothing.

    Where every image has exactly one label, the labels are returned even if that may be chance.
    """
    used = np.array(dataset.present.any(axis=0))
    kept = _never_together(dataset.targets, used)
    if not dataset.known[:, kept].all():
        return None
    counted = dataset.present[:, kept].sum(axis=1)
    without = int((counted == 0).sum())
    if without:
        kept = _without_weak(dataset.present, kept)
        without = int((~dataset.present[:, kept].any(axis=1)).sum())
    complete = bool((kept == used).all())
    if kept.sum() < 2 or (not complete and without > _MOST_WITHOUT * len(dataset)):
        return None
    none, one = _shares_by_chance(dataset.present[:, kept].mean(axis=0))
    allowed = none + one if without else one
    # So many choices of as many labels could have shown the same by chance.
    choices = math.comb(int(used.sum()), int(kept.sum()))
    proven = len(dataset) * math.log(allowed) + math.log(choices) < math.log(_CHANCE)
    if not proven and (without or not complete):
        return None
    return Exclusive(
        labels=tuple(name for name, keep in zip(dataset.labels, kept, strict=True) if keep),
        images=len(dataset),
        without=without,
        expected=len(dataset) * (1 - none - one),
        proven=proven,
        complete=complete,
    )


def found_labels(dataset: Dataset) -> Exclusive | None:
    """Return the exclusive labels of data without label groups and with undoubted labels."""
    if dataset.label_groups or any(note.startswith(DOUBTFUL) for note in dataset.notes):
        return None
    return exclusive_labels(dataset)


def with_group(dataset: Dataset, progress: Progress) -> Dataset:
    """Return data with one label per image with these labels as a group; note it or a suggestion.

    Data that have label groups, and folders whose names may be split wrongly, stay as they are.
    """
    found = found_labels(dataset)
    if found is None:
        return dataset
    progress.note(f"note: {_evidence(found)}{_consequence(found, made='this training uses')}")
    if not found.is_group:
        return dataset
    group = LabelGroup(name=GROUP, labels=found.labels, rule="one")
    return replace(dataset, label_groups=(group,))


def suggest_group(dataset: Dataset, progress: Progress) -> None:
    """Note which labels exclude each other, and what training makes of it."""
    if found := found_labels(dataset):
        progress.note(f"note: {_evidence(found)}{_consequence(found, made='training uses')}")


def _evidence(found: Exclusive) -> str:
    count = f"{len(found.labels)} labels"
    by_chance = f"by chance, {found.expected:.0f} would have two"
    if found.without:
        return f"{count} never occur together on {found.images} images ({by_chance})"
    return f"each of {found.images} images has exactly one of {count} ({by_chance})"


def _consequence(found: Exclusive, *, made: str) -> str:
    names = some_names(found.labels)
    if found.without:
        return (
            f": {names}; but {found.without} images have none of them. With a label for those, "
            "for example 'none', they could be a group"
        )
    if found.is_group:
        return f": {made} them as the group {GROUP!r}: {names}; --groups none prevents that"
    if any("," in name for name in found.labels):
        return f": {names}; labels without a comma in their names could be a group"
    option = shlex.quote(f"{GROUP}={','.join(found.labels)}")
    few = "" if found.proven else ", which so few images do not prove"
    return f"{few}; to train them as a group, so that predictions keep to that: --groups {option}"


def _never_together(targets: NDArray[np.int8], used: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove labels, those with most company first, until no two occur together: (L,)."""
    together = cooccurrence(targets) > 0
    np.fill_diagonal(together, False)
    kept = used.copy()
    others = together[:, kept].sum(axis=1)
    while kept.any() and others[kept].any():
        worst = int(np.argmax(np.where(kept, others, -1)))
        kept[worst] = False
        others = others - together[:, worst]
    return kept


def _without_weak(present: NDArray[np.bool_], kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove labels that are so rare that they would hardly meet another one by chance: (L,)."""
    kept = kept.copy()
    counts = present.sum(axis=0)
    while kept.any():
        others = (counts[kept].sum() - counts) / len(present)
        chance = np.where(kept, (1 - np.clip(others, 0, 1)) ** counts, 0)
        weakest = int(chance.argmax())
        if chance[weakest] * len(kept) < 10 * _CHANCE:
            break
        kept[weakest] = False
    return kept


def _shares_by_chance(shares: NDArray[np.float64]) -> tuple[float, float]:
    """Return the chance that an image has none, and that it has one, of independent labels."""
    none = float(np.prod(1 - shares))
    return none, none * float((shares / (1 - shares)).sum())
