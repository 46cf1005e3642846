"""Export timm's MobileNetV2 with its ImageNet weights, and let timm classify photos.

Run by the Python of the tests: python make_timm.py PHOTOS OUT WEIGHTS
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf
from timm.utils.onnx import onnx_export


@torch.no_grad()
def main(photos: list[Path], out: Path, weights: Path) -> None:
    network = timm.create_model(
        "mobilenetv2_100", pretrained=False, exportable=True, pad_type="same"
    )
    network.load_state_dict(load_file(weights))
    folder = out / "mobilenet"
    folder.mkdir(parents=True, exist_ok=True)
    save_for_hf(network, folder, model_config={"label_names": [f"l{i}" for i in range(1000)]})
    onnx_export(
        network.eval(),
        str(folder / "model.onnx"),
        opset=18,
        dynamic_size=False,
        input_size=(3, 224, 224),
        batch_size=1,
        use_dynamo=False,
    )
    config = json.loads((folder / "config.json").read_text())
    transform = create_transform(**resolve_data_config(config["pretrained_cfg"]))
    batch = torch.stack([transform(Image.open(photo).convert("RGB")) for photo in photos])
    scores = network(batch).softmax(dim=1)
    document = {
        "tool": {"timm": version("timm")},
        "photos": [photo.name for photo in photos],
        "expected": [{f"l{i}": round(float(p), 6) for i, p in enumerate(row)} for row in scores],
        "model": "model.onnx",
    }
    (folder / "expected.json").write_text(json.dumps(document))
    print(transform)


if __name__ == "__main__":
    every = sorted(Path(sys.argv[1]).glob("*.jpg"))
    main(every[:: max(1, len(every) // 50)][:50], Path(sys.argv[2]), Path(sys.argv[3]))
