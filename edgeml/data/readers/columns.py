"""The meaning of a table's columns, by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeml.data.readers.rows import label_fault, label_name, printable
from edgeml.errors import DataError
from edgeml.spec.model_spec import some_names

# Names are compared without case, blanks, hyphens and underscores; earlier names come first.
_PATH = (
    "path", "filename", "file", "image", "imagepath", "imagefile", "imagename", "imagefilename",
    "filepath", "filepaths", "fname", "img", "imgpath", "imgname", "imgfile", "picture", "photo",
    "imageindex", "imageid", "imgid", "idcode", "id",
)  # fmt: skip
_LABELS = (
    "labels", "label", "tags", "tag", "labelname", "labelnames", "classes", "class", "classname",
    "categories", "category", "targets", "target", "attributes", "findinglabels", "genres", "genre",
    "breed", "species", "diagnosis",
)  # fmt: skip
_SPLIT = ("split", "subset", "partition", "dataset")
_FLAGS = {
    "isvalid": "val", "isval": "val", "isvalidation": "val", "istest": "test",
}  # fmt: skip
_NEVER_LABELS = {
    *_PATH, *_LABELS, *_SPLIT, *_FLAGS, "istrain", "fold", "folds", "kfold", "index", "idx",
    "rownumber",
    "width", "height", "source", "confidence", "url", "md5", "sha256", "hash", "filesize",
    "patientid", "classid", "labelid", "categoryid",
}  # fmt: skip
_EXTRAS = ("label_groups", "group", "split", "sha256", "data_root")
_BOX = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The indices of the columns.

    Attributes:
        path: The column of the image.
        labels: All labels of an image; None where each label has its own column.
        named: The columns of single labels.
        extras: The optional columns: label_groups, group, split, sha256 and data_root.
        flags: Columns of 0 and 1 that name a side of the split: `is_valid`.
        confidence: 0 where the label of a row is absent, as in Open Images.
        boxes: Whether a row is a bounding box of one object, so that an image has many rows.
        origin: Where the labels come from, for the user.
        unused: The names of the other columns.
    """

    path: int
    labels: int | None
    named: dict[str, int]
    extras: dict[str, int]
    flags: dict[int, str]
    confidence: int | None
    boxes: bool
    origin: str
    unused: tuple[str, ...]

    def wanted(self) -> list[int]:
        """Return the indices of all columns that have a meaning."""
        more = [at for at in (self.labels, self.confidence) if at is not None]
        return [self.path, *self.named.values(), *self.extras.values(), *self.flags, *more]


def columns_of(
    table: Path, header: list[str], *, labels: Sequence[str], ignored: Sequence[str]
) -> Columns:
    """Return the meaning of the columns with the names in `header`.

    Args:
        table: Named in errors.
        header: The names in the order of the columns.
        labels: The columns of labels, as the user named them; empty: all others.
        ignored: Columns that are no labels.

    Raises:
        DataError: There is no column of images or of labels, or a name is duplicated.
    """
    names = [label_name(name) for name in header]
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    chosen = [label_name(label) for label in labels]
    own = bool(chosen) and set(chosen) <= set(names)
    free = [name for name in names if not (own and name in chosen) and name not in ignored]
    path = _first(_PATH, free)
    extras = {name: names.index(name) for name in _EXTRAS if name in free}
    if "split" not in extras and (split := _first(_SPLIT, free)):
        extras["split"] = names.index(split)
    # A word such as `class` or `id` may be either: the image comes first.
    one = None if own else _first(_LABELS, [name for name in free if name != path])
    taken = {path, one, *(names[at] for at in extras.values())}
    flags = {
        names.index(name): _FLAGS[_plain(name)]
        for name in free
        if _plain(name) in _FLAGS and "split" not in extras
    }
    others = [name for name in names if name not in taken and names.index(name) not in flags]
    named = chosen if own else [] if one else [n for n in others if _may_be_label(n, ignored)]
    if one:  # pandas numbers columns of one name
        repeated += [name for name in names if re.fullmatch(rf"{re.escape(one)}\.\d+", name)]
    _check(table, names, path, bool(one or named), repeated)
    for name in named:
        if fault := label_fault(name):
            raise DataError(
                f"{printable(table)!r}, line 1: {name[:80]!r} cannot be a label: {fault}."
            )
    unused = tuple(name or "one without a name" for name in others if name not in named)
    assert path is not None
    plain = [_plain(name) for name in names]
    confident = one is not None and "confidence" in plain
    return Columns(
        path=names.index(path),
        labels=names.index(one) if one else None,
        named={name: names.index(name) for name in named},
        extras=extras,
        flags=flags,
        confidence=plain.index("confidence") if confident else None,
        boxes=one is not None and set(_BOX) <= set(plain),
        origin=f"the column {one!r}" if one else f"{len(named)} columns",
        unused=unused,
    )


def origin_of_names(columns: Sequence[str]) -> str:
    """Return where labels come from that are the cells of several columns, or of chosen ones."""
    return f"the names in {some_names(columns)}"


def is_reserved(name: str) -> bool:
    """Whether a label of this name could not have its own column: it would be read otherwise."""
    return name in _EXTRAS or not _may_be_label(name, ())


def names_images(name: str) -> bool:
    """Whether a column of this name contains images: `path`, `file_name`, `Image Index`."""
    return _plain(name.strip()) in _PATH


def _check(
    table: Path, names: list[str], path: str | None, labelled: bool, repeated: list[str]
) -> None:
    missing = ["path"] * (path is None) + ["labels"] * (not labelled or path is None)
    if path is None and labelled and _first(_LABELS, names):
        missing = ["path"]
    if missing:
        raise DataError(
            f"{printable(table)!r}, line 1: it has no column "
            f"{' and no column '.join(map(repr, missing))}; its first line is "
            f"{','.join(names)[:80]!r}. Expected path,labels[,group][,split], or path and a column "
            "for each label (--labels a,b,c names them)."
        )
    if repeated:
        raise DataError(
            f"{printable(table)!r}, line 1: the column {repeated[0]!r} is duplicated: rename "
            "one, or delete it."
        )


def _may_be_label(name: str, ignored: Sequence[str]) -> bool:
    plain = _plain(name)
    return bool(
        name
        and name not in ignored
        and plain not in _NEVER_LABELS
        and not re.fullmatch(r"unnamed:\d+(?:\.\d+)?", plain)
        and not re.fullmatch(r"index\d+|level\d+", plain)
    )


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the name that comes first in `wanted`; an equal name before a similar one."""
    similar = [(wanted.index(_plain(name)), name not in wanted, name) for name in names
               if _plain(name) in wanted]  # fmt: skip
    return min(similar)[2] if similar else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()
