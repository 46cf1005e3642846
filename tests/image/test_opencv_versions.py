"""OpenCV 4 and 5 give the same bytes. The other one lies in build/opencv4: `make opencv4`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.image.opencv_digests import digests, write_pictures

ROOT = Path(__file__).parents[2]
OTHER = ROOT / "build" / "opencv4"


def test_opencv_4_and_5_decode_and_preprocess_to_the_same_bytes(tmp_path: Path) -> None:
    if not (OTHER / "cv2").is_dir():
        pytest.skip("OpenCV 4 is not installed in build/opencv4: make opencv4")
    write_pictures(tmp_path)
    ours = digests(tmp_path)
    path = os.pathsep.join([str(OTHER), str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "tests.image.opencv_digests", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    theirs = json.loads(done.stdout)
    version = theirs.pop("OpenCV")
    assert version.startswith("4.")
    if ours.pop("OpenCV") == version:
        pytest.skip(f"both are OpenCV {cv2.__version__}")
    assert len(ours) > 100
    assert theirs == ours
