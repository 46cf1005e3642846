"""Files of other tools: what they state overrides what is usual."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import ModelLoadError, SpecError
from edgeml.predict.inspection import describe
from edgeml.spec.foreign.merge import SpecOverrides, spec_for
from edgeml.spec.foreign.timm_hub import spec_of_timm
from edgeml.spec.foreign.ultralytics import spec_of_ultralytics

PRETRAINED = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    ("problem", "labels", "task", "activation"),
    [
        ("multi_label_classification", ["a", "b"], "multilabel", "sigmoid"),
        ("single_label_classification", ["a", "b"], "multiclass", "softmax"),
        (None, ["a", "b"], "multiclass", "softmax"),
        (None, ["a"], "multilabel", "sigmoid"),
    ],
)
def test_a_timm_wrapper_of_transformers_has_the_activation_of_its_problem_type(
    problem: str | None, labels: list[str], task: str, activation: str
) -> None:
    config: dict[str, Any] = {
        "architecture": "resnet18",
        "architectures": ["TimmWrapperForImageClassification"],
        "model_type": "timm_wrapper",
        "label_names": labels,
        "pretrained_cfg": PRETRAINED,
    }
    if problem:
        config["problem_type"] = problem
    spec = spec_of_timm(config, "config.json", None)
    assert (spec.task, spec.activation) == (task, activation)
    assert spec.labels == tuple(labels)


def test_another_problem_type_in_a_timm_wrapper_is_refused() -> None:
    config = {"pretrained_cfg": PRETRAINED, "problem_type": "regression"}
    with pytest.raises(SpecError, match="regression"):
        spec_of_timm(config, "config.json", None)


@pytest.mark.parametrize(
    ("imgsz", "size", "resize"),
    [
        ("[128, 256]", (128, 256), "squash"),
        ("[256, 128]", (256, 128), "squash"),
        ("[128, 128]", (128, 128), "crop"),
        ("64", (64, 64), "crop"),
    ],
)
def test_ultralytics_squashes_to_a_size_that_is_not_square(
    imgsz: str, size: tuple[int, int], resize: str
) -> None:
    metadata = {"task": "classify", "names": "{0: 'a', 1: 'b'}", "imgsz": imgsz}
    spec = spec_of_ultralytics(metadata, "in the file")
    assert (spec.size, spec.resize, spec.crop) == (size, resize, 1.0)


def test_dinov3_is_read_with_its_defaults(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from tests.spec.foreign.nets import make_net

    make_net(tmp_path / "model.onnx", sides=("h", "w"))
    config = {
        "architectures": ["DINOv3ViTForImageClassification"],
        "id2label": {str(i): f"label {i}" for i in range(48)},
    }
    for kind in ("DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast"):
        processor = {"image_processor_type": kind, "size": {"height": 32, "width": 48}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        preprocess = spec_for(tmp_path).spec.preprocess
        assert (preprocess.size, preprocess.resize) == ((32, 48), "squash")
        assert (preprocess.interpolation, preprocess.antialias) == ("linear", True)
        assert preprocess.mean == (0.485, 0.456, 0.406)
        assert preprocess.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("problem", "ending", "task"),
    [
        (None, "Sigmoid", "multilabel"),
        (None, "Softmax", "multiclass"),
        ("single_label_classification", "Sigmoid", "multiclass"),
        ("multi_label_classification", "Sigmoid", "multilabel"),
        ("multi_label_classification", "Softmax", None),
    ],
)
def test_the_end_of_a_graph_overrides_a_convention_and_may_contradict_a_statement(
    tmp_path: Path, problem: str | None, ending: str, task: str | None
) -> None:
    pytest.importorskip("onnx")
    from tests.spec.foreign.nets import make_net

    make_net(tmp_path / "model.onnx", ending=[ending])
    config = {
        "architectures": ["ViTForImageClassification"],
        "id2label": {str(i): f"label {i}" for i in range(48)},
        **({"problem_type": problem} if problem else {}),
    }
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 64, "width": 64},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    if task is None:
        with pytest.raises(SpecError, match="--task"):
            spec_for(tmp_path)
        assert spec_for(tmp_path, SpecOverrides(task="multiclass")).spec.activation == "none"
    else:
        spec = spec_for(tmp_path).spec
        assert (spec.task, spec.activation) == (task, "none")


def test_options_for_a_file_that_does_not_exist_are_no_other_error(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no model .*nosuch\.onnx"):
        describe(tmp_path / "nosuch.onnx", SpecOverrides(labels=["a", "b"]))
