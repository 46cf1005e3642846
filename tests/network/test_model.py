"""The networks, and the errors for models that do not exist."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgeml.errors import InputError, ModelLoadError
from edgeml.network.heads import start_at_prevalence
from edgeml.network.model import (
    build_model,
    check_size,
    checkpoint_gradients,
    training_args,
    trains_in_channels_last,
)

pytestmark = pytest.mark.train


def test_our_cnn_has_half_a_million_to_a_million_parameters() -> None:
    model = build_model("cnn", labels=17, args={})
    assert 500_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 1_000_000


@pytest.mark.parametrize("size", [32, 96, 131])
def test_our_cnn_accepts_any_size(size: int) -> None:
    check_size(build_model("cnn", labels=4, args={}), size, 4)


@pytest.mark.parametrize(
    "name",
    ["cnn", "test_resnet", "test_vit", "mobilenetv3_small_050", "deit_tiny_distilled_patch16_224"],
)
def test_a_fresh_model_predicts_the_prevalence(name: str) -> None:
    prevalence = np.array([0.01, 0.3, 0.9])
    model = build_model(name, labels=3, args={})
    start_at_prevalence(model, prevalence)
    size = 224 if "224" in name else 160
    with torch.inference_mode():
        scores = model.eval()(torch.randn(2, 3, size, size)).sigmoid()
    np.testing.assert_allclose(scores.numpy(), [prevalence, prevalence], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet81", "resnet18"), ("mobilenet_v2_100", "mobilenetv2_100"), ("ccn", "cnn")],
)
def test_an_unknown_model_is_refused_with_similar_names(name: str, near: str) -> None:
    with pytest.raises(ModelLoadError, match=near):
        build_model(name, labels=2, args={})


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:/tmp/x", "mobilenetv3_small"])
def test_only_names_in_timms_list_are_accepted(name: str) -> None:
    with pytest.raises(ModelLoadError, match="There is no model"):
        build_model(name, labels=2, args={})


def test_a_tag_that_timm_does_not_know_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="nope"):
        build_model("resnet18.nope", labels=2, args={})


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(ModelLoadError, match="no_such_argument"):
        build_model("test_resnet", labels=2, args={"no_such_argument": 1})
    with pytest.raises(ModelLoadError, match="takes no arguments, but got width=2"):
        build_model("cnn", labels=2, args={"width": 2})


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "in_chans"])
def test_arguments_that_would_load_files_or_change_the_input_are_refused(argument: str) -> None:
    with pytest.raises(ModelLoadError, match=argument):
        build_model("test_resnet", labels=2, args={argument: "x"})


def test_model_arguments_reach_timm() -> None:
    same = build_model("mobilenetv2_100", labels=2, args={"pad_type": "same"})
    assert type(same.conv_stem).__name__ == "Conv2dSame"


def test_an_unsupported_size_is_reported_before_training() -> None:
    with pytest.raises(ModelLoadError, match="100 x 100"):
        check_size(build_model("test_vit", labels=2, args={}), 100, 2)


def test_networks_at_which_torch_crashes_are_not_trained_with_the_channels_last() -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    for name, channels_last in (("test_resnet", True), ("repvgg_a0", False), ("test_vit", False)):
        model = build_model(name, labels=2, args={})
        assert trains_in_channels_last(model, cpu) == channels_last
        assert trains_in_channels_last(model, meta) == (name != "test_vit")


def test_only_transformers_are_trained_with_stochastic_depth() -> None:
    assert training_args("vit_tiny_patch16_224", {"img_size": 64}) == {
        "drop_path_rate": 0.1,
        "img_size": 64,
    }
    assert training_args("deit_tiny_patch16_224", {}) == {"drop_path_rate": 0.1}
    assert training_args("vit_tiny_patch16_224", {"drop_path_rate": 0.3}) == {"drop_path_rate": 0.3}
    assert training_args("vit_base_patch16_siglip_224.webli", {}) == {"drop_path_rate": 0.1}
    for name in ("cnn", "resnet18", "mobilenetv4_conv_small"):
        assert training_args(name, {}) == {}


def test_stochastic_depth_has_no_effect_outside_of_training() -> None:
    torch.manual_seed(0)
    model = build_model("test_vit", labels=3, args=training_args("test_vit", {}))
    plain = build_model("test_vit", labels=3, args={})
    plain.load_state_dict(model.state_dict())
    images = torch.randn(4, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), plain.eval()(images))
        assert not torch.equal(model.train()(images), plain.train()(images))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_gradient_checkpointing_does_not_change_gradients(name: str) -> None:
    torch.manual_seed(0)
    usual = build_model(name, labels=3, args={})
    saving = copy.deepcopy(usual)
    checkpoint_gradients(saving, name)
    assert saving.grad_checkpointing
    images = torch.randn(2, 3, 160, 160)
    for model in (usual, saving):
        model(images).square().mean().backward()
    for one, other in zip(usual.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", ["cnn", "hrnet_w18_small"])
def test_a_model_without_gradient_checkpointing_is_named(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, labels=3, args={})
    with pytest.raises(InputError, match=name):
        checkpoint_gradients(model, name)
