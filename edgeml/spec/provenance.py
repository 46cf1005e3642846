"""Where a model comes from: its data and their split, its weights, and how it was quantized."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

from edgeml.errors import InputError

Int8Target = Literal["x86", "arm", "openvino", "tensorrt"]
"""What an INT8 file is laid out for: a processor's kind, or a runtime."""


@dataclass(frozen=True)
class SplitPlan:
    """How a data set is divided; the same plan on the same data gives the same sides.

    Attributes:
        val: Share of the images for choosing weights and thresholds.
        test: Share of the images for the numbers that are reported.
        seed: 0 or more.
        near: Keep near duplicates together, and not only images with the same bytes.
        hold_out: Two labels, or none; images that have both go to the test side only, in addition
            to its share of the others. They show what a model does with an unseen combination.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    val: float = 0.15
    test: float = 0.15
    seed: int = 0
    near: bool = True
    hold_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.val >= 0 and self.test >= 0 and self.val + self.test < 1):
            raise InputError(
                f"The shares val={self.val} and test={self.test} must be 0 or more, "
                "and leave something for training."
            )
        if self.seed < 0:
            raise InputError(f"The seed is {self.seed}; it must be 0 or more.")
        if self.hold_out and (len(self.hold_out), len(set(self.hold_out))) != (2, 2):
            raise InputError(f"To hold out {self.hold_out}: two different labels are needed.")

    def __str__(self) -> str:
        near = ", near duplicates together" if self.near else ""
        pair = f", held out {' and '.join(self.hold_out)}" if self.hold_out else ""
        return f"val {self.val}, test {self.test}, seed {self.seed}{near}{pair}"


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """How the ranges of an INT8 file were chosen.

    Attributes:
        layout: What its Q/DQ nodes are placed for.
        method: How ranges follow from the values that were seen, for example `minmax`.
        images: How many were measured.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    layout: Int8Target
    method: str
    images: int

    def __str__(self) -> str:
        return f"edgeml, {self.layout}, {self.method} of {self.images} images"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a model comes from. None, 0 and empty mean unknown, or that a step was not done.

    Attributes:
        model: The architecture; for a file of another tool its name.
        data_sha256: Digest of the data set.
        split: The plan that divided it; lets `edgeml eval` find the images training did not see.
        split_sha256: Digest of which image was on which side.
        weights_sha256: Digest of the weights that training started from.
        weights_license: Their licence.
        temperature: The logits were divided by it, which is folded into the head.
        checkpoint_sha256: Digest of the checkpoint that was exported.
        exporter: The tool that wrote the network as ONNX.
        quantizer: How INT8 ranges were chosen.
        calibration_sha256: Digest of the images that they were measured on.
        kept_in_float: Nodes of an INT8 file that stay in floating point.
        arithmetic: What an INT8 file computes in where it is not INT8; None is FP32.
        overlap: Images that had more than one role: calibration, fitting, checking.
        notes: Facts for people only: versions, what a step changed.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: str | None = None
    data_sha256: str | None = None
    split: SplitPlan | None = None
    split_sha256: str | None = None
    weights_sha256: str | None = None
    weights_license: str | None = None
    temperature: float | None = None
    checkpoint_sha256: str | None = None
    exporter: str | None = None
    quantizer: Quantizer | None = None
    calibration_sha256: str | None = None
    kept_in_float: tuple[str, ...] = ()
    arithmetic: Literal["fp16"] | None = None
    overlap: int = 0
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what is known as JSON values."""
        return {name: value for name, value in asdict(self).items() if value}

    def to_texts(self) -> dict[str, str]:
        """Return what is known as names and texts, notes last: for reports."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "notes"}
        texts = {name: _text(value) for name, value in values.items() if value}
        return {**texts, **self.notes}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def provenance_of_texts(origin: Mapping[str, str]) -> Provenance:
    """Read the free texts that specs held as `origin` up to edgeml 0.1.0.

    A text that does not have the form that edgeml wrote becomes a note.
    """
    values: dict[str, Any] = {}
    notes = {}
    for name, text in origin.items():
        try:
            values[name] = _READERS[name](text)
        except (KeyError, ValueError, RecursionError):
            notes[name] = text
    return Provenance(**values, notes=notes)


def _split(text: str) -> SplitPlan:
    val, test, seed, near, pair = _groups(
        r"val=(\S+) test=(\S+) seed=(\d+)( near=1)?(?: hold_out=(\[.*\]))?", text
    )
    first_and_second = tuple(map(str, json.loads(pair))) if pair else ()
    return SplitPlan(float(val), float(test), int(seed), bool(near), first_and_second)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text!r} is NaN or infinity.")
    return value


def _quantizer(text: str) -> Quantizer:
    layout, method, images = _groups(
        r"edgeml, (x86|arm|openvino|tensorrt), (.+) of (\d+) images", text
    )
    return Quantizer(layout=layout, method=method, images=int(images))


def _groups(pattern: str, text: str) -> tuple[Any, ...]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise ValueError(f"{text!r} is not of the form {pattern}.")
    return match.groups()


_READERS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(
        ("model", "data_sha256", "split_sha256", "weights_sha256", "weights_license",
         "checkpoint_sha256", "exporter", "calibration_sha256"),
        str,
    ),
    "split": _split,
    "temperature": _finite,
    "quantizer": _quantizer,
    "kept_in_float": lambda text: tuple(text.split()),
    "arithmetic": lambda text: _groups("(fp16)", text)[0],
    "overlap": lambda text: int(_groups(r"(\d+) images had more than one role", text)[0]),
}  # fmt: skip
