"""Weights as others save them: prefixes, missing counters, extra buffers, PyTorch checkpoints."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeml.errors import ModelLoadError
from edgeml.network.model import build_model
from edgeml.network.names import check_name, full_name
from edgeml.network.weights import load_weights, read_weights

pytestmark = pytest.mark.train

LABELS = ("a", "b", "c")
Tensors = dict[str, torch.Tensor]


@functools.cache
def source() -> torch.nn.Module:
    torch.manual_seed(3)
    return build_model("test_resnet", labels=3, args={})


def tensors() -> Tensors:
    return {key: value.contiguous() for key, value in source().state_dict().items()}


def assert_loaded(path: Path) -> None:
    model = build_model("test_resnet", labels=3, args={})
    assert load_weights(model, read_weights(path), LABELS)
    for (name, mine), theirs in zip(model.named_parameters(), source().parameters(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "timm_model.", "module._orig_mod.", "net.backbone."],
)
def test_a_common_prefix_is_removed(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({prefix + key: value for key, value in tensors().items()}, path)
    assert_loaded(path)


def test_other_parts_of_a_wrapper_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    wrapped = {"model." + key: value for key, value in tensors().items()}
    save_file({**wrapped, "loss.weight": torch.ones(3)}, path)
    assert_loaded(path)


def test_two_wrapped_models_are_not_chosen_from(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    both = {
        prefix + key: value.clone()
        for prefix in ("student.", "teacher.")
        for key, value in tensors().items()
    }
    save_file(both, path)
    model = build_model("test_resnet", labels=3, args={})
    with pytest.raises(ModelLoadError, match=r"student\."):
        load_weights(model, read_weights(path), LABELS)


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({k: v for k, v in tensors().items() if "num_batches" not in k}, path)
    assert_loaded(path)


def test_missing_statistics_of_a_batch_normalisation_are_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({k: v for k, v in tensors().items() if "running_mean" not in k}, path)
    model = build_model("test_resnet", labels=3, args={})
    with pytest.raises(ModelLoadError, match="running_mean"):
        load_weights(model, read_weights(path), LABELS)


def test_buffers_that_the_model_computes_itself_are_left_out(tmp_path: Path) -> None:
    args = {"img_size": 64, "window_size": 2, "embed_dim": 24, "depths": [2, 2, 2, 2]}
    made = build_model("swin_tiny_patch4_window7_224", labels=3, args=args)  # type: ignore[arg-type]
    extra = {k: v for k, v in made.named_buffers() if k not in made.state_dict()}
    assert any("relative_position_index" in key for key in extra)
    path = tmp_path / "w.pth"
    torch.save({**made.state_dict(), **extra}, path)
    model = build_model("swin_tiny_patch4_window7_224", labels=3, args=args)  # type: ignore[arg-type]
    assert load_weights(model, read_weights(path), LABELS)
    assert torch.equal(model.patch_embed.proj.weight, made.patch_embed.proj.weight)


@pytest.mark.parametrize("name", ["w.pth", "w.pth.tar", "w.ckpt", "w.pt", "w.bin"])
@pytest.mark.parametrize("key", [None, "state_dict", "state_dict_ema", "model"])
def test_a_checkpoint_of_pytorch_is_read(tmp_path: Path, name: str, key: str | None) -> None:
    content: Mapping[str, object] = tensors()
    if key:
        content = {
            "state_dict": {k: v + 1 for k, v in tensors().items()},
            key: {"module." + k: v for k, v in tensors().items()},
            "epoch": 3,
            "arch": "test_resnet",
            "args": argparse.Namespace(lr=0.1),
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        }
        if key == "model":
            del content["state_dict"]
    torch.save(content, tmp_path / name)
    assert_loaded(tmp_path / name)


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


def test_a_checkpoint_with_code_is_refused_and_not_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": tensors(), "x": Code()}, tmp_path / "w.pth")
    with pytest.raises(ModelLoadError, match="print"):
        read_weights(tmp_path / "w.pth")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [3, {"epoch": 1}, {}, [1, 2]])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelLoadError, match="no tensors"):
        read_weights(tmp_path / "w.pth")


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    torch.save({"arch": "resnet18", "state_dict": tensors()}, tmp_path / "w.pth")
    model = build_model("test_resnet", labels=3, args={})
    with pytest.raises(ModelLoadError, match="--model resnet18"):
        load_weights(model, read_weights(tmp_path / "w.pth"), LABELS)


def test_a_tag_that_does_not_exist_is_met_with_near_names() -> None:
    with pytest.raises(ModelLoadError, match=r"resnet18\.a1_in1k") as raised:
        full_name("resnet18.nosuchtag")
    assert "\n" not in str(raised.value)
    with pytest.raises(ModelLoadError, match="cnn"):
        check_name("cnn.tag")
    assert full_name("resnet18.a1_in1k") == "resnet18.a1_in1k"
