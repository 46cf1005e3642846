"""Write the input that each tool computes from one drawn image, with its settings: drawn.json.

Run by each tool's own Python, see make.sh: python make_drawn.py TOOL DRAWN.json
It holds only numbers and settings, no code and no weights.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from drawn import LABELS, block_means, drawn
from PIL import Image


def hugging_face() -> dict[str, Any]:
    import transformers as hf

    square = {"height": 64, "width": 64}
    processors = {
        "ViT": hf.ViTImageProcessor(size=square),
        "ViT, a rectangle": hf.ViTImageProcessor(size={"height": 64, "width": 48}),
        "ViT, nearest": hf.ViTImageProcessor(size=square, resample=0),
        "ViT, Lanczos": hf.ViTImageProcessor(size=square, resample=1),
        "ViT, no mean": hf.ViTImageProcessor(size=square, do_normalize=False),
        "ViT, 0 to 255": hf.ViTImageProcessor(size=square, do_normalize=False, do_rescale=False),
        "ConvNeXt": hf.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
        "ConvNeXt, large": hf.ConvNextImageProcessor(size={"shortest_edge": 384}),
        "DINOv3": hf.DINOv3ViTImageProcessorFast(size=square),
        "SigLIP": hf.SiglipImageProcessor(size=square),
        "CLIP": hf.CLIPImageProcessor(size={"shortest_edge": 64}, crop_size=64),
        "BiT": hf.BitImageProcessor(size={"shortest_edge": 72}, crop_size=64),
        "DeiT": hf.DeiTImageProcessor(size={"height": 72, "width": 72}, crop_size=64),
        "BEiT": hf.BeitImageProcessor(size={"height": 72, "width": 72}, crop_size=64),
        "LeViT": hf.LevitImageProcessor(size={"shortest_edge": 56}, crop_size=56),
        "EfficientNet": hf.EfficientNetImageProcessor(
            size=square, rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False
        ),
        "MobileNetV2": hf.MobileNetV2ImageProcessor(size={"shortest_edge": 72}, crop_size=square),
        "MobileViT": hf.MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size=square),
    }
    return {
        name: {
            "tool": f"transformers {version('transformers')}",
            "processor": json.loads(processor.to_json_string()),
            "expected": _means(processor(Image.fromarray(drawn()), return_tensors="pt")),
        }
        for name, processor in processors.items()
    }


def _means(output: Any) -> list[float]:
    return block_means(np.asarray(output["pixel_values"][0], np.float32)).round(4).tolist()


def ultralytics() -> dict[str, Any]:
    from ultralytics.data.augment import classify_transforms

    planes = classify_transforms(64)(Image.fromarray(drawn())).numpy()
    values = {
        "task": "classify", "imgsz": "[64, 64]", "stride": "1", "batch": "1",
        "names": repr(dict(enumerate(LABELS))),
    }  # fmt: skip
    return {
        "classify": {
            "tool": f"ultralytics {version('ultralytics')}",
            "metadata": values,
            "expected": block_means(planes).round(4).tolist(),
        }
    }


def model_api() -> dict[str, Any]:
    import openvino as ov
    from model_api.adapters import OpenvinoAdapter, create_core
    from model_api.models import Model
    from openvino import opset13 as op

    base = {"model_type": "Classification", "multilabel": "True", "output_raw_scores": "True",
            "labels": " ".join(LABELS)}  # fmt: skip
    normal = {"mean_values": "120 110 100", "scale_values": "60 50 55"}
    cases = {
        "bare": {},
        "standard": normal | {"reverse_input_channels": "True"},
        "letterbox": normal | {"resize_type": "fit_to_window_letterbox", "pad_value": "30"},
        "crop": normal | {"resize_type": "crop", "reverse_input_channels": "YES"},
        "nearest": normal | {"interpolation_mode": "NEAREST"},
    }
    results = {}
    for name, more in cases.items():
        image = op.parameter([1, 3, 64, 64], np.float32, name="image")
        pooled = op.avg_pool(image, [16, 16], [0, 0], [0, 0], [16, 16], True)
        # Small, so that a sigmoid of raw pixels tells them apart.
        small = op.multiply(pooled, op.constant(np.float32(0.01 if name == "bare" else 1)))
        scores = op.reshape(small, op.constant(np.array([1, 48])), False)
        network = ov.Model([op.result(scores)], [image])
        for key, value in (base | more).items():
            network.set_rt_info(value, ["model_info", key])
        ov.save_model(network, "/tmp/drawn.xml", compress_to_fp16=False)
        adapter = OpenvinoAdapter(
            core=create_core(), model="/tmp/drawn.xml", device="CPU",
            plugin_config={"INFERENCE_PRECISION_HINT": "f32"},
        )  # fmt: skip
        scores = Model.create_model(adapter, preload=True)(drawn()[..., ::-1].copy()).raw_scores
        results[name] = {
            "tool": f"openvino-model-api {version('openvino-model-api')}",
            "metadata": base | more,
            "expected": scores.astype(float).round(4).tolist(),
        }
    return results


def timm() -> dict[str, Any]:
    from timm.data import create_transform, resolve_data_config

    cases = {
        "center": {"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"},
        "odd share": {"interpolation": "bilinear", "crop_pct": 0.95},
        "squash": {"interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "squash"},
    }
    results = {}
    for name, more in cases.items():
        values = {
            "input_size": [3, 64, 64],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.3, 0.25],
            **more,
        }
        transform = create_transform(**resolve_data_config(dict(values)))
        results[name] = {
            "tool": f"timm {version('timm')}",
            "pretrained_cfg": values,
            "expected": block_means(transform(Image.fromarray(drawn())).numpy()).round(4).tolist(),
        }
    return results


if __name__ == "__main__":
    tool, path = sys.argv[1], Path(sys.argv[2])
    document = json.loads(path.read_text()) if path.exists() else {}
    document[tool] = {
        "hugging_face": hugging_face,
        "ultralytics": ultralytics,
        "model_api": model_api,
        "timm": timm,
    }[tool]()
    path.write_text(json.dumps(document, indent=0, sort_keys=True).replace("\n", "") + "\n")
