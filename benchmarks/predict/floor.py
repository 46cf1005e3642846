"""How far edgeml is from the floor: the same work by bare libraries, side by side in one run.

    python benchmarks/predict/floor.py [--only ROW ...] [--threads 2 1] [--json FILE]

Each row runs in a process of its own, once for each number of threads, with nothing set that tunes
a BLAS. What was measured before stays in the JSON file; `--only` repeats some rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cold
import cv2
import folder
import numpy as np
from bars import Row, bar, conclude, line, show
from material import (
    OUT,
    bits_a_pixel,
    child_environment,
    frames,
    ir,
    merge_json,
    network,
    photos,
    pictures,
    some,
)
from peers import open_peer
from turns import (
    Block,
    Estimate,
    Pace,
    cpu_ms,
    difference,
    figures,
    here,
    ratio,
    take_turns,
    wall_ms,
)
from usual import SCALES, Run, area_way, bare_openvino, bare_ort, numpy_way, pillow_way, reduced

from edgeml import Predictor
from edgeml.benchmark.stages import STAGES, time_stages

HERE = Path(__file__).parent


def jpeg(threads: int, pace: Pace) -> Row:
    """1080p JPEG path to Prediction, the trained MobileNetV2 at 160 px on ONNX Runtime.

    It was trained with the cubic filter; the same weights are served with the linear one too.
    """
    model, files = network("trained"), pictures(1080, 1920, 24)
    cv2.setNumThreads(threads)
    run, predictor = bare_ort(model, threads), Predictor(model, threads=threads)
    spec, endless = predictor.spec, itertools.cycle(files)
    filtered = replace(spec, preprocess=replace(spec.preprocess, interpolation="linear"))
    linear = Predictor(model, threads=threads, spec=filtered)
    ready = predictor.prepare([predictor.read(files[0])]).copy()
    size = cv2.imread(str(files[0])).shape[:2]
    smallest = reduced(size, spec.preprocess.min_decode_size)
    same = SCALES[size[0] // predictor.read(files[0]).shape[0]]

    def floor(flags: int) -> object:
        cv2.imread(str(next(endless)), flags)
        return run(ready)

    with open_peer("usual", model, threads, f"{files[0].parent}:paths") as usual:
        ways = {
            "edgeml": here(lambda: predictor.predict(next(endless))),
            "edgeml, linear": here(lambda: linear.predict(next(endless))),
            "scaled decode + bare run": here(lambda: floor(smallest)),
            "decode at edgeml's scale + bare run": here(lambda: floor(same)),
            "imread, INTER_AREA, numpy, run": usual.block,
            "bare run": here(lambda: run(ready)),
        }
        blocks = take_turns(ways, pace)
    ours, bilinear, least, equal, naive, _ = blocks.values()
    differences = {
        f"{name}{filtered}": _to_pillow(one, run, kind)
        for one, filtered in ((predictor, ""), (linear, ", linear"))
        for name, kind in (
            ("photos as they are", some(photos(), 300)),
            ("cut to 1920 x 1080", files),
            ("grown to 1080 x 1440", pictures(1440, 1080, 48)),
        )
    }
    row = {
        "ways": {name: figures(taken) for name, taken in blocks.items()},
        "bits a pixel": bits_a_pixel(files),
        "scores, to Pillow's": differences,
        "stages ms": _stages(predictor, files),
    }
    predictor.close()
    linear.close()
    bars = [
        bar("times the floor", ratio(wall_ms(ours), wall_ms(least)), at_most=1.2),
        bar("times the floor, linear", ratio(wall_ms(bilinear), wall_ms(least)), at_most=1.2),
        bar("times the floor, CPU", ratio(cpu_ms(ours), cpu_ms(least))),
        bar("times the floor at edgeml's scale", ratio(wall_ms(ours), wall_ms(equal))),
        bar("times the floor at edgeml's scale, CPU", ratio(cpu_ms(ours), cpu_ms(equal))),
        bar("usual code over edgeml", ratio(wall_ms(naive), wall_ms(ours)), at_least=2),
        bar("usual code over edgeml, CPU", ratio(cpu_ms(naive), cpu_ms(ours))),
    ]
    for name, found in differences.items():
        worst = Estimate(value=found["max"], low=found["max"], high=found["max"])
        bars.append(bar(f"score difference, {name}", worst, at_most=0.01))
    return {**row, "bars": bars}


def frame(threads: int, pace: Pace) -> Row:
    """640x480 BGR frame to Prediction, MobileNetV4-S at 224 px: what is on top of the network."""
    model, compiled, shots = network("drawn"), ir("drawn"), frames(480, 640, 16)
    cv2.setNumThreads(threads)
    ort = Predictor(model, threads=threads)
    ov = Predictor(compiled, threads=threads)
    run, infer = bare_ort(model, threads), bare_openvino(compiled, threads)
    spinning = bare_ort(model, threads, spins=True)
    spec, endless = ort.spec, itertools.cycle(shots)
    ready = ort.prepare([shots[0]]).copy()
    with open_peer("model_api", compiled, threads, f"{OUT}/640x480-16:frames") as peer:
        ways = {
            "bare ONNX Runtime": here(lambda: run(ready)),
            "bare ONNX Runtime, spinning": here(lambda: spinning(ready)),
            "edgeml, ONNX Runtime": here(lambda: ort.predict(next(endless))),
            "INTER_AREA, numpy": here(lambda: run(numpy_way(next(endless), spec.preprocess))),
            "INTER_AREA, split, addWeighted": here(
                lambda: run(area_way(next(endless), spec.preprocess))
            ),
            "bare OpenVINO": here(lambda: infer(ready)),
            "edgeml, OpenVINO": here(lambda: ov.predict(next(endless))),
            "model_api": peer.block,
        }
        blocks = take_turns(ways, pace)
    ort.close()
    ov.close()
    return {
        "ways": {name: figures(taken) for name, taken in blocks.items()},
        "bars": _over_bare(blocks),
    }


def _over_bare(blocks: Mapping[str, Sequence[Block]]) -> list[Row]:
    """Subtract the bare run of the same runtime from each way that has preprocessing."""
    bars = []
    for name, taken in blocks.items():
        if name.startswith("bare"):
            continue
        on = "OpenVINO" if name in ("edgeml, OpenVINO", "model_api") else "ONNX Runtime"
        bare = blocks[f"bare {on}"]
        over, cpu = (difference(of(taken), of(bare)) for of in (wall_ms, cpu_ms))
        most = 0.35 if name.startswith("edgeml") else None
        bars.append(bar(f"ms over bare, {name}", over, at_most=most))
        bars.append(bar(f"CPU ms over bare, {name}", cpu))
    return bars


def overhead(threads: int, pace: Pace) -> Row:
    """What the object costs: a frame of the right size, predict beside preprocess and bare run."""
    cv2.setNumThreads(threads)
    row: Row = {"ways": {}, "bars": []}
    for name, model, bare, most in (
        ("ONNX Runtime, 21 labels", network("drawn"), bare_ort, 40),
        ("OpenVINO, 21 labels", ir("drawn"), bare_openvino, 40),
        # What it costs where the network has not emptied the processor's caches.
        ("ONNX Runtime, one layer, 21 labels", network("least"), bare_ort, 40),
        ("OpenVINO, one layer, 21 labels", ir("least"), bare_openvino, 40),
        ("ONNX Runtime, 1000 labels", network("imagenet"), bare_ort, None),
    ):
        ours, parts = _object_and_parts(model, bare(model, threads), threads, pace)
        row["ways"] |= {f"predict, {name}": figures(ours), f"its parts, {name}": figures(parts)}
        wall, cpu = (difference(of(ours), of(parts)) for of in (wall_ms, cpu_ms))
        row["bars"].append(bar(f"us, {name}", wall.times(1e3), at_most=most))
        row["bars"].append(bar(f"CPU us, {name}", cpu.times(1e3)))
    return row


def _object_and_parts(model: Path, run: Run, threads: int, pace: Pace) -> list[list[Block]]:
    """Time predict beside its parts, on a frame that needs no resize.

    One thread, so none spins and no pause is needed; short turns, since the difference is small.
    """
    short = replace(pace, rounds=8 * pace.rounds, block_s=0.0, pause_s=0.0)
    with Predictor(model, threads=threads) as predictor:
        preprocess = predictor.spec.preprocess
        shot = preprocess.fit(frames(480, 640, 16)[0])
        ways = {
            "predict": here(lambda: predictor.predict(shot)),
            "parts": here(lambda: run(preprocess([shot]))),
        }
        return list(take_turns(ways, short).values())


def folder_of_2000(threads: int, pace: Pace) -> Row:
    """A folder of JPEGs of 640 x 480, the trained MobileNetV2: pictures a second."""
    found = folder.measure(network("trained"), pictures(480, 640, 2000), rounds=min(pace.rounds, 3))
    shares = [ours / floor for ours, floor in zip(found["edgeml"], found["floor"], strict=True)]
    value = statistics.median(shares)
    share = Estimate(value=value, low=min(shares), high=max(shares))
    return {"per second": found, "bars": [bar("share of the floor", share, at_least=0.9)]}


def cold_start(threads: int, pace: Pace) -> Row:
    """Import, load and first prediction in fresh processes, the trained MobileNetV2."""
    row: Row = {"ways": {}, "bars": []}
    picture = some(photos(), 1)[0]
    for runtime, model in (("onnxruntime", network("trained")), ("openvino", ir("trained"))):
        starts = cold.measure(runtime, model, picture, threads, starts=max(pace.rounds, 15))
        row["ways"] |= {f"{who}, {runtime}": taken for who, taken in starts.items()}
        ours, bare = (
            [start["total_ms"] for start in starts[who]["starts"]] for who in ("edgeml", "bare")
        )
        value = statistics.median(ours) / statistics.median(bare)
        rounds = ratio(ours, bare)
        share = Estimate(value=value, low=rounds.low, high=rounds.high)
        row["bars"].append(bar(f"times bare, {runtime}", share, at_most=1.3))
    return row


ROWS: dict[str, Callable[[int, Pace], Row]] = {
    "jpeg": jpeg,
    "frame": frame,
    "overhead": overhead,
    "folder": folder_of_2000,
    "cold": cold_start,
}
"""By name, in the order in which they are measured."""

ONCE = {"overhead": 1, "folder": 2, "cold": 2}
"""Rows whose threads do not vary. A folder takes all cores, whatever stands here."""


def _stages(predictor: Predictor, files: list[Path]) -> dict[str, float]:
    """Give the median time of each stage of `predict`, in milliseconds."""
    taken = np.array([time_stages(predictor, file) for file in files * 5])
    return dict(zip(STAGES, np.median(taken, axis=0) / 1e6, strict=False))


def _to_pillow(predictor: Predictor, run: Run, files: list[Path]) -> Row:
    """Compare scores with those of a full decode and a resize by Pillow, picture by picture."""
    preprocess = predictor.spec.preprocess
    rounded, floats, own, flips = [], [], [], 0
    for file in files:
        (theirs,) = predictor.interpret(run(pillow_way(file, preprocess)))
        (exact,) = predictor.interpret(run(pillow_way(file, preprocess, rounded=False)))
        ours = predictor.predict(file)
        rounded.append(float(np.abs(ours.scores - theirs.scores).max()))
        floats.append(float(np.abs(ours.scores - exact.scores).max()))
        own.append(float(np.abs(theirs.scores - exact.scores).max()))
        flips += len(set(ours.labels) ^ set(theirs.labels))
    return {
        "pictures": len(files),
        "max": max(rounded),
        "mean": float(np.mean(rounded)),
        "max, to Pillow in floats": max(floats),
        "max, Pillow to itself in floats": max(own),
        "decisions that differ, of 1000": 1000 * flips / len(files) / len(predictor.spec.labels),
    }


def measure(name: str, threads: int, pace: Pace) -> Row:
    """Measure a row in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "row.json"
        command = [sys.executable, __file__, "--row", name, "--threads", str(threads)]
        command += ["--pace", json.dumps(asdict(pace)), "--json", str(out)]
        done = subprocess.run(command, env=child_environment(threads))
        if done.returncode:
            return {"bars": [], "failure": f"ended with status {done.returncode}"}
        row: Row = json.loads(out.read_text())
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=Pace().rounds)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--row", choices=tuple(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--pace", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        row = ROWS[options.row](options.threads[0], Pace(**options.pace))
        options.json.write_text(json.dumps(row))
        return
    failed = []
    for name in options.only:
        for threads in [ONCE[name]] if name in ONCE else options.threads:
            row = measure(name, threads, Pace(rounds=options.rounds))
            title = f"{name}, {threads} threads" if name != "folder" else name
            show(title, row)
            failed += [f"{title}: {line(each)}" for each in row["bars"] if each["holds"] is False]
            failed += [f"{title}: {row['failure']}"] if "failure" in row else []
            if options.json and "failure" not in row:
                merge_json(options.json, {title: row})
    conclude(failed)


if __name__ == "__main__":
    main()
