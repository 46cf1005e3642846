"""A network made to break in INT8: the layers that break it are found and kept in float."""

from __future__ import annotations

import pytest

from edgeml.measure.bootstrap import Drops
from edgeml.runtimes.onnx_file import read_onnx
from edgeml_export.int8.budget import rank, smallest_float_set
from edgeml_export.int8.layers import quantizable
from edgeml_export.int8.targets import Target
from edgeml_export.limits import LIMITS
from tests.export.int8.outlier import Planted

pytestmark = [pytest.mark.train, pytest.mark.runtime]


def within(drops: Drops) -> bool:
    """Whether the limits of INT8 hold."""
    limits = LIMITS["int8"]
    surely = [one for one in drops.labels.values() if one.low > 0]
    return drops.mAP.points <= limits.drop and not any(
        one.points > limits.label_drop for one in surely
    )


def search(planted: Planted, layout: Target) -> tuple[list[str], frozenset[str] | None]:
    """Rank the layers and find the fewest to keep, on the images for fitting."""
    nodes = quantizable(read_onnx(planted.path), layout)
    ranked = rank(
        nodes,
        lambda kept: planted.in_int8(kept, "val", layout),
        planted.scores(planted.path, "val"),
        planted.spec,
    )
    order = [one.name for one in ranked]
    return order, smallest_float_set(order, lambda kept: within(planted.drops(kept, "val", layout)))


@pytest.fixture(scope="module")
def found(planted: Planted) -> tuple[list[str], frozenset[str] | None]:
    return search(planted, "x86")


def test_the_layers_with_the_outlier_are_found_and_a_tenth_in_float_cures_it(
    planted: Planted, found: tuple[list[str], frozenset[str] | None]
) -> None:
    order, kept = found
    assert planted.drops((), "val", "x86").mAP.points > 20
    assert {planted.makes, planted.takes} <= set(order[:3])
    assert kept is not None
    assert {planted.makes, planted.takes} <= kept
    assert len(kept) <= 0.1 * len(order)
    assert within(planted.drops(kept, "test", "x86")), "also on images that chose nothing"


def test_neither_end_of_the_outlier_alone_cures_it(planted: Planted) -> None:
    for one in (planted.makes, planted.takes):
        assert planted.drops([one], "val", "x86").mAP.points > 20


@pytest.mark.parametrize("layout", ["arm", "openvino", "tensorrt"])
def test_what_was_found_for_one_runtime_serves_the_others(
    planted: Planted, found: tuple[list[str], frozenset[str] | None], layout: Target
) -> None:
    kept = found[1]
    assert kept is not None
    assert not within(planted.drops((), "test", layout))
    assert within(planted.drops(kept, "test", layout))


def test_where_only_what_enters_a_layer_is_rounded_only_the_taker_is_kept(
    planted: Planted,
) -> None:
    order, kept = search(planted, "tensorrt")
    assert order[0] == planted.takes
    assert kept == {planted.takes}
