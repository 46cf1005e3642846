"""A checkpoint names its model, loads exactly as saved, and cannot cause other files to load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edgeml import LabelGroup, ModelSpec, Preprocess
from edgeml.errors import ModelLoadError, SpecError
from edgeml.network.checkpoint import load_checkpoint, save_checkpoint
from edgeml.network.model import build_model, head_of
from edgeml.spec.provenance import Provenance

pytestmark = pytest.mark.train

SPEC = ModelSpec(
    labels=("rot", "grün", "塗"),
    thresholds=(0.1, 0.5, 0.9),
    preprocess=Preprocess(size=(64, 64), interpolation="cubic"),
    groups=(LabelGroup(name="colour", labels=("rot", "grün"), rule="one"),),
    metrics={"val_mAP": 0.75},
    provenance=Provenance(model="test_resnet"),
)


@pytest.mark.parametrize(
    ("name", "args"),
    [("cnn", {}), ("test_vit", {"img_size": 64}), ("mobilenetv2_035", {"pad_type": "same"})],
)
def test_a_checkpoint_loads_exactly_as_saved(
    tmp_path: Path, name: str, args: dict[str, str | int]
) -> None:
    model = build_model(name, labels=3, args=args).eval().to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "model.safetensors", model, SPEC, name=name, args=args)
    images = torch.randn(2, 3, 64, 64)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        loaded, spec = load_checkpoint(source)
        assert spec == SPEC
        assert not loaded.training
        with torch.inference_mode():
            # Two passes of one network have differed by 5e-5 here; weights must not differ at all.
            assert torch.allclose(loaded(images), model(images), rtol=1e-4, atol=1e-4)
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value)


def test_the_metadata_name_the_model_and_its_arguments(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    args = {"pad_type": "same", "drop_rate": 0.1}
    model = build_model("mobilenetv2_035", labels=3, args=args)
    save_checkpoint(path, model, SPEC, name="mobilenetv2_035", args=args)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["model"]) == {"name": "mobilenetv2_035", "args": args}
    assert ModelSpec.from_json(metadata["edgeml"]) == SPEC


def rewritten(path: Path, **metadata: str) -> Path:
    """Write the weights of a 3-label CNN under other metadata."""
    tensors = build_model("cnn", labels=3, args={}).state_dict()
    metadata = {"edgeml": SPEC.to_json(), "model": '{"name": "cnn", "args": {}}', **metadata}
    save_file(tensors, path, {key: value for key, value in metadata.items() if value})
    return path


def test_a_file_without_a_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--weights"):
        load_checkpoint(rewritten(tmp_path / "x.safetensors", edgeml=""))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        '{"name": "cnn"}',
        '{"name": 1, "args": {}}',
        '{"name": "cnn", "args": {}, "head": "x"}',
        '{"name": "cnn", "args": {}, "head": ["csra"]}',
    ],
)
def test_an_invalid_model_entry_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError, match="does not name its model"):
        load_checkpoint(rewritten(tmp_path / "x.safetensors", model=text))


def test_a_checkpoint_cannot_name_a_file_to_load(tmp_path: Path) -> None:
    text = '{"name": "test_resnet", "args": {"checkpoint_path": "/tmp/evil.pth"}}'
    with pytest.raises(ModelLoadError, match="checkpoint_path"):
        load_checkpoint(rewritten(tmp_path / "x.safetensors", model=text))


def test_weights_of_another_model_than_named_are_refused(tmp_path: Path) -> None:
    text = '{"name": "test_resnet", "args": {}}'
    with pytest.raises(ModelLoadError, match="do not fit"):
        load_checkpoint(rewritten(tmp_path / "x.safetensors", model=text))


def test_more_labels_than_outputs_are_refused(tmp_path: Path) -> None:
    spec = ModelSpec(labels=tuple("abcd"), thresholds=(0.5,) * 4, preprocess=SPEC.preprocess)
    with pytest.raises(ModelLoadError, match="head"):
        load_checkpoint(rewritten(tmp_path / "x.safetensors", edgeml=spec.to_json()))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"model\.safetensors"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["cnn", "test_resnet", "test_vit"])
def test_an_attention_head_is_saved_and_loaded(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    size = 160 if name == "test_vit" else 64
    model = build_model(name, labels=3, args={}, head="csra").eval()
    save_checkpoint(tmp_path / "model.safetensors", model, SPEC, name=name, args={})
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["model"])
    assert metadata == {"name": name, "args": {}, "head": "csra"}
    loaded, _ = load_checkpoint(tmp_path)
    assert head_of(loaded) == "csra"
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))


def test_a_short_name_in_a_checkpoint_is_completed(tmp_path: Path) -> None:
    model = build_model("mobilenetv3_small_100", labels=3, args={})
    save_checkpoint(tmp_path / "m.safetensors", model, SPEC, name="mobilenetv3_small", args={})
    loaded, _ = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.state_dict().keys() == model.state_dict().keys()
