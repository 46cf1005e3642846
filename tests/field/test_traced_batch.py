"""A network that declares any batch, but was traced with one image, is run image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeml import Predictor
from edgeml.data import read_dataset
from edgeml.runtimes.onnx_batch import takes_any_batch
from edgeml_export import export, pipeline
from tests.export.graphs import SIDE, Node, run
from tests.field.nets import CONSTANTS, NODES, plain_network, stored, two_folders
from tests.field.test_onnx_files import BATCH, WIDE

pytestmark = pytest.mark.runtime

RESHAPES = {"fixed": [1, 8], "open": [1, -1]}


def traced(shape: list[int]) -> onnx.ModelProto:
    reshape: Node = ("Reshape", ["pooled", "shape"], "flat")
    nodes = [reshape if node[2] == "flat" else node for node in NODES]
    constants = {**CONSTANTS, "shape": np.array(shape, np.int64)}
    model = plain_network(nodes, constants, shape=(1, 3, SIDE, SIDE))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return model


@pytest.mark.parametrize("shape", RESHAPES.values(), ids=RESHAPES)
def test_each_image_gets_the_scores_that_it_has_alone(shape: list[int], tmp_path: Path) -> None:
    with Predictor(stored(traced(shape), tmp_path / "model.onnx")) as predictor:
        for _ in range(2):
            assert np.allclose(predictor.infer(BATCH), run(plain_network(), BATCH)[0], atol=1e-5)


@pytest.mark.parametrize("shape", RESHAPES.values(), ids=RESHAPES)
def test_its_int8_is_that_of_the_twin_with_any_batch(
    shape: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "measure_speed", lambda *_: None)
    data = read_dataset(two_folders(tmp_path / "data"))
    scores = []
    for name, model in (("traced", traced(shape)), ("any", plain_network())):
        source = stored(model, tmp_path / name / "model.onnx")
        done = export(source, "onnx", precision="int8", calib=data, check=data,
                      allow_overlap=True, **WIDE)  # fmt: skip
        with Predictor(done.path) as predictor:
            scores.append(predictor.infer(BATCH))
    assert np.abs(scores[0] - scores[1]).max() < 1e-3


def test_a_network_that_takes_any_batch_is_recognised() -> None:
    assert takes_any_batch(plain_network())
    assert not takes_any_batch(traced([1, 8]))
