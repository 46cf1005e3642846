"""Divide the clothing photos once, for every system that is compared.

    python benchmarks/training/make_split.py [--out build/training/split.csv]

It is `edgeml data split ../shared/data/clothing_cc0/labels.csv --seed 0` with one fact added that
the table does not state: of the 20 kinds of garment every photo shows exactly one. They become the
label group `garment`; `kids` stays on its own. The fact is checked, row by row.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

from edgeml.data import SplitPlan, read_dataset, split_dataset, write_split
from edgeml.spec.labels import LabelGroup

PHOTOS = Path("../shared/data/clothing_cc0/labels.csv")
SPLIT = Path("build/training/split.csv")
UNGROUPED = "kids"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=PHOTOS)
    parser.add_argument("--out", type=Path, default=SPLIT)
    options = parser.parse_args()
    if not options.data.is_file():
        raise SystemExit(
            f"There is no {str(options.data)!r}: the photos are not beside this checkout."
        )
    dataset = read_dataset(options.data)
    garments = [column for column, label in enumerate(dataset.labels) if label != UNGROUPED]
    counts = dataset.present[:, garments].sum(axis=1)
    if (counts != 1).any():
        raise SystemExit(f"{int((counts != 1).sum())} photos do not show exactly one garment.")
    members = tuple(dataset.labels[column] for column in garments)
    group = LabelGroup(name="garment", labels=members, rule="one")
    divided = split_dataset(replace(dataset, label_groups=(group,)), SplitPlan(seed=0))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_split(divided, options.out)
    assert divided.split is not None
    sides = {side: divided.split.count(side) for side in ("train", "val", "test")}
    print(f"{options.out}: {sides}, sha256 of (path, side) {digest(divided.paths, divided.split)}")


def digest(paths: tuple[Path, ...], sides: tuple[str, ...]) -> str:
    """Return a digest of file names and splits that does not depend on the folder of the photos."""
    rows = sorted(f"{path.name} {side}" for path, side in zip(paths, sides, strict=True))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
