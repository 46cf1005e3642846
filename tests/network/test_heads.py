"""The attention head follows its formula; scaling multiplies the logits of every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgeml.errors import InputError, ModelLoadError
from edgeml.network.heads import (
    CsraHead,
    Head,
    head_layers,
    probe_size,
    scale_head,
    start_at_prevalence,
)
from edgeml.network.model import build_model, check_size, head_of

pytestmark = pytest.mark.train

nightly = pytest.mark.nightly

WITH_ATTENTION = [
    "cnn",
    "test_resnet",
    "test_efficientnet",
    "test_vit",
    "test_convnext",
    pytest.param("mobilenetv3_small_050", marks=nightly),
    pytest.param("mobileone_s0", marks=nightly),
    pytest.param("repvit_m0_9", marks=nightly),
    pytest.param("swin_tiny_patch4_window7_224", marks=nightly),  # maps with channels last
    pytest.param("vit_base_patch16_siglip_224", marks=nightly),
]


def by_hand(scores: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(N, positions, labels) to logits, as the paper's equation 6 with attention at its maximum."""
    return scores.mean(axis=1) + 0.3 * scores.max(axis=1) + bias


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NLC"])
def test_the_attention_head_follows_its_formula(layout: str) -> None:
    torch.manual_seed(0)
    head = CsraHead(6, 4, layout=layout)
    tokens = torch.randn(2, 15, 6)
    features = {
        "NLC": tokens,
        "NHWC": tokens.view(2, 3, 5, 6),
        "NCHW": tokens.view(2, 3, 5, 6).permute(0, 3, 1, 2),
    }[layout]
    with torch.no_grad():
        logits = head(features).numpy()
    weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    np.testing.assert_allclose(logits, by_hand(tokens.numpy() @ weight.T, bias), atol=1e-5)


def test_class_tokens_and_registers_do_not_count_as_positions() -> None:
    torch.manual_seed(0)
    head = CsraHead(6, 4, layout="NLC", prefix=2)
    tokens = torch.randn(2, 9, 6)
    with torch.no_grad():
        logits = head(tokens)
        tokens[:, :2] = 1e6
        assert torch.equal(head(tokens), logits)


def test_a_transformer_passes_its_prefix_to_the_head() -> None:
    model = build_model("test_vit", labels=3, args={}, head="csra")
    assert (model.head.prefix, model.head.layout) == (1, "NLC")


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_an_attention_head_replaces_pooling_and_head(name: str) -> None:
    model = build_model(name, labels=5, args={}, head="csra")
    assert head_of(model) == "csra"
    assert model.training
    check_size(model, probe_size(model)[0], 5)
    (layer,) = head_layers(model).values()
    assert isinstance(layer, CsraHead)
    prevalence = np.array([0.01, 0.2, 0.5, 0.7, 0.99])
    start_at_prevalence(model, prevalence)
    with torch.inference_mode():
        scores = model.eval()(torch.randn(2, 3, *probe_size(model))).sigmoid()
    np.testing.assert_allclose(scores.numpy(), [prevalence, prevalence], rtol=1e-5)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "efficientvit_b0"])
def test_a_model_that_cannot_have_an_attention_head_is_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match=rf"'{name}' cannot have the head 'csra'.*linear"):
        build_model(name, labels=3, args={}, head="csra")


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(InputError, match="'decoder'; known are linear, csra"):
        build_model("cnn", labels=3, args={}, head="decoder")


@pytest.mark.parametrize("factor", [0.37, 2.5])
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("cnn", "linear"),
        ("cnn", "csra"),
        ("test_resnet", "linear"),
        ("test_resnet", "csra"),
        ("test_efficientnet", "linear"),
        ("test_vit", "linear"),
        ("test_vit", "csra"),
        ("mobilenetv3_small_050", "linear"),
        ("deit_tiny_distilled_patch16_224", "linear"),
        pytest.param("repvit_m0_9", "linear", marks=nightly),  # two heads in one
        pytest.param("repvit_m0_9", "csra", marks=nightly),
        pytest.param("levit_128s", "linear", marks=nightly),  # two, each behind a norm
        pytest.param("mobileone_s0", "linear", marks=nightly),
        pytest.param("mobilenetv4_conv_small", "linear", marks=nightly),
        pytest.param("efficientvit_b0", "linear", marks=nightly),  # layers before the last one
        pytest.param("vit_base_patch16_siglip_224", "linear", marks=nightly),
        pytest.param("vit_base_patch16_siglip_224", "csra", marks=nightly),
        pytest.param("vit_base_patch16_siglip_gap_224", "linear", marks=nightly),
    ],
)
def test_a_scaled_head_gives_scaled_logits(name: str, head: str, factor: float) -> None:
    torch.manual_seed(0)
    model = build_model(name, labels=5, args={}, head=head)
    with torch.no_grad():
        for layer in head_layers(model).values():
            layer.bias.uniform_(-2, 2)
    model.eval()
    images = torch.randn(3, 3, *probe_size(model))
    with torch.inference_mode():
        before = model(images)
        scale_head(model, factor)
        after = model(images)
    assert before.abs().max() > 0.1
    torch.testing.assert_close(after, factor * before, rtol=1e-5, atol=1e-5 * factor)


@pytest.mark.parametrize(
    ("name", "head"), [("efficientformerv2_s0", "linear"), ("test_coatnet", "csra")]
)
def test_a_head_is_scaled_in_a_network_that_accepts_only_its_own_size(
    name: str, head: Head
) -> None:
    """These do not state the size that they were built for, here another than timm's."""
    torch.manual_seed(0)
    model = build_model(name, labels=3, args={"img_size": 64}, head=head).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = model(images)
        scale_head(model, 2.0, size=(64, 64))
        torch.testing.assert_close(model(images), 2 * before, rtol=1e-4, atol=1e-5)


def test_scaling_preserves_the_mode_of_each_module() -> None:
    model = build_model("test_resnet", labels=3, args={})
    model.layer1.eval()
    modes = [module.training for module in model.modules()]
    statistics = {key: value.clone() for key, value in model.named_buffers()}
    scale_head(model, 2.0)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, statistics[key]) for key, value in model.named_buffers())


class Squeezed(nn.Module):
    """Ends in a layer that is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.head(images.mean(dim=(2, 3))))

    def get_classifier(self) -> nn.Module:
        return self.head


def test_a_head_that_cannot_be_scaled_is_unchanged() -> None:
    model = Squeezed()
    weight, bias = model.head.weight.clone(), model.head.bias.clone()
    with pytest.raises(ModelLoadError, match="Squeezed cannot be multiplied by 3"):
        scale_head(model, 3.0)
    assert torch.equal(model.head.weight, weight)
    assert torch.equal(model.head.bias, bias)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_is_not_a_positive_number_is_refused(factor: float) -> None:
    with pytest.raises(InputError, match="positive"):
        scale_head(build_model("cnn", labels=2, args={}), factor)
