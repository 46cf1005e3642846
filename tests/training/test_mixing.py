"""Mixup and CutMix: soft targets by the share of each image, the same for the same key."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgeml.training.learner import mix

pytestmark = pytest.mark.train


def batch() -> tuple[Tensor, Tensor]:
    """Images whose every pixel is their number, each with a label of its own."""
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 20, 30).clone()
    return images, torch.eye(4)


def test_without_mixup_and_cutmix_nothing_is_mixed() -> None:
    images, targets = batch()
    same, same_targets = mix(images, targets, mixup=0, cutmix=0, key=(0, 1, 2))
    assert same is images
    assert same_targets is targets


def test_mixup_blends_images_and_targets_alike() -> None:
    images, targets = batch()
    mixed, soft = mix(images, targets, mixup=1.0, cutmix=0, key=(0, 1, 2))
    share = float(soft[0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(mixed[0, 0, 0, 0], torch.tensor((1 - share) * 3.0))
    torch.testing.assert_close(soft[0], torch.tensor([share, 0, 0, 1 - share]))


@pytest.mark.parametrize("step", range(20))
def test_cutmix_counts_the_pixels_that_were_pasted(step: int) -> None:
    images, targets = batch()
    mixed, soft = mix(images, targets, mixup=0, cutmix=1.0, key=(0, step))
    pasted = (mixed[0, 0] == 3).float().mean()
    torch.testing.assert_close(soft[0], torch.tensor([1 - pasted, 0, 0, pasted]))
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(4))


def test_either_is_drawn_if_both_are_on() -> None:
    images, targets = batch()
    blended = [
        len(mix(images, targets, mixup=1.0, cutmix=1.0, key=(0, step))[0][0].unique()) == 1
        for step in range(40)
    ]
    assert 5 < sum(blended) < 40


def test_what_is_unknown_in_one_image_is_unknown_in_the_mixture() -> None:
    images, targets = batch()
    targets[0, 2] = torch.nan
    _, soft = mix(images, targets, mixup=1.0, cutmix=0, key=(0, 1))
    assert soft.isnan().nonzero().tolist() == [[0, 2], [3, 2]]


def test_the_same_key_mixes_in_the_same_way() -> None:
    images, targets = batch()
    first, again = (mix(images, targets, mixup=1.0, cutmix=1.0, key=(3, 7, 1)) for _ in range(2))
    other = mix(images, targets, mixup=1.0, cutmix=1.0, key=(3, 8, 1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first[0], other[0])
