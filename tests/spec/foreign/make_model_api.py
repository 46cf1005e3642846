"""Make files with OpenVINO's model_api, from an .onnx with ImageNet weights, and record its scores.

Run by the tool's own Python, see make.sh: python make_model_api.py PHOTOS OUT MODEL.onnx
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import openvino as ov
from model_api.adapters import OpenvinoAdapter, create_core
from model_api.models import Model

MEAN, SCALE = "123.675 116.28 103.53", "58.395 57.12 57.375"


def main(photos: list[Path], out: Path, source: Path) -> None:
    labels = " ".join(f"l{i}" for i in range(1000))
    cases = {
        "standard": {},
        "crop": {"resize_type": "crop"},
        "letterbox": {"resize_type": "fit_to_window_letterbox", "pad_value": "114"},
        "several": {"multilabel": "True", "confidence_threshold": "0.9"},
        "embedded": {},
    }
    for name, more in cases.items():
        folder = out / name
        network = ov.Core().read_model(source)
        network.reshape([1, 3, 224, 224])
        info = {
            "model_type": "Classification", "labels": labels, "mean_values": MEAN,
            "scale_values": SCALE, "reverse_input_channels": "True", "output_raw_scores": "True",
        } | more  # fmt: skip
        for key, value in info.items():
            network.set_rt_info(value, ["model_info", key])
        path = folder / "model.xml"
        ov.save_model(network, path, compress_to_fp16=False)
        # In FP32, as edgeml computes: alone, OpenVINO takes bfloat16 where the CPU has it.
        adapter = OpenvinoAdapter(
            core=create_core(), model=str(path), device="CPU",
            plugin_config={"INFERENCE_PRECISION_HINT": "f32"},
        )  # fmt: skip
        model = Model.create_model(adapter, preload=True)
        if name == "embedded":
            model.save(str(folder / "embedded.xml"))
            path = folder / "embedded.xml"
        answers = [model(cv2.imread(str(photo))) for photo in photos]
        expected = [
            {f"l{i}": round(float(p), 6) for i, p in enumerate(one.raw_scores)} for one in answers
        ]
        document = {
            "tool": {"openvino-model-api": version("openvino-model-api")},
            "photos": [photo.name for photo in photos],
            "expected": expected,
            "top": [sorted(label.name for label in one.top_labels) for one in answers],
            "model": path.name,
        }
        (folder / "expected.json").write_text(json.dumps(document))
        print(name, len({max(e, key=e.get) for e in expected}))


if __name__ == "__main__":
    every = sorted(Path(sys.argv[1]).glob("*.jpg"))
    main(every[:: max(1, len(every) // 50)][:50], Path(sys.argv[2]), Path(sys.argv[3]))
