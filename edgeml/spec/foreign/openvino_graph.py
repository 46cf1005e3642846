"""Graphs of OpenVINO's .xml files, read without OpenVINO."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from edgeml.spec.foreign.ends import end_of, normalising
from edgeml.spec.foreign.graph import DamagedError, Graph, Node, Port, precision_of

_MAX_BYTES = 1 << 27

_DTYPES = {
    "f32": "float32", "f16": "float16", "u8": "uint8", "i8": "int8", "i32": "int32",
    "i64": "int64", "f64": "float64", "bf16": "bfloat16",
}  # fmt: skip

_NO_LAYER = ElementTree.Element("layer")


def read_openvino_graph(path: Path) -> Graph:
    """Read the graph of an .xml file."""
    root = _read_xml(path)
    layers = {layer.get("id", ""): layer for layer in root.iterfind("layers/layer")}
    if not layers:
        raise DamagedError("it has no layers, so it is not an OpenVINO model")
    edges = [edge.attrib for edge in root.iterfind("edges/edge")]
    nodes = {name: _node(layer) for name, layer in layers.items()}
    for name, node in nodes.items():
        node.outputs.append(name)
    for edge in sorted(edges, key=lambda edge: _port_number(edge.get("to-port", ""))):
        if target := nodes.get(edge.get("to-layer", "")):
            target.inputs.append(edge.get("from-layer", ""))
    constants = {name for name, node in nodes.items() if node.op == "Const"}
    # Those that are stored compressed are converted.
    constants |= {
        name
        for name, node in nodes.items()
        if node.op == "Convert" and node.inputs and node.inputs[0] in constants
    }
    outputs, ends = [], {}
    for name in (name for name, node in nodes.items() if node.op == "Result"):
        edge = next((edge for edge in edges if edge.get("to-layer") == name), {})
        source = edge.get("from-layer", "")
        port = _output(layers.get(source, _NO_LAYER), edge.get("from-port", ""))
        outputs.append(port)
        ends[port.name] = end_of(source, nodes.get, constants)
    stored: Counter[str] = Counter()
    for data in (_data(layer) for name, layer in layers.items() if nodes[name].op == "Const"):
        size = data.get("size", "0")
        dtype = _DTYPES.get(data.get("element_type", ""), "unknown")
        stored[dtype] += int(size) if size.isdecimal() else 0
    quantized = any(node.op == "FakeQuantize" for node in nodes.values())
    return Graph(
        inputs=tuple(_input(layers[name]) for name in layers if nodes[name].op == "Parameter"),
        outputs=tuple(outputs),
        ends=ends,
        metadata=dict(_rt_info(root.find("rt_info"))),
        precision=precision_of(stored, quantized=quantized),
        normalises=normalising(
            (name for name, node in nodes.items() if node.op == "Parameter"),
            nodes.values(),
            constants,
        ),
    )


def _read_xml(path: Path) -> ElementTree.Element:
    """Read XML without a document type: entities in one can grow to gigabytes."""
    if path.stat().st_size > _MAX_BYTES:
        raise DamagedError(f"it has more than {_MAX_BYTES:,} bytes, which no OpenVINO .xml has")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise DamagedError("it is not UTF-8 text") from err
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise DamagedError("it declares a document type, which no OpenVINO model does")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as err:
        raise DamagedError(f"it is not XML: {err}") from err


def _node(layer: ElementTree.Element) -> Node:
    axis = _data(layer).get("axis", "")
    number = int(axis) if re.fullmatch(r"-?\d{1,3}", axis) else None
    return Node(op=layer.get("type", ""), axis=number)


def _data(layer: ElementTree.Element) -> Mapping[str, str]:
    data = layer.find("data")
    return {} if data is None else data.attrib


def _port_number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def _input(layer: ElementTree.Element) -> Port:
    data, port = _data(layer), layer.find("output/port")
    names, shape = "" if port is None else port.get("names", ""), data.get("shape")
    return Port(
        name=names.split(",")[0] or layer.get("name", ""),
        dtype=_DTYPES.get(data.get("element_type", ""), "unknown"),
        shape=tuple(_side(side) for side in shape.split(",")) if shape else None,
    )


def _output(layer: ElementTree.Element, port_id: str) -> Port:
    """Return the port that feeds a Result; OpenVINO names an output after it."""
    name = layer.get("name", "")
    for port in layer.iterfind("output/port"):
        if port.get("id") == port_id:
            dtypes = {"FP32": "float32", "FP16": "float16"}
            return Port(
                name=port.get("names", "").split(",")[0] or name,
                dtype=dtypes.get(port.get("precision", ""), "unknown"),
                shape=tuple(_side(dim.text or "") for dim in port.iterfind("dim")),
            )
    return Port(name=name, dtype="unknown", shape=None)


def _side(text: str) -> int | None:
    """Read a side: a number; `?`, `-1` and ranges such as `1..8` are any."""
    text = text.strip()
    return int(text) if text.isdecimal() and 0 < len(text) < 10 else None


def _rt_info(
    element: ElementTree.Element | None, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, str]]:
    """Yield values by path, joined with spaces; those of an ONNX are in `framework`."""
    if element is None or len(path) > 3:
        return
    for child in element:
        inside = path if child.tag == "framework" and not path else (*path, child.tag)
        value = child.get("value")
        if value is not None:
            yield " ".join(inside), value
        else:
            yield from _rt_info(child, inside)
