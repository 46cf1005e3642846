"""Losses for labels that may be unknown, soft, or one of a group.

The multi-label losses are timm's, which are finite in half precision since 1.0.31. This module
adds that unknown targets are ignored, and that the labels of an exclusive group may be learned as
one choice (softmax) instead of independently (sigmoid).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from timm.loss.asymmetric_loss import AsymmetricLossMultiLabel
from timm.loss.distribution_balanced_loss import DistributionBalancedLoss
from timm.loss.poly_loss import PolyBinaryCrossEntropy
from timm.loss.two_way_loss import TwoWayLoss
from timm.loss.zlpr_loss import ZlprLoss
from torch import Tensor
from torch.nn import functional

from edgeml.spec.labels import UNKNOWN, Targets
from edgeml.training.config import TrainConfig

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, L), targets (N, L) in [0, 1] or NaN where unknown -> one number, float32."""
# The logit of an unknown label in a loss over sets: absent, and predicted absent with certainty.
_CERTAINLY_ABSENT = -1e4


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """How often each label is present and known in the training split.

    Attributes:
        positives: (L,) images that are known to have each label.
        known: (L,) images for which the label is known.
    """

    positives: NDArray[np.int64]
    known: NDArray[np.int64]

    @classmethod
    def of(cls, targets: Targets) -> LabelCounts:
        """Count targets (N, L) of 1, 0 and -1."""
        return cls(positives=(targets > 0).sum(axis=0), known=(targets != UNKNOWN).sum(axis=0))


def build_loss(
    config: TrainConfig,
    counts: LabelCounts,
    groups: Sequence[Sequence[int]] = (),
    *,
    device: torch.device | None = None,
) -> Loss:
    """Return the loss of a configuration for the labels of the training split, on a device.

    `groups` has the columns of each exclusive group to learn as one choice.
    """
    elementwise = _elementwise(config, counts, device)
    if not groups:
        return elementwise
    alone = sorted(set(range(len(counts.known))) - {column for group in groups for column in group})
    counts = LabelCounts(positives=counts.positives[alone], known=counts.known[alone])
    rest = _elementwise(config, counts, device) if alone else None

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        parts = [
            _choice(logits[:, list(group)], targets[:, list(group)], config.smoothing)
            for group in groups
        ]
        total = torch.stack(parts).sum()
        if rest is not None:
            total = total + len(alone) * rest(logits[:, alone], targets[:, alone])
        # The mean over decisions: one per group, and one per label outside of groups.
        return total / (len(groups) + len(alone))

    return loss


def positive_weights(counts: LabelCounts, rule: str, cap: float) -> Tensor | None:
    """Return (L,) weights of positives: negatives / positives or its root, at most `cap`."""
    if rule == "none":
        return None
    positives = np.maximum(counts.positives, 1)
    weights = np.maximum(counts.known - counts.positives, 1) / positives
    if rule == "sqrt":
        weights = np.sqrt(weights)
    return torch.from_numpy(np.minimum(weights, cap).astype(np.float32))


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the mean binary divergence of the student's labels from the teacher's.

    One-versus-all distillation (Yang et al., "Multi-Label Knowledge Distillation", ICCV 2023):
    each label is a Bernoulli variable. KL(teacher || student) of logits (N, L) at `temperature`,
    times its square so that gradients keep their size (Hinton et al., 2015). A temperature above 1
    softens both. Unknown labels are included.
    """
    expected, logits = teacher.float() / temperature, student.float() / temperature
    probabilities = expected.sigmoid()
    cross = functional.binary_cross_entropy_with_logits(logits, probabilities)
    entropy = functional.binary_cross_entropy_with_logits(expected, probabilities)
    return (cross - entropy) * temperature**2


def log_odds(logits: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Convert softmax logits (N, L) to sigmoid logits: sigmoid of the result is the softmax.

    `groups` has the columns of each group learned as one choice; other columns do not change.
    """
    converted = logits.clone()
    for group in groups:
        columns = list(group)
        choice = logits[:, columns]
        itself = torch.eye(len(columns), dtype=torch.bool, device=logits.device)
        others = choice[:, None, :].masked_fill(itself, -torch.inf).logsumexp(dim=2)
        converted[:, columns] = choice - others
    return converted


def _elementwise(config: TrainConfig, counts: LabelCounts, device: torch.device | None) -> Loss:
    """Return a loss over independent labels."""
    smoothing = config.smoothing
    weights = positive_weights(counts, config.pos_weight, config.pos_weight_cap)
    weights = None if weights is None else weights.to(device)
    match config.loss:
        case "asl":
            asl = AsymmetricLossMultiLabel(
                gamma_neg=config.gamma_neg,
                gamma_pos=config.gamma_pos,
                clip=config.asl_clip,
                smoothing=smoothing,
                reduction="none",
                pos_weight=weights,
            )
            return _over_known(asl)
        case "poly":
            return _over_known(PolyBinaryCrossEntropy(smoothing=smoothing, reduction="none"))
        case "db":
            balanced = DistributionBalancedLoss(
                counts.positives.tolist(),
                int(counts.known.max(initial=2)),
                smoothing=smoothing,
                reduction="none",
            )
            return _over_known(balanced.to(device))
        case "twoway":
            return _over_sets(TwoWayLoss())
        case "zlpr":
            return _over_sets(ZlprLoss())
        case _:

            def bce(logits: Tensor, targets: Tensor) -> Tensor:
                soft = targets * (1 - smoothing) + 0.5 * smoothing
                return functional.binary_cross_entropy_with_logits(
                    logits, soft, pos_weight=weights, reduction="none"
                )

            return _over_known(bce)


def _over_known(elements: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Average a loss (N, L) over the known labels, in float32."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        known = ~targets.isnan()
        each = elements(logits.float(), targets.nan_to_num(0.0).float())
        return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)

    return loss


def _over_sets(sets: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Exclude unknown labels from a loss that compares all labels with each other."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        unknown = targets.isnan()
        return sets(logits.float().masked_fill(unknown, _CERTAINLY_ABSENT), targets.nan_to_num(0.0))

    return loss


def _choice(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the cross-entropy of one choice among G labels, over the images where it is known.

    Mixed images have soft targets whose sum is also 1.
    """
    sums = targets.sum(dim=1)
    known = (sums - 1).abs() < 1e-3  # false for NaN
    soft = torch.where(known[:, None], targets, 0.0)
    soft = soft * (1 - smoothing) + known[:, None] * (smoothing / targets.shape[1])
    each = -(soft * functional.log_softmax(logits.float(), dim=1)).sum(dim=1)
    return each.sum() / known.sum().clamp(min=1)
