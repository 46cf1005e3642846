"""Parameter groups, frozen parts, the schedule and the moving average by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from edgeml.errors import InputError
from edgeml.network.model import build_model
from edgeml.training.optim import (
    Ema,
    default_layer_decay,
    default_lr,
    freeze_backbone,
    freeze_batch_norm,
    learning_rate,
    parameter_groups,
    training_mode,
)

pytestmark = pytest.mark.train


@pytest.mark.parametrize("name", ["cnn", "test_resnet", "test_vit"])
def test_biases_and_norms_do_not_decay(name: str) -> None:
    model = build_model(name, labels=3, args={})
    decayed, kept = parameter_groups(model, 0.05)
    assert decayed["weight_decay"] == 0.05
    assert kept["weight_decay"] == 0.0
    exempt = {
        id(parameter)
        for module in model.modules()
        for key, parameter in module.named_parameters(recurse=False)
        if key == "bias" or isinstance(module, (nn.BatchNorm2d, nn.LayerNorm))
    }
    assert exempt <= {id(parameter) for parameter in kept["params"]}
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    together = [*decayed["params"], *kept["params"]]
    assert len(together) == len({id(p) for p in together}) == len(list(model.parameters()))


def test_position_embeddings_do_not_decay() -> None:
    model = build_model("test_vit", labels=3, args={})
    _, kept = parameter_groups(model, 0.05)
    assert any(parameter is model.pos_embed for parameter in kept["params"])


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.2),  # 5 steps of warm-up: a fifth of the peak
        (4, 1.0),
        (5, 1.0),  # the cosine begins at its top
        (52.5, 0.5),
        (100, 0.0),
        (28.75, 0.5 * (1 + math.cos(math.pi / 4))),
    ],
)
def test_the_learning_rate_rises_then_falls_as_a_cosine(step: float, expected: float) -> None:
    assert learning_rate(step, 100, peak=1.0, warmup=0.05) == pytest.approx(expected)


def test_a_learning_rate_without_warmup_starts_at_its_peak() -> None:
    assert learning_rate(0, 7, peak=3.0, warmup=0.0) == 3.0


def test_the_average_follows_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    weights = [1.0, 2.0, 4.0, -3.0]
    with torch.no_grad():
        model.weight.fill_(weights[0])
    ema = Ema(model, 0.3)
    expected = weights[0]
    for step, weight in enumerate(weights[1:]):
        with torch.no_grad():
            model.weight.fill_(weight)
        ema.update(model)
        decay = min(0.3, (1 + step) / (10 + step))  # 0.1, 0.1818, 0.25
        expected = decay * expected + (1 - decay) * weight
    assert float(ema.model.weight) == pytest.approx(expected, rel=1e-6)


def test_the_average_takes_in_batch_statistics() -> None:
    model = nn.BatchNorm2d(2)
    ema = Ema(model, 0.9)
    model.running_mean.fill_(5.0)
    model.num_batches_tracked.fill_(9)
    ema.update(model)
    assert ema.model.running_mean.tolist() == pytest.approx([4.5, 4.5])  # first decay: 1 / 10
    assert int(ema.model.num_batches_tracked) == 9
    assert not ema.model.training


def test_transformers_and_pretrained_models_get_smaller_steps() -> None:
    cnn, vit = build_model("cnn", labels=2, args={}), build_model("test_vit", labels=2, args={})
    assert default_lr(vit, pretrained=True) < default_lr(cnn, pretrained=True)
    assert default_lr(cnn, pretrained=True) < default_lr(cnn, pretrained=False)


def scales_of(model: nn.Module, layer_decay: float) -> dict[str, tuple[float, float]]:
    """Return (lr_scale, weight_decay) of each parameter by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in parameter_groups(model, 0.05, layer_decay=layer_decay)
        for parameter in group["params"]
    }


def test_without_layer_decay_all_layers_learn_alike() -> None:
    groups = parameter_groups(build_model("test_vit", labels=3, args={}), 0.05)
    assert [group["lr_scale"] for group in groups] == [1.0, 1.0]


def test_each_block_of_a_transformer_learns_more_slowly_than_the_next() -> None:
    model = build_model("test_vit", labels=3, args={})
    scales = scales_of(model, 0.5)
    assert len(scales) == len(list(model.parameters()))
    depth = len(model.blocks)
    assert scales["head.weight"] == (1.0, 0.05)
    assert scales["head.bias"] == (1.0, 0.0)
    for block in range(depth):
        assert scales[f"blocks.{block}.mlp.fc1.weight"] == (0.5 ** (depth - block), 0.05)
        assert scales[f"blocks.{block}.mlp.fc1.bias"] == (0.5 ** (depth - block), 0.0)
        assert scales[f"blocks.{block}.norm1.weight"] == (0.5 ** (depth - block), 0.0)
    for name in ("cls_token", "pos_embed"):
        assert scales[name] == (0.5 ** (depth + 1), 0.0)
    assert scales["patch_embed.proj.weight"] == (0.5 ** (depth + 1), 0.05)
    assert scales["norm.weight"] == (0.5, 0.0)  # with the last block, as in BEiT


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_the_scales_are_timms(name: str) -> None:
    model = build_model(name, labels=3, args={})
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    expected = {
        names[id(parameter)]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(
            model, 0.05, no_weight_decay_list=exempt, layer_decay=0.7
        )
        for parameter in group["params"]
    }
    assert scales_of(model, 0.7) == expected


def test_an_attention_pool_learns_as_fast_as_the_head_and_its_query_does_not_decay() -> None:
    with torch.device("meta"):
        model = build_model("vit_base_patch16_siglip_224", labels=3, args={})
    scales = scales_of(model, 0.7)
    assert scales["attn_pool.kv.weight"] == (1.0, 0.05)
    assert scales["attn_pool.latent"] == (1.0, 0.0)


def test_our_cnn_has_no_order_of_layers() -> None:
    with pytest.raises(InputError, match="SmallCnn"):
        parameter_groups(build_model("cnn", labels=2, args={}), 0.05, layer_decay=0.7)


def one_step(model: nn.Module) -> None:
    training_mode(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-2)
    model(torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()
    model.zero_grad()


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("head", ["linear", "csra"])
def test_a_frozen_backbone_keeps_weights_and_statistics_and_the_head_learns(head: str) -> None:
    torch.manual_seed(0)
    model = build_model("test_efficientnet", labels=3, args={}, head=head)
    before = state_of(model)
    freeze_backbone(model, frozen=True)
    one_step(model)
    assert changed(model, before) == {"classifier.weight", "classifier.bias"}
    freeze_backbone(model, frozen=False)
    one_step(model)
    assert changed(model, before) == set(before)


def test_frozen_batch_norms_stay_in_copies_and_after_every_call() -> None:
    torch.manual_seed(0)
    model = build_model("cnn", labels=3, args={})
    freeze_batch_norm(model)
    model = copy.deepcopy(model)
    before = state_of(model)
    norms = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key in module.state_dict()
    }
    assert norms
    for _ in range(2):
        one_step(model)
        model.eval()
    assert changed(model, before) == set(before) - norms


def test_the_optimizer_of_a_frozen_model_serves_the_thawed_one() -> None:
    model = build_model("cnn", labels=2, args={})
    freeze_backbone(model, frozen=True)
    groups = parameter_groups(model, 0.05)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_an_average_goes_on_as_if_never_interrupted() -> None:
    torch.manual_seed(0)
    steps = [build_model("cnn", labels=2, args={}) for _ in range(6)]
    combined, first = Ema(steps[0], 0.5), Ema(steps[0], 0.5)
    for model in steps[1:]:
        combined.update(model)
    for model in steps[1:3]:
        first.update(model)
    second = Ema(steps[3], 0.5)
    second.model.load_state_dict(state_of(first.model))
    second.step = first.step
    for model in steps[3:]:
        second.update(model)
    assert second.step == combined.step == 5
    assert not changed(second.model, state_of(combined.model))


def test_only_pretrained_transformers_get_layer_decay_and_wide_ones_the_smallest_steps() -> None:
    with torch.device("meta"):
        siglip = build_model("vit_base_patch16_siglip_224", labels=2, args={})
        tiny = build_model("vit_tiny_patch16_224", labels=2, args={})
        resnet = build_model("resnet18", labels=2, args={})
    found = [(default_lr(m, pretrained=True), default_layer_decay(m, pretrained=True))
             for m in (siglip, tiny, resnet)]  # fmt: skip
    assert found == [(5e-5, 0.7), (1e-4, 0.75), (1e-3, None)]
    assert default_layer_decay(siglip, pretrained=False) is None
