"""The reader of graphs against onnx and OpenVINO themselves, and against hostile bytes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeml.errors import EdgemlError, ModelLoadError
from edgeml.spec.foreign.graph import Graph
from edgeml.spec.foreign.onnx_graph import with_onnx_metadata
from edgeml.spec.foreign.read_graph import read_graph
from tests.spec.foreign.nets import make_net


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("graphs") / "net.onnx"
    make_net(path, ending=["Softmax"], metadata={"names": "{0: 'ä'}"}, second="features")
    return path.read_bytes()


def read(folder: Path, data: bytes, name: str = "m.onnx") -> object:
    (folder / name).write_bytes(data)
    return read_graph(folder / name)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_inputs_outputs_and_metadata_are_those_that_onnx_reads(
    tmp_path: Path, layout: str, dtype: str
) -> None:
    metadata = {"a": "b", "": ""}
    path = make_net(
        tmp_path / "m.onnx",
        layout=layout,
        dtype=dtype,
        sides=(64, "W"),
        metadata=metadata,
    )
    graph, model = read_graph(path), onnx.load(path)
    for ports, theirs in ((graph.inputs, model.graph.input), (graph.outputs, model.graph.output)):
        assert [port.name for port in ports] == [one.name for one in theirs]
        for port, one in zip(ports, theirs, strict=True):
            tensor = one.type.tensor_type
            assert port.dtype == helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
            assert port.shape == tuple(d.dim_value or None for d in tensor.shape.dim)
    assert graph.metadata == metadata
    assert graph.producer == "tests"


@pytest.mark.parametrize(
    ("ending", "end"),
    [
        ([], ("unknown", "AveragePool")),
        (["Softmax"], ("softmax", "Softmax")),
        (["LogSoftmax"], ("log_softmax", "LogSoftmax")),
        (["Sigmoid"], ("sigmoid", "Sigmoid")),
        (["HardSigmoid", "Identity", "Flatten"], ("sigmoid", "HardSigmoid")),
        (["Softmax", "Relu"], ("unknown", "Relu")),
        (["Softmax", "Exp"], ("unknown", "Exp")),
    ],
)
def test_the_last_operation_distinguishes_logits_from_probabilities(
    tmp_path: Path, ending: list[str], end: tuple[str, str]
) -> None:
    path = make_net(tmp_path / "m.onnx", ending=ending)
    assert read_graph(path).ends["scores"] == end


@pytest.mark.runtime
@pytest.mark.parametrize("ending", [[], ["Softmax"], ["LogSoftmax"], ["Sigmoid"], ["Relu"]])
def test_an_openvino_file_is_read_as_the_onnx_that_it_comes_from(
    tmp_path: Path, ending: list[str]
) -> None:
    ov = pytest.importorskip("openvino")
    path = make_net(tmp_path / "m.onnx", ending=ending, second="features", dtype="float16")
    network = ov.Core().read_model(path)
    network.set_rt_info("value", ["model_info", "key"])
    ov.save_model(network, tmp_path / "m.xml")
    ours, theirs = read_graph(tmp_path / "m.xml"), read_graph(path)
    assert {name: end for name, (end, _) in ours.ends.items()} == {
        name: end for name, (end, _) in theirs.ends.items()
    }
    assert [(port.name, port.dtype, port.shape) for port in ours.inputs] == [
        (port.name, port.dtype, port.shape) for port in theirs.inputs
    ]
    assert ours.metadata["model_info key"] == "value"


def test_a_mean_of_two_heads_is_logits_but_of_two_softmaxes_unknown(tmp_path: Path) -> None:
    def graph_of(op: str, *, softmax: bool) -> Path:
        weights = numpy_helper.from_array(np.ones((3, 3), np.float32), "w")
        two = numpy_helper.from_array(np.float32(2), "two")
        heads = [helper.make_node("MatMul", ["x", "w"], [f"h{i}"]) for i in range(2)]
        ends = [helper.make_node("Softmax", [f"h{i}"], [f"s{i}"]) for i in range(2)]
        summands = ["s0", "s1"] if softmax else ["h0", "h1"]
        graph = helper.make_graph(
            [*heads, *ends, helper.make_node(op, summands, ["sum"]),
             helper.make_node("Div", ["sum", "two"], ["y"])],
            "heads",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
            [weights, two],
        )  # fmt: skip
        onnx.save(helper.make_model(graph), str(tmp_path / "heads.onnx"))
        return tmp_path / "heads.onnx"

    assert read_graph(graph_of("Add", softmax=False)).ends["y"][0] == "linear"
    assert read_graph(graph_of("Add", softmax=True)).ends["y"] == ("unknown", "Div")


def test_a_softmax_over_another_axis_than_the_labels_is_not_taken_for_one(tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    onnx.save(
        helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:])),
        str(tmp_path / "m.onnx"),
    )
    assert read_graph(tmp_path / "m.onnx").ends["y"] == ("unknown", "Softmax")


def test_one_entry_of_the_metadata_is_replaced_and_the_rest_stays(model_bytes: bytes) -> None:
    for value in ("first", "zweites, länger" * 99):
        model_bytes = b"".join(with_onnx_metadata(memoryview(model_bytes), "edgeml", value))
        model = onnx.load_from_string(model_bytes)
        props = {one.key: one.value for one in model.metadata_props}
        assert props == {"names": "{0: 'ä'}", "edgeml": value}
        onnx.checker.check_model(model)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_read_or_a_typed_error(
    model_bytes: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    changed = bytearray(model_bytes)
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(model_bytes) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(changed)))
    folder = tmp_path_factory.mktemp("fuzz")
    for content in (bytes(changed), bytes(changed[:cut]), bytes(changed[cut:])):
        with suppress(EdgemlError):
            assert isinstance(read(folder, content), Graph)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_give_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("m.onnx", "m.xml"):
        with pytest.raises(ModelLoadError, match=name):
            read(folder, data, name)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.onnx", b"", "empty"),
        ("m.onnx", b"\x3a\xff\xff\xff\xff\x0f", "runs past the end"),
        ("m.onnx", b"\x08" + b"\xff" * 11, "too long"),
        ("m.onnx", b"\x08\x07", "no graph"),
        ("m.onnx", b"\x08\x01" * 2_000_001, "2,000,000 fields"),
        ("m.xml", b"<net>", "not XML"),
        ("m.xml", b"\xff\xfe<\0", "UTF-8"),
        ("m.xml", b"<net/>", "no layers"),
        ("m.xml", b'<!DOCTYPE n [<!ENTITY a "aaaa">]><net>&a;</net>', "document type"),
    ],
)
def test_a_file_that_is_not_a_model_is_refused(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        read(tmp_path, data, name)


def test_sums_of_sums_are_read_quickly(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", [f"a{i}", f"a{i}"], [f"a{i + 1}"]) for i in range(200)]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("a0", "a200")
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph), str(tmp_path / "m.onnx"))
    assert read_graph(tmp_path / "m.onnx").ends["a200"][0] == "unknown"


def test_a_file_of_two_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    """Weights are skipped: a sparse file of 3 GB is read at once."""
    head = make_net(tmp_path / "m.onnx").read_bytes()
    size = 3 << 30
    with open(tmp_path / "m.onnx", "wb") as file:
        file.write(head + b"\xfa\x3f" + _varint(size))  # an unknown field of bytes
        file.truncate(file.tell() + size)
    assert read_graph(tmp_path / "m.onnx").outputs[0].name == "scores"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
