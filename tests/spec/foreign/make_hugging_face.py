"""Make classifiers with transformers and Optimum, and let its pipeline classify photos.

Run by the tool's own Python, see make.sh: python make_hugging_face.py PHOTOS OUT
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
import transformers as hf
from optimum.exporters.onnx import main_export
from optimum.intel import OVModelForImageClassification
from optimum.onnxruntime import ORTModelForImageClassification
from PIL import Image

LABELS = ["hat", "shirt", "dress", "skirt", "shoes", "T-shirt, long"]
SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def cases() -> dict[str, tuple[hf.PreTrainedModel, hf.BaseImageProcessor]]:
    names = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {name: i for i, name in enumerate(LABELS)},
    }
    vit = hf.ViTConfig(image_size=64, patch_size=16, **SMALL, **names)
    several = hf.ViTConfig(
        image_size=64, patch_size=16, problem_type="multi_label_classification", **SMALL, **names
    )
    convnext = hf.ConvNextConfig(
        hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, patch_size=4, layer_scale_init_value=1,
        **names,
    )  # fmt: skip
    deit = hf.DeiTConfig(image_size=56, patch_size=14, **SMALL, **names)
    mobile = hf.MobileNetV2Config(depth_multiplier=0.35, image_size=96, **names)
    size = {"height": 64, "width": 64}
    return {
        "vit": (hf.ViTForImageClassification(vit), hf.ViTImageProcessor(size=size)),
        "vit_several": (hf.ViTForImageClassification(several), hf.ViTImageProcessor(size=size)),
        "convnext": (
            hf.ConvNextForImageClassification(convnext),
            hf.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875, resample=3),
        ),
        "siglip": (  # Optimum exports no classifier of SigLIP, so its processor meets another
            hf.ViTForImageClassification(vit),
            hf.SiglipImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        ),
        "deit": (
            hf.DeiTForImageClassification(deit),
            hf.DeiTImageProcessor(size={"height": 64, "width": 64}, crop_size=56),
        ),
        "mobilenet": (
            hf.MobileNetV2ForImageClassification(mobile),
            hf.MobileNetV2ImageProcessor(
                size={"shortest_edge": 112}, crop_size={"height": 96, "width": 96}
            ),
        ),
    }


@torch.no_grad()
def spread(
    network: hf.PreTrainedModel, processor: hf.BaseImageProcessor, photos: list[Path]
) -> None:
    """Scale the last layer of a random network so that it tells photos apart."""
    images = [Image.open(photo).convert("RGB") for photo in photos[::3]]
    logits = network(**processor(images, return_tensors="pt")).logits
    scale = 2 / logits.std(dim=0)
    network.classifier.weight *= scale[:, None]
    network.classifier.bias.copy_(scale * (network.classifier.bias - logits.mean(dim=0)))


def main(photos: list[Path], out: Path) -> None:
    torch.manual_seed(0)
    versions = {name: version(name) for name in ("transformers", "optimum-onnx", "optimum-intel")}
    for name, (network, processor) in cases().items():
        folder, torch_folder = out / name, out / f"{name}_torch"
        spread(network.eval(), processor, photos)
        network.save_pretrained(torch_folder)
        processor.save_pretrained(torch_folder)
        main_export(str(torch_folder), folder, task="image-classification", do_validation=False)
        pipe = hf.pipeline(
            "image-classification",
            model=ORTModelForImageClassification.from_pretrained(folder),
            image_processor=hf.AutoImageProcessor.from_pretrained(folder),
        )
        answers = [pipe(Image.open(photo).convert("RGB"), top_k=99) for photo in photos]
        expected = [{one["label"]: one["score"] for one in answer} for answer in answers]
        document = {
            "tool": versions,
            "processor": type(pipe.image_processor).__name__,
            "photos": [photo.name for photo in photos],
            "expected": expected,
        }
        (folder / "expected.json").write_text(json.dumps(document))
        if name in ("vit", "convnext"):
            exported = OVModelForImageClassification.from_pretrained(
                torch_folder, export=True, compile=False, load_in_8bit=False
            )
            exported.save_pretrained(out / f"{name}_openvino")
            processor.save_pretrained(out / f"{name}_openvino")
            (out / f"{name}_openvino" / "expected.json").write_text(json.dumps(document))
        print(name, document["processor"], sorted({max(e, key=e.get) for e in expected}))


if __name__ == "__main__":
    every = sorted(Path(sys.argv[1]).glob("*.jpg"))
    main(every[:: max(1, len(every) // 50)][:50], Path(sys.argv[2]))
