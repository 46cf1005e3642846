"""ModelSpec: what a model file means, and how that is written into the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import SpecError
from edgeml.preprocess import Preprocess

if TYPE_CHECKING:
    from pydantic import ValidationError

FORMAT = "edgeml/1"

METADATA_KEY = "edgeml"
"""Where the spec's JSON stands: ONNX metadata_props, OpenVINO rt_info, safetensors metadata."""

Precision = Literal["fp32", "fp16", "int8"]
Activation = Literal["sigmoid", "group_softmax", "none"]


@dataclass(frozen=True, kw_only=True)
class LabelGroup:
    """Labels that belong together.

    Attributes:
        name: What they are, for example `colour`.
        labels: Their names; each must be a label of the model, in no other group.
        rule: `one`: exactly one of them is present, the best one; `any`: each for itself.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    labels: tuple[str, ...]
    rule: Literal["one", "any"] = "any"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that cannot be read off a model's tensors. Travels inside the model file.

    Attributes:
        labels: One name for each output, in order.
        thresholds: Per label, on probabilities; a label is present at or above its threshold.
        preprocess: How a frame becomes the input.
        groups: Labels that exclude each other, or belong together.
        input: `float32`: (N, 3, H, W) normalised by the Predictor; `uint8`: raw (N, H, W, 3) BGR
            frames of the right size, normalised inside the graph.
        activation: What the Predictor still applies to the output to get probabilities:
            `group_softmax` is a softmax over each group of rule `one`, a sigmoid for other labels.
        precision: What the file was exported as.
        metrics: Shares of 1 on the data that the model was checked with, for example `mAP`.
        origin: Where the model comes from: digests, versions, the split. Told, never acted on,
            but for `split`, which lets `edgeml eval` find the images that training did not see.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    preprocess: Preprocess
    groups: tuple[LabelGroup, ...] = ()
    task: Literal["multilabel"] = "multilabel"
    input: Literal["float32", "uint8"] = "float32"
    activation: Activation = "sigmoid"
    precision: Precision = "fp32"
    metrics: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise SpecError(f"labels must be one or more different names, not {self.labels!r}.")
        if len(self.thresholds) != len(self.labels):
            raise SpecError(
                f"There are {len(self.labels)} labels but {len(self.thresholds)} thresholds; "
                "give one for each label."
            )
        for label, threshold in zip(self.labels, self.thresholds, strict=True):
            if not 0 <= threshold <= 1:
                raise SpecError(f"The threshold of {label!r} is {threshold}; it must be 0 to 1.")
        grouped = [label for group in self.groups for label in group.labels]
        for label in grouped:
            if label not in self.labels:
                raise SpecError(f"A group names {label!r}, which is not among the labels.")
            if grouped.count(label) > 1:
                raise SpecError(f"{label!r} is in two groups; a label belongs to one at most.")

    def choices(self) -> list[list[int]]:
        """Give the columns of each group whose probabilities are a softmax; none with sigmoids."""
        if self.activation != "group_softmax":
            return []
        return [
            [self.labels.index(label) for label in group.labels]
            for group in self.groups
            if group.rule == "one"
        ]

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply what is still to be applied: (N, labels) float32 to the same."""
        if self.activation == "none":
            return logits
        # exp of a large positive number overflows; a logit below -60 is 0 in float32 anyway.
        scores = (1 / (1 + np.exp(-np.clip(logits, -60, None)))).astype(np.float32)
        for columns in self.choices():
            powers = np.exp(logits[:, columns] - logits[:, columns].max(axis=1, keepdims=True))
            scores[:, columns] = powers / powers.sum(axis=1, keepdims=True)
        return scores

    def to_json(self) -> str:
        """Write the spec as one line of JSON, with its format first."""
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read what `to_json` wrote. An unknown field is an error: it would be silently ignored.

        Raises:
            SpecError: Not JSON, another format, or a field that is missing or wrong; names it.
        """
        # Pydantic comes with typer, but takes a tenth of a second: only those who read a spec pay.
        from pydantic import TypeAdapter, ValidationError

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
        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as err:
            raise SpecError(f"The spec's {first_fault(err, 'spec')}.") from err


def first_fault(error: ValidationError, whole: str) -> str:
    """Say in words which field is wrong first, and why; `whole` stands for all of them."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    return f"{where!r}: {first['msg']}"
