"""A network that breaks in INT8: the layers that break it are found and stay in float."""

from __future__ import annotations

import pytest

from edgeml.measure.bootstrap import ApLosses
from edgeml.runtimes.onnx_file import read_onnx
from edgeml_export.int8.budget import rank, smallest_float_set
from edgeml_export.int8.layers import quantizable
from edgeml_export.int8.targets import Target
from edgeml_export.limits import LIMITS
from tests.export.int8.outlier import Planted

pytestmark = [pytest.mark.train, pytest.mark.runtime]


def within(drops: ApLosses) -> bool:
    """Whether the limits of INT8 hold."""
    limits = LIMITS["int8"]
    surely = [one for one in drops.labels.values() if one.low > 0]
    return drops.mAP.points <= limits.drop and not any(
        one.points > limits.label_drop for one in surely
    )


def search(planted: Planted, layout: Target) -> tuple[list[str], frozenset[str] | None]:
    """Rank the layers and find the fewest to keep in float, on the fitting images."""
    nodes = quantizable(read_onnx(planted.path), layout)
    ranked = rank(
        nodes,
        lambda in_float: planted.in_int8(in_float, "val", layout),
        planted.scores(planted.path, "val"),
        planted.spec,
    )
    order = [node.name for node in ranked]
    return order, smallest_float_set(
        order, lambda in_float: within(planted.drops(in_float, "val", layout))
    )


@pytest.fixture(scope="module")
def found(planted: Planted) -> tuple[list[str], frozenset[str] | None]:
    return search(planted, "x86")


def test_the_layers_with_the_outlier_are_found_and_a_tenth_in_float_cures_it(
    planted: Planted, found: tuple[list[str], frozenset[str] | None]
) -> None:
    order, in_float = found
    assert planted.drops((), "val", "x86").mAP.points > 20
    assert {planted.makes, planted.takes} <= set(order[:3])
    assert in_float is not None
    assert {planted.makes, planted.takes} <= in_float
    assert len(in_float) <= 0.1 * len(order)
    assert within(planted.drops(in_float, "test", "x86")), (
        "also on images that the search did not see"
    )


def test_neither_end_of_the_outlier_alone_cures_it(planted: Planted) -> None:
    for one in (planted.makes, planted.takes):
        assert planted.drops([one], "val", "x86").mAP.points > 20


@pytest.mark.parametrize("layout", ["arm", "openvino", "tensorrt"])
def test_the_layers_found_for_one_runtime_serve_the_others(
    planted: Planted, found: tuple[list[str], frozenset[str] | None], layout: Target
) -> None:
    in_float = found[1]
    assert in_float is not None
    assert not within(planted.drops((), "test", layout))
    assert within(planted.drops(in_float, "test", layout))


def test_where_only_inputs_are_rounded_only_the_reader_stays_in_float(
    planted: Planted,
) -> None:
    order, in_float = search(planted, "tensorrt")
    assert order[0] == planted.takes
    assert in_float == {planted.takes}
