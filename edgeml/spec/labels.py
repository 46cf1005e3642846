"""The vocabulary of labels: groups, scores, targets, decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class LabelGroup:
    """Labels that belong together.

    Attributes:
        name: What they are, for example `colour`.
        labels: Their names; each must be a label of the model, in no other group.
        rule: `one`: exactly one of them is present, the best one; `any`: each for itself.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    labels: tuple[str, ...]
    rule: Literal["one", "any"] = "any"


Scores = NDArray[np.float32]
"""(N, labels): probabilities."""

Targets = NDArray[np.int8]
"""(N, labels): 1 where an image has a label, 0 where it does not, UNKNOWN where nobody looked."""

UNKNOWN = -1
Decisions = NDArray[np.bool_]
"""(N, labels): whether a label is present."""
