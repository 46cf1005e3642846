"""What the scripts beside this share: networks, pictures, and the environment of a child process.

Everything is made once, in build/predict; delete that folder to make it again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml import ModelSpec, Preprocess
from edgeml.benchmark.environment import capture_host, capture_software
from edgeml.files import staged, write_text

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("build/predict")
RUN = Path("build/training/edgeml/seed0")
PHOTOS = Path("../shared/data/clothing_cc0/images")
WEIGHTS = Path("../shared/models/mobilenetv2_100/mobilenetv2_100_same_in1k.safetensors")

BITS_A_PIXEL = 1.7
"""Of a JPEG as cameras write it; the photos as they are have 1.8."""

Frame = NDArray[np.uint8]


def require(*paths: Path) -> None:
    """Stop with one line where something is not there."""
    for path in paths:
        if not path.exists():
            raise SystemExit(
                f"There is no {str(path)!r}: photos and weights are expected beside this checkout "
                "in ../shared, the run is made by benchmarks/training/edgeml_recipe.py."
            )


def photos() -> list[Path]:
    """The clothing photos as they are, 160 x 213 pixels most of them."""
    require(PHOTOS)
    return sorted(PHOTOS.glob("*.jpg"))


def some(paths: Sequence[Path], count: int) -> list[Path]:
    """Choose evenly."""
    return [paths[i * len(paths) // count] for i in range(min(count, len(paths)))]


def network(name: str) -> Path:
    """Give an .onnx by name.

    `trained`: MobileNetV2 at 160 px, 21 labels, trained on the photos. `imagenet`: MobileNetV2 at
    224 px, 1000 labels that exclude each other. `drawn`: MobileNetV4-S at 224 px with random
    weights and 21 labels; what it says means nothing. `least`: the mean of each channel and one
    layer, at 224 px: a network that leaves the processor's caches alone.
    """
    from edgeml_export.to_onnx import onnx_from_checkpoint

    target = OUT / f"{name}.onnx"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    match name:
        case "trained":
            require(RUN)
            return onnx_from_checkpoint(RUN, target)
        case "imagenet":
            return _imagenet(target)
        case "drawn":
            return _drawn(target, "mobilenetv4_conv_small")
        case "least":
            return _drawn(target, None)
    raise ValueError(name)


def ir(name: str) -> Path:
    """Give the same as OpenVINO IR, with the keys that model_api reads."""
    from edgeml_export.to_openvino import openvino_from_onnx

    target = OUT / f"{name}.xml"
    return target if target.exists() else openvino_from_onnx(network(name), target)


def _imagenet(target: Path) -> Path:
    import timm
    from safetensors.torch import load_file

    from edgeml_export.to_onnx import onnx_from_module

    require(WEIGHTS)
    model = timm.create_model("mobilenetv2_100", num_classes=1000, pad_type="same")
    model.load_state_dict(load_file(WEIGHTS))
    labels = tuple(f"class_{number}" for number in range(1000))
    spec = ModelSpec(
        labels=labels,
        thresholds=(0.5,) * 1000,
        task="multiclass",
        activation="softmax",
        preprocess=Preprocess(size=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    return onnx_from_module(model.eval(), spec, target)


def _drawn(target: Path, name: str | None) -> Path:
    import timm
    import torch
    from torch import nn

    from edgeml_export.to_onnx import onnx_from_module

    torch.manual_seed(0)
    if name:
        model = timm.create_model(name, num_classes=21)
    else:
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 21))
    labels = tuple(f"label_{number}" for number in range(21))
    spec = ModelSpec(labels=labels, thresholds=(0.5,) * 21, preprocess=Preprocess(size=(224, 224)))
    return onnx_from_module(model.eval(), spec, target)


def for_tool(tool: str) -> Path:
    """Give `imagenet` as a tool wants it: the same weights, with what it reads beside them."""
    match tool:
        case "edgeml-onnxruntime" | "edgeml-spinning" | "cv2.dnn":
            return network("imagenet")
        case "edgeml-openvino" | "edgeml-bf16":
            return ir("imagenet")
        case "edgeml-crop":
            return _cropping(OUT / "imagenet-crop.onnx")
        case "model_api" | "model_api-bf16":
            return _for_model_api(OUT / "imagenet-model_api.xml")
        case "transformers":
            return _for_transformers(OUT / "imagenet-transformers")
        case "ultralytics":
            return _for_ultralytics(OUT / "imagenet-ultralytics.onnx")
    raise ValueError(tool)


def _cropping(target: Path) -> Path:
    """Cut the centre out, as Ultralytics does, and squash nothing."""
    from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx

    if not target.exists():
        model = read_onnx(network("imagenet"))
        spec = spec_of_onnx(model, target)
        preprocess = replace(spec.preprocess, resize="crop")
        write_onnx(model, target, replace(spec, preprocess=preprocess))
    return target


def _for_model_api(target: Path) -> Path:
    """Write the keys of its documentation into the IR."""
    import openvino

    if target.exists():
        return target
    model = openvino.Core().read_model(ir("imagenet"))
    keys = {
        "model_type": "Classification",
        "multilabel": "False",
        "labels": " ".join(f"class_{number}" for number in range(1000)),
        "resize_type": "standard",
        "reverse_input_channels": "YES",
        "mean_values": "127.5 127.5 127.5",
        "scale_values": "127.5 127.5 127.5",
        "topk": "5",
    }
    for key, value in keys.items():
        model.set_rt_info(value, ["model_info", key])
    openvino.save_model(model, target, compress_to_fp16=False)
    return target


def _for_transformers(target: Path) -> Path:
    """Write a folder as Optimum exports one; its names for the tensors are part of that."""
    import onnx

    if target.exists():
        return target
    model = onnx.load(network("imagenet"))
    _rename(model.graph, {model.graph.input[0].name: "pixel_values"})
    _rename(model.graph, {model.graph.output[0].name: "logits"})
    names = {str(number): f"class {number}" for number in range(1000)}
    config = {
        "architectures": ["MobileNetV2ForImageClassification"],
        "model_type": "mobilenet_v2",
        "image_size": 224,
        "id2label": names,
        "label2id": {name: int(number) for number, name in names.items()},
    }
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 224, "width": 224},
        "resample": 2,  # bilinear
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    with staged(target) as temporary:
        temporary.mkdir()
        onnx.save(model, temporary / "model.onnx")
        (temporary / "config.json").write_text(json.dumps(config))
        (temporary / "preprocessor_config.json").write_text(json.dumps(processor))
    return target


def _for_ultralytics(target: Path) -> Path:
    """Put a softmax behind and (x - 0.5) / 0.5 before, since it hands over pictures in 0 to 1."""
    import onnx
    from onnx import helper, numpy_helper

    if target.exists():
        return target
    model = onnx.load(network("imagenet"))
    graph = model.graph
    name, logits = graph.input[0].name, graph.output[0].name
    _rename(graph, {name: "normal", logits: "raw"})
    graph.input[0].name, graph.output[0].name = "images", "output0"
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    for constant, value in (("two", 2.0), ("one", 1.0)):
        graph.initializer.append(numpy_helper.from_array(np.float32(value).reshape(1), constant))
    graph.node.insert(0, helper.make_node("Mul", ["images", "two"], ["doubled"]))
    graph.node.insert(1, helper.make_node("Sub", ["doubled", "one"], ["normal"]))
    graph.node.append(helper.make_node("Softmax", ["raw"], ["output0"], axis=1))
    metadata = {
        "task": "classify",
        "stride": "1",
        "batch": "1",
        "imgsz": "[224, 224]",
        "channels": "3",
        "names": str({number: f"class {number}" for number in range(1000)}),
    }
    helper.set_model_props(model, metadata)
    onnx.save(model, target)
    return target


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


def pictures(height: int, width: int, count: int) -> list[Path]:
    """Make JPEGs of this size out of `count` photos, of some 1.7 bits a pixel."""
    folder = OUT / f"{width}x{height}-{count}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with staged(folder) as temporary:
            temporary.mkdir()
            for number, photo in enumerate(some(photos(), count)):
                data = _encode(grown(cv2.imread(str(photo)), height, width, seed=number))
                (temporary / f"{number:04d}.jpg").write_bytes(data)
    return sorted(folder.glob("*.jpg"))


def frames(height: int, width: int, count: int) -> list[Frame]:
    """Give frames (H, W, 3) uint8 BGR made out of photos, as a camera hands them over."""
    return [cv2.imread(str(path)) for path in pictures(height, width, count)]


def grown(photo: Frame, height: int, width: int, *, seed: int = 0) -> Frame:
    """Enlarge a photo until it covers (height, width), cut the middle out, and add grain.

    Without the grain an enlarged photo has no detail for a decoder to spend time on. Its amplitude
    grows with its scale, as the 1/f spectrum of natural pictures has it.
    """
    scale = max(height / photo.shape[0], width / photo.shape[1])
    sides = [
        max(round(side * scale), least)
        for side, least in zip(photo.shape, (height, width), strict=False)
    ]
    big = cv2.resize(photo, (sides[1], sides[0]), interpolation=cv2.INTER_CUBIC)
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    picture = big[top : top + height, left : left + width].astype(np.float32)
    random = np.random.default_rng(seed)
    for step in (1, 2, 4, 8):
        small = random.standard_normal((height // step + 1, width // step + 1, 1), np.float32)
        noise = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        picture += noise[..., None] * np.float32(1.5 * step**0.5)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _encode(frame: Frame) -> bytes:
    """Encode with the quality, of 50 to 98, that comes nearest to `BITS_A_PIXEL`."""
    low, high = 50, 98
    wanted = BITS_A_PIXEL * frame.shape[0] * frame.shape[1] / 8
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_jpeg(frame, middle)) >= wanted else (middle, high)
    return min((_jpeg(frame, low), _jpeg(frame, high)), key=lambda data: abs(len(data) - wanted))


def _jpeg(frame: Frame, quality: int) -> bytes:
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def bits_a_pixel(paths: Sequence[Path]) -> float:
    """Give the mean over files of one size."""
    height, width = cv2.imread(str(paths[0])).shape[:2]
    return 8 * float(np.mean([path.stat().st_size for path in paths])) / (height * width)


def child_environment(threads: int) -> dict[str, str]:
    """Give a child what a user has: nothing is set that tunes a BLAS, but for the threads if 1.

    All cores are what each library takes by itself.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP_", "OPENBLAS_", "MKL_", "KMP_", "OV_"))
    }
    if threads < (os.cpu_count() or 1):
        kept["OMP_NUM_THREADS"] = str(threads)
    kept["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "export")))
    kept["ORT_DISABLE_TELEMETRY"] = "1"
    return kept


@cache
def machine() -> dict[str, Any]:
    """Give what a figure belongs to."""
    return {"host": asdict(capture_host()), "software": capture_software()}


def merge_json(path: Path, rows: dict[str, Any]) -> None:
    """Write rows into a file of rows, which is whole at every moment; others in it stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text())["rows"] if path.exists() else {}
    document = {**machine(), "rows": {**known, **rows}}
    write_text(path, json.dumps(document, indent=1) + "\n")
