"""Draw predictions on frames."""

from __future__ import annotations

import unicodedata

import cv2
import numpy as np

from edgeml.image.frame import Frame
from edgeml.predict.predictor import Prediction

_PRESENT = (96, 200, 64)
_ABSENT = (128, 128, 128)
_TEXT = (255, 255, 255)
_ROWS = 8

# Letters that change their meaning, or vanish, without their marks.
_ASCII = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss",
                        "æ": "ae", "ø": "o", "ł": "l", "Æ": "Ae", "Ø": "O", "Ł": "L"})  # fmt: skip


def draw(frame: Frame, prediction: Prediction) -> Frame:
    """Return a copy of `frame` with a bar for each label: as long as its score, green if present.

    Labels that are present are drawn, best first, as the height permits; with fewer than three of
    them the next best follow in grey. Letters are a twentieth of the shorter side.

    Args:
        frame: (H, W, 3) uint8 BGR; it is not changed.
        prediction: What to draw.
    """
    out = frame.copy()
    size = max(min(out.shape[:2]) // 20, 9)
    row = round(size * 1.5)
    lines = _lines(prediction, max(min(out.shape[0] // row, _ROWS), 1))
    width = min(_width(lines, size) + size, out.shape[1])
    for i, (text, score, present) in enumerate(lines):
        strip = out[i * row : (i + 1) * row, :width]
        # Dark behind the letters on any image, and the image stays visible.
        np.multiply(strip, 0.3, out=strip, casting="unsafe")
        bar = strip[:, : round(width * min(max(score, 0.0), 1.0))]
        cv2.addWeighted(bar, 0.4, np.full_like(bar, _PRESENT if present else _ABSENT), 0.6, 0, bar)
        _write(strip, text, size)
    return out


def _lines(prediction: Prediction, rows: int) -> list[tuple[str, float, bool]]:
    """Choose the labels to draw: text, score, present."""
    ranked = prediction.top(len(prediction.scores))
    present = [item for item in ranked if item[0] in prediction.labels]
    others = [item for item in ranked if item[0] not in prediction.labels]
    chosen = present + others[: max(3 - len(present), 0)]
    return [
        (f"{label} {score:.2f}", score, label in prediction.labels)
        for label, score in chosen[:rows]
    ]


if hasattr(cv2, "FontFace"):  # OpenCV 5 draws Unicode; 4 draws a "?" for each byte beyond ASCII

    def _width(lines: list[tuple[str, float, bool]], size: int) -> int:
        """Return the width of the longest text in pixels."""
        face = cv2.FontFace("sans")
        boxes = [cv2.getTextSize((0, 0), text, (0, 0), face, size) for text, *_ in lines]
        return max(box[2] for box in boxes)

    def _write(strip: Frame, text: str, size: int) -> None:
        """Write onto a strip 1.5 times `size` high."""
        origin = (size // 2, round(size * 1.1))
        cv2.putText(strip, text, origin, _TEXT, cv2.FontFace("sans"), size)

else:

    def _width(lines: list[tuple[str, float, bool]], size: int) -> int:
        """Return the width of the longest text in pixels."""
        scale, thick = _hershey(size)
        sizes = [
            cv2.getTextSize(to_ascii(text), cv2.FONT_HERSHEY_SIMPLEX, scale, thick)[0]
            for text, *_ in lines
        ]
        return max(width for width, _ in sizes)

    def _write(strip: Frame, text: str, size: int) -> None:
        """Write onto a strip 1.5 times `size` high."""
        scale, thick = _hershey(size)
        origin = (size // 2, round(size * 1.1))
        font, smooth = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
        cv2.putText(strip, to_ascii(text), origin, font, scale, _TEXT, thick, smooth)


def _hershey(size: int) -> tuple[float, int]:
    """Return scale and thickness; Hershey's capitals are 22 pixels high at scale 1."""
    return size * 0.75 / 22, max(size // 12, 1)


def to_ascii(text: str) -> str:
    """Write a text with ASCII letters: `grün` becomes `gruen`, `café` becomes `cafe`."""
    plain = unicodedata.normalize("NFKD", text.translate(_ASCII))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return letters.encode("ascii", "replace").decode()
