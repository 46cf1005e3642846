"""What the project promises of a complete run. tests/test_readme.py runs a small demo."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from edgeml.demo.run import run_demo
from edgeml.errors import InputError


@pytest.mark.nightly
@pytest.mark.train
@pytest.mark.runtime
def test_the_demo_meets_its_bars(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", images=2500, epochs=14, seed=0)
    rows = {(row.format, row.precision): row for row in result.rows}
    assert len(rows) == 6
    assert min(row.mAP for row in result.rows) >= 0.85
    for fmt in ("onnx", "openvino"):
        assert rows[fmt, "fp32"].label_flips_per_1000 == 0
        assert abs(rows[fmt, "fp32"].mAP - rows[fmt, "int8"].mAP) <= 0.02
    assert result.report.stat().st_size > 50_000


@pytest.mark.nightly
@pytest.mark.train
def test_real_photos_are_learnt_with_each_sender_on_one_side(
    clothing: Path, mobilenet_weights: Path, tmp_path: Path
) -> None:
    words = f"""train {clothing}/labels.csv --model mobilenetv2_100 --model-args pad_type=same
        --weights {mobilenet_weights} --size 160 --epochs 1 --out {tmp_path}/run"""
    code = "from edgeml.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "mAP" in done.stdout
    sides = defaultdict(set)
    with open(tmp_path / "run" / "split.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            sides[row["group"]].add(row["split"])
    assert len(sides) > 100
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.train
def test_the_demo_leaves_a_folder_that_it_did_not_make_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not empty"):
        run_demo(tmp_path, images=300, epochs=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
