"""Graphs of ONNX files, read without onnx.

Protobuf and onnx.proto: https://protobuf.dev/programming-guides/encoding/,
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from edgeml.errors import ModelLoadError
from edgeml.spec.foreign.graph import DamagedError, Graph, Node, Port, end_of, precision_of

_MAX_FIELDS = 2_000_000
"""In one .onnx file: some seconds of work. A network of 1,000 layers has a hundredth of it."""


def with_onnx_metadata(data: memoryview, key: str, value: str) -> Iterator[memoryview | bytes]:
    """Yield an ONNX file's bytes in pieces, with one entry of its metadata_props replaced.

    Raises:
        ModelLoadError: The bytes are not an ONNX model.
    """
    try:
        for number, _, content, field_bytes in _Fields(data).walk(0, len(data)):
            if number == 14 and _entry(data, content)[0] == key:
                continue
            yield data[field_bytes]
    except DamagedError as err:
        raise ModelLoadError(f"The model is damaged: {err}.") from err
    entry = _delimited(1, key.encode()) + _delimited(2, value.encode())
    yield _delimited(14, entry)


_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 16: "bfloat16",
}  # fmt: skip

_QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
)


class _Fields:
    """Walks through the fields of messages, and counts them: a hostile file has many."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.left = _MAX_FIELDS

    def walk(self, start: int, end: int) -> Iterator[tuple[int, int, slice, slice]]:
        """Yield (number, value of a varint, slice of the content, slice of the field)."""
        data, position = self.data, start
        while position < end:
            self.left -= 1
            if self.left < 0:
                raise DamagedError(f"it has more than {_MAX_FIELDS:,} fields")
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
                    raise DamagedError(f"byte {begin} starts a field of kind {kind}")
            if after > end:
                raise DamagedError(f"the field at byte {begin} runs past the end")
            if key >> 3 == 0:
                raise DamagedError(f"the field at byte {begin} has number 0")
            yield key >> 3, value, slice(position, after), slice(begin, after)
            position = after


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise DamagedError("it is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, position
    raise DamagedError(f"the number before byte {position} is too long")


def _delimited(number: int, content: bytes) -> bytes:
    """Write a field that holds bytes."""
    return _as_varint(number << 3 | 2) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + _as_varint(value >> 7)


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
class _Parts:
    nodes: list[Node] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    stored: Counter[str] = field(default_factory=Counter)


def read_onnx_graph(data: memoryview) -> Graph:
    """Read a ModelProto."""
    fields, metadata, parts = _Fields(data), {}, None
    producer = {2: "", 3: ""}  # producer_name and producer_version
    for number, _, content, _ in fields.walk(0, len(data)):
        if number == 7:
            parts = _graph(fields, content)
        elif number == 14:
            key, value = _entry(data, content)
            metadata[key] = value
        elif number in producer:
            producer[number] = _text(data, content)
    if parts is None or not parts.outputs:
        raise DamagedError("it has no graph, so it is not an ONNX model")
    producer_of = {name: node for node in parts.nodes for name in node.outputs}
    constants = parts.constants | {
        name for node in parts.nodes if node.op == "Constant" for name in node.outputs
    }
    return Graph(
        inputs=tuple(port for port in parts.inputs if port.name not in parts.constants),
        outputs=tuple(parts.outputs),
        ends={port.name: end_of(port.name, producer_of.get, constants) for port in parts.outputs},
        metadata=metadata,
        precision=precision_of(
            parts.stored, quantized=any(node.op in _QUANTIZED for node in parts.nodes)
        ),
        producer=" ".join(filter(None, producer.values())),
    )


def _graph(fields: _Fields, where: slice) -> _Parts:
    """Read a GraphProto, without the values of its weights."""
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


def _node(fields: _Fields, where: slice) -> Node:
    node = Node()
    for number, _, content, _ in fields.walk(where.start, where.stop):
        match number:
            case 1:
                node.inputs.append(_text(fields.data, content))
            case 2:
                node.outputs.append(_text(fields.data, content))
            case 4:
                node.op = _text(fields.data, content)
            case 5:
                # Only `axis` is read, which has few bytes.
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
