"""The wheel, alone in an empty environment: what a device really gets."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROBE = """
import sys
import numpy as np
from edgeml import Predictor

frame = np.zeros((48, 64, 3), np.uint8)
frame[..., 2] = 255  # BGR: red
with Predictor(sys.argv[1]) as predictor:
    print(predictor.predict(frame).top(1)[0][0])
absent = []
for name in ("torch", "timm", "onnx", "openvino"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        absent.append(name)
print(*absent)
"""


@pytest.mark.wheel
def test_the_wheel_with_onnx_alone_classifies_an_image(tmp_path: Path, tiny_onnx: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "device", with_pip=True)
    python = tmp_path / "device" / "bin" / "python"
    constraints = str(ROOT / "constraints.txt")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-c", constraints, f"{wheel}[onnx]"], check=True
    )
    model = shutil.copy(tiny_onnx, tmp_path / "tiny.onnx")
    done = subprocess.run(
        [python, "-c", PROBE, model], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["red", "torch", "timm", "onnx", "openvino"]
    help_text = subprocess.run(
        [tmp_path / "device" / "bin" / "edgeml", "--help"], check=True, capture_output=True
    )
    assert b"predict" in help_text.stdout
