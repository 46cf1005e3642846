"""What a model's graph says, read from its bytes: no library, since a device has one runtime only.

Runtimes tell inputs, outputs and metadata, but not which operation comes last, and that is what
tells logits from probabilities. Files may come from anywhere: nothing is believed but the bytes.
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from edgeml.errors import ModelLoadError
from edgeml.spec import Precision

End = Literal["softmax", "log_softmax", "sigmoid", "linear", "unknown"]

_MOST_FIELDS = 2_000_000
"""Of one .onnx file: some seconds of work. A network of 1,000 layers has a hundredth of it."""

_LARGEST_XML = 1 << 27

_DEEPEST = 100


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output.

    Attributes:
        name: As a runtime calls it.
        dtype: In numpy's words, or `unknown`.
        shape: None where any size goes, and the whole of it None where the file does not tell.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a graph says of itself.

    Attributes:
        inputs, outputs: Those that a caller gives and gets.
        ends: For each output what its values are, and the operation that tells so: `linear` are
            sums of products, which are logits.
        metadata: ONNX metadata_props, or OpenVINO's rt_info with the path's words as key.
        precision: What most weights are stored in, `int8` as soon as anything is quantised.
        producer: What wrote the file, if it says so.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ends: Mapping[str, tuple[End, str]]
    metadata: Mapping[str, str]
    precision: Precision
    producer: str = ""


def read_graph(path: Path) -> Graph:
    """Read the graph of an .onnx or .xml file.

    Raises:
        ModelLoadError: It cannot be read, is damaged, or of another kind.
    """
    try:
        if path.suffix.lower() == ".xml":
            return _openvino(path)
        with open(path, "rb") as file:
            if not file.read(1):
                raise ModelLoadError(f"{path.name!r} is empty.")
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
                memoryview(data) as view,
            ):
                return _onnx(view)
    except OSError as err:
        raise ModelLoadError(f"{path.name!r} cannot be read: {err.strerror}.") from err
    except _DamagedError as err:
        raise ModelLoadError(f"{path.name!r} is damaged: {err}.") from err


def with_onnx_metadata(data: memoryview, key: str, value: str) -> Iterator[memoryview | bytes]:
    """Give an ONNX file's bytes in pieces, with one entry of its metadata_props replaced.

    Raises:
        ModelLoadError: The bytes are no ONNX model.
    """
    try:
        for number, _, content, whole in _Fields(data).walk(0, len(data)):
            if number == 14 and _entry(data, content)[0] == key:
                continue
            yield data[whole]
    except _DamagedError as err:
        raise ModelLoadError(f"The model is damaged: {err}.") from err
    entry = _delimited(1, key.encode()) + _delimited(2, value.encode())
    yield _delimited(14, entry)


class _DamagedError(Exception):
    """Says only what is wrong, not in which file."""


# Of protobuf and onnx.proto: https://protobuf.dev/programming-guides/encoding/,
# https://github.com/onnx/onnx/blob/main/onnx/onnx.proto

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 16: "bfloat16",
}  # fmt: skip


class _Fields:
    """Walks through the fields of messages, and counts them all: a hostile file has many."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.left = _MOST_FIELDS

    def walk(self, start: int, end: int) -> Iterator[tuple[int, int, slice, slice]]:
        """Give (number, value of a varint, where the content is, where all of it is)."""
        data, position = self.data, start
        while position < end:
            self.left -= 1
            if self.left < 0:
                raise _DamagedError(f"it has more than {_MOST_FIELDS:,} fields")
            begin = position
            key, position = _varint(data, position, end)
            value = 0
            match key & 7:
                case 0:
                    value, after = _varint(data, position, end)
                case 1:
                    after = position + 8
                case 2:
                    length, position = _varint(data, position, end)
                    after = position + length
                case 5:
                    after = position + 4
                case kind:
                    raise _DamagedError(f"byte {begin} starts a field of kind {kind}")
            if after > end:
                raise _DamagedError(f"the field at byte {begin} runs past the end")
            if key >> 3 == 0:
                raise _DamagedError(f"the field at byte {begin} has number 0")
            yield key >> 3, value, slice(position, after), slice(begin, after)
            position = after


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _DamagedError("it is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
    raise _DamagedError(f"the number before byte {position} is too long")


def _delimited(number: int, content: bytes) -> bytes:
    """Write a field that holds bytes."""
    return _as_varint(number << 3 | 2) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(data: memoryview, where: slice) -> str:
    return bytes(data[where]).decode("utf-8", "replace")


def _entry(data: memoryview, where: slice) -> tuple[str, str]:
    """Read a StringStringEntryProto."""
    pair = {1: "", 2: ""}
    for number, _, content, _ in _Fields(data).walk(where.start, where.stop):
        if number in pair:
            pair[number] = _text(data, content)
    return pair[1], pair[2]


@dataclass
class _Node:
    """An operation: its type, the names it takes and gives, and its attribute `axis`."""

    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    axis: int | None = None


@dataclass
class _Parts:
    nodes: list[_Node] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    stored: Counter[str] = field(default_factory=Counter)


def _onnx(data: memoryview) -> Graph:
    fields, metadata, told, parts = _Fields(data), {}, {2: "", 3: ""}, None
    for number, _, content, _ in fields.walk(0, len(data)):
        if number == 7:
            parts = _graph(fields, content)
        elif number == 14:
            key, value = _entry(data, content)
            metadata[key] = value
        elif number in told:
            told[number] = _text(data, content)
    if parts is None or not parts.outputs:
        raise _DamagedError("it has no graph, so it is no ONNX model")
    made_by = {name: node for node in parts.nodes for name in node.outputs}
    constants = parts.constants | {
        name for node in parts.nodes if node.op == "Constant" for name in node.outputs
    }
    names = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
    return Graph(
        inputs=tuple(port for port in parts.inputs if port.name not in parts.constants),
        outputs=tuple(parts.outputs),
        ends={port.name: _end(port.name, made_by.get, constants) for port in parts.outputs},
        metadata=metadata,
        precision=_precision(any(node.op in names for node in parts.nodes), parts.stored),
        producer=" ".join(filter(None, told.values())),
    )


def _graph(fields: _Fields, where: slice) -> _Parts:
    """Read a GraphProto. Of weights only names and types are read."""
    parts = _Parts()
    for number, _, content, _ in fields.walk(where.start, where.stop):
        match number:
            case 1:
                parts.nodes.append(_node(fields, content))
            case 5:
                name, dtype = _tensor(fields, content)
                parts.constants.add(name)
                parts.stored[dtype] += content.stop - content.start
            case 11:
                parts.inputs.append(_value_info(fields, content))
            case 12:
                parts.outputs.append(_value_info(fields, content))
    return parts


def _node(fields: _Fields, where: slice) -> _Node:
    node = _Node()
    for number, _, content, _ in fields.walk(where.start, where.stop):
        match number:
            case 1:
                node.inputs.append(_text(fields.data, content))
            case 2:
                node.outputs.append(_text(fields.data, content))
            case 4:
                node.op = _text(fields.data, content)
            case 5:
                # Only `axis` is wanted, whose name comes first in its few bytes.
                if content.stop - content.start < 40:
                    node.axis = _axis(fields, content, node.axis)
    return node


def _axis(fields: _Fields, where: slice, known: int | None) -> int | None:
    name, number_of = "", None
    for number, value, content, _ in fields.walk(where.start, where.stop):
        if number == 1:
            name = _text(fields.data, content)
        elif number == 3:
            number_of = value - (1 << 64) if value >> 63 else value
    return number_of if name == "axis" else known


def _tensor(fields: _Fields, where: slice) -> tuple[str, str]:
    name, dtype = "", "unknown"
    for number, value, content, _ in fields.walk(where.start, where.stop):
        if number == 2:
            dtype = _DTYPES.get(value, "unknown")
        elif number == 8:
            name = _text(fields.data, content)
    return name, dtype


def _value_info(fields: _Fields, where: slice) -> Port:
    """Read a ValueInfoProto: name 1, type 2 > tensor_type 1 > elem_type 1, shape 2 > dim 1."""
    name, dtype, shape = "", "unknown", None
    for number, _, content, _ in fields.walk(where.start, where.stop):
        if number == 1:
            name = _text(fields.data, content)
        elif number == 2:
            for tensor in _inside(fields, content, 1):
                for part, value, inner, _ in fields.walk(tensor.start, tensor.stop):
                    if part == 1:
                        dtype = _DTYPES.get(value, "unknown")
                    elif part == 2:
                        shape = tuple(_dim(fields, dim) for dim in _inside(fields, inner, 1))
    return Port(name=name, dtype=dtype, shape=shape)


def _dim(fields: _Fields, where: slice) -> int | None:
    for number, value, _, _ in fields.walk(where.start, where.stop):
        if number == 1 and 0 < value < 1 << 31:
            return value
    return None


def _inside(fields: _Fields, where: slice, wanted: int) -> Iterator[slice]:
    for number, _, content, _ in fields.walk(where.start, where.stop):
        if number == wanted:
            yield content


# ONNX's names and OpenVINO's.
_SAME_VALUES = frozenset(
    {"Identity", "Cast", "CastLike", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout",
     "QuantizeLinear", "DequantizeLinear", "Convert", "ConvertLike", "FakeQuantize"}
)  # fmt: skip
_LINEAR = frozenset(
    {"Gemm", "MatMul", "Conv", "FusedGemm", "FusedMatMul", "MatMulInteger", "ConvInteger",
     "QLinearConv", "QLinearMatMul", "QGemm", "BatchNormalization", "GlobalAveragePool",
     "AveragePool", "ReduceMean", "ReduceSum", "Convolution", "GroupConvolution", "AvgPool",
     "Einsum", "MatMulNBits", "FullyConnected"}
)  # fmt: skip
_SUMS = frozenset({"Add", "Sub", "Sum", "Mean", "Subtract", "Concat"})
_SCALED = frozenset({"Mul", "Div", "Multiply", "Divide"})
_ACTIVATIONS: Mapping[str, End] = {
    "Softmax": "softmax",
    "SoftMax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
}


def _end(
    name: str, made_by: Callable[[str], _Node | None], constants: set[str], depth: int = 0
) -> tuple[End, str]:
    """Say what an output's values are: look through what does not change them, then at the last."""
    node = made_by(name)
    if node is None or depth > _DEEPEST:
        return "unknown", "nothing" if node is None else node.op
    if node.op in _SAME_VALUES and node.inputs:
        return _end(node.inputs[0], made_by, constants, depth + 1)
    if node.op in _ACTIVATIONS:
        # Over the labels, or over something else: (N, labels) has them last.
        over_labels = "oft" not in node.op or node.axis in (None, 1, -1)
        return (_ACTIVATIONS[node.op] if over_labels else "unknown"), node.op
    if node.op in _LINEAR:
        return "linear", node.op
    varying = [one for one in node.inputs if one and one not in constants]
    if node.op in _SUMS or (node.op in _SCALED and len(varying) == 1):
        # Any number of names on any number of paths would be walked; a classifier has few.
        for one in varying[:4]:
            if _end(one, made_by, constants, depth + 25)[0] != "linear":
                return "unknown", node.op
        return "linear", node.op
    return "unknown", node.op


def _precision(quantised: bool, stored: Counter[str]) -> Precision:
    if quantised:
        return "int8"
    half, single = stored["float16"], stored["float32"]
    return "fp16" if half > single else "fp32"


_OPENVINO_DTYPES = {
    "f32": "float32", "f16": "float16", "u8": "uint8", "i8": "int8", "i32": "int32",
    "i64": "int64", "f64": "float64", "bf16": "bfloat16",
}  # fmt: skip


def _openvino(path: Path) -> Graph:
    if path.stat().st_size > _LARGEST_XML:
        raise _DamagedError(f"it has more than {_LARGEST_XML:,} bytes, which no OpenVINO .xml has")
    try:
        root = _xml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as err:
        raise _DamagedError("it is not UTF-8 text") from err
    layers = {layer.get("id", ""): layer for layer in root.iterfind("layers/layer")}
    feeds = {
        (edge.get("to-layer", ""), edge.get("to-port", "")): (
            edge.get("from-layer", ""),
            edge.get("from-port", ""),
        )
        for edge in root.iterfind("edges/edge")
    }
    if not layers:
        raise _DamagedError("it has no layers, so it is no OpenVINO model")
    into: dict[str, list[str]] = {}
    for (to, _), (source, _) in sorted(feeds.items(), key=lambda pair: _port_number(pair[0][1])):
        into.setdefault(to, []).append(source)

    def made_by(name: str) -> _Node | None:
        layer = layers.get(name)
        if layer is None:
            return None
        data = layer.find("data")
        axis = data.get("axis") if data is not None else None
        number = int(axis) if axis and re.fullmatch(r"-?\d{1,3}", axis) else None
        return _Node(layer.get("type", ""), into.get(name, []), [], number)

    constants = _constants(layers, into)
    results = [layer for layer in layers.values() if layer.get("type") == "Result"]
    outputs, ends = [], {}
    for result in results:
        source, port_id = next(
            (at for (to, _), at in feeds.items() if to == result.get("id")), ("", "")
        )
        port = _openvino_output(layers.get(source), port_id)
        outputs.append(port)
        ends[port.name] = _end(source, made_by, constants)
    stored: Counter[str] = Counter()
    for layer in layers.values():
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            size = data.get("size", "0")
            dtype = _OPENVINO_DTYPES.get(data.get("element_type", ""), "unknown")
            stored[dtype] += int(size) if size.isdecimal() else 0
    return Graph(
        inputs=tuple(_parameter(one) for one in layers.values() if one.get("type") == "Parameter"),
        outputs=tuple(outputs),
        ends=ends,
        metadata=dict(_rt_info(root.find("rt_info"))),
        precision=_precision(
            any(one.get("type") == "FakeQuantize" for one in layers.values()), stored
        ),
    )


def _xml(text: str) -> ElementTree.Element:
    """Parse XML without a document type: entities in one can grow to gigabytes."""
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise _DamagedError("it declares a document type, which no OpenVINO model does")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as err:
        raise _DamagedError(f"it is no XML: {err}") from err


def _constants(layers: Mapping[str, ElementTree.Element], into: dict[str, list[str]]) -> set[str]:
    """Find constants, also those that are stored compressed and converted."""
    found = {name for name, layer in layers.items() if layer.get("type") == "Const"}
    converted = {
        name
        for name, layer in layers.items()
        if layer.get("type") == "Convert" and into.get(name) and into[name][0] in found
    }
    return found | converted


def _port_number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _parameter(layer: ElementTree.Element) -> Port:
    data, port = layer.find("data"), layer.find("output/port")
    shape = data.get("shape") if data is not None else None
    names = port.get("names", "") if port is not None else ""
    return Port(
        name=names.split(",")[0] or layer.get("name", ""),
        dtype=_OPENVINO_DTYPES.get(data.get("element_type", ""), "unknown")
        if data is not None
        else "unknown",
        shape=tuple(_side(side) for side in shape.split(",")) if shape else None,
    )


def _openvino_output(layer: ElementTree.Element | None, port_id: str) -> Port:
    """Describe the port that feeds a Result; OpenVINO names an output after it."""
    if layer is None:
        return Port(name="", dtype="unknown", shape=None)
    ports = layer.findall("output/port")
    port = next((one for one in ports if one.get("id") == port_id), None)
    if port is None:
        return Port(name=layer.get("name", ""), dtype="unknown", shape=None)
    return Port(
        name=port.get("names", "").split(",")[0] or layer.get("name", ""),
        dtype={"FP32": "float32", "FP16": "float16"}.get(port.get("precision", ""), "unknown"),
        shape=tuple(_side(dim.text or "") for dim in port.iterfind("dim")),
    )


def _side(text: str) -> int | None:
    """Read a side: a number; `?`, `-1` and ranges such as `1..8` are any."""
    text = text.strip()
    return int(text) if text.isdecimal() and 0 < len(text) < 10 else None


def _rt_info(
    element: ElementTree.Element | None, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, str]]:
    """Give values by the words of their path; what came out of an ONNX stands in `framework`."""
    if element is None or len(path) > 3:
        return
    for child in element:
        inside = path if child.tag == "framework" and not path else (*path, child.tag)
        value = child.get("value")
        if value is not None:
            yield " ".join(inside), value
        else:
            yield from _rt_info(child, inside)
