"""The check of an exported network is relative to the scale of its logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeml import ModelSpec, Preprocess
from edgeml.errors import ExportError
from edgeml_export import to_onnx
from edgeml_export.to_onnx import onnx_from_module

pytestmark = [pytest.mark.train, pytest.mark.runtime]

SPEC = ModelSpec(labels=("a", "b"), thresholds=(0.5, 0.5), preprocess=Preprocess(size=(8, 8)))


def network(scale: float) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    net = nn.Sequential(*layers).eval()
    with torch.no_grad():
        net[4].weight *= scale
        net[4].bias *= scale
    return net


@pytest.mark.parametrize(
    ("scale", "share", "is_written"),
    [
        (1.0, 3e-7, True),
        (1.0, 0.01, False),
        (1e6, 3e-7, True),
        (1e6, 1e-3, False),
    ],
)
def test_a_difference_counts_by_its_share_of_large_logits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scale: float,
    share: float,
    is_written: bool,
) -> None:
    """The exporter writes a network whose logits are larger by a share."""
    by_torchscript = to_onnx.EXPORTERS["torchscript"]

    def slightly_wrong(net: nn.Module, example: torch.Tensor) -> object:
        return by_torchscript(nn.Sequential(net, Scaled(np.float32(1 + share).item())), example)

    monkeypatch.setattr(to_onnx, "EXPORTERS", {"wrong": slightly_wrong})
    if is_written:
        assert onnx_from_module(network(scale), SPEC, tmp_path / "m.onnx").exists()
    else:
        with pytest.raises(ExportError, match="off by"):
            onnx_from_module(network(scale), SPEC, tmp_path / "m.onnx")


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits * self.factor
