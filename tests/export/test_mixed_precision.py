"""A network made to break in INT8: the layers that break it are found and kept in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn.functional import binary_cross_entropy_with_logits

from edgeml import ModelSpec, Predictor, Preprocess
from edgeml.bootstrap import Drops, drop_intervals
from edgeml.data import Dataset, SplitPlan, split_dataset
from edgeml.images import read_image
from edgeml_export.artifact import read_onnx, spec_of_onnx, write_onnx
from edgeml_export.budget import fewest, rank
from edgeml_export.calibration import choose_calibration
from edgeml_export.limits import LIMITS
from edgeml_export.ranges import Ranges
from edgeml_export.targets import Target
from edgeml_export.to_int8 import int8_from_onnx, measure_ranges, quantizable
from edgeml_export.to_onnx import onnx_from_module
from tests.export.conftest import SIZE

pytestmark = [pytest.mark.train, pytest.mark.runtime]

Scores = NDArray[np.float32]

# A power of two: scaling up and down again changes no bit of what is computed in float.
FACTOR = 1024.0


def plant_outlier(source: Path, target: Path) -> tuple[str, str]:
    """Scale one channel between two convolutions up and down again; name both.

    They are the first with nothing but a ReLU between them, so that there is no way round.
    """
    model = read_onnx(source)
    spec, graph = spec_of_onnx(model, source), model.graph
    makes, takes = next(
        (first, third)
        for first, second, third in _chains(graph)
        if [first.op_type, second.op_type, third.op_type] == ["Conv", "Relu", "Conv"]
    )
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name, where, factor in (
        (makes.input[1], np.s_[3], FACTOR),
        (makes.input[2], np.s_[3], FACTOR),
        (takes.input[1], np.s_[:, 3], 1 / FACTOR),
    ):
        values = numpy_helper.to_array(tensors[name]).copy()
        values[where] *= factor
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    write_onnx(model, target, spec)
    return makes.name, takes.name


def _chains(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, ...]]:
    """Give three nodes each, of which one hands all that it makes to the next and to no other."""
    readers = Counter(name for node in graph.node for name in node.input)
    maker = {output: node for node in graph.node for output in node.output}
    for third in graph.node:
        second = maker.get(third.input[0])
        first = second and maker.get(second.input[0])
        if first and second and readers[first.output[0]] == readers[second.output[0]] == 1:
            yield first, second, third


@dataclass(frozen=True, eq=False)
class Planted:
    """The broken network, what it is worth in float, and the layers that break it in INT8."""

    path: Path
    makes: str
    takes: str
    ranges: Ranges
    spec: ModelSpec
    inputs: dict[str, NDArray[np.float32]]
    targets: dict[str, NDArray[np.int8]]
    folder: Path

    def scores(self, path: Path, part: str, layout: Target = "x86") -> Scores:
        runtime = "openvino" if layout == "openvino" else "onnxruntime"
        with Predictor(path, runtime=runtime) as predictor:
            return predictor.probabilities(predictor.runtime.run(self.inputs[part]))

    def in_int8(self, kept: Sequence[str] | frozenset[str], part: str, layout: Target) -> Scores:
        path = self.folder / f"{layout}.onnx"
        int8_from_onnx(self.path, path, self.ranges, layout=layout, keep=kept)
        return self.scores(path, part, layout)

    def drops(self, kept: Sequence[str] | frozenset[str], part: str, layout: Target) -> Drops:
        whole, got = self.scores(self.path, part), self.in_int8(kept, part, layout)
        return drop_intervals(whole, got, self.targets[part], self.spec.labels)


@pytest.fixture(scope="module")
def planted(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A residual network after some seconds of training, with an outlier planted in its stem."""
    folder = tmp_path_factory.mktemp("planted")
    split = split_dataset(data, SplitPlan())
    train = split.part("train")
    spec = ModelSpec(
        labels=data.labels,
        thresholds=(0.5,) * len(data.labels),
        preprocess=Preprocess(size=(SIZE, SIZE)),
        groups=data.label_groups,
    )
    torch.manual_seed(0)
    model = timm.create_model(
        "test_resnet.r160_in1k", num_classes=len(data.labels), layers=(2, 2, 2, 2)
    )
    inputs = {
        part: spec.preprocess([read_image(path) for path in split.part(part).paths])
        for part in ("train", "val", "test")
    }
    batch = torch.from_numpy(inputs["train"])
    targets = torch.from_numpy(train.targets.astype(np.float32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(8):
        for rows in torch.randperm(len(batch)).split(24):
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(model(batch[rows]), targets[rows]).backward()
            optimizer.step()
    whole = onnx_from_module(model.eval(), spec, folder / "whole.onnx")
    makes, takes = plant_outlier(whole, folder / "planted.onnx")
    path = folder / "planted.onnx"
    found = Planted(
        path=path,
        makes=makes,
        takes=takes,
        ranges=measure_ranges(path, choose_calibration(train, data.labels, limit=60)),
        spec=spec,
        inputs=inputs,
        targets={part: split.part(part).targets for part in ("val", "test")},
        folder=folder,
    )
    np.testing.assert_array_equal(found.scores(path, "test"), found.scores(whole, "test"))
    return found


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
    order = [one.node for one in ranked]
    return order, fewest(order, lambda kept: within(planted.drops(kept, "val", layout)))


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
