"""27 families of timm beyond those of test_models.py: a training, six files, the same decisions.

`benchmarks/quantization/architectures.py` measures the same rows and keeps them as a table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quantization.architectures import CASES, FORMATS, Case, draw, measured, row_of
from edgeml.data import Dataset
from tests.machine import has_vnni

pytestmark = [pytest.mark.train, pytest.mark.runtime, pytest.mark.nightly]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw(tmp_path_factory.mktemp("objects") / "images")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_family_trains_and_decides_the_same_in_every_file(
    case: Case, objects: Dataset, tmp_path: Path
) -> None:
    # The export itself refuses FP16 and INT8 beyond their limits; INT8 of a network that has
    # learnt this little may be refused.
    row = measured(case, objects, tmp_path, openvino_int8=has_vnni())
    print(row_of(row))  # shown by `pytest -rP`
    for fmt in FORMATS:
        assert row[fmt]["fp32"]["flips_per_1000"] == 0
        integers = row[fmt]["int8"]
        if "refused" in integers:
            assert integers["mAP_drop"] > 0
            assert "\n" not in integers["refused"]
        else:  # all but the last of each head, and what the budget returns to floating point
            floats = integers["weighted_layers"] - integers["int8_layers"]
            assert 1 <= floats <= 2 + integers["kept_in_float"]
