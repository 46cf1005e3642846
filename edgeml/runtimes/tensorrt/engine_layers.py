"""The fused layers of an engine, and the types that they compute in."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators with nearly all of a network's arithmetic."""

_HEADING = "Layers:"

# Layers that only synchronise streams.
_NO_WORK = ("shape_call", "signal", "wait")

# TensorRT's words for types, in its two notations: a type of its own, or a format.
_TYPES = ("fp32", "fp16", "bf16", "int8", "uint8", "fp8", "int32", "int64", "bool")
_ALIASES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}

_TENSORS = re.compile(
    r"(Inputs|Constants|Outputs): \[(.*?)\](?=, (?:Constants|Outputs|TacticName): )"
)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A kernel, or several in one, with the types of its inputs and outputs.

    Attributes:
        name: TensorRT's.
        kind: TensorRT's word for what it does, for example `correlation` or `CaskConvolution`.
        inputs: Types, such as `int8`; also below.
        weights: Types of constants: weights first, then scales and biases.
        outputs: Types of its outputs.
        onnx: Names of the ONNX nodes that it computes a part of.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    outputs: tuple[str, ...]
    onnx: tuple[str, ...]

    @property
    def type(self) -> str:
        """The type of its input, which is the type that a product computes in."""
        return (*self.inputs, *self.outputs, "unknown")[0]

    def to_dict(self) -> dict[str, Any]:
        """Return what the JSON of an export lists."""
        return asdict(self)


def layers_of_log(messages: Iterable[str]) -> tuple[Layer, ...]:
    """Read the layers from TensorRT's verbose log at the end of a build.

    TensorRT-RTX 1.7.1 writes a line each:

        Name: node_Conv_1, LayerType: correlation, Inputs: [ { Name: x, ..., Datatype: Int8, ...}],
        Constants: [...], Outputs: [...], TacticName: ..., Metadata: [ONNX Layer: node_Conv_1]

    Without that message, or in another format, the result is empty: the build is more important
    than its report.
    """
    listing = next((text for text in messages if text.lstrip().startswith(_HEADING)), "")
    lines = listing.partition(_HEADING)[2].partition("\n\n")[0].splitlines()
    found = []
    for line in lines:
        head = re.match(r"\s*Name: (.*?), LayerType: (\w+)", line)
        if head is None or head[2] in _NO_WORK:
            continue
        types = {
            name: tuple(_type(one) for one in re.findall(r"Datatype: ([^,}]+)", tensors))
            for name, tensors in _TENSORS.findall(line)
        }
        found.append(
            Layer(
                name=head[1],
                kind=head[2],
                inputs=types.get("Inputs", ()),
                weights=types.get("Constants", ()),
                outputs=types.get("Outputs", ()),
                onnx=_onnx_nodes(line.partition("Metadata: ")[2]),
            )
        )
    return tuple(found)


def layers_of_inspector(text: str) -> tuple[Layer, ...]:
    """Read the layers from the JSON of an EngineInspector, as of TensorRT 10 or 11.

    10 has the type of a tensor in `Format/Datatype`, at the end of a sentence; 11 in `Datatype`.
    An engine that was built without DETAILED has only names of layers: the result is empty.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    listed = document.get("Layers") if isinstance(document, dict) else None
    return tuple(_layer_of_json(one) for one in _list(listed) if isinstance(one, dict))


def _layer_of_json(layer: dict[str, Any]) -> Layer:
    def types(key: str) -> tuple[str, ...]:
        tensors = [one if isinstance(one, dict) else {} for one in _list(layer.get(key))]
        return tuple(_type(str(t.get("Datatype") or t.get("Format/Datatype"))) for t in tensors)

    weights = layer.get("Weights")
    own = (_type(str(weights["Type"])),) if isinstance(weights, dict) and "Type" in weights else ()
    return Layer(
        name=str(layer.get("Name", "")),
        kind=str(layer.get("LayerType", "")),
        inputs=types("Inputs"),
        weights=own or types("Constants"),
        outputs=types("Outputs"),
        onnx=_onnx_nodes(str(layer.get("Metadata", ""))),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _type(text: str) -> str:
    """Return the type in a word, or in a sentence such as `Row major Int8 format`."""
    words = (_ALIASES.get(word, word) for word in re.findall(r"\w+", text.lower()))
    return next((word for word in words if word in _TYPES), "unknown")


def _onnx_nodes(metadata: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\[ONNX Layer: ([^\]]*)\]", metadata))


def types_of(layers: Iterable[Layer]) -> dict[str, int]:
    """Count the layers by the type of their input, the most frequent first."""
    return dict(Counter(layer.type for layer in layers).most_common())


def products_of(layers: Iterable[Layer], network: onnx.ModelProto) -> dict[str, dict[str, int]]:
    """Count the convolutions and products of a network by the type that the engine computes in.

    A node is often in several layers: one that quantises its input, the product, one that scales
    its output. The product is the one that multiplies two operands of one type.

    Returns:
        By ONNX's operator and type, for example `{"Conv": {"int8": 20}, "Gemm": {"fp16": 1}}`;
        `unknown` counts nodes that no layer names.
    """
    multiplied: dict[str, set[str]] = {}
    for layer in layers:
        operands = (*layer.inputs[:1], *(layer.weights[:1] or layer.inputs[1:2]))
        if len(set(operands)) == 1 and len(operands) == 2:
            for name in layer.onnx:
                multiplied.setdefault(name, set()).add(operands[0])
    found: dict[str, Counter[str]] = {}
    for node in network.graph.node:
        if node.op_type in PRODUCTS:
            types = multiplied.get(node.name, set())
            narrowest = next((t for t in ("int8", "fp8", "fp16", "bf16", "fp32") if t in types), "")
            found.setdefault(node.op_type, Counter())[narrowest or "unknown"] += 1
    return {kind: dict(counts.most_common()) for kind, counts in found.items()}
