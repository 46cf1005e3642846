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
from heads import respond_to_photos
from ultralytics import YOLO
from ultralytics.nn.tasks import ClassificationModel

LABELS = {0: "hat", 1: "shirt", 2: "it's: a dress", 3: "skirt", 4: "shoes", 5: "T-shirt, long"}


@torch.no_grad()
def spread(network: torch.nn.Module, photos: list[Path], sides: list[int]) -> None:
    """Let a random network tell photos apart; `sides` are height and width."""
    frames = [cv2.resize(cv2.imread(str(p)), (sides[1], sides[0])) for p in photos[::3]]
    batch = torch.tensor(np.stack(frames)[..., ::-1].copy()).permute(0, 3, 1, 2) / 255
    network.train()
    for _ in range(30):  # the statistics of batch normalisation
        network(batch)
    network.eval()
    respond_to_photos(network.model[-1].linear, lambda: network(batch))


def answers(file: Path, photos: list[Path], sides: list[int]) -> list[dict[str, float]]:
    """Return the scores that Ultralytics computes with an exported file."""
    yolo = YOLO(file, task="classify")
    results = [yolo.predict(str(photo), imgsz=sides, verbose=False)[0] for photo in photos]
    expected = [{one.names[i]: p for i, p in enumerate(one.probs.data.tolist())} for one in results]
    print(file, sorted({max(e, key=e.get) for e in expected}))
    return expected


def record(folder: Path, photos: list[Path], expected: list[dict[str, float]], **more: str) -> None:
    document = {
        "tool": {"ultralytics": version("ultralytics")},
        "photos": [photo.name for photo in photos],
        "expected": expected,
        **more,
    }
    (folder / "expected.json").write_text(json.dumps(document))


def main(photos: list[Path], out: Path) -> None:
    torch.manual_seed(0)
    out.mkdir(parents=True, exist_ok=True)
    os.chdir(out)
    for name, sides in (("onnx", [96, 96]), ("oblong", [128, 256])):
        yolo = YOLO("yolo11n-cls.yaml", task="classify")
        yolo.model = ClassificationModel("yolo11n-cls.yaml", nc=len(LABELS), verbose=False)
        yolo.model.names = LABELS
        spread(yolo.model, photos, sides)
        yolo.model.pt_path = "cls.pt"
        torch.save({"model": yolo.model, "train_args": {"task": "classify", "imgsz": 96}}, "cls.pt")
        exported = Path(YOLO("cls.pt").export(format="onnx", imgsz=sides))
        Path(name).mkdir(exist_ok=True)
        file = exported.replace(Path(name) / exported.name)
        expected = answers(file, photos, sides)
        record(Path(name), photos, expected, model=file.name)
        if name == "onnx":
            # Its scores are those of the .onnx: with OpenVINO, Ultralytics computes in bfloat16
            # where the CPU has it.
            folder = Path(YOLO("cls.pt").export(format="openvino", imgsz=sides))
            record(folder, photos, expected)


if __name__ == "__main__":
    every = sorted(Path(sys.argv[1]).glob("*.jpg"))
    main(every[:: max(1, len(every) // 50)][:50], Path(sys.argv[2]).absolute())
