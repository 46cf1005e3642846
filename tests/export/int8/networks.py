"""Small networks that INT8 must handle: layers with biases to correct, and odd graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from tests.export.graphs import Node, weights

HEAD: list[Node] = [
    ("GlobalAveragePool", ["z"], "pooled"),
    ("Flatten", ["pooled"], "flat"),
    ("Gemm", ["flat", "head"], "logits", {"transB": 1}),
]
FLAT: list[Node] = [
    ("AveragePool", ["input"], "small", {"kernel_shape": [4, 4], "strides": [4, 4]})
]
BIAS = np.linspace(-1, 1, 8, dtype=np.float32)
STEM: Node = ("Conv", ["input", "stem", "bias"], "y")
STEM_CONSTANTS = {"stem": weights(8, 3, 3, 3), "bias": BIAS, "head": weights(2, 8, seed=9)}

CORRECTED: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "conv": ([STEM, ("Relu", ["y"], "z"), *HEAD], STEM_CONSTANTS),
    "conv without a bias": (
        [("Conv", ["input", "stem"], "y"), ("Relu", ["y"], "z"), *HEAD],
        STEM_CONSTANTS,
    ),
    "groups": (
        [
            ("Conv", ["input", "first"], "x"),
            ("Conv", ["x", "grouped", "bias"], "y", {"group": 2}),
            ("Relu", ["y"], "z"),
            *HEAD,
        ],
        {**STEM_CONSTANTS, "first": weights(4, 3, 1, 1), "grouped": weights(8, 2, 3, 3)},
    ),
    "depthwise": (
        [
            ("Conv", ["input", "first"], "x"),
            ("Conv", ["x", "depthwise", "bias"], "y", {"group": 8}),
            ("Relu", ["y"], "z"),
            *HEAD,
        ],
        {**STEM_CONSTANTS, "first": weights(8, 3, 1, 1), "depthwise": weights(8, 1, 3, 3)},
    ),
    **{
        f"gemm {name}": (
            [
                *FLAT,
                ("Flatten", ["small"], "x"),
                ("Gemm", ["x", "w", "bias"], "y", attributes),
                ("Relu", ["y"], "z"),
                ("Gemm", ["z", "head"], "logits", {"transB": 1}),
            ],
            {
                "w": weights(8, 48) if attributes["transB"] else weights(8, 48).T.copy(),
                "bias": bias,
                "head": weights(2, 8),
            },
        )
        for name, attributes, bias in (
            ("transB 1", {"transB": 1}, BIAS),
            ("transB 0", {"transB": 0}, BIAS),
            ("with explicit attributes", {"transB": 1, "alpha": 1.0, "beta": 1.0}, BIAS),
            ("with a bias of two dimensions", {"transB": 1}, BIAS[None]),
        )
    },
    **{
        f"matmul, {first} first": (
            [
                *FLAT,
                ("Flatten", ["small"], "x"),
                ("MatMul", ["x", "w"], "product"),
                ("Add", ["product", "bias"] if first == "product" else ["bias", "product"], "y"),
                ("Relu", ["y"], "z"),
                ("Gemm", ["z", "head"], "logits", {"transB": 1}),
            ],
            {"w": weights(8, 48).T.copy(), "bias": BIAS, "head": weights(2, 8)},
        )
        for first in ("product", "bias")
    },
}


SECOND: Node = ("Conv", ["x", "second", "bias"], "y2")
FLATTENED: list[Node] = [("GlobalAveragePool", ["input"], "g"), ("Flatten", ["g"], "f")]
BESIDE_ATTENTION: list[Node] = [
    ("Relu", ["h"], "cut"),
    ("Softmax", ["cut"], "soft"),
    ("Mul", ["soft", "cut"], "m"),
    ("Gemm", ["m", "head"], "logits", {"transB": 1}),
]
# Of 196 tokens with 8 channels each.
ATTENTION: list[Node] = [
    STEM,
    ("Reshape", ["y", "by_channel"], "columns"),
    ("Transpose", ["columns"], "x", {"perm": [0, 2, 1]}),
    ("MatMul", ["x", "threefold"], "product"),
    ("Add", ["product", "biases"], "qkv"),
    ("Split", ["qkv", "thirds"], ["q", "k", "v"], {"axis": 2}),
    ("Mul", ["q", "half"], "q2"),
    ("Transpose", ["k"], "k2", {"perm": [0, 2, 1]}),
    ("MatMul", ["q2", "k2"], "scores"),
    ("Softmax", ["scores"], "shares"),
    ("MatMul", ["shares", "v"], "attended"),
    ("Transpose", ["attended"], "turned", {"perm": [0, 2, 1]}),
    ("Transpose", ["turned"], "back", {"perm": [0, 2, 1]}),
    ("MatMul", ["back", "proj"], "z"),
]
POOLED: list[Node] = [
    ("ReduceMean", ["z", "tokens"], "h", {"keepdims": 0}),
    ("Gemm", ["h", "head"], "logits", {"transB": 1}),
]
MORE = {
    **STEM_CONSTANTS,
    "second": weights(8, 8, 3, 3, seed=2),
    "third": weights(8, 8, 3, 3, seed=11),
    "small": weights(3, 8, seed=3),
    "one": np.float32(1),
    "minus": np.float32(-0.7),
    "some": np.float32(0.2),
    "six": np.float32(6),
}

ODD: dict[str, list[Node]] = {
    "a ReLU read by two layers": [
        STEM,
        ("Relu", ["y"], "x"),
        SECOND,
        ("Conv", ["x", "third"], "y3"),
        ("Add", ["y2", "y3"], "z"),
        *HEAD,
    ],
    "a layer read by a ReLU and by a sum": [
        STEM,
        ("Relu", ["y"], "x"),
        ("Add", ["y", "x"], "z"),
        *HEAD,
    ],
    "a Clip read by two layers": [
        STEM,
        ("Clip", ["y", "minus", "some"], "x"),
        SECOND,
        ("Conv", ["x", "third"], "y3"),
        ("Add", ["y2", "y3"], "z"),
        *HEAD,
    ],
    "a Clip whose lower limit is above 0": [STEM, ("Clip", ["y", "some", "one"], "z"), *HEAD],
    "a Clip without a lower limit": [STEM, ("Clip", ["y", "", "some"], "z"), *HEAD],
    "pooled and joined": [
        STEM,
        ("Relu", ["y"], "x"),
        ("Conv", ["x", "second", "bias"], "y2", {"pads": [1, 1, 1, 1]}),
        ("Concat", ["x", "y2"], "joined", {"axis": 1}),
        ("MaxPool", ["joined"], "pool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["pool", "wide"], "z"),
        *HEAD,
    ],
    "two layers of one weight": [
        STEM,
        ("Relu", ["y"], "x"),
        SECOND,
        ("Relu", ["y2"], "x2"),
        ("Conv", ["x2", "second", "bias"], "z"),
        *HEAD,
    ],
    "one weight, also transposed": [
        *FLATTENED,
        ("Gemm", ["f", "square"], "h", {"transB": 1}),
        ("Relu", ["h"], "r"),
        ("Gemm", ["r", "square"], "h2"),
        ("Gemm", ["h2", "three"], "logits", {"transB": 1}),
    ],
    "a sum of a tensor with itself": [STEM, ("Add", ["y", "y"], "z"), *HEAD],
    "names like those that INT8 adds": [
        ("Conv", ["input", "stem", "z_node_bias"], "y", {"name": "z_node"}),
        ("Relu", ["y"], "input_dequantized"),
        (
            "Conv",
            ["input_dequantized", "second", "stem_scale"],
            "z",
            {"name": "input_dequantized_Q"},
        ),
        *HEAD,
    ],
    "repeated and empty names": [
        ("Conv", ["input", "stem", "bias"], "y", {"name": "node_2"}),
        ("Relu", ["y"], "x", {"name": ""}),
        ("Conv", ["x", "second", "bias"], "y2", {"name": ""}),
        ("Relu", ["y2"], "x2", {"name": "node_2"}),
        ("Conv", ["x2", "third", "bias"], "z", {"name": "node_2"}),
        *HEAD,
    ],
    "a ReLU behind a Gemm beside attention": [
        *FLATTENED,
        ("Gemm", ["f", "small", "bias"], "h"),
        *BESIDE_ATTENTION,
    ],
    "a ReLU behind a MatMul beside attention": [
        *FLATTENED,
        ("MatMul", ["f", "small"], "h"),
        *BESIDE_ATTENTION,
    ],
    "attention of one layer": [*ATTENTION, *POOLED],
    "attention whose layer has another reader": [
        *ATTENTION,
        ("ReduceMean", ["qkv", "tokens"], "other", {"keepdims": 0}),
        ("Gemm", ["other", "many"], "other8"),
        *POOLED[:-1],
        ("Add", ["h", "other8"], "sum"),
        ("Gemm", ["sum", "head"], "logits", {"transB": 1}),
    ],
    "attention with several factors of queries": [
        *ATTENTION[:6],
        ("Mul", ["q", "several"], "q2"),
        *ATTENTION[7:],
        *POOLED,
    ],
    "a bias on the left of its sum": [
        *FLATTENED,
        ("MatMul", ["f", "small"], "h"),
        ("Add", ["bias", "h"], "h2"),
        ("Relu", ["h2"], "r"),
        ("MatMul", ["r", "eight"], "product"),
        ("Add", ["two", "product"], "logits"),
    ],
    "constants from nodes": [
        ("Constant", [], "k", {"value": numpy_helper.from_array(weights(1, 8, 1, 1))}),
        ("Conv", ["input", "stem"], "y"),
        ("Add", ["y", "k"], "z"),
        *HEAD,
    ],
    "a grouped ConvTranspose": [
        STEM,
        ("Relu", ["y"], "x"),
        ("ConvTranspose", ["x", "up", "bias"], "z", {"group": 2, "strides": [2, 2]}),
        *HEAD,
    ],
    "a Gemm with factors": [
        *FLATTENED,
        ("Gemm", ["f", "small", "row"], "h", {"alpha": 0.5, "beta": 2.0}),
        ("Relu", ["h"], "r"),
        ("Gemm", ["r", "head"], "logits", {"transB": 1}),
    ],
}
ODD_CONSTANTS = {
    **MORE,
    "wide": weights(8, 16, 1, 1),
    "square": weights(3, 3, seed=4),
    "three": weights(2, 3, seed=5),
    "eight": weights(8, 2, seed=6),
    "two": np.array([1, 2], np.float32),
    "up": weights(8, 4, 2, 2, seed=7),
    "row": BIAS[None],
    "z_node_bias": BIAS,
    "stem_scale": BIAS / 2,
    "by_channel": np.array([0, 8, -1]),
    "threefold": weights(8, 24, seed=8),
    "biases": np.linspace(-1, 1, 24, dtype=np.float32),
    "thirds": np.array([8, 8, 8]),
    "half": np.float32(0.5),
    "several": np.linspace(0.1, 0.9, 8, dtype=np.float32),
    "proj": weights(8, 8, seed=9),
    "tokens": np.array([1]),
    "many": weights(24, 8, seed=10),
}


def constants_of(nodes: list[Node]) -> dict[str, Any]:
    """Return the constants that these nodes read."""
    used = {name for _, inputs, *_ in nodes for name in inputs}
    return {name: value for name, value in ODD_CONSTANTS.items() if name in used}


CHAIN: list[Node] = [
    STEM,
    ("Relu", ["y"], "x"),
    SECOND,
    ("Relu", ["y2"], "x2"),
    ("Conv", ["x2", "third"], "y3"),
    ("Relu", ["y3"], "z"),
    *HEAD,
]
