"""Make classifiers with Ultralytics, and let it classify photos.

Run by the tool's own Python, see make.sh: python make_ultralytics.py PHOTOS OUT
Ultralytics is AGPL-3.0: nothing of it is in edgeml, and what this makes is not committed.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ |= {"YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false", "YOLO_AUTOINSTALL": "false"}

import cv2
import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import ClassificationModel

LABELS = {0: "hat", 1: "shirt", 2: "it's: a dress", 3: "skirt", 4: "shoes", 5: "T-shirt, long"}


@torch.no_grad()
def spread(network: torch.nn.Module, photos: list[Path], size: int) -> None:
    """Scale the last layer of a random network so that it tells photos apart."""
    frames = [cv2.resize(cv2.imread(str(p)), (size, size)) for p in photos[::3]]
    batch = torch.tensor(np.stack(frames)[..., ::-1].copy()).permute(0, 3, 1, 2) / 255
    network.train()
    for _ in range(30):  # the statistics of batch normalisation
        network(batch)
    network.eval()
    seen = []
    last = network.model[-1].linear
    hook = last.register_forward_hook(lambda m, i, out: seen.append(out))
    network(batch)
    hook.remove()
    scale = 2 / seen[0].std(dim=0)
    last.weight *= scale[:, None]
    last.bias.copy_(scale * (last.bias - seen[0].mean(dim=0)))


def main(photos: list[Path], out: Path) -> None:
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    yolo = YOLO("yolo11n-cls.yaml", task="classify")
    yolo.model = ClassificationModel("yolo11n-cls.yaml", nc=len(LABELS), verbose=False)
    yolo.model.names = LABELS
    spread(yolo.model, photos, 96)
    yolo.model.pt_path = "cls.pt"
    torch.save({"model": yolo.model, "train_args": {"task": "classify", "imgsz": 96}}, "cls.pt")
    for name, form in (("onnx", "onnx"), ("cls_openvino_model", "openvino")):
        exported = Path(YOLO("cls.pt").export(format=form, imgsz=96))
        folder = Path(name)
        if form == "onnx":
            folder.mkdir(exist_ok=True)
            exported.replace(folder / exported.name)
        if form == "onnx":  # with OpenVINO it computes in bfloat16 where the CPU has it
            again = YOLO(folder / exported.name, task="classify")
            answers = [again.predict(str(photo), imgsz=96, verbose=False)[0] for photo in photos]
            expected = [
                {one.names[i]: p for i, p in enumerate(one.probs.data.tolist())} for one in answers
            ]
        document = {
            "tool": {"ultralytics": version("ultralytics")},
            "photos": [photo.name for photo in photos],
            "expected": expected,
            **({"model": exported.name} if form == "onnx" else {}),
        }
        (folder / "expected.json").write_text(json.dumps(document))
        print(name, sorted({max(e, key=e.get) for e in expected}))


if __name__ == "__main__":
    every = sorted(Path(sys.argv[1]).glob("*.jpg"))
    main(every[:: max(1, len(every) // 50)][:50], Path(sys.argv[2]).absolute())
