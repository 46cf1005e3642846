"""What a runtime makes of files of other tools: the same answers in each, and what it reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeml import Predictor
from edgeml.data import Dataset
from edgeml.errors import ModelLoadError, SpecError
from edgeml.predict.inspection import describe
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.tensorrt.build import engine_from_onnx
from edgeml.runtimes.tensorrt.engine_options import EngineOptions
from edgeml.spec.foreign.merge import SpecOverrides, spec_for
from edgeml.spec.storage import write_spec
from edgeml_export import export
from tests.export.graphs import SIDE, SPEC, run
from tests.field import corpus, corpus_graphs, corpus_operators, corpus_types
from tests.field.nets import NODES, plain_network, stored
from tests.field.test_int8_files import quantized_by_onnxruntime
from tests.field.test_onnx_files import BATCH, with_external_data, with_function
from tests.field.test_traced_batch import traced

pytestmark = [pytest.mark.runtime, pytest.mark.usefixtures("untimed")]


def of_others(path: Path, model: onnx.ModelProto) -> Path:
    """Write a network of the corpus; its spec is stated by a person."""
    path.write_bytes(model.SerializeToString())
    return path


STATED = SpecOverrides(
    labels=corpus.LABELS,
    resize="squash",
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    channels="rgb",
    activation="softmax",
)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["a Reshape to one", "functions", "weights in a file"])
def test_each_runtime_gives_the_answer_of_the_plain_network(
    kind: str, runtime: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    match kind:
        case "a Reshape to one":
            stored(traced([1, 8]), path)
        case "functions":
            with_function(path)
        case _:
            with_external_data(path)
    with Predictor(path, runtime=runtime) as predictor:
        assert np.allclose(predictor.infer(BATCH), run(plain_network(), BATCH)[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["functions", "four open sides", "a Reshape to one"])
def test_an_engine_is_built_of_the_usual_form(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings")
    path = tmp_path / "model.onnx"
    match kind:
        case "functions":
            with_function(path)
        case "four open sides":
            stored(plain_network(shape=("batch", "channels", "height", "width")), path)
        case _:
            stored(traced([1, 8]), path)
    built = engine_from_onnx(
        path,
        tmp_path / "model.engine",
        EngineOptions(capability=("8.6",)),
        library="tensorrt_rtx",
    )
    assert built.passport.inputs[0].shape[1:] == (3, SIDE, SIDE)
    assert built.passport.profile == ((1, 1, 1) if kind == "a Reshape to one" else (1, 1, 8))


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_that_are_only_stored_in_integers_are_multiplied_in_float(
    bits: int, tmp_path: Path
) -> None:
    path = of_others(tmp_path / "model.onnx", corpus_types.weights_only(bits))
    assert describe(path, STATED)["computes_in"] == "f32"
    path = of_others(tmp_path / "qdq.onnx", corpus_types.qdq_by_channel())
    assert describe(path, STATED)["computes_in"] == "int8"


def test_the_size_of_a_model_is_that_of_all_its_files(tmp_path: Path) -> None:
    path = with_external_data(tmp_path / "model.onnx")
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert describe(path)["bytes"] == size
    assert size > path.stat().st_size


def test_the_share_of_int8_is_reported_for_a_file_that_was_int8_already(
    tmp_path: Path, data: Dataset
) -> None:
    source = quantized_by_onnxruntime(tmp_path, "QDQ")
    done = export(source, "onnx", precision="int8", target="tensorrt", retarget=True, check=data,
                  max_drop=100.0, max_label_drop=100.0, out=tmp_path / "new.onnx")  # fmt: skip
    numbers = done.to_dict()["int8"]
    assert (numbers["int8_layers"], numbers["weighted_layers"]) == (3, 3)
    assert numbers["method"] is None


@pytest.mark.parametrize("kind", ["signed operators", "a missing zero point"])
def test_what_protects_from_saturation_refuses_no_file(kind: str, tmp_path: Path) -> None:
    if kind == "signed operators":
        cases = {case.name: case for case in corpus_types.types()}
        path = cases["QOperator, S8S8 by channel"].build(tmp_path)
    else:
        model = corpus_types.qdq_by_channel()
        for node in model.graph.node:
            if node.output[0] in ("w1_d", "w2_d"):
                del node.input[2]
        path = of_others(tmp_path / "model.onnx", model)
    with Predictor(path, spec=spec_for(path, STATED).spec) as predictor:
        actual = predictor.infer(BATCH)
    assert np.abs(actual - run(corpus.network(), BATCH)[0]).max() < 0.3


def test_small_logits_are_not_taken_for_probabilities(tmp_path: Path) -> None:
    nodes = [
        *NODES[:-1],
        ("Gemm", NODES[-1][1], "rows", NODES[-1][3]),  # type: ignore[misc]
        ("Mul", ["rows", "small"], "less"),
        ("Abs", ["less"], "logits"),
    ]
    constants = {**corpus.CONSTANTS, "small": np.float32(0.05)}
    model = corpus.network(nodes, constants)
    path = of_others(tmp_path / "model.onnx", model)
    values = run(model, BATCH)[0]
    assert 0 <= values.min() <= values.max() <= 1
    with pytest.raises(SpecError, match="logits"):
        describe(path, replace(STATED, activation="none"))


def test_a_spec_beside_the_file_that_takes_logits_for_probabilities_is_refused(
    tmp_path: Path,
) -> None:
    path = of_others(tmp_path / "model.onnx", plain_network())
    write_spec(path, replace(SPEC, activation="none"))
    with pytest.raises(SpecError, match="logits"):
        Predictor(path)
    assert describe(path, SpecOverrides(activation="sigmoid"))["activation"] == "sigmoid"


def test_a_message_of_onnx_runtime_is_about_the_file_and_not_about_its_source(
    tmp_path: Path,
) -> None:
    model = plain_network()
    model.graph.node[1].op_type = "Relu7"
    with pytest.raises(ModelLoadError) as refused:
        Predictor(stored(model, tmp_path / "mine.onnx"))
    message = str(refused.value)
    assert "mine.onnx" in message
    assert "Relu7" in message
    assert not {word for word in ("ONNXRuntimeError", str(tmp_path), ".cc") if word in message}


UNUSUAL = {
    case.name: case
    for case in (*corpus_operators.constants(), *corpus_operators.names(),
                 *corpus_graphs.functions_and_branches())
    if case.name in ("a sparse weight", "nodes in the wrong order", "a graph without a name",
                     "If, constant", "If, computed", "Loop")
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_the_usual_form_is_valid_and_computes_the_same(name: str, tmp_path: Path) -> None:
    path = UNUSUAL[name].build(tmp_path)
    model = read_onnx(path)
    onnx.checker.check_model(model, full_check=True)
    assert np.array_equal(run(model, BATCH)[0], run(path, BATCH)[0])
    kinds = {node.op_type for node in model.graph.node}
    assert ("If" in kinds) == (name == "If, computed")
    assert not model.graph.sparse_initializer
