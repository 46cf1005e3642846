"""From frames to the network's input: the only code in edgeml that does it, training included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Literal, NamedTuple, cast, get_args

import cv2
import numpy as np

from edgeml.errors import SpecError
from edgeml.image.filters import Matrix
from edgeml.image.frame import Batch, Frame, check_frame
from edgeml.image.modes import Interpolation, Resize
from edgeml.image.resample import Plane, Window, full_window, resize, resize_planes

_LARGER_THAN_ANY = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a frame becomes an input. Part of the `ModelSpec`; equal values preprocess equally.

    Attributes:
        size: (height, width) of the network's input, in pixels.
        resize: `squash` fits the full frame into `size` without keeping its aspect ratio, so that
            no labelled object is cut away; `crop` keeps the ratio and cuts out the centre;
            `squash_crop` changes the ratio and cuts out the centre; `letterbox` keeps the ratio
            and pads with `pad`.
        interpolation: The filter, antialiased as in Pillow: `linear` is the triangle, `cubic`
            Keys' kernel with a = -0.5, `lanczos` has three lobes, `nearest` takes one pixel.
        antialias: False uses as few pixels when shrinking as when enlarging, as OpenCV and
            OpenVINO do (`cubic` is then theirs, with a = -0.75), and `crop` cuts first. For
            networks that were trained this way.
        crop: For the two modes that cut, the share of the resized image's sides that remains,
            in (0, 1].
        pad: For `letterbox`, the grey level of the border, 0 to 255.
        mean, std: Per channel, in the order of `channels`, on a scale of 0 to 1.
        channels: The colour order that the network expects.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    size: tuple[int, int]
    resize: Resize = "squash"
    interpolation: Interpolation = "linear"
    antialias: bool = True
    crop: float = 1.0
    pad: int = 114
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    channels: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        height, width = self.size
        if not (1 <= height <= 4096 and 1 <= width <= 4096):
            raise SpecError(f"preprocess.size is {self.size}; each side must be 1 to 4096 pixels.")
        for field, choices in (("resize", Resize), ("interpolation", Interpolation)):
            if getattr(self, field) not in get_args(choices):
                raise SpecError(
                    f"preprocess.{field} is {getattr(self, field)!r}; "
                    f"it must be one of {', '.join(get_args(choices))}."
                )
        if not 0 <= self.pad <= 255:
            raise SpecError(f"preprocess.pad is {self.pad}; it must be 0 to 255.")
        if not 0 < self.crop <= 1:
            raise SpecError(f"preprocess.crop is {self.crop}; it must be above 0 and at most 1.")
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(self.std)) or min(self.std) <= 0:
            raise SpecError(f"preprocess.mean {self.mean} or std {self.std} is not usable.")

    @cached_property
    def min_decode_size(self) -> tuple[int, int]:
        """The smallest (height, width) that an image is resized to before any of it is cut.

        For `read_image(..., at_least=preprocess.min_decode_size)`. A filter that skips pixels must
        skip those of the full image, so its size is larger than any image.
        """
        if self.interpolation == "nearest" or not self.antialias:
            return _LARGER_THAN_ANY, _LARGER_THAN_ANY
        crop = self.crop if self.resize in ("crop", "squash_crop") else 1
        return math.ceil(self.size[0] / crop), math.ceil(self.size[1] / crop)

    def __call__(self, frames: Sequence[Frame]) -> Batch:
        """Resize and normalise frames to an array (N, 3, *size) float32.

        Raises:
            InputError: A frame is not (H, W, 3) uint8.
        """
        batch = np.empty((len(frames), 3, *self.size), np.float32)
        for frame, planes in zip(frames, batch, strict=True):
            self._normalize_into(planes, self._levels(frame))
        return batch

    def fit(self, frame: Frame) -> Frame:
        """Bring one frame to `size`, still (H, W, 3) uint8 BGR.

        Raises:
            InputError: The frame is not (H, W, 3) uint8.
        """
        check_frame(frame)
        frame, place = self._placed(frame)
        inner = resize(
            frame,
            place.resized,
            self.interpolation,
            antialias=self.antialias,
            window=place.window,
        )
        if inner.shape[:2] == self.size:
            return inner
        canvas: Frame = np.full((*self.size, 3), self.pad, np.uint8)
        canvas[place.inner] = inner
        return canvas

    def normalize(self, frames: Sequence[Frame]) -> Batch:
        """Normalise frames that already have `size` to an array (N, 3, *size) float32."""
        batch = np.empty((len(frames), 3, *self.size), np.float32)
        for frame, planes in zip(frames, batch, strict=True):
            self._normalize_into(planes, self._ordered(cast("Sequence[Plane]", cv2.split(frame))))
        return batch

    def _levels(self, frame: Frame) -> Sequence[Plane]:
        """Return the result of `fit` as planes in the order of `channels`."""
        check_frame(frame)
        frame, place = self._placed(frame)
        planes: Sequence[Plane] = resize_planes(
            frame, place.resized, self.interpolation, self.antialias, place.window
        )
        if planes[0].shape != self.size:
            canvas = np.full((3, *self.size), self.pad, np.uint8)
            for target, plane in zip(canvas, planes, strict=True):
                target[place.inner] = plane
            planes = tuple(canvas)
        return self._ordered(planes)

    def _normalize_into(self, planes: Matrix, levels: Sequence[Plane]) -> None:
        """Write (level / 255 - mean) / std; both are in the order of `channels`."""
        for plane, level, table in zip(planes, levels, _tables(self.mean, self.std), strict=True):
            cv2.LUT(level, table, plane)

    def _ordered(self, bgr: Sequence[Plane]) -> Sequence[Plane]:
        return bgr[::-1] if self.channels == "rgb" else bgr

    def _placed(self, frame: Frame) -> tuple[Frame, _Place]:
        """Return the part of a frame to resize, and how to place it.

        Without antialiasing `crop` cuts first, as model_api does: in the other order a filter that
        does not widen would use other pixels.
        """
        if self.resize != "crop" or self.antialias:
            return frame, self._place(*frame.shape[:2])
        height, width = frame.shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width)
        rows = min(max(int(self.size[0] / scale * self.crop + 1e-6), 1), height)
        columns = min(max(int(self.size[1] / scale * self.crop + 1e-6), 1), width)
        top, left = (height - rows) // 2, (width - columns) // 2
        part = frame[top : top + rows, left : left + columns]
        return part, _Place(self.size, full_window(self.size), full_window(self.size))

    def _place(self, height: int, width: int) -> _Place:
        """Return the size to resize an image to, and which part of it goes where."""
        if self.resize == "squash":
            return _Place(self.size, full_window(self.size), full_window(self.size))
        if self.resize != "letterbox":
            return self._centre(height, width)
        scale = min(self.size[0] / height, self.size[1] / width)
        size = (
            min(max(round(height * scale), 1), self.size[0]),
            min(max(round(width * scale), 1), self.size[1]),
        )
        top, left = ((b - a) // 2 for a, b in zip(size, self.size, strict=True))
        inner = slice(top, top + size[0]), slice(left, left + size[1])
        return _Place(size, full_window(size), inner)

    def _centre(self, height: int, width: int) -> _Place:
        """Cut the centre; sides and offsets are rounded as torchvision's Resize and CenterCrop."""
        down, across = self.size[0] / height, self.size[1] / width
        if self.resize == "crop":
            down = across = max(down, across)
        # The small term is added because 480 * (224 / 480) may come out below 224.
        resized = (
            max(int(height * down / self.crop + 1e-6), self.size[0]),
            max(int(width * across / self.crop + 1e-6), self.size[1]),
        )
        top, left = (round((a - b) / 2) for a, b in zip(resized, self.size, strict=True))
        window = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        return _Place(resized, window, full_window(self.size))


class _Place(NamedTuple):
    """How an image is fitted: its resized size, the part that remains, and where it goes."""

    resized: tuple[int, int]
    window: Window
    inner: Window


@lru_cache(maxsize=64)
def _tables(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> tuple[Matrix, ...]:
    """Return the normalised value of each of the 256 levels, for each channel."""
    levels = np.arange(256, dtype=np.float32)
    return tuple(
        levels * np.float32(1 / (255 * s)) - np.float32(m / s)
        for m, s in zip(mean, std, strict=True)
    )
