"""The `edgeml` command run in this process, and images to run it on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml import cli
from tests.tiny import LABELS


class Result:
    """What a call of the command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> object:
        return json.loads(self.out)


class Command:
    """Runs `edgeml` in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capture = patch, capture

    def __call__(self, *words: object) -> Result:
        self._patch.setattr("sys.argv", ["edgeml", *map(str, words)])
        self._capture.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = self._capture.readouterr()
        return Result(int(stopped.value.code or 0), out, err)

    def refused(self, *words: object) -> str:
        """Run and check a refusal: nothing on stdout, one line on stderr, exit status 2.

        Lines on how the data were read, which may come before it, do not count.
        """
        result = self(*words)
        assert (result.status, result.out) == (2, ""), result.err
        read = ("labels: ", "note: ")
        lines = [line for line in result.err.splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith(read)]
        assert len(lines) == 1, result.err
        assert "Traceback" not in result.err
        return lines[0]


def colour_pictures(folder: Path, count: int = 8) -> None:
    """Write images, all different."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(str(folder)))
    for row in range(count):
        cv2.imwrite(str(folder / f"{row}.png"), rng.integers(0, 256, (16, 16, 3), np.uint8))


def colour_folders(root: Path, each: int = 4) -> Path:
    """Write plain images into folders red/, green/ and blue/."""
    rng = np.random.default_rng(0)
    for channel, label in enumerate(reversed(LABELS)):  # BGR
        (root / label).mkdir(parents=True)
        for number in range(each):
            frame = rng.integers(0, 60, (40, 50, 3), np.uint8)
            frame[..., channel] += 180
            cv2.imwrite(str(root / label / f"{number}.png"), frame)
    return root
