from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from edgeml import Prediction
from edgeml.predict.overlay import draw, to_ascii
from tests.tiny import tiny_spec


def prediction(scores: list[float], labels: list[str], present: list[str]) -> Prediction:
    spec = dataclasses.replace(tiny_spec(labels))
    return Prediction(np.array(scores, np.float32), tuple(present), spec)


def test_a_copy_is_drawn_on_and_the_frame_is_left_as_it_was() -> None:
    frame = np.full((240, 320, 3), 120, np.uint8)
    out = draw(frame, prediction([0.9, 0.2, 0.1], ["red", "green", "blue"], ["red"]))
    assert out.shape == frame.shape
    assert out.dtype == np.uint8
    assert (frame == 120).all()
    changed = (out != frame).any(axis=2)
    assert changed.any()
    assert not changed[-100:].any()  # labels stand at the top


def test_the_bar_of_a_present_label_is_green_and_as_long_as_its_score() -> None:
    frame = np.full((400, 400, 3), 120, np.uint8)
    full = draw(frame, prediction([1.0], ["red"], ["red"]))
    half = draw(frame, prediction([0.5], ["red"], ["red"]))
    absent = draw(frame, prediction([1.0], ["red"], []))
    line = 28  # below the letters, in the first row of 30 pixels
    green = [(out[line, :, 1] > out[line, :, 0].astype(int) + 20).sum() for out in (full, half)]
    assert green[0] > 60
    assert green[1] == pytest.approx(green[0] / 2, abs=4)
    assert (absent[line, :60].max(axis=1) - absent[line, :60].min(axis=1) <= 1).all()


def test_letters_grow_with_the_frame() -> None:
    shown = prediction([0.9], ["red"], ["red"])
    heights = []
    for side in (240, 480, 960):
        out = draw(np.zeros((side, side, 3), np.uint8), shown)
        heights.append(int((out.min(axis=2) > 140).any(axis=1).sum()))
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.25)
    assert heights[2] == pytest.approx(2 * heights[1], rel=0.25)


def test_all_present_labels_are_drawn_and_at_least_three_lines() -> None:
    frame = np.full((480, 480, 3), 200, np.uint8)
    row = 36
    labels = list("abcdefg")

    def rows_drawn(present: list[str]) -> int:
        out = draw(frame, prediction([0.5] * 7, labels, present))
        rows = (out != frame).any(axis=(1, 2)).sum()
        return round(float(rows) / row)

    assert rows_drawn([]) == 3
    assert rows_drawn(["a"]) == 3
    assert rows_drawn(labels[:5]) == 5


@pytest.mark.skipif(not hasattr(cv2, "FontFace"), reason="OpenCV 4 draws no Unicode")
def test_umlauts_are_drawn_as_what_they_are() -> None:
    frame = np.zeros((300, 500, 3), np.uint8)

    def letters(label: str) -> bytes:
        return draw(frame, prediction([0.5], [label], [label])).tobytes()

    drawn = {label: letters(label) for label in ("grün", "grun", "gr?n", "gr??n", "Größe", "衬衫")}
    assert len(set(drawn.values())) == len(drawn)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("grün", "gruen"), ("Größe", "Groesse"), ("café naïve", "cafe naive"), ("Ł衬", "L?")],
)
def test_without_unicode_labels_are_transliterated(text: str, expected: str) -> None:
    assert to_ascii(text) == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (8, 8), (32, 32), (20, 3000)])
def test_no_frame_is_too_small(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    out = draw(frame, prediction([0.7, 0.1], ["a very long label indeed", "b"], ["b"]))
    assert out.shape == frame.shape
