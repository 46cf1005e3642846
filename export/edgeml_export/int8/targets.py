"""What INT8 must look like for each runtime: one table, with the reason beside each row."""

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
        symmetric: Their zero point is 0; else it is where 0 falls between least and greatest.
        outputs: What leaves a layer is quantised too, not only what enters one.
        sums: Which inputs of a sum of two branches are quantised: `both`, or the `shortcut`, the
            one that was computed first.
        why: The reason.
        attention: Both products of attention are quantised, by symmetric ranges.
        half: What stays in floating point is FP16, not FP32.
    """

    signed: bool
    symmetric: bool
    outputs: bool
    sums: Literal["both", "shortcut"]
    why: str
    attention: bool = False
    half: bool = False


RECIPES: dict[Target, Recipe] = {
    "x86": Recipe(
        signed=False,
        symmetric=False,
        outputs=True,
        sums="both",
        why="ONNX Runtime multiplies uint8 by int8 with VNNI: ResNet-18 takes 6.1 ms so, 22 ms "
        "with int8 by int8, 17 ms in FP32. A convolution without Q behind it runs in FP32.",
    ),
    "arm": Recipe(
        signed=True,
        symmetric=False,
        outputs=True,
        sums="both",
        why="Arm's dot products multiply int8 by int8, which is what ONNX Runtime advises there "
        "(quantize_static). Not measured: no such machine was at hand.",
    ),
    "openvino": Recipe(
        signed=False,
        symmetric=False,
        outputs=False,
        sums="both",
        why="OpenVINO fuses a layer with what follows it unless a Q lies between: ViT-tiny takes "
        "6.7 ms so, 12.2 ms with the layout for x86, 14.5 ms in FP32. Its attention is one kernel, "
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
        why="TensorRT knows symmetric int8 only. It reads uint8 as int8 with no more than a "
        "warning: of 89 % right 0 % were left. A sum is fused into the layer on its other side. "
        "It computes in the types that the file has, and FP32 is slow on its GPUs.",
        half=True,
    ),
}

TARGETS: tuple[Target, ...] = get_args(Target)
