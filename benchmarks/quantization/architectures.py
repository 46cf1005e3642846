"""Whether timm's architectures survive training and export: 27 families, six files each.

    OMP_NUM_THREADS=1 python benchmarks/quantization/architectures.py [--json FILE]

The smallest network of each family, on small images, is trained for some seconds on drawn balls,
boxes and rings, so that its scores mean something. It is exported to ONNX and OpenVINO in FP32,
FP16 and INT8; each file is compared on images that it has not seen. The row shows how many layers
with weights are INT8, and how many of 1000 decisions differ from the source's: PyTorch's for FP32,
those of the .onnx for the others.

Networks that are done are kept in build/quantization/architectures and not done again.
`tests/export/test_architectures.py` asserts on the same rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnxscript  # noqa: F401  # loaded here, it is loaded once
import openvino  # noqa: F401
import torch
from numpy.typing import NDArray

from edgeml import Predictor
from edgeml.data import Dataset, read_dataset
from edgeml.errors import EdgemlError
from edgeml.measure.compare import Fidelity, FidelityError, compare
from edgeml.network.card import ModelArg
from edgeml.network.checkpoint import load_checkpoint
from edgeml.spec.model_spec import Precision
from edgeml.training.config import TrainConfig
from edgeml.training.loop import train
from edgeml_export import check, export

Format = Literal["onnx", "openvino"]

FORMATS: tuple[Format, ...] = ("onnx", "openvino")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

COLOURS = {"red": (40, 40, 210), "green": (50, 190, 60), "blue": (210, 70, 40)}
SHAPES = ("ball", "box", "ring")
PARTS = {"train": 160, "val": 60, "test": 80}
"""The number of images of each part."""

_SEARCH_MINUTES = 0.3


@dataclass(frozen=True)
class Case:
    """A network of timm.

    Attributes:
        size: The side of its images.
        args: Of its constructor.
        without_image: The layers that no image reaches: they compute constants, and stay float.
    """

    name: str
    size: int = 64
    args: Mapping[str, ModelArg] = field(default_factory=dict)
    without_image: int = 0

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("convnext_atto"),
    Case("fastvit_sa12"),
    Case("efficientformerv2_s0", args={"img_size": 64}),
    Case("edgenext_xx_small"),
    Case("swin_tiny_patch4_window7_224", args={"img_size": 64, "window_size": 4, "embed_dim": 48}),
    Case("vit_small_patch14_dinov2", 70, {"img_size": 70, "depth": 6}),
    Case("mambaout_femto"),
    Case("starnet_s050"),
    Case("hgnetv2_b0"),
    Case("ghostnetv2_100"),
    Case("regnety_002"),
    Case("mobilevitv2_050"),
    Case("rexnet_100"),
    Case("levit_128s", args={"img_size": 64}),
    Case("eca_nfnet_l0", 32),
    Case("repvgg_a0"),
    Case("eva02_tiny_patch14_224", 70, {"img_size": 70, "depth": 6}),
    Case("hiera_tiny_224", args={"img_size": 64}),
    Case("tiny_vit_5m_224"),
    Case("xcit_nano_12_p16_224", args={"depth": 6}),
    Case("coatnet_pico_rw_224", args={"img_size": 64}),
    Case("inception_v3", 80),
    Case("deit3_small_patch16_224", args={"img_size": 64, "depth": 6}),
    Case("maxvit_pico_rw_256", args={"img_size": 64}),
    Case("efficientvit_b0"),
    Case("pvt_v2_b0"),
    Case("swinv2_tiny_window8_256", 64, {"img_size": 64, "window_size": 4, "embed_dim": 48}, 12),
)
"""One network of each family that `test_models.py` has not, and FastViT's one with attention."""


def draw(folder: Path) -> Dataset:
    """Draw one or two objects on each of some cluttered images of 64 pixels; six labels."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for part, count in PARTS.items():
        for number in range(count):
            name, labels = f"{part}{number:03}.png", set()
            image = cv2.resize(rng.integers(60, 200, (4, 4, 3), np.uint8), (64, 64))
            for centre in rng.permutation([18, 46])[: rng.integers(1, 3)]:
                colour, shape = str(rng.choice([*COLOURS])), str(rng.choice(SHAPES))
                _put(image, shape, COLOURS[colour], (int(centre), int(rng.integers(18, 46))))
                labels |= {colour, shape}
            noisy = image + rng.normal(0, 10, image.shape)
            cv2.imwrite(str(folder / name), np.clip(noisy, 0, 255).astype(np.uint8))
            rows.append((name, ";".join(sorted(labels)), part))
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "labels", "split"), *rows])
    return read_dataset(folder / "labels.csv")


def _put(
    image: NDArray[np.uint8], shape: str, colour: tuple[int, ...], centre: tuple[int, int]
) -> None:
    x, y = centre
    if shape == "box":
        cv2.rectangle(image, (x - 12, y - 12), (x + 12, y + 12), colour, -1)
    else:
        cv2.circle(image, centre, 13, colour, -1 if shape == "ball" else 4)


def measured(
    case: Case, data: Dataset, folder: Path, *, openvino_int8: bool, epochs: int = 3
) -> dict[str, Any]:
    """Train and export one network, and return its row.

    Args:
        case: The network.
        data: Images with a split, of `draw`.
        folder: An empty folder for the files.
        openvino_int8: Whether OpenVINO's INT8 is compared: not on x86 processors without VNNI,
            where it saturates. Without it, ranges are those of `minmax`, and no layer returns to
            floating point.
        epochs: How long it is trained.
    """
    started = time.perf_counter()
    config = TrainConfig(
        model=case.name, model_args=case.args, size=case.size, epochs=epochs, batch=16, lr=1e-3,
        augment="none", ema=0.9, threads=1, workers=1, cache=False,
    )  # fmt: skip
    run = folder / "run"
    result = train(data, config, run)
    row: dict[str, Any] = {
        "network": case.name,
        "size": case.size,
        "args": dict(case.args),
        "parameters": sum(each.numel() for each in load_checkpoint(run)[0].parameters()),
        "mAP": result.metrics.mAP,
        "train_seconds": time.perf_counter() - started,
    }
    source = folder / "model.onnx"
    row["onnx"] = {"fp32": _checked(export(run, "onnx", check=data, out=source).checks)}
    row["openvino"] = {"fp32": _openvino_fp32(run, source, data)}
    for fmt in FORMATS:
        row[fmt]["fp16"] = _fp16(source, fmt, data)
        row[fmt]["int8"] = _int8(source, fmt, data, compares=fmt == "onnx" or openvino_int8)
    return {**row, "seconds": time.perf_counter() - started}


def _openvino_fp32(run: Path, source: Path, data: Dataset) -> dict[str, Any]:
    """Compare with PyTorch: the export compares with the .onnx that it starts from."""
    path = export(source, "openvino", check=data).path
    with Predictor(run) as torch_run, Predictor(path, runtime="openvino") as candidate:
        return _checked(compare(torch_run, candidate, data.part("test")))


def _fp16(source: Path, fmt: Format, data: Dataset) -> dict[str, Any]:
    try:
        return _checked(export(source, fmt, precision="fp16", check=data).checks)
    except FidelityError as err:
        return {"refused": str(err), **_checked(err.fidelity)}


def _int8(source: Path, fmt: Format, data: Dataset, *, compares: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"calib": data, "check": data, "minutes": _SEARCH_MINUTES}
    if not compares:
        options = {"calib": data.part("train")}
    try:
        done = export(source, fmt, precision="int8", **options)
    except FidelityError as err:
        return {"refused": str(err), **_checked(err.fidelity)}
    document = done.to_dict()
    return {
        **(_checked(done.checks) if done.checks else {}),
        **{key: document["int8"][key] for key in ("int8_layers", "weighted_layers")},
        "kept_in_float": len(done.choice.keep) if done.choice else 0,
    }


def _checked(checks: Fidelity | None) -> dict[str, Any]:
    assert checks is not None
    return {
        "max_abs": checks.max_abs,
        "flips_per_1000": checks.label_flips_per_1000,
        "mAP_drop": checks.drops.mAP.points,
    }


def row_of(row: Mapping[str, Any]) -> str:
    """Return a row of the table."""
    millions = f"{row['parameters'] / 1e6:.1f}"
    cells = [row["network"], str(row["size"]), millions, f"{100 * row['mAP']:.1f}"]
    for fmt in FORMATS:
        single, half, integers = (row[fmt][precision] for precision in PRECISIONS)
        cells += [f"{single['flips_per_1000']:g}", f"{half['flips_per_1000']:.1f}"]
        if "refused" in half:
            cells[-1] += ", refused"
        if "refused" in integers:
            cells += ["refused", f"{integers['flips_per_1000']:.1f}"]
            continue
        flips = integers.get("flips_per_1000")
        cells.append(f"{integers['int8_layers']} of {integers['weighted_layers']}")
        cells.append("-" if flips is None else f"{flips:.1f}")
    return f"| {' | '.join([*cells, format(row['seconds'], '.0f')])} |"


def head() -> str:
    """Return the first two lines of the table."""
    names = ["network", "px", "M", "mAP"]
    for runtime in ("ONNX Runtime", "OpenVINO"):
        names += [f"{runtime}: FP32", "FP16", "layers in INT8", "INT8"]
    names.append("s")
    return f"| {' | '.join(names)} |\n{'| --- ' * len(names)}|"


def stored_row(case: Case) -> Path:
    """Name the file that keeps a network's row."""
    from common import OUT

    return OUT / "architectures" / f"{case.name}.json"


def measure_alone(case: Case, openvino_int8: bool) -> None:
    """Measure one network in this process, and store its row or why there is none."""
    from common import write_json

    check.SPEED_SECONDS = 0.1  # speed.py measures speed
    stored = stored_row(case)
    images, folder = stored.with_name("images"), stored.with_suffix("")
    data = read_dataset(images / "labels.csv") if images.exists() else draw(images)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        row = measured(case, data, folder, openvino_int8=openvino_int8)
    except EdgemlError as err:
        raise SystemExit(f"{case.name}: {err}") from err
    write_json(stored, row)
    shutil.rmtree(folder)


def main() -> None:
    from common import machine, write_json

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--openvino-int8", action="store_true", help="compare OpenVINO's INT8 too")
    parser.add_argument("--json", type=Path, help="write all that is there into one file")
    options = parser.parse_args()
    fork = multiprocessing.get_context("fork")  # libraries are loaded once
    torch.set_num_threads(1)
    print(head(), flush=True)
    rows = []
    by_name = {case.name: case for case in CASES}
    for case in [by_name[name] for name in options.only or by_name]:
        if not stored_row(case).exists():  # in a process of its own: a crash costs one row
            process = fork.Process(target=measure_alone, args=(case, options.openvino_int8))
            process.start()
            process.join()
        if stored_row(case).exists():
            rows.append(json.loads(stored_row(case).read_text()))
            print(row_of(rows[-1]), flush=True)
    if options.json:
        write_json(options.json, {**machine(), "results": rows})


if __name__ == "__main__":
    main()
