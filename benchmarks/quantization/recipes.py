"""INT8 files of other tools from an FP32 .onnx, with their defaults.

    python benchmarks/quantization/recipes.py RECIPE SOURCE.onnx CALIBRATION.npy TARGET

peers.py calls it, a process for each file: ModelOpt changes ONNX Runtime's quantiser where it is
imported, and lives in an environment of its own. So nothing of edgeml's is used for it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]


class Reader:
    """Feeds ONNX Runtime's calibrator one image at a time."""

    def __init__(self, images: Images, name: str = "images") -> None:
        self._batches: Iterator[Images] = (images[i : i + 1] for i in range(len(images)))
        self._name = name

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: np.ascontiguousarray(batch)}


def ort(source: Path, images: Images, target: Path) -> None:
    """`quantize_static` with its defaults, all of them."""
    from onnxruntime.quantization import quantize_static

    quantize_static(source, target, Reader(images))


def ort_preprocessed(source: Path, images: Images, target: Path) -> None:
    """The same after `quant_pre_process`, as its documentation says."""
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared)
        quantize_static(prepared, target, Reader(images))


def nncf_ir(source: Path, images: Images, target: Path) -> None:
    """`nncf.quantize` of an `ov.Model` with its defaults."""
    from edgeml.runtimes.telemetry import without_telemetry

    with without_telemetry():
        import nncf
        import openvino

    batches = [np.ascontiguousarray(images[i : i + 1]) for i in range(len(images))]
    model = nncf.quantize(openvino.Core().read_model(source), nncf.Dataset(batches))
    openvino.save_model(model, target, compress_to_fp16=False)


def nncf_onnx(source: Path, images: Images, target: Path) -> None:
    """`nncf.quantize` of an ONNX model with its defaults."""
    from edgeml.runtimes.telemetry import without_telemetry

    with without_telemetry():
        import nncf
    import onnx

    batches = [{"images": np.ascontiguousarray(images[i : i + 1])} for i in range(len(images))]
    onnx.save(nncf.quantize(onnx.load(source), nncf.Dataset(batches)), target)


def modelopt(source: Path, images: Images, target: Path, **options: Any) -> None:
    """ModelOpt's INT8 with its defaults, calibrated on the CPU: the rest becomes FP16."""
    from modelopt.onnx.quantization import quantize

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.onnx"  # it writes files of its own next to the source
        shutil.copy(source, copy)
        quantize(
            str(copy),
            calibration_data={"images": np.ascontiguousarray(images)},
            calibration_eps=["cpu"],
            output_path=str(target),
            **options,
        )


def modelopt_fp32(source: Path, images: Images, target: Path) -> None:
    """The same, but what is not INT8 stays FP32: ONNX Runtime is slow at FP16 on a CPU."""
    modelopt(source, images, target, high_precision_dtype="fp32")


RECIPES: dict[str, Callable[[Path, Images, Path], None]] = {
    "ort": ort,
    "ort-preprocessed": ort_preprocessed,
    "nncf-ir": nncf_ir,
    "nncf-onnx": nncf_onnx,
    "modelopt": modelopt,
    "modelopt-fp32": modelopt_fp32,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=tuple(RECIPES))
    parser.add_argument("source", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    images = np.load(options.calibration, mmap_mode="r")
    with contextlib.redirect_stdout(None):
        RECIPES[options.recipe](options.source, images, options.target)


if __name__ == "__main__":
    main()
