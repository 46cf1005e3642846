"""RandAugment's operations against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from edgeml.image.frame import Frame
from edgeml.training import randaugment as ops

pytestmark = pytest.mark.train


def frame() -> Frame:
    """A smooth image with all levels, and channels that differ."""
    y, x = np.mgrid[0:48, 0:64]
    channels = [x * 4, y * 5, 255 - (x + y) * 2]
    return np.clip(np.stack(channels, axis=2), 0, 255).astype(np.uint8)


def as_torch(image: Frame) -> torch.Tensor:
    return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)


def as_frame(tensor: torch.Tensor) -> Frame:
    return tensor.permute(1, 2, 0).numpy()[..., ::-1]


@pytest.mark.parametrize(
    ("ours", "theirs", "strength", "levels"),
    [
        (ops.brightness, lambda t: reference.adjust_brightness(t, 1.27), 0.27, 1),
        (ops.brightness, lambda t: reference.adjust_brightness(t, 0.73), -0.27, 1),
        (ops.colour, lambda t: reference.adjust_saturation(t, 1.27), 0.27, 2),
        (ops.colour, lambda t: reference.adjust_saturation(t, 0.73), -0.27, 2),
        (ops.contrast, lambda t: reference.adjust_contrast(t, 1.27), 0.27, 2),
        (ops.posterize, lambda t: reference.posterize(t, 7), 1.2, 0),
        (ops.solarize, lambda t: reference.solarize(t, 178.5), 0.3, 0),
        (ops.autocontrast, reference.autocontrast, 0, 1),
    ],
)
def test_an_operation_on_colours_is_that_of_torchvision(
    ours: object, theirs: object, strength: float, levels: int
) -> None:
    got = ours(frame(), strength).astype(int)  # type: ignore[operator]
    expected = as_frame(theirs(as_torch(frame()))).astype(int)  # type: ignore[operator]
    assert np.abs(got - expected).max() <= levels


def test_sharpness_is_that_of_torchvision_inside_the_border() -> None:
    got = ops.sharpness(frame(), -0.5).astype(int)
    expected = as_frame(reference.adjust_sharpness(as_torch(frame()), 0.5)).astype(int)
    assert np.abs(got - expected)[1:-1, 1:-1].max() <= 2


def test_equalizing_spreads_the_levels_evenly() -> None:
    dark = (frame() // 4).astype(np.uint8)
    for channel in ops.equalize(dark, 0).transpose(2, 0, 1):
        assert channel.max() == 255
        assert abs(float(np.median(channel)) - 128) < 24


def test_turning_by_the_same_angle_is_that_of_torchvision() -> None:
    got = ops.rotate(frame(), 9).astype(int)
    expected = as_frame(
        reference.rotate(as_torch(frame()), 9, interpolation=reference.InterpolationMode.BILINEAR)
    ).astype(int)
    assert np.abs(got - expected)[12:-12, 12:-12].max() <= 3


def test_moves_bring_in_a_grey_border() -> None:
    moved = ops.translate_x(frame(), 0.25)
    np.testing.assert_array_equal(moved[:, :15], np.broadcast_to(ops._BORDER, (48, 15, 3)))
    np.testing.assert_array_equal(moved[:, 16:], frame()[:, :48])


def test_the_same_generator_gives_the_same_image_and_another_one_another() -> None:
    first, again, other = (
        ops.randaugment(frame(), np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_image_is_never_changed_in_place() -> None:
    original = frame()
    for seed in range(40):
        ops.randaugment(original, np.random.default_rng(seed))
    np.testing.assert_array_equal(original, frame())
