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
    # The export itself refuses FP16 and INT8 beyond their limits, which may happen to a network
    # that has learnt this little; EfficientViT's FP16 is refused.
    row = measured(case, objects, tmp_path, openvino_int8=has_vnni())
    print(row_of(row))  # shown by `pytest -rP`
    for fmt in FORMATS:
        assert row[fmt]["fp32"]["flips_per_1000"] == 0
        for precision in ("fp16", "int8"):
            assert "\n" not in row[fmt][precision].get("refused", "")
        integers = row[fmt]["int8"]
        if "refused" not in integers:
            # The last layer of each head is float, and what the budget returns to float.
            floats = integers["weighted_layers"] - integers["int8_layers"]
            assert 1 <= floats - case.without_image <= 2 + integers["kept_in_float"]
