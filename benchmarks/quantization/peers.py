"""edgeml's INT8 compared with the defaults of ONNX Runtime, NNCF and ModelOpt: accuracy and speed.

    python benchmarks/quantization/peers.py [--networks real resnet18] [--json FILE]

The same FP32 network, the same 300 calibration photos, the same machine; every file runs in ONNX
Runtime and in OpenVINO where it can. ModelOpt runs if installed, in an environment of its own:

    python -m venv build/quantization/modelopt
    echo "$PWD"/.venv/lib/python3.11/site-packages > \
        build/quantization/modelopt/lib/python3.11/site-packages/beside.pth
    build/quantization/modelopt/bin/pip install --no-deps nvidia-modelopt==0.47.0 \
        onnx_graphsurgeon==0.6.1 nvidia-ml-py==13.615.71 onnxslim==0.1.98 lief==1.0.0

A file is off the Pareto front of its runtime if another is surely better in one, accuracy or
speed, and not surely worse in the other. Surely: the 95 % intervals of the speeds are apart; the
bootstrap interval of the mean difference of the errors, photo by photo, excludes 0.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from common import (
    OUT,
    REAL,
    cached,
    calibration,
    fp32,
    inputs_of,
    machine,
    photos,
    spec_of,
    write_json,
)
from fidelity import PerPhoto, cost, difference, divergences, squared_errors
from ours import int8
from recipes import RECIPES

Engine = Literal["onnxruntime", "openvino"]

HERE = Path(__file__).parent
MODELOPT = OUT / "modelopt/bin/python"
NETWORKS = {
    "real": REAL,
    "resnet18": "resnet18",
    "mobilenetv4_conv_small": "mobilenetv4_conv_small",
    "vit_tiny_patch16_224": "vit_tiny_patch16_224",
    "mobilenetv3_small_100": "mobilenetv3_small_100",
}
TOOLS = {
    "edgeml": "edgeml, for ONNX Runtime",
    "edgeml-ir": "edgeml, for OpenVINO",
    "ort": "ONNX Runtime's default",
    "ort-preprocessed": "the same, pre-processed",
    "nncf-ir": "NNCF's default, on OpenVINO's graph",
    "nncf-onnx": "NNCF's default, on ONNX",
    "modelopt": "ModelOpt's default (INT8 and FP16)",
    "modelopt-fp32": "ModelOpt, INT8 and FP32",
}
OURS = {"onnxruntime": "edgeml", "openvino": "edgeml-ir"}
PHOTOS = 200
"""Of the test side, for networks with random weights."""


@dataclass(kw_only=True)
class Row:
    """One file on one runtime."""

    tool: str
    engine: Engine
    failure: str | None = None
    speed: dict[str, Any] | None = None
    errors: PerPhoto | None = None
    figures: dict[str, Any] | None = None
    front: bool = False

    @property
    def error(self) -> float:
        assert self.errors is not None
        return float(self.errors.mean())


@cache
def make(tool: str, source: Path) -> Path | str:
    """Return a tool's file, or why there is none. Ours is always written again, by today's code."""
    suffix = ".xml" if tool.endswith("-ir") else ".onnx"
    target = OUT / "peers" / source.stem / f"{tool}{suffix}"
    if target.exists() and tool in RECIPES:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    if tool not in RECIPES:
        int8(source, target, "openvino" if suffix == ".xml" else "onnxruntime")
    else:
        python = MODELOPT if tool.startswith("modelopt") else Path(sys.executable)
        if not python.exists():
            return "not installed"
        inputs = OUT / "inputs" / f"{source.stem}.calibration.npy"
        cached(inputs, lambda: inputs_of(calibration().paths, spec_of(source)))
        command = [python, HERE / "recipes.py", tool, source, inputs, target]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"no file: {_why(done)}"
    print(f"{tool} of {source.stem}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return target


def measure(
    tool: str, engine: Engine, source: Path, network: str, options: argparse.Namespace
) -> Row:
    """Make a tool's file, run it in a process of its own, and measure its outputs."""
    row = Row(tool=tool, engine=engine)
    file = make(tool, source)
    if isinstance(file, str):
        row.failure = file
        return row
    spec = spec_of(source)
    sides = [photos().part(name) for name in ("val", "test")]
    if network != REAL:
        sides = [sides[1].select(np.arange(PHOTOS))]
    inputs = []
    for number, side in enumerate(sides):
        inputs.append(OUT / "inputs" / f"{source.stem}.{number}.npy")
        cached(inputs[-1], lambda side=side: inputs_of(side.paths, spec))  # type: ignore[misc]
    out = file.with_suffix(f".{engine}.npz")
    command = [sys.executable, HERE / "measure.py", engine, source, file, out, "--inputs", *inputs]
    limits = ["--threads", str(options.threads), "--seconds", str(options.seconds)]
    done = subprocess.run([*command, *limits], capture_output=True, text=True)
    if done.returncode:
        row.failure = _why(done)
        return row
    arrays = np.load(out)
    row.speed = json.loads(str(arrays["speed"]))
    before, after = (
        tuple(arrays[f"{name}_{number}"] for number in range(len(sides)))
        for name in ("fp32", "int8")
    )
    if not np.isfinite(after[-1]).all():
        row.failure = "its logits are NaN or infinite"
        return row
    rms = float(np.sqrt(squared_errors(before[-1], after[-1]).mean()))
    if network == REAL:
        row.errors = divergences(before[1], after[1], spec)
        targets = (sides[0].targets, sides[1].targets)
        row.figures = {"kl": row.error, "rms": rms}
        row.figures |= cost((before[0], before[1]), (after[0], after[1]), targets, spec)
    else:
        row.errors = squared_errors(before[-1], after[-1])
        row.figures = {"rms": rms}
    return row


def mark_front(rows: Sequence[Row]) -> None:
    """Mark what no other file on the same runtime dominates."""
    ran = [row for row in rows if row.errors is not None]
    for row in ran:
        others = [other for other in ran if other.engine == row.engine and other is not row]
        row.front = not any(_dominates(other, row) for other in others)


def _dominates(a: Row, b: Row) -> bool:
    assert a.speed is not None
    assert b.speed is not None
    assert a.errors is not None
    assert b.errors is not None
    faster, slower = a.speed["low"] > b.speed["high"], a.speed["high"] < b.speed["low"]
    low, high = difference(a.errors, b.errors)
    closer, farther = high < 0, low > 0
    return (faster and not farther) or (closer and not slower)


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """Return how a process ended."""
    if done.returncode < 0:
        return f"crashes ({signal.Signals(-done.returncode).name})"
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return " ".join((lines or ["no message"])[-1].split())[:160]


def table(network: str, rows: Sequence[Row]) -> str:
    """Write one network's rows as a table; the front in bold."""
    trained = network == REAL
    columns = ["runtime", "file", "times FP32's speed", "ms"]
    columns += ["KL", "mAP drop", "worst label", "exact match drop", "moved", "refitted"]
    columns += ["flips per 1000"]
    head = columns if trained else [*columns[:4], "RMS error"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row in rows:
        name = f"**{TOOLS[row.tool]}**" if row.front else TOOLS[row.tool]
        cells = [row.engine, name]
        if row.failure or not row.speed or not row.figures:
            cells += [str(row.failure), *[""] * (len(head) - 3)]
        else:
            speed, figures = row.speed, row.figures
            cells += [f"{speed['ratio']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})"]
            cells += [f"{speed['fast_ms']:.2f}"]
            cells += _trained_cells(figures) if trained else [f"{figures['rms']:.4f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _trained_cells(figures: dict[str, Any]) -> list[str]:
    worst = f"{figures['worst_label_drop']:.1f}, {figures['worst_label']} "
    return [
        f"{figures['kl']:.4f}",
        f"{figures['mAP_drop']:.2f}",
        worst + f"({figures['worst_label_positives']})",
        f"{figures['exact_match_drop']:.2f}",
        f"{figures['exact_match_moved_drop']:.2f}",
        f"{figures['exact_match_anew_drop']:.2f}",
        f"{figures['flips_per_1000']:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--tools", nargs="+", choices=tuple(TOOLS), default=list(TOOLS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {**machine(), "threads": options.threads, "networks": {}}
    for network in (NETWORKS[name] for name in options.networks):
        source = fp32(network)
        rows = [
            measure(tool, engine, source, network, options)
            for engine in ("onnxruntime", "openvino")
            for tool in options.tools
            if not (engine == "onnxruntime" and tool.endswith("-ir"))
        ]
        mark_front(rows)
        print(f"\n{network}\n\n{table(network, rows)}", flush=True)
        for engine, tool in OURS.items():
            ours = [row for row in rows if (row.engine, row.tool) == (engine, tool)]
            if ours and not ours[0].front:
                print(f"\nNOT on the front of {engine}: {TOOLS[tool]}", flush=True)
        found["networks"][network] = [
            {
                "tool": row.tool,
                "runtime": row.engine,
                "failure": row.failure,
                "speed": row.speed,
                "figures": row.figures,
                "front": row.front,
            }
            for row in rows
        ]
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
