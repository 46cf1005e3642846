"""What a graph's ends mean for a spec, and where that contradicts what people and files state."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import SpecError
from edgeml.spec.foreign.graph import End
from edgeml.spec.foreign.partial import ARGUMENT, GRAPH, PartialSpec, stated
from edgeml.spec.model_spec import ModelSpec

Run = Callable[[ModelSpec, NDArray[np.generic]], "NDArray[np.float32] | None"]
"""Runs the network on an input: returns (N, labels), or None where nothing here can run it."""

_FRAMES = 6
_ROUNDING = 0.005
"""By which a probability may be outside of 0 to 1: half a step of eight bits, and more."""
_FACTORS = (100.0, -100.0)
_SUM_ROUNDING = 0.05
"""By which the sum of quantized shares may differ from 1."""

_CONVENTIONS = ("is not set", "one label an image")
"""How the sources end of what is usual for a tool, and not stated by its file."""


def end_by_run(spec: ModelSpec, run: Run) -> End:
    """Return what an output is, by its values on drawn images: probabilities are from 0 to 1.

    Those of a softmax add up to 1. Small logits may be from 0 to 1 as well, so the network also
    gets inputs far beyond those of images, which make logits large and leave probabilities as they
    are. `unknown` if the network cannot be run, or returns NaN for images.
    """
    images = spec.network_input_fitted(_frames(spec.preprocess.size))
    outputs = run(spec, images)
    if outputs is None or not outputs.size or not np.isfinite(outputs).all():
        return "unknown"
    values = outputs.reshape(len(outputs), -1).astype(np.float64)
    for factor in _FACTORS if images.dtype.kind == "f" else ():
        large = run(spec, images * images.dtype.type(factor))
        if large is not None and large.shape == outputs.shape and np.isfinite(large).all():
            values = np.concatenate([values, large.reshape(len(large), -1).astype(np.float64)])
    if values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING:
        return "linear"
    shares = values.shape[1] > 1 and bool(np.all(abs(values.sum(axis=1) - 1) < _SUM_ROUNDING))
    return "softmax" if shares else "sigmoid"


def _frames(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw (N, H, W, 3) uint8: soft blots, which excite a network as photos do; black and white."""
    height, width = size
    seeds = np.random.default_rng(0).integers(0, 256, (_FRAMES - 2, 5, 5, 3), np.uint8)
    drawn = [cv2.resize(seed, (width, height), interpolation=cv2.INTER_CUBIC) for seed in seeds]
    plain = [np.full((height, width, 3), level, np.uint8) for level in (0, 255)]
    return np.stack([*drawn, *plain]).astype(np.uint8)


def ending_fields(end: End, op: str, fields: PartialSpec) -> PartialSpec:
    """Return what the end of the graph states: logits or probabilities, and of which task.

    Raises:
        SpecError: What is stated contradicts the graph.
    """
    check_activation(end, op, fields)
    source = f"{GRAPH} ends in {op}"
    if end in ("softmax", "sigmoid", "log_softmax"):
        task: str | None = "multilabel" if end == "sigmoid" else "multiclass"
        by = fields.sources.get("task", "")
        if by == ARGUMENT or (fields.task and end == "sigmoid" and not by.endswith(_CONVENTIONS)):
            task = None
        # A softmax of logarithms of shares gives the shares.
        return stated(source, activation="softmax" if end == "log_softmax" else "none", task=task)
    if fields.activation in ("softmax", "sigmoid"):
        task = "multiclass" if fields.activation == "softmax" else "multilabel"
        return stated(fields.sources["activation"], task=task)
    return PartialSpec()


def check_activation(end: End, op: str, fields: PartialSpec) -> None:
    """Refuse a second activation on probabilities, and none on logits.

    What a tool states about its network without the activation in the graph is no second one.
    """
    activation, source = fields.activation, fields.sources.get("activation")
    by_person = source == ARGUMENT and activation is not None
    if end in ("softmax", "sigmoid") and by_person and activation != "none":
        raise SpecError(
            f"{GRAPH} ends in {op}, so its output is probabilities already: a second {activation} "
            "would spoil the probabilities. Omit --activation, or use --activation none."
        )
    if end == "log_softmax" and by_person and activation != "softmax":
        raise SpecError(
            f"{GRAPH} ends in {op}, so its output is logarithms: {activation} does not make "
            "probabilities of them. Omit --activation."
        )
    if end == "linear" and activation == "none":
        raise SpecError(
            f"{GRAPH} ends in {op}, so its output is logits, not probabilities: --activation none "
            "would take them for probabilities. State --activation softmax or sigmoid."
        )
    multilabel = fields.task == "multilabel" and fields.sources["task"] not in (ARGUMENT, GRAPH)
    if end in ("softmax", "log_softmax") and activation == "sigmoid" and multilabel:
        raise SpecError(
            f"{source} states a sigmoid, but {GRAPH} ends in {op}: the files do not belong "
            "together. State which is right: --task multiclass or multilabel."
        )


def check_normalisation(is_uint8: bool, normalises: str, fields: PartialSpec) -> None:
    """Refuse mean and deviation for a graph that normalises itself.

    One deviation for all channels only sets the scale, 0 to 255 for example.
    """
    for key, neutral in (("mean", (0.0,) * 3), ("std", (1.0,) * 3)):
        value, source = getattr(fields, key), fields.sources.get(key)
        if value is None or tuple(value) == neutral:
            continue
        if is_uint8 and source == ARGUMENT:
            raise SpecError(
                f"The {key} is stated as {tuple(value)}, but {GRAPH} takes uint8 and normalises "
                f"it: omit --{key}."
            )
        if is_uint8 or not normalises or (key == "std" and len(set(value)) == 1):
            continue
        raise SpecError(
            f"The {key} is {tuple(value)} ({source}), but {GRAPH} begins with {normalises}, so it "
            "normalises its input: use --mean 0,0,0 and --std 1,1,1, or a --std of 0.003922 for "
            "each channel if it takes 0 to 255."
        )
