"""ModelSpec: what a model file means, as a typed value and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import SpecError
from edgeml.image.frame import Batch, Frame
from edgeml.image.preprocess import Preprocess
from edgeml.spec.labels import LabelGroup
from edgeml.spec.plain import read_plain
from edgeml.spec.provenance import Provenance, provenance_of_texts

if TYPE_CHECKING:
    from pydantic import ValidationError

FORMAT = "edgeml/1"
"""Also the format of files with `provenance`, which edgeml 0.1.0 does not know: it refuses them
with an error that names the field. A new format would lock out other readers for one field.
"""

Precision = Literal["fp32", "fp16", "int8"]
Activation = Literal["sigmoid", "softmax", "group_softmax", "none"]
Task = Literal["multilabel", "multiclass"]
InputType = Literal["float32", "float16", "uint8"]
Layout = Literal["auto", "nchw", "nhwc"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a model's tensors do not state. It is stored inside the model file.

    Attributes:
        labels: One name for each output, in order.
        thresholds: Per label, on probabilities; a label is present at or above its threshold.
        preprocess: How a frame becomes the input.
        groups: Labels that exclude each other, or belong together.
        task: `multilabel`: each label for itself; `multiclass`: only the best label can be
            present, so with thresholds of 0 exactly one is.
        input: `float32` or `float16`: normalised by the Predictor; `uint8`: raw frames of the
            right size, normalised inside the graph.
        layout: `nchw` or `nhwc`; `auto` is (N, 3, H, W) for floats and (N, H, W, 3) for uint8.
        raw_channels: The colour order of `uint8` input; that of floats is the preprocess's.
        output: The name of the output to use, if the network has several.
        activation: What the Predictor applies to the output to get probabilities: `softmax` over
            all labels; `group_softmax` over each group of rule `one`, and a sigmoid for other
            labels; `none` if the graph ends in probabilities.
        precision: What the file was exported as.
        metrics: Shares of 1 on the data that the model was checked with, for example `mAP`.
        provenance: Where the model comes from: digests, versions, the split.

    Example:
        >>> spec = ModelSpec(
        ...     labels=("red", "blue", "shirt"),
        ...     thresholds=(0.5, 0.5, 0.4),
        ...     preprocess=Preprocess(size=(224, 224)),
        ...     groups=(LabelGroup(name="colour", labels=("red", "blue"), rule="one"),),
        ... )
        >>> spec
        ModelSpec(3 labels: red, blue, shirt; 224 x 224 squash, float32, fp32)
        >>> ModelSpec.from_json(spec.to_json()) == spec
        True
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    preprocess: Preprocess
    groups: tuple[LabelGroup, ...] = ()
    task: Task = "multilabel"
    input: InputType = "float32"
    layout: Layout = "auto"
    raw_channels: Literal["bgr", "rgb"] = "bgr"
    output: str | None = None
    activation: Activation = "sigmoid"
    precision: Precision = "fp32"
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            twice = [name for i, name in enumerate(self.labels) if name in self.labels[:i]]
            raise SpecError(
                "labels must be one or more different names"
                + (f"; {quoted_names(twice)} occur twice." if twice else ", not none.")
            )
        if len(self.thresholds) != len(self.labels):
            raise SpecError(
                f"There are {len(self.labels)} labels but {len(self.thresholds)} thresholds; "
                "give one for each label."
            )
        for label, threshold in zip(self.labels, self.thresholds, strict=True):
            if not 0 <= threshold <= 1:
                raise SpecError(f"The threshold of {label!r} is {threshold}; it must be 0 to 1.")
        if self.task == "multiclass" and (self.groups or self.activation == "sigmoid"):
            raise SpecError(
                "task is 'multiclass', so one label is right: it needs no groups, and activation "
                "'softmax', or 'none' if the graph ends in one."
            )
        if self.task == "multilabel" and self.activation == "softmax":
            raise SpecError(
                "activation is 'softmax', so one label is right: that is task 'multiclass', not "
                "'multilabel'."
            )
        known, grouped = set(self.labels), set[str]()
        for label in (label for group in self.groups for label in group.labels):
            if label not in known:
                raise SpecError(f"A group names {label!r}, which is not among the labels.")
            if label in grouped:
                raise SpecError(f"{label!r} is in two groups; a label belongs to one at most.")
            grouped.add(label)

    @cached_property
    def threshold_array(self) -> NDArray[np.float32]:
        """The thresholds (labels,)."""
        return np.asarray(self.thresholds, np.float32)

    @cached_property
    def threshold_list(self) -> list[float]:
        """The thresholds as float32 holds them."""
        return list(map(float, self.threshold_array))

    @cached_property
    def exclusive_groups(self) -> list[list[int]]:
        """The columns of each group that has exactly one label present."""
        column = {label: i for i, label in enumerate(self.labels)}
        groups = (group.labels for group in self.groups if group.rule == "one")
        return [[column[label] for label in labels] for labels in groups]

    def softmax_groups(self) -> list[list[int]]:
        """Return the columns of each group whose probabilities are a softmax."""
        return self.exclusive_groups if self.activation == "group_softmax" else []

    @cached_property
    def channels_last(self) -> bool:
        """Whether the network takes (N, H, W, 3)."""
        return self.layout == "nhwc" or (self.layout == "auto" and self.input == "uint8")

    @property
    def input_sides(self) -> tuple[int, int, int]:
        """The input's shape without the batch: (3, H, W) or (H, W, 3)."""
        height, width = self.preprocess.size
        return (height, width, 3) if self.channels_last else (3, height, width)

    def network_input(self, frames: Sequence[Frame]) -> NDArray[Any]:
        """Resize, normalise and lay out frames (H, W, 3) uint8 BGR of any size as one batch.

        Raises:
            InputError: A frame is not (H, W, 3) uint8.
        """
        if self.input == "uint8":
            return self._to_layout(np.stack([self.preprocess.fit(frame) for frame in frames]))
        return self._to_layout(self.preprocess(frames))

    def network_input_fitted(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """Return the input for frames (N, H, W, 3) uint8 BGR that have the network's size."""
        if self.input == "uint8":
            return self._to_layout(frames)
        return self._to_layout(self.preprocess.normalize(list(frames)))

    def normalized_input(self, batch: NDArray[Any]) -> Batch:
        """Return an input as (N, 3, H, W) float32 after normalisation, whatever its layout."""
        if self.input == "uint8":
            frames = batch if self.channels_last else batch.transpose(0, 2, 3, 1)
            frames = frames[..., ::-1] if self.raw_channels == "rgb" else frames
            return self.preprocess.normalize(list(frames))
        planes: Batch = batch.transpose(0, 3, 1, 2) if self.channels_last else batch
        return planes.astype(np.float32, copy=False)

    def _to_layout(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Bring a batch to the network's layout, colour order and type; copy only if it must.

        It is (N, H, W, 3) uint8 BGR for `uint8` input, else (N, 3, H, W) float32 normalised.
        """
        if self.input == "uint8":
            batch = batch[..., ::-1] if self.raw_channels == "rgb" else batch
            batch = batch if self.channels_last else batch.transpose(0, 3, 1, 2)
        else:
            batch = batch.transpose(0, 2, 3, 1) if self.channels_last else batch
        return np.ascontiguousarray(batch, dtype=self.input)

    def __repr__(self) -> str:
        height, width = self.preprocess.size
        return (
            f"ModelSpec({labels_summary(self.labels, 5)}; {width} x {height} "
            f"{self.preprocess.resize}, {self.input}, {self.precision})"
        )

    def to_json(self) -> str:
        """Write the spec as one line of JSON, with its format first."""
        fields = {**asdict(self), "provenance": self.provenance.to_dict()}
        return json.dumps({"format": FORMAT, **fields}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read what `to_json` wrote; refuse an unknown field rather than ignore it silently.

        Raises:
            SpecError: Not JSON, another format, or a field that is missing or wrong; names it.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as err:
            raise SpecError(f"The spec is not JSON: {err}.") from err
        written_as = data.pop("format", None) if isinstance(data, dict) else None
        if written_as != FORMAT:
            raise SpecError(
                f"The spec is of format {written_as!r}, not {FORMAT!r}; "
                "if it comes from a newer edgeml, update this one."
            )
        if "origin" in data and "provenance" not in data:
            data["provenance"] = _provenance_of_origin(data.pop("origin"))
        with suppress(ValueError, TypeError):
            spec: ModelSpec = read_plain(cls, data)
            return spec
        # Pydantic has the best messages, but its import takes as long as that of a runtime.
        from pydantic import TypeAdapter, ValidationError

        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as err:
            raise SpecError(f"The spec's {first_fault(err, 'spec')}.") from err


def _provenance_of_origin(origin: Any) -> dict[str, Any]:
    """Read the field that edgeml 0.1.0 wrote where newer specs have `provenance`."""
    if not isinstance(origin, dict) or not all(isinstance(text, str) for text in origin.values()):
        raise SpecError("The spec's 'origin': it must be a table of names and texts.")
    values: dict[str, Any] = json.loads(json.dumps(provenance_of_texts(origin).to_dict()))
    return values


def first_fault(error: ValidationError, document: str) -> str:
    """Return the first wrong field and why; a fault of no field is that of the `document`."""
    first = error.errors(include_url=False)[0]
    location = ".".join(str(part) for part in first["loc"]) or document
    return f"{location!r}: {first['msg']}"


def labels_summary(labels: Sequence[str], limit: int) -> str:
    """Return how many labels there are and the names of the first `limit`, on one line."""
    names = [*map(printable_label, labels[:limit]), *(["..."] if len(labels) > limit else [])]
    return f"{len(labels)} label{'s' if len(labels) > 1 else ''}: {', '.join(names)}"


def quoted_names(names: Sequence[str], limit: int = 12) -> str:
    """Return names in quotes for a message: the first `limit` of them, and how many more."""
    return some_names([*map(repr, names)], limit)


def some_names(names: Sequence[str], limit: int = 12) -> str:
    """Return names for a message: the first `limit` of them, and how many more."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest:,} more" if rest > 0 else "")


def printable_label(label: str) -> str:
    """Return a label as text for one line of a terminal."""
    return label if label.isprintable() else repr(label)
