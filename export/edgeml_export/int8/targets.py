"""How INT8 must be laid out for each runtime: one table, with the reason for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgeml.spec.provenance import Int8Target

Target = Int8Target


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How Q/DQ nodes are laid out. Weights are INT8, symmetric, by output channel in all of them.

    Attributes:
        signed: Activations are int8, else uint8.
        symmetric: Their zero point is 0; else it is where 0 is between the least and the largest.
        outputs: Outputs of layers are quantised too, not only inputs.
        sums: Which inputs of a sum of two branches are quantised: `both`, or the `shortcut`, the
            branch that is computed first.
        why: The reason.
        attention: Both products of attention are quantised, by symmetric ranges.
        fp16: Layers in floating point are FP16, not FP32.
    """

    signed: bool
    symmetric: bool
    outputs: bool
    sums: Literal["both", "shortcut"]
    why: str
    attention: bool = False
    fp16: bool = False


RECIPES: dict[Target, Recipe] = {
    "x86": Recipe(
        signed=False,
        symmetric=False,
        outputs=True,
        sums="both",
        why="ONNX Runtime multiplies uint8 by int8 with VNNI: ResNet-18 takes 6.1 ms, with "
        "int8 by int8 22 ms, in FP32 17 ms. A convolution without Q behind it runs in FP32.",
    ),
    "arm": Recipe(
        signed=True,
        symmetric=False,
        outputs=True,
        sums="both",
        why="Arm's dot products multiply int8 by int8, as ONNX Runtime advises there "
        "(quantize_static). Not measured: no such machine was available.",
    ),
    "openvino": Recipe(
        signed=False,
        symmetric=False,
        outputs=False,
        sums="both",
        why="OpenVINO fuses a layer with the next one unless a Q is between them: ViT-tiny takes "
        "6.7 ms, 12.2 ms with the layout for x86, 14.5 ms in FP32. Its attention is one kernel, "
        "which takes 1.8 ms of 9.4 with both products in int8 and 4 ms without, if the ranges are "
        "symmetric. On a ViT of 8 blocks, trained on drawn apparel, the RMS error of the logits "
        "goes from 1.81 to 1.92 %.",
        attention=True,
    ),
    "tensorrt": Recipe(
        signed=True,
        symmetric=True,
        outputs=False,
        sums="shortcut",
        why="TensorRT takes symmetric int8 only. It reads uint8 as int8 with no more than a "
        "warning: 89 % right became 0 %. A sum is fused into the layer on its other side. "
        "It computes in the types that the file has, and FP32 is slow on its GPUs.",
        fp16=True,
    ),
}

TARGETS: tuple[Target, ...] = get_args(Target)
