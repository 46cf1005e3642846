"""Augmentation: hues stay, shapes move, and chance depends on (seed, epoch, index) alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgeml import Preprocess
from edgeml.training import augment
from edgeml.training.config import Augment

pytestmark = pytest.mark.train

PLAIN = Preprocess(size=(24, 24), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
# All chances in the middle: no turn, no shift, no change of light. The first draw, above 0.5,
# does not flip; the ninth, above the chance of erasing, does not cover.
STILL = np.full((1, 13), 0.5, np.float32)
STILL[:, 2] = (1 - 0.8) / (1.1 - 0.8)  # where the zoom is exactly 1


def augmented(frames: np.ndarray, draws: np.ndarray, preprocess: Preprocess = PLAIN) -> np.ndarray:
    """Augment with these draws: (N, 3, H, W)."""
    images = np.empty((len(frames), *preprocess.size, 3), np.float32)
    for image, frame, own in zip(images, frames, draws, strict=True):
        augment.augment_into(image, frame, own, preprocess)
    return images.transpose(0, 3, 1, 2)


def drawn(count: int) -> np.ndarray:
    return np.stack([augment.random_draws(index, seed=0, epoch=0) for index in range(count)])


def test_a_image_of_one_colour_keeps_its_hue_and_its_saturation() -> None:
    blue_green_red = np.array([40, 90, 200], np.uint8)
    frames = np.broadcast_to(blue_green_red, (32, 28, 28, 3)).copy()
    images = augmented(frames, drawn(32))
    red, green, blue = images.transpose(1, 0, 2, 3)
    # Ratios of channels decide both hue and saturation in HSV; brightness alone may change.
    np.testing.assert_allclose(green / red, 90 / 200, rtol=1e-4)
    np.testing.assert_allclose(blue / red, 40 / 200, rtol=1e-4)
    assert np.ptp(red.mean(axis=(1, 2))) > 0.1


def test_grey_images_stay_grey() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (16, 28, 28, 1), dtype=np.uint8).repeat(3, axis=3)
    images = augmented(grey, drawn(16))
    np.testing.assert_allclose(images[:, 0], images[:, 2], atol=1e-5)


@pytest.mark.parametrize("preset", ["colour_safe", "strong"])
def test_what_becomes_of_a_image_does_not_depend_on_its_batch(preset: Augment) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 3), dtype=np.uint8)

    def batch(rows: list[int]) -> np.ndarray:
        return augment.training_batch(frames[rows], rows, PLAIN, preset, seed=3, epoch=2)

    np.testing.assert_array_equal(batch([1])[0], batch([0, 1, 2])[1])
    assert batch([0, 1]).shape == (2, 3, 24, 24)


def test_without_augmentation_a_batch_is_what_preprocess_makes() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    preprocess = Preprocess(size=(24, 24))
    got = augment.training_batch(frames, [5, 6, 7], preprocess, "none", seed=0, epoch=0)
    np.testing.assert_array_equal(got, preprocess(list(frames)))


def test_the_strong_preset_does_more_than_the_safe_one() -> None:
    frames = np.full((40, 28, 28, 3), (40, 90, 200), np.uint8)
    safe, strong = (
        augment.training_batch(frames, range(40), PLAIN, preset, seed=0, epoch=0)
        for preset in ("colour_safe", "strong")
    )
    hue = safe[:, 1] / safe[:, 0]
    np.testing.assert_allclose(hue, 90 / 200, atol=0.02)
    assert (np.abs(strong[:, 1] / np.maximum(strong[:, 0], 1e-3) - 90 / 200) > 0.05).any()


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 3}, {"index": 8}])
def test_the_draws_differ_with_seed_epoch_and_index(other: dict[str, int]) -> None:
    key = {"seed": 3, "epoch": 2, "index": 7}
    changed = {**key, **other}
    a = augment.random_draws(key["index"], seed=key["seed"], epoch=key["epoch"])
    b = augment.random_draws(changed["index"], seed=changed["seed"], epoch=changed["epoch"])
    assert not np.array_equal(a, b)


def test_an_order_is_a_permutation_that_changes_with_the_epoch() -> None:
    first, again, next_one = (augment.order(50, seed=1, epoch=e) for e in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert sorted(first) == list(range(50))
    assert list(first) != list(next_one)


def test_without_chance_the_input_is_what_preprocess_makes() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    preprocess = Preprocess(size=(24, 24))
    np.testing.assert_allclose(
        augmented(frame[None], STILL, preprocess), preprocess([frame]), atol=1e-4
    )


def test_channels_come_in_the_order_that_the_preprocessing_names() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    preprocess = Preprocess(size=(24, 24), channels="bgr")
    np.testing.assert_allclose(
        augmented(frame[None], STILL, preprocess), preprocess([frame]), atol=1e-4
    )


def test_half_of_the_images_are_mirrored() -> None:
    frame = np.zeros((24, 24, 3), np.uint8)
    frame[:, :12] = 255
    mirrored = STILL.copy()
    mirrored[:, 0] = 0.49
    bright_side = augmented(np.stack([frame, frame]), np.concatenate([STILL, mirrored]))[:, 0]
    assert bright_side[0, :, :12].mean() == pytest.approx(1)
    assert bright_side[1, :, 12:].mean() == pytest.approx(1)


def test_turning_agrees_with_opencv() -> None:
    frame = cv2.GaussianBlur(
        np.random.default_rng(2).integers(0, 256, (48, 48, 3), dtype=np.uint8), (0, 0), 3
    )
    turned = STILL.copy()
    turned[:, 1] = 1.0  # 10 degrees
    got = augmented(frame[None], turned, Preprocess(size=(48, 48), mean=(0,) * 3, std=(1,) * 3))
    matrix = cv2.getRotationMatrix2D((23.5, 23.5), 10, 1)
    expected = cv2.warpAffine(frame, matrix, (48, 48), borderMode=cv2.BORDER_REFLECT)[..., ::-1]
    difference = np.abs(got[0].transpose(1, 2, 0) * 255 - expected)
    # OpenCV rounds to full levels and to 1/32 of a pixel.
    assert difference[4:-4, 4:-4].max() < 3


def test_one_in_four_images_is_partly_covered_with_its_mean_colour() -> None:
    frames = np.random.default_rng(3).integers(0, 256, (400, 26, 26, 3), dtype=np.uint8)
    draws = drawn(400)
    draws[:, :8] = STILL[:, :8]
    images = augmented(frames, draws)
    # Noise has no two equal pixels side by side; a cover has.
    flat = (np.diff(images, axis=3) == 0).all(axis=1).mean(axis=(1, 2))
    assert 0.18 < (flat > 0.005).mean() < 0.32
    assert flat.max() < 0.2
