"""Files that are no ONNX, or damaged; and files with the metadata of other tools."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from tests.field.corpus import LABELS, NODES, Case, Model, network, reads, refused

SOFTMAX = ("--activation", "softmax")


def written(folder: Path, content: bytes) -> Path:
    (folder / "model.onnx").write_bytes(content)
    return folder / "model.onnx"


def bytes_of(name: str, content: bytes | Callable[[], bytes]) -> Case:
    def build(folder: Path) -> Path:
        return written(folder, content if isinstance(content, bytes) else content())

    return Case(name, build, SOFTMAX, refused=True)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.onnx", network().SerializeToString())
    return file.getvalue()


def for_mobile() -> bytes:
    """Return a file in ONNX Runtime's own format."""
    import tempfile

    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.optimized_model_filepath = f"{folder}/model.ort"
        options.add_session_config_entry("session.save_model_format", "ORT")
        ort.InferenceSession(network().SerializeToString(), options,
                             providers=["CPUExecutionProvider"])  # fmt: skip
        return Path(options.optimized_model_filepath).read_bytes()


def broken() -> list[Case]:
    whole = network().SerializeToString()
    noise = np.random.default_rng(0).bytes(4000)
    missing, cycle, short = network(), network(), network()
    del missing.graph.initializer[1]
    cycle.graph.node[0].input[0] = "y2"
    short.graph.initializer[0].raw_data = short.graph.initializer[0].raw_data[:-8]
    no_opset, no_nodes = network(), network()
    del no_opset.opset_import[:]
    del no_nodes.graph.node[:]
    not_text = whole.replace(b"logits_node", b"logits_\xff\xfe\xfd\xfc")
    return [
        bytes_of("empty", b""),
        bytes_of("one byte", b"\x08"),
        bytes_of("text", b"This is not a model.\n" * 20),
        bytes_of("HTML", b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"),
        bytes_of("Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:"
                 + 64 * b"0" + b"\nsize 4096\n"),
        bytes_of("JSON", json.dumps({"error": "not found"}).encode()),
        bytes_of("zip", zipped),
        bytes_of("gzip", gzip.compress(whole)),
        bytes_of("ORT format", for_mobile),
        bytes_of("an engine", b"ftrt" + noise),
        bytes_of("noise", noise),
        bytes_of("cut at half", whole[: len(whole) // 2]),
        bytes_of("cut by a byte", whole[:-1]),
        bytes_of("zeros", bytes(4096)),
        Case("names that are not UTF-8", lambda folder: written(folder, not_text), SOFTMAX),
        refused("a weight missing", missing),
        refused("a cycle", cycle),
        refused("a weight too short", short),
        refused("no opset", no_opset),
        refused("no nodes", no_nodes),
    ]  # fmt: skip


def with_metadata(model: Model, **entries: str) -> Model:
    helper.set_model_props(model, entries)
    return model


def beside(**files: Any) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (folder / "model.onnx").write_bytes(network().SerializeToString())
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return folder / "model.onnx"

    return build


def metadata() -> list[Case]:
    probabilities = [*NODES[:-1], ("Gemm", *NODES[-1][1:2], "rows", NODES[-1][3]),
                     ("Softmax", ["rows"], "logits", {"axis": 1})]  # fmt: skip
    timm = {
        "architecture": "resnet18", "num_classes": len(LABELS), "label_names": list(LABELS),
        "pretrained_cfg": {
            "input_size": [3, 16, 16], "interpolation": "bilinear", "crop_pct": 1.0,
            "crop_mode": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
        },
    }  # fmt: skip
    config = {
        "architectures": ["ViTForImageClassification"], "model_type": "vit",
        "id2label": {str(number): label for number, label in enumerate(LABELS)},
    }  # fmt: skip
    processor = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16},
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2,
    }  # fmt: skip
    names = str(dict(enumerate(LABELS)))
    return [
        reads("Ultralytics", with_metadata(network(probabilities), task="classify", names=names,
              imgsz="[16, 16]", stride="1", batch="1"), "--channels", "rgb"),
        refused("Ultralytics, boxes", with_metadata(network(probabilities), task="detect",
                names=names, imgsz="[16, 16]")),
        reads("model_api", with_metadata(network(probabilities), **{
              "model_info model_type": "Classification", "model_info labels": " ".join(LABELS),
              "model_info resize_type": "standard", "model_info output_raw_scores": "False"}),
              "--channels", "rgb"),
        Case("timm", beside(config=timm), SOFTMAX, states={"activation": "softmax"}),
        Case("transformers", beside(config=config, preprocessor_config=processor), SOFTMAX),
        reads("unknown metadata", with_metadata(network(), author="me", labels="x,y")),
    ]  # fmt: skip
