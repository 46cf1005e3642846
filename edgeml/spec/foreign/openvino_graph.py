"""Graphs of OpenVINO's .xml files, read without OpenVINO."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from edgeml.spec.foreign.graph import DamagedError, Graph, Node, Port, end_of, precision_of

_MAX_BYTES = 1 << 27


_OPENVINO_DTYPES = {
    "f32": "float32", "f16": "float16", "u8": "uint8", "i8": "int8", "i32": "int32",
    "i64": "int64", "f64": "float64", "bf16": "bfloat16",
}  # fmt: skip


def read_openvino_graph(path: Path) -> Graph:
    """Read the graph of an .xml file.

    Raises:
        DamagedError: It is not an OpenVINO model.
        OSError: It cannot be read.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise DamagedError(f"it has more than {_MAX_BYTES:,} bytes, which no OpenVINO .xml has")
    try:
        root = _xml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as err:
        raise DamagedError("it is not UTF-8 text") from err
    layers = {layer.get("id", ""): layer for layer in root.iterfind("layers/layer")}
    feeds = {
        (edge.get("to-layer", ""), edge.get("to-port", "")): (
            edge.get("from-layer", ""),
            edge.get("from-port", ""),
        )
        for edge in root.iterfind("edges/edge")
    }
    if not layers:
        raise DamagedError("it has no layers, so it is not an OpenVINO model")
    into: dict[str, list[str]] = {}
    for (to, _), (source, _) in sorted(feeds.items(), key=lambda pair: _port_number(pair[0][1])):
        into.setdefault(to, []).append(source)

    def producer_of(name: str) -> Node | None:
        layer = layers.get(name)
        if layer is None:
            return None
        data = layer.find("data")
        axis = data.get("axis") if data is not None else None
        number = int(axis) if axis and re.fullmatch(r"-?\d{1,3}", axis) else None
        return Node(layer.get("type", ""), into.get(name, []), [], number)

    constants = _constants(layers, into)
    results = [layer for layer in layers.values() if layer.get("type") == "Result"]
    outputs, ends = [], {}
    for result in results:
        source, port_id = next(
            (at for (to, _), at in feeds.items() if to == result.get("id")), ("", "")
        )
        port = _openvino_output(layers.get(source), port_id)
        outputs.append(port)
        ends[port.name] = end_of(source, producer_of, constants)
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
        precision=precision_of(
            stored, quantized=any(one.get("type") == "FakeQuantize" for one in layers.values())
        ),
    )


def _xml(text: str) -> ElementTree.Element:
    """Parse XML without a document type: entities in one can grow to gigabytes."""
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise DamagedError("it declares a document type, which no OpenVINO model does")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as err:
        raise DamagedError(f"it is not XML: {err}") from err


def _constants(layers: Mapping[str, ElementTree.Element], into: dict[str, list[str]]) -> set[str]:
    """Return the constants, also those that are stored compressed and converted."""
    constants = {name for name, layer in layers.items() if layer.get("type") == "Const"}
    converted = {
        name
        for name, layer in layers.items()
        if layer.get("type") == "Convert" and into.get(name) and into[name][0] in constants
    }
    return constants | converted


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
    """Return the port that feeds a Result; OpenVINO names an output after it."""
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
