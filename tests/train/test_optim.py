"""Parameter groups, the schedule by hand, the moving average by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgeml.train.model import build_model
from edgeml.train.optim import Ema, default_lr, learning_rate, parameter_groups

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
