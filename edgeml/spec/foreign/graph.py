"""What a model's graph states: inputs, outputs, and whether it ends in logits or probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgeml.spec.model_spec import Precision

End = Literal["softmax", "log_softmax", "sigmoid", "linear", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output, as a runtime names it; `dtype` is numpy's name, or `unknown`.

    A side of the shape is None if any size is right, the shape if the file does not state it.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a graph states.

    Attributes:
        inputs, outputs: Those of the network, without constants.
        ends: For each output what its values are, and the operation that decides it: `linear` are
            sums of products, which are logits.
        metadata: ONNX metadata_props, or OpenVINO's rt_info by path, joined with spaces.
        precision: What most weights are stored in, `int8` as soon as anything is quantized.
        producer: The tool that wrote the file, if the file states it.
        normalises: The operation with a constant that comes first after the input, such as Sub or
            Div: the graph normalises. Empty if there is none.
        multiplies_integers: Activations are quantized too, not only stored weights.
        lacks_zero_points: Stored integers are dequantized without a zero point.
        weight_files: Names of other files with its weights, relative to its folder.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ends: Mapping[str, tuple[End, str]]
    metadata: Mapping[str, str]
    precision: Precision
    producer: str = ""
    normalises: str = ""
    multiplies_integers: bool = False
    lacks_zero_points: bool = False
    weight_files: tuple[str, ...] = ()

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of an NCHW input if both are fixed, else None."""
        match self.inputs:
            case [Port(shape=(_, _, int(height), int(width))), *_]:
                return height, width
        return None


class DamagedError(Exception):
    """The bytes are not a model. The message states the fault, but not the file."""


@dataclass
class Node:
    """An operation: its type, the names it reads and writes, and its attribute `axis`."""

    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    axis: int | None = None


def precision_of(stored: Counter[str], *, quantized: bool) -> Precision:
    """Return the precision of weights, from the bytes that are stored in each type."""
    if quantized:
        return "int8"
    return "fp16" if stored["float16"] > stored["float32"] else "fp32"
