"""The label groups that a table names, and the rows that fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeml.data.readers.rows import Row, SkipLog, skip_or_raise
from edgeml.spec.labels import LabelGroup


def collect_groups(rows: Sequence[Row], skips: SkipLog) -> tuple[list[Row], tuple[LabelGroup, ...]]:
    """Return the label groups that the rows name, and the rows that fit them."""
    group_of: dict[str, str] = {}
    consistent = []
    for row in rows:
        names = row.label_groups or ("",) * len(row.present)
        stated = dict(zip(row.present, names, strict=True))
        other = [label for label, name in stated.items() if group_of.get(label, name) != name]
        if other:
            why = (
                f"{other[0]!r} is in the label group {stated[other[0]]!r}, "
                f"but in {group_of[other[0]]!r} before."
            )
            skip_or_raise(skips, row.where, why)
        else:
            group_of |= stated
            consistent.append(row)
    rows = with_one_of_each(consistent, groups_of_labels(group_of), skips)
    used = {label for row in rows for label in row.present}
    return rows, groups_of_labels({label: group_of[label] for label in group_of if label in used})


def with_one_of_each(
    rows: Sequence[Row], groups: tuple[LabelGroup, ...], skips: SkipLog
) -> list[Row]:
    """Leave out rows with two labels of a group, or with none though all its labels are known."""
    if not groups:
        return list(rows)
    members = [(group.name, frozenset(group.labels)) for group in groups]
    usable = []
    for row in rows:
        present, unknown = frozenset(row.present), frozenset(row.unknown)
        wrong = [
            name
            for name, labels in members
            if len(labels & present) != 1 and (labels & present or not labels & unknown)
        ]
        if wrong:
            why = f"it must have exactly one label of the group {wrong[0]!r}."
            skip_or_raise(skips, row.where, why)
        else:
            usable.append(row)
    return usable


def groups_of_labels(group_of: Mapping[str, str]) -> tuple[LabelGroup, ...]:
    """Return label groups from the name of each label's group; an empty name means no group."""
    names = dict.fromkeys(name for name in group_of.values() if name)
    return tuple(
        LabelGroup(
            name=name,
            labels=tuple(sorted(label for label in group_of if group_of[label] == name)),
            rule="one",
        )
        for name in names
    )
