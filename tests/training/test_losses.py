"""Losses against timm's and PyTorch's own, and what is unknown counts for nothing."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from timm.loss import create_classification_loss
from torch import Tensor
from torch.nn import functional

from edgeml.errors import InputError
from edgeml.training.config import LossName, TrainConfig
from edgeml.training.losses import (
    LabelCounts,
    build_loss,
    distillation,
    log_odds,
    positive_weights,
)

pytestmark = pytest.mark.train

NAMES = get_args(LossName)
COUNTS = np.array([20, 5, 50, 1])
LABEL_COUNTS = LabelCounts(positives=COUNTS, known=np.full(4, 80))


def batch(seed: int = 0, n: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 4, generator=generator)
    return logits, (torch.rand(n, 4, generator=generator) < 0.4).float()


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_that_of_timm(name: str) -> None:
    logits, targets = batch()
    counts = {"class_counts": COUNTS.tolist(), "num_samples": 80} if name == "db" else {}
    extra = {"asl_reduction": "mean"} if name == "asl" else {}
    reference = create_classification_loss(name, multi_label=True, **counts, **extra)
    ours = build_loss(TrainConfig(loss=name), LABEL_COUNTS)
    assert float(ours(logits, targets)) == pytest.approx(
        float(reference(logits, targets)), rel=1e-6
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_label_counts_for_nothing(name: str) -> None:
    logits, targets = batch()
    targets[3, 1] = targets[7, 2] = torch.nan
    moved = logits.clone()
    moved[3, 1], moved[7, 2] = 9.0, -9.0
    loss = build_loss(TrainConfig(loss=name), LABEL_COUNTS)
    logits.requires_grad_()
    value = loss(logits, targets)
    expected = loss(moved, targets)
    assert float(value.detach()) == pytest.approx(float(expected), rel=1e-6)
    value.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[3, 1] == logits.grad[7, 2] == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_which_nothing_is_known_has_a_finite_loss(name: str) -> None:
    logits, targets = batch()
    value = build_loss(TrainConfig(loss=name), LABEL_COUNTS)(
        logits, torch.full_like(targets, torch.nan)
    )
    assert torch.isfinite(value)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_finite(name: str) -> None:
    logits, targets = batch()
    value = build_loss(TrainConfig(loss=name), LABEL_COUNTS)((70 * logits).half(), targets)
    assert value.dtype == torch.float32
    assert torch.isfinite(value)


def test_smoothing_moves_targets_towards_one_half() -> None:
    logits, targets = batch()
    got = build_loss(TrainConfig(smoothing=0.2), LABEL_COUNTS)(logits, targets)
    expected = functional.binary_cross_entropy_with_logits(logits, targets * 0.8 + 0.1)
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


def test_positive_weights_are_capped_ratios() -> None:
    balanced = positive_weights(LABEL_COUNTS, "balanced", 10)
    root = positive_weights(LABEL_COUNTS, "sqrt", 10)
    assert balanced is not None
    assert root is not None
    np.testing.assert_allclose(balanced, [3, 10, 0.6, 10])
    np.testing.assert_allclose(root, np.sqrt([3, 15, 0.6, 79]), rtol=1e-6)
    assert positive_weights(LABEL_COUNTS, "none", 10) is None
    logits, targets = batch()
    got = build_loss(TrainConfig(pos_weight="balanced"), LABEL_COUNTS)(logits, targets)
    expected = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=balanced)
    assert float(got) == pytest.approx(float(expected), rel=1e-6)


def test_a_group_is_one_choice_and_other_labels_are_questions() -> None:
    logits, targets = batch()
    targets[:, :3] = functional.one_hot(torch.arange(16) % 3, 3).float()
    got = build_loss(TrainConfig(group_loss="softmax"), LABEL_COUNTS, [[0, 1, 2]])(logits, targets)
    choice = functional.cross_entropy(logits[:, :3], torch.arange(16) % 3)
    question = functional.binary_cross_entropy_with_logits(logits[:, 3], targets[:, 3])
    assert float(got) == pytest.approx(float(choice + question) / 2, rel=1e-6)


def test_a_choice_that_is_not_known_counts_for_nothing() -> None:
    logits, targets = batch()
    targets[:, :3] = functional.one_hot(torch.arange(16) % 3, 3).float()
    loss = build_loss(TrainConfig(group_loss="softmax"), LABEL_COUNTS, [[0, 1, 2]])
    kept = loss(logits[1:], targets[1:])
    targets[0, :3] = torch.nan
    logits[0, 3], targets[0, 3] = logits[1:, 3].mean(), torch.nan
    assert float(loss(logits, targets)) == pytest.approx(float(kept), rel=1e-6)


def test_the_log_odds_of_a_choice_give_its_softmax() -> None:
    logits, _ = batch()
    questions = log_odds(logits, [[0, 2, 3]])
    columns = [0, 2, 3]
    torch.testing.assert_close(
        questions[:, columns].sigmoid(), logits[:, columns].softmax(dim=1), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(questions[:, 1], logits[:, 1])


def test_distillation_is_the_divergence_of_bernoulli_variables() -> None:
    student, teacher = batch(0)[0], batch(1)[0]
    p, q = (teacher / 2).sigmoid().double(), (student / 2).sigmoid().double()
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert float(distillation(student, teacher, 2.0)) == pytest.approx(
        float(4 * divergence.mean()), rel=1e-4
    )
    assert float(distillation(teacher, teacher, 2.0)) == pytest.approx(0, abs=1e-6)


def test_losses_over_sets_refuse_soft_targets() -> None:
    for soft in ({"smoothing": 0.1}, {"mixup": 0.2}, {"cutmix": 1.0}):
        with pytest.raises(InputError, match="does not support smoothing, mixup or cutmix"):
            TrainConfig(loss="zlpr", **soft)
    with pytest.raises(InputError, match="only bce and asl do"):
        TrainConfig(loss="poly", pos_weight="sqrt")
