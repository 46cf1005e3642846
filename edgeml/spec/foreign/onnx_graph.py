"""Graphs of ONNX files, read without onnx.

Protobuf and onnx.proto: https://protobuf.dev/programming-guides/encoding/,
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgeml.errors import ModelLoadError
from edgeml.spec.foreign.ends import end_of, normalising
from edgeml.spec.foreign.graph import DamagedError, Graph, Node, Port, precision_of

_MAX_FIELDS = 2_000_000
"""In one .onnx file: some seconds of work. A network of 1,000 layers has a hundredth of it."""


def with_onnx_metadata(data: memoryview, key: str, value: str) -> Iterator[memoryview | bytes]:
    """Yield an ONNX file's bytes in pieces, with one entry of its metadata_props replaced."""
    try:
        fields = _Fields(data)
        for number, _, content, field_bytes in fields.walk(0, len(data)):
            if number != 14 or fields.text(fields.last(content), 1) != key:
                yield data[field_bytes]
    except DamagedError as err:
        raise ModelLoadError(f"The model is damaged: {err}.") from err
    entry = _delimited(1, key.encode()) + _delimited(2, value.encode())
    yield _delimited(14, entry)


_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    9: "bool", 10: "float16", 11: "float64", 16: "bfloat16",
}  # fmt: skip

_INTEGER = frozenset(
    {"ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger",
     "MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearConv", "QLinearMatMul"}
)  # fmt: skip
"""Operators on integers, or that make them of activations."""

_QUANTIZED = _INTEGER | {"QuantizeLinear", "DequantizeLinear", "MatMulNBits"}

_SHAPED = frozenset(
    {"Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "DequantizeLinear"}
)

_MISSING = (0, slice(0, 0))


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

    def last(self, where: slice) -> dict[int, tuple[int, slice]]:
        """Return a message's fields by number: varint and content of the last of each."""
        walked = self.walk(where.start, where.stop)
        return {number: (value, content) for number, value, content, _ in walked}

    def decode(self, where: slice) -> str:
        """Return a text."""
        return bytes(self.data[where]).decode("utf-8", "replace")

    def text(self, message: Mapping[int, tuple[int, slice]], number: int) -> str:
        """Return a field of the message as text; empty if it is missing."""
        return self.decode(message.get(number, _MISSING)[1])


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


@dataclass
class _Parts:
    nodes: list[Node] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    stored: Counter[str] = field(default_factory=Counter)
    halves: dict[str, int] = field(default_factory=dict)
    files: dict[str, None] = field(default_factory=dict)


def read_onnx_graph(data: memoryview) -> Graph:
    """Read a ModelProto."""
    fields, metadata, parts = _Fields(data), {}, None
    producer = {2: "", 3: ""}  # producer_name and producer_version
    for number, _, content, _ in fields.walk(0, len(data)):
        if number == 7:
            parts = _graph(fields, content)
        elif number == 14:
            entry = fields.last(content)
            metadata[fields.text(entry, 1)] = fields.text(entry, 2)
        elif number in producer:
            producer[number] = fields.decode(content)
    if parts is None or not parts.outputs:
        raise DamagedError("it has no graph, so it is not an ONNX model")
    producer_of = {name: node for node in parts.nodes for name in node.outputs}
    constants = parts.constants | {
        name for node in parts.nodes if node.op == "Constant" for name in node.outputs
    }
    for node in parts.nodes:  # in order: a constant that is cast or reshaped is one as well
        if node.op in _SHAPED and node.inputs and constants.issuperset(filter(None, node.inputs)):
            constants.update(node.outputs)
    for node in parts.nodes:  # half floats that are cast are only a way to store floats
        if node.op == "Cast" and node.inputs:
            size = parts.halves.pop(node.inputs[0], 0)
            parts.stored.update({"float16": -size, "float32": size})
    quantized = [node for node in parts.nodes if node.op in _QUANTIZED]
    inputs = tuple(port for port in parts.inputs if port.name not in parts.constants)
    return Graph(
        inputs=inputs,
        outputs=tuple(parts.outputs),
        ends={port.name: end_of(port.name, producer_of.get, constants) for port in parts.outputs},
        metadata=metadata,
        precision=precision_of(parts.stored, quantized=bool(quantized)),
        producer=" ".join(filter(None, producer.values())),
        normalises=normalising((port.name for port in inputs), parts.nodes, constants),
        multiplies_integers=any(
            node.op in _INTEGER
            or (node.op == "QuantizeLinear" and constants.isdisjoint(node.inputs[:1]))
            for node in quantized
        ),
        lacks_zero_points=any(
            node.op == "DequantizeLinear"
            and not constants.isdisjoint(node.inputs[:1])
            and not any(node.inputs[2:])
            for node in quantized
        ),
        weight_files=tuple(parts.files),
    )


def _graph(fields: _Fields, where: slice) -> _Parts:
    """Read a GraphProto, without the values of its weights."""
    parts = _Parts()
    for number, _, content, _ in fields.walk(where.start, where.stop):
        match number:
            case 1:
                parts.nodes.append(_node(fields, content))
            case 5:  # a TensorProto: data_type 2, name 8, external_data 13
                tensor = fields.last(content)
                parts.constants.add(fields.text(tensor, 8))
                entries = _external_data(fields, content) if 13 in tensor else {}
                size = entries.get("length", "") or content.stop - content.start
                parts.stored[_dtype(tensor, 2)] += int(size)
                if _dtype(tensor, 2) == "float16":
                    parts.halves[fields.text(tensor, 8)] = int(size)
                parts.files.update({entries["location"]: None} if "location" in entries else {})
            case 11:
                parts.inputs.append(_value_info(fields, content))
            case 12:
                parts.outputs.append(_value_info(fields, content))
    return parts


def _external_data(fields: _Fields, where: slice) -> dict[str, str]:
    """Return where a tensor's values are: `location`, and numbers `offset` and `length`."""
    entries = {}
    for number, _, content, _ in fields.walk(where.start, where.stop):
        if number == 13:
            entry = fields.last(content)
            entries[fields.text(entry, 1)] = fields.text(entry, 2)
    if not re.fullmatch(r"[0-9]{0,18}", entries.get("length", "")):
        raise DamagedError(f"a weight has {entries['length']!r} bytes")
    return entries


def _node(fields: _Fields, where: slice) -> Node:
    node = Node()
    for number, _, content, _ in fields.walk(where.start, where.stop):
        match number:
            case 1:
                node.inputs.append(fields.decode(content))
            case 2:
                node.outputs.append(fields.decode(content))
            case 4:
                node.op = fields.decode(content)
            case 5 if content.stop - content.start < 40:  # `axis`, which has few bytes
                attribute = fields.last(content)
                if fields.text(attribute, 1) == "axis":
                    value = attribute.get(3, _MISSING)[0]
                    node.axis = value - (1 << 64) if value >> 63 else value
    return node


def _value_info(fields: _Fields, where: slice) -> Port:
    """Read a ValueInfoProto: name 1, type 2 > tensor_type 1 > elem_type 1, shape 2 > dim 1."""
    info = fields.last(where)
    tensor = fields.last(fields.last(info.get(2, _MISSING)[1]).get(1, _MISSING)[1])
    shape = None
    if 2 in tensor:
        dims = fields.walk(tensor[2][1].start, tensor[2][1].stop)
        sides = (fields.last(dim).get(1, _MISSING)[0] for number, _, dim, _ in dims if number == 1)
        shape = tuple(side if 0 < side < 1 << 31 else None for side in sides)
    return Port(name=fields.text(info, 1), dtype=_dtype(tensor, 1), shape=shape)


def _dtype(message: Mapping[int, tuple[int, slice]], number: int) -> str:
    return _DTYPES.get(message.get(number, _MISSING)[0], "unknown")
