"""Make classifiers with transformers and Optimum, and let its pipeline classify photos.

Run by the tool's own Python, see make.sh: python make_hugging_face.py PHOTOS OUT
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
import transformers as hf
from heads import respond_to_photos
from optimum.exporters.onnx import main_export
from optimum.intel import OVModelForImageClassification
from optimum.onnxruntime import ORTModelForImageClassification
from PIL import Image
from transformers.modeling_outputs import ImageClassifierOutput

LABELS = ["hat", "shirt", "dress", "skirt", "shoes", "T-shirt, long"]
SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


class DINOv3ViTForImageClassification(hf.DINOv3ViTPreTrainedModel):
    """A DINOv3 with a linear layer on its class token; transformers 4.57 has none of its own."""

    def __init__(self, config: hf.DINOv3ViTConfig) -> None:
        super().__init__(config)
        self.backbone = hf.DINOv3ViTModel(config)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
        pooled = self.backbone(pixel_values).pooler_output
        return ImageClassifierOutput(logits=self.classifier(pooled))


class Logits(torch.nn.Module):
    """A classifier that returns its logits alone, for an exporter."""

    def __init__(self, network: hf.PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(images).logits
        return logits


def timm_wrapper(architecture: str, problem: str | None) -> tuple[Any, Any]:
    """Make a TimmWrapper: its processor is that of timm, and its settings are in config.json."""
    settings = timm.get_pretrained_cfg(architecture).to_dict()
    config = hf.TimmWrapperConfig.from_dict(
        {
            "architecture": architecture, "num_classes": len(LABELS), "label_names": LABELS,
            "pretrained_cfg": settings, "problem_type": problem,
        }
    )  # fmt: skip
    network = hf.TimmWrapperForImageClassification(config)
    return network, hf.TimmWrapperImageProcessor(settings, architecture)


def exported_by_torch() -> dict[str, tuple[Any, Any]]:
    """Return the classifiers that Optimum does not export."""
    names = {
        "id2label": dict(enumerate(LABELS)),
        "label2id": {name: i for i, name in enumerate(LABELS)},
    }
    dinov3 = hf.DINOv3ViTConfig(image_size=64, num_register_tokens=4, **SMALL, **names)
    return {
        "timm_wrapper": timm_wrapper("test_resnet", None),
        "timm_wrapper_several": timm_wrapper("test_efficientnet", "multi_label_classification"),
        "dinov3": (
            DINOv3ViTForImageClassification(dinov3),
            hf.DINOv3ViTImageProcessorFast(size={"height": 64, "width": 64}),
        ),
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
    mobile = hf.MobileNetV2Config(depth_multiplier=0.75, image_size=96, **names)
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
    """Let a random network tell photos apart."""
    images = [Image.open(photo).convert("RGB") for photo in photos[::3]]
    batch = processor(images, return_tensors="pt")
    wrapped = getattr(network, "timm_model", None)
    last = network.classifier if wrapped is None else wrapped.get_classifier()
    respond_to_photos(last, lambda: network(**batch))


def export(network: hf.PreTrainedModel, processor: hf.BaseImageProcessor, folder: Path) -> None:
    """Write the .onnx by torch alone, and the files that transformers writes next to it."""
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    size = getattr(processor, "size", None) or getattr(processor, "data_config", {})["input_size"]
    height, width = (size["height"], size["width"]) if "height" in size else size[1:]
    torch.onnx.export(
        Logits(network).eval(), (torch.zeros(2, 3, height, width),), folder / "model.onnx",
        dynamo=False, input_names=["pixel_values"], output_names=["logits"],
        dynamic_axes={"pixel_values": {0: "batch"}, "logits": {0: "batch"}},
    )  # fmt: skip


def recorded(pipe: hf.Pipeline, photos: list[Path]) -> dict[str, Any]:
    """Return the pipeline's scores for each photo, and the tools that they are from."""
    answers = [pipe(Image.open(photo).convert("RGB"), top_k=99) for photo in photos]
    expected = [{one["label"]: one["score"] for one in answer} for answer in answers]
    print(type(pipe.image_processor).__name__, sorted({max(e, key=e.get) for e in expected}))
    return {
        "tool": {name: version(name) for name in ("transformers", "optimum-onnx", "optimum-intel")},
        "processor": type(pipe.image_processor).__name__,
        "photos": [photo.name for photo in photos],
        "expected": expected,
    }


def main(photos: list[Path], out: Path) -> None:
    torch.manual_seed(0)
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
        document = json.dumps(recorded(pipe, photos))
        (folder / "expected.json").write_text(document)
        if name in ("vit", "convnext"):
            exported = OVModelForImageClassification.from_pretrained(
                torch_folder, export=True, compile=False, load_in_8bit=False
            )
            exported.save_pretrained(out / f"{name}_openvino")
            processor.save_pretrained(out / f"{name}_openvino")
            (out / f"{name}_openvino" / "expected.json").write_text(document)
    for name, (network, processor) in exported_by_torch().items():
        spread(network.eval(), processor, photos)
        export(network, processor, out / name)
        pipe = hf.pipeline("image-classification", model=network, image_processor=processor)
        (out / name / "expected.json").write_text(json.dumps(recorded(pipe, photos)))


if __name__ == "__main__":
    every = sorted(Path(sys.argv[1]).glob("*.jpg"))
    main(every[:: max(1, len(every) // 50)][:50], Path(sys.argv[2]))
