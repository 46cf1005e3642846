"""The ways to predict that edgeml is compared with, by the bare libraries.

Each is written as its users write it, with one exception: nothing is done twice that once is
enough for, so that what is slow about a way is the way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgeml import Preprocess  # which changes how a process keeps memory

Frame = NDArray[np.uint8]
Input = NDArray[np.float32]
Run = Callable[[Input], NDArray[np.float32]]


def bare_ort(model: Path, threads: int, *, spins: bool = False) -> Run:
    """Open a session with the settings that edgeml opens it with."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]  # type: ignore[no-any-return]


def input_size(model: Path) -> tuple[int, int]:
    """Give the (height, width) that an .onnx file takes."""
    import onnxruntime

    shape = onnxruntime.InferenceSession(model).get_inputs()[0].shape
    return shape[2], shape[3]


def bare_openvino(model: Path, threads: int) -> Run:
    """Compile a model for one request at a time, computing in f32."""
    import openvino

    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(
        model, "CPU", {**config, "INFERENCE_NUM_THREADS": threads}
    )
    request = compiled.create_infer_request()
    return lambda batch: np.array(request.infer([batch], share_inputs=True, share_outputs=True)[0])


def numpy_way(frame: Frame, preprocess: Preprocess) -> Input:
    """Shrink with INTER_AREA and normalise in numpy's float64: the usual code."""
    height, width = preprocess.size
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
    normal = (rgb / 255.0 - np.array(preprocess.mean)) / np.array(preprocess.std)
    return normal.transpose(2, 0, 1)[None].astype(np.float32)


def area_way(frame: Frame, preprocess: Preprocess) -> Input:
    """Shrink with INTER_AREA, split, and normalise each plane with one fused pass of OpenCV."""
    height, width = preprocess.size
    small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    batch = np.empty((1, 3, height, width), np.float32)
    planes = cv2.split(small)[::-1]
    for plane, source, mean, std in zip(
        batch[0], planes, preprocess.mean, preprocess.std, strict=True
    ):
        cv2.addWeighted(source, 1 / (255 * std), source, 0, -mean / std, plane, cv2.CV_32F)
    return batch


def pillow_way(file: Path, preprocess: Preprocess, *, rounded: bool = True) -> Input:
    """Decode and shrink as training does that reads with Pillow: the reference for scores.

    Pillow resizes bytes and rounds what comes out; not `rounded`, it resizes the same in floats.
    """
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        rgb = ImageOps.exif_transpose(opened).convert("RGB")
    filters = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}
    kind = filters[preprocess.interpolation]
    height, width = preprocess.size
    box = 0, 0, width, height
    if preprocess.resize == "crop":  # as torchvision's Resize and CenterCrop
        scale = max(width / rgb.width, height / rgb.height)
        whole = int(rgb.width * scale + 1e-6), int(rgb.height * scale + 1e-6)
        left, top = round((whole[0] - width) / 2), round((whole[1] - height) / 2)
        width, height = whole
        box = left, top, left + box[2], top + box[3]
    planes = [rgb] if rounded else [plane.convert("F") for plane in rgb.split()]
    small = np.dstack([plane.resize((width, height), kind).crop(box) for plane in planes])
    normal = (small / np.float32(255) - np.float32(preprocess.mean)) / np.float32(preprocess.std)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None], np.float32)


SCALES = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
"""OpenCV's flags for a JPEG that is decoded at a fraction of its size."""


def reduced(size: tuple[int, int], wanted: tuple[int, int]) -> int:
    """Give the flag of the smallest scale whose sides are not below what is wanted."""
    for factor, flags in SCALES.items():
        if all(side // factor >= least for side, least in zip(size, wanted, strict=True)):
            return flags
    return SCALES[1]
