"""Preprocess against Pillow, timm and plain numpy: none of the expected values are our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from edgeml import Preprocess
from edgeml.errors import InputError, SpecError
from edgeml.image.frame import Frame
from edgeml.image.resample import resize

SIZES = (64, 96, 128, 160, 224)
FILTERS = {
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB, for 8-bit samples."""
    error = float(((a.astype(float) - b) ** 2).mean())
    return 10 * np.log10(255**2 / error) if error else np.inf


def pillow(frame: Frame, size: tuple[int, int], interpolation: str = "linear") -> Frame:
    # One axis after the other, because from version 13 on Pillow changes their order for some
    # shapes (python-pillow/Pillow#9549), which shows where the cubic overshoots.
    picture = Image.fromarray(frame).resize((size[1], len(frame)), FILTERS[interpolation])
    return np.asarray(picture.resize((size[1], size[0]), FILTERS[interpolation]))


def drawn(height: int, width: int, seed: int = 0) -> Frame:
    """Draw what is hard for a resize: edges of full contrast, thin lines, and smooth shades."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    shade = np.stack([x / width, y / height, (x + y) / (width + height)], axis=2)
    frame: Frame = (255 * shade).astype(np.uint8)
    for _ in range(12):
        points = rng.uniform(0, 1, (4, 2)) * (width, height)
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        cv2.fillPoly(frame, [points.astype(np.int32)], colour)
        a, b = (tuple(map(int, point)) for point in points[:2])
        cv2.line(frame, a, b, (255, 255, 255), 1 + max(height, width) // 300)
    return frame


def noise(height: int, width: int, seed: int = 0) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def photos(clothing: Path) -> Sequence[Frame]:
    paths = sorted((clothing / "images").glob("*.jpg"))[::200]
    return [frame for path in paths if (frame := cv2.imread(str(path))) is not None]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_squash_of_real_photos_is_within_50_db_of_pillow(
    photos: Sequence[Frame], size: int, interpolation: str
) -> None:
    preprocess = Preprocess(size=(size, size), interpolation=interpolation)  # type: ignore[arg-type]
    assert len(photos) > 10
    for photo in photos:
        expected = pillow(photo, (size, size), interpolation)
        assert psnr(preprocess.fit(photo), expected) >= 50


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize(("height", "width"), [(213, 213), (200, 260), (192, 192), (160, 224)])
def test_sharp_photos_that_are_blurred_and_sampled_are_within_46_db_of_pillow(
    name: str, height: int, width: int
) -> None:
    photo = load_sample_image(name)  # 427 x 640
    size = height, width
    assert psnr(resize(photo, size), pillow(photo, size)) >= 46
    # What linear sampling alone would be: the test can tell.
    sampled = cv2.resize(photo, (width, height), interpolation=cv2.INTER_LINEAR)
    assert psnr(sampled, pillow(photo, size)) < 37


@pytest.mark.parametrize("scale", [2.0, 2.1, 2.5, 3.0, 4.0, 4.7, 5.9])
def test_a_blur_and_a_sample_are_as_wide_as_the_triangle_that_they_stand_for(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeml.image.resample._LARGE", 0)
    points = round(scale * 24)

    def variances(of: Callable[[Frame, tuple[int, int]], Frame]) -> NDArray[np.float64]:
        """Measure the filter of each point of the result, by lines that light up one by one."""
        lit = np.zeros((points, points, points, 3), np.uint8)
        lit[np.arange(points), np.arange(points)] = 255
        weights = np.stack([of(frame, (24, 24))[:, 12, 0] for frame in lit]).astype(float)
        weights /= weights.sum(axis=0)
        places = np.arange(points)[:, None]
        centres = (weights * places).sum(axis=0)
        # At the border all filters end.
        return (weights * (places - centres) ** 2).sum(axis=0)[4:-4]

    expected = variances(pillow).mean()
    assert variances(resize).mean() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_squash_of_large_photos_which_are_halved_is_within_46_db_of_pillow(
    photos: Sequence[Frame], size: int, interpolation: str
) -> None:
    for photo, scale in zip(photos[:4], (4.0, 6.1, 8.0, 9.7), strict=True):
        large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        result = resize(large, (size, size), interpolation)  # type: ignore[arg-type]
        assert psnr(result, pillow(large, (size, size), interpolation)) >= 46


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    "sides", [(480, 640), (481, 643), (97, 89), (223, 225), (31, 17), (224, 500), (959, 1279)]
)
def test_squash_of_drawings_is_within_50_db_of_pillow(
    sides: tuple[int, int], interpolation: str
) -> None:
    frame = drawn(*sides)
    for size in ((224, 224), (160, 96), (65, 131)):
        # Full contrast on a single pixel is the worst case of halving; photos are far from it.
        bar = 50 if max(sides) < 4 * min(size) else 40
        result = resize(frame, size, interpolation)  # type: ignore[arg-type]
        assert psnr(result, pillow(frame, size, interpolation)) >= bar, size


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    "sides", [(1, 1), (1, 300), (300, 1), (2, 2), (2000, 9), (7, 3001), (1, 4000), (5000, 100)]
)
def test_strips_and_single_pixels_match_pillow(sides: tuple[int, int], interpolation: str) -> None:
    frame = cv2.GaussianBlur(noise(*sides), (0, 0), 2)
    frame = cv2.normalize(frame, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    result = resize(frame, (64, 48), interpolation)
    assert result.shape == (64, 48, 3)
    assert psnr(result, pillow(frame, (64, 48), interpolation)) >= 46


def test_where_nothing_is_halved_no_sample_is_further_than_one_level_from_pillow() -> None:
    frame = noise(200, 300)  # the worst input for rounding
    for interpolation in FILTERS:
        result = resize(frame, (96, 128), interpolation)  # type: ignore[arg-type]
        # Pillow rounds between its two passes, which moves a sample by one level at most.
        error = np.abs(result.astype(int) - pillow(frame, (96, 128), interpolation))
        assert error.max() <= 1


@pytest.mark.parametrize("sides", [(481, 641), (97, 89), (31, 17), (1, 300), (2000, 9)])
def test_nearest_takes_the_very_pixels_that_pillow_takes(sides: tuple[int, int]) -> None:
    frame = noise(*sides)
    expected = Image.fromarray(frame).resize((48, 64), Image.Resampling.NEAREST)
    assert np.array_equal(resize(frame, (64, 48), "nearest"), np.asarray(expected))


@pytest.mark.parametrize("sides", [(480, 640), (97, 89), (31, 17), (2000, 9), (1280, 960)])
def test_plain_linear_comes_out_as_from_opencv(sides: tuple[int, int]) -> None:
    frame = drawn(*sides)
    result = resize(frame, (64, 48), antialias=False)
    expected = cv2.resize(frame, (48, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(result.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("sides", [(480, 640), (97, 89), (1280, 960)])
def test_plain_cubic_comes_out_as_from_opencv_but_for_the_border_that_it_repeats(
    sides: tuple[int, int],
) -> None:
    frame = drawn(*sides)
    result = resize(frame, (64, 48), "cubic", antialias=False)
    expected = cv2.resize(frame, (48, 64), interpolation=cv2.INTER_CUBIC)
    assert np.abs(result.astype(int) - expected)[2:-2, 2:-2].max() <= 1


@pytest.mark.parametrize("sides", [(480, 640), (640, 480), (300, 300)])
def test_squash_crop_is_the_centre_of_the_squashed_picture(sides: tuple[int, int]) -> None:
    frame = drawn(*sides)
    whole = pillow(frame, (128, 128))
    preprocess = Preprocess(size=(112, 112), resize="squash_crop", crop=0.875)
    assert psnr(preprocess.fit(frame), whole[8:120, 8:120]) >= 46
    assert preprocess.min_decode_size == (128, 128)


def test_resize_to_its_own_size_gives_the_very_samples() -> None:
    frame = noise(50, 40)
    assert np.array_equal(resize(frame, (50, 40)), frame)


@given(
    sides=st.tuples(st.integers(420, 2000), st.integers(420, 2000)),
    scales=st.tuples(st.floats(2, 4.5), st.floats(2, 4.5)),
)
@settings(max_examples=60)
def test_whatever_is_left_out_in_halving_the_result_has_the_size_that_was_asked_for(
    sides: tuple[int, int], scales: tuple[float, float]
) -> None:
    size = int(sides[0] / scales[0]), int(sides[1] / scales[1])
    assert resize(np.zeros((*sides, 3), np.uint8), size).shape == (*size, 3)


def test_an_odd_side_is_halved_without_stretching_the_picture() -> None:
    frame = cv2.GaussianBlur(drawn(901, 901), (0, 0), 3)
    expected = pillow(frame, (224, 224))
    assert psnr(resize(frame, (224, 224)), expected) >= 46
    # What it would be if the last lines were only dropped: the test can tell.
    assert psnr(resize(frame[:900, :900], (224, 224)), expected) < 44


def test_views_with_any_strides_are_resized_as_their_copies() -> None:
    frame = noise(200, 300)
    for view in (frame[::-1], frame[:, ::-1], frame[::2, ::3], frame[..., ::-1], frame[5:, 7:]):
        for size in ((96, 96), (20, 20)):
            assert np.array_equal(resize(view, size), resize(view.copy(), size))


@pytest.mark.parametrize("sides", [(480, 640), (640, 480), (300, 300), (161, 500), (37, 20)])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_crop_is_the_centre_of_the_picture_resized_in_proportion(
    sides: tuple[int, int], crop: float
) -> None:
    frame = drawn(*sides)
    preprocess = Preprocess(size=(112, 112), resize="crop", crop=crop)
    # torchvision: the shorter side becomes 112 / crop, the other keeps the ratio, cut down.
    short = int(112 / crop)
    shape = [short if s == min(sides) else int(short * s / min(sides)) for s in sides]
    whole = pillow(frame, (shape[0], shape[1]))
    top, left = (round((side - 112) / 2) for side in shape)
    bar = 50 if min(sides) < 4 * short else 46  # a drawing that is halved, see above
    assert psnr(preprocess.fit(frame), whole[top : top + 112, left : left + 112]) >= bar


def test_crop_of_a_strip_costs_no_more_than_what_is_seen_of_it() -> None:
    # Whole, it would be 224 x 224,000,000 pixels: more than a hundred gigabytes.
    strip = np.full((1, 1_000_000, 3), 77, np.uint8)
    out = Preprocess(size=(224, 224), resize="crop").fit(strip)
    assert out.shape == (224, 224, 3)
    assert (out == 77).all()


@pytest.mark.parametrize(
    ("sides", "inner", "corner"),
    [
        ((100, 200), (50, 100), (25, 0)),
        ((200, 100), (100, 50), (0, 25)),
        ((200, 201), (100, 100), (0, 0)),
        ((30, 10), (100, 33), (0, 33)),
        ((5000, 10), (100, 1), (0, 49)),
    ],
)
def test_letterbox_keeps_the_ratio_and_pads_the_rest(
    sides: tuple[int, int], inner: tuple[int, int], corner: tuple[int, int]
) -> None:
    frame = np.full((*sides, 3), 200, np.uint8)
    out = Preprocess(size=(100, 100), resize="letterbox", pad=9).fit(frame)
    expected = np.full((100, 100, 3), 9, np.uint8)
    expected[corner[0] : corner[0] + inner[0], corner[1] : corner[1] + inner[1]] = 200
    assert np.array_equal(out, expected)


def test_letterbox_holds_what_pillow_makes_of_the_picture() -> None:
    frame = drawn(333, 517)
    out = Preprocess(size=(128, 192), resize="letterbox").fit(frame)
    height = round(333 * 192 / 517)
    top = (128 - height) // 2
    assert psnr(out[top : top + height], pillow(frame, (height, 192))) >= 50


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_normalisation_is_the_textbook_formula(channels: str) -> None:
    frame = noise(32, 48)
    preprocess = Preprocess(size=(32, 48), channels=channels)  # type: ignore[arg-type]
    ordered = frame[..., ::-1] if channels == "rgb" else frame
    expected = (ordered / 255.0 - np.array(preprocess.mean)) / np.array(preprocess.std)
    batch = preprocess([frame])
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    # Relative to the range of the values: near zero the difference of two floats has no digits.
    assert np.abs(batch[0] - expected.transpose(2, 0, 1)).max() <= 1e-6 * np.abs(expected).max()
    assert np.array_equal(batch, preprocess.normalize([frame]))


@pytest.mark.train
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["squash", "center"])
def test_the_input_is_that_of_timms_own_evaluation_transform(
    photos: Sequence[Frame], mode: str, interpolation: str
) -> None:
    create_transform = pytest.importorskip("timm.data").create_transform
    preprocess = Preprocess(
        size=(128, 128),
        resize="squash" if mode == "squash" else "crop",
        interpolation="linear" if interpolation == "bilinear" else "cubic",
    )
    transform = create_transform(
        (3, 128, 128), interpolation=interpolation, crop_pct=1.0, crop_mode=mode
    )
    for photo in photos:
        expected = transform(Image.fromarray(photo[..., ::-1])).numpy()
        level = 1 / 255 / np.array(preprocess.std)[:, None, None]
        error = np.abs(preprocess([photo])[0] - expected) / level
        # The overshoots of the cubic depend on the order of the axes, see `pillow`.
        assert error.max() <= (1.01 if interpolation == "bilinear" else 8)
        assert error.mean() <= 0.3


@given(
    level=st.integers(0, 255),
    sides=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    how=st.sampled_from(["squash", "crop"]),
    interpolation=st.sampled_from(["linear", "cubic"]),
)
def test_a_constant_picture_stays_constant(
    level: int, sides: tuple[int, int], size: tuple[int, int], how: str, interpolation: str
) -> None:
    preprocess = Preprocess(size=size, resize=how, interpolation=interpolation)  # type: ignore[arg-type]
    out = preprocess.fit(np.full((*sides, 3), level, np.uint8))
    assert out.shape == (*size, 3)
    assert (out == level).all()


@given(
    sides=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    how=st.sampled_from(["squash", "crop", "letterbox"]),
    interpolation=st.sampled_from(["linear", "cubic"]),
    seed=st.integers(0, 1000),
)
def test_a_batch_is_bit_for_bit_its_frames_one_by_one_and_in_range(
    sides: tuple[int, int], size: tuple[int, int], how: str, interpolation: str, seed: int
) -> None:
    preprocess = Preprocess(size=size, resize=how, interpolation=interpolation)  # type: ignore[arg-type]
    frames = [noise(*sides, seed), noise(*sides[::-1], seed + 1), noise(8, 9, seed)]
    batch = preprocess(frames)
    assert batch.shape == (3, 3, *size)
    for frame, planes in zip(frames, batch, strict=True):
        assert np.array_equal(preprocess([frame])[0], planes)
    low = [-mean / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    high = [(1 - mean) / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    for plane, least, most in zip(batch.transpose(1, 0, 2, 3), low, high, strict=True):
        assert least - 1e-5 <= plane.min() <= plane.max() <= most + 1e-5


@given(
    sides=st.tuples(st.integers(1, 250), st.integers(1, 250)),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    interpolation=st.sampled_from(["linear", "cubic"]),
    seed=st.integers(0, 1000),
)
def test_a_mirrored_picture_gives_the_mirrored_input(
    sides: tuple[int, int], size: tuple[int, int], interpolation: str, seed: int
) -> None:
    frame = noise(min(sides[0], 4 * size[0] - 1), min(sides[1], 4 * size[1] - 1), seed)
    straight = resize(frame, size, interpolation)  # type: ignore[arg-type]
    mirrored = resize(frame[:, ::-1], size, interpolation)[:, ::-1]  # type: ignore[arg-type]
    assert np.abs(straight.astype(int) - mirrored).max() <= 1


def test_a_mirrored_large_photo_gives_the_mirrored_input() -> None:
    # Halving drops the last line of an odd side, which is another line in the mirror.
    for sides in ((961, 1283), (2000, 1333)):
        frame = cv2.GaussianBlur(drawn(*sides), (0, 0), 2)
        straight, mirrored = resize(frame, (128, 128)), resize(frame[:, ::-1], (128, 128))
        assert psnr(straight, mirrored[:, ::-1]) >= 46


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((1, 10, 10, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_what_is_no_frame_is_refused_with_its_shape(bad: Frame) -> None:
    with pytest.raises(InputError, match=r"A frame is"):
        Preprocess(size=(8, 8))([bad])


@pytest.mark.parametrize(
    "field",
    [
        {"size": (0, 8)},
        {"size": (8, 5000)},
        {"crop": 0.0},
        {"crop": 1.5},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (0.0, float("nan"), 0.0)},
        {"pad": 256},
        {"resize": "stretch"},
        {"interpolation": "sinc"},
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(field))):
        Preprocess(**{"size": (8, 8), **field})  # type: ignore[arg-type]


def test_whole_is_the_size_before_the_cut() -> None:
    assert Preprocess(size=(224, 160), resize="crop", crop=0.875).min_decode_size == (256, 183)
    assert Preprocess(size=(224, 160), crop=0.875).min_decode_size == (224, 160)


@pytest.mark.parametrize("how", ["squash", "crop", "squash_crop", "letterbox"])
@pytest.mark.parametrize("interpolation", ["linear", "cubic", "lanczos", "nearest"])
def test_an_input_is_bit_for_bit_its_fitted_frame_normalised(how: str, interpolation: str) -> None:
    # A graph with uint8 input gets the one, a graph with float32 input the other.
    preprocess = Preprocess(size=(48, 64), resize=how, interpolation=interpolation)  # type: ignore[arg-type]
    for sides in ((480, 640), (97, 31), (48, 64), (48, 200), (20, 30), (64, 48)):
        frame = noise(*sides)
        expected = preprocess.normalize([preprocess.fit(frame)])
        assert np.array_equal(preprocess([frame]), expected), sides


def test_what_was_resized_before_changes_nothing() -> None:
    cases = [
        (noise(*sides, seed=i), size, how)
        for i, sides in enumerate([(480, 640), (33, 500), (700, 41), (1200, 1600), (481, 643)])
        for size in ((96, 128), (224, 224), (20, 20))
        for how in FILTERS
    ]
    results: dict[int, Frame] = {}

    def work(order: Sequence[int]) -> list[tuple[int, Frame]]:
        return [(i, resize(cases[i][0], cases[i][1], cases[i][2])) for i in order]  # type: ignore[arg-type]

    orders = [np.random.default_rng(seed).permutation(len(cases)).tolist() for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        for done in pool.map(work, orders):
            for i, result in done:
                assert np.array_equal(results.setdefault(i, result), result)


@pytest.mark.parametrize("sides", [(480, 640), (720, 1280), (1080, 1920), (481, 643), (7, 9)])
@pytest.mark.parametrize("size", [(224, 224), (160, 160), (384, 384), (1, 1), (11, 300)])
def test_the_weights_of_each_point_are_those_of_pillow(
    sides: tuple[int, int], size: tuple[int, int]
) -> None:
    """A single bright line tells the weight of that line for each point, to a 255th."""
    for line in (0, sides[0] // 3, sides[0] - 1):
        frame = np.zeros((sides[0], 4, 3), np.uint8)
        frame[line] = 255
        result = resize(frame, (size[0], 4))
        if sides[0] < 4 * size[0]:  # nothing is halved
            error = np.abs(result.astype(int) - pillow(frame, (size[0], 4)))
            assert error.max() <= 1


@pytest.mark.parametrize("sides", [(480, 640), (641, 480), (50, 90)])
def test_a_plain_crop_is_cut_first_and_then_resized(sides: tuple[int, int]) -> None:
    frame = drawn(*sides)
    side = min(sides)
    top, left = ((whole - side) // 2 for whole in sides)
    square = frame[top : top + side, left : left + side]
    preprocess = Preprocess(size=(64, 64), resize="crop", antialias=False, mean=(0, 0, 0))
    expected = cv2.resize(square, (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(preprocess.fit(frame).astype(int) - expected).max() <= 1
    planes = preprocess([frame])[0] * np.array(preprocess.std)[:, None, None] * 255
    assert np.abs(planes[::-1].transpose(1, 2, 0) - expected).max() < 1.01
