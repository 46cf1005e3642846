"""Each family of models: build, a training step, checkpoint, export, the same output."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from edgeml import ModelSpec, Preprocess
from edgeml.data import Dataset, read_dataset
from edgeml.data.synth.draw import synthesize
from edgeml.image.reading import read_image
from edgeml.network.checkpoint import load_checkpoint, save_checkpoint
from edgeml.network.heads import Head
from edgeml.network.model import build_model, training_args
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.training.optim import parameter_groups, training_mode
from edgeml_export import export

pytestmark = [pytest.mark.train, pytest.mark.runtime]

nightly = pytest.mark.nightly


@dataclass(frozen=True)
class Case:
    """A model at a size; transformers at their own, networks that take any at a small one."""

    name: str
    size: int
    head: Head = "linear"
    openvino: bool = False

    def __str__(self) -> str:
        return self.name if self.head == "linear" else f"{self.name}-{self.head}"


QUICK = (
    Case("cnn", 64, "csra"),
    Case("test_resnet", 64),
    Case("test_efficientnet", 64),
    Case("test_vit", 160, "csra"),
)
SLOW = (
    Case("cnn", 64, openvino=True),
    Case("test_vit", 160, openvino=True),
    Case("resnet18", 96, openvino=True),
    Case("resnet34", 96),
    Case("resnet50", 96),
    Case("resnet50", 96, "csra"),
    Case("efficientnet_b0", 96, openvino=True),
    Case("efficientnet_lite0", 96),
    Case("mobilenetv3_small_100", 96, openvino=True),
    Case("mobilenetv3_small_100", 96, "csra"),
    Case("mobilenetv3_large_100", 96),
    Case("mobilenetv4_conv_small", 96, openvino=True),
    Case("mobilenetv4_conv_small", 96, "csra"),
    Case("mobilenetv4_conv_medium", 96),
    Case("vit_tiny_patch16_224", 224, openvino=True),
    Case("vit_small_patch16_224", 224),
    Case("vit_base_patch16_224", 224),
    Case("vit_base_patch16_siglip_224", 224, openvino=True),
    Case("vit_base_patch16_siglip_224", 224, "csra"),
    Case("vit_base_patch16_siglip_gap_224", 224),
    Case("repvit_m0_9", 96, openvino=True),
    Case("mobileone_s0", 96, openvino=True),
    Case("fastvit_t8", 128),
    Case("repghostnet_100", 96),
)


@pytest.fixture(scope="module")
def apparel(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight drawn pictures of clothes, each another garment in another colour; 17 labels."""
    folder = tmp_path_factory.mktemp("apparel") / "pictures"
    synthesize(folder, images=72, size=224, seed=3)
    return read_dataset(folder).select(np.arange(0, 72, 9))


def spec_at(size: int, data: Dataset) -> ModelSpec:
    return ModelSpec(
        labels=data.labels,
        thresholds=(0.5,) * len(data.labels),
        preprocess=Preprocess(size=(size, size)),
        groups=data.label_groups,
    )


def pictures_of(data: Dataset, spec: ModelSpec) -> Tensor:
    return torch.from_numpy(spec.preprocess([read_image(path) for path in data.paths]))


def train(model: nn.Module, pictures: Tensor, targets: Tensor) -> None:
    """Take three steps of training; every parameter must have its share in them.

    In the first, branches whose last scale starts at zero learn nothing yet.
    """
    training_mode(model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-3)
    for _ in range(3):
        loss = binary_cross_entropy_with_logits(model(pictures), targets)
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not [n for n, value in model.named_parameters() if torch.equal(value, before[n])]


def give_statistics(model: nn.Module, pictures: Tensor) -> None:
    """Give batch normalisation what training would: scales, shifts and statistics of its own.

    A fresh one has mean 0, variance 1, scale 1 and shift 0: folding it into a convolution would
    be right however it were done. The statistics are those of the pictures, a little beside the
    mark, so that logits keep the size of a trained model's.
    """
    generator = torch.Generator().manual_seed(7)

    def drawn(like: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over what comes
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(drawn(norm.weight, 0.5, 1.5))
            norm.bias.copy_(drawn(norm.bias, -0.2, 0.2))
        model.train()(pictures)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.running_mean.add_(norm.running_var.sqrt() * drawn(norm.running_mean, -0.1, 0.1))
            norm.running_var.mul_(drawn(norm.running_var, 0.8, 1.25))
    model.eval()


def trained_run(case: Case, data: Dataset, folder: Path) -> Path:
    torch.manual_seed(0)
    spec, args = spec_at(case.size, data), training_args(case.name, {})
    model = build_model(case.name, labels=len(data.labels), args=args, head=case.head)
    pictures = pictures_of(data, spec)
    few = slice(0, 4)
    targets = torch.from_numpy(data.targets[few]).float()
    train(model, pictures[few], targets)
    give_statistics(model, pictures)
    save_checkpoint(folder / "model.safetensors", model, spec, name=case.name, args=args)
    loaded, _ = load_checkpoint(folder)
    with torch.inference_mode():
        expected = model(pictures[few])
        assert torch.equal(loaded(pictures[few]), expected)
    # A constant output would pass any comparison.
    assert (expected - expected[0]).abs().max() > 1e-3 * expected.abs().max()
    return folder


@pytest.mark.parametrize(
    "case", [*QUICK, *(pytest.param(case, marks=nightly) for case in SLOW)], ids=str
)
def test_a_model_trains_and_is_the_same_wherever_it_runs(
    case: Case, apparel: Dataset, tmp_path: Path
) -> None:
    run = trained_run(case, apparel, tmp_path)
    started = time.perf_counter()
    done = export(run, "onnx", check=apparel)
    seconds = time.perf_counter() - started
    assert done.checks is not None
    assert done.checks.max_abs < 1e-3
    assert done.checks.label_flips_per_1000 == 0
    columns = [f"{done.checks.max_abs:.1e}"]
    if case.openvino:
        checks = export(run, "openvino", check=apparel).checks
        assert checks is not None
        assert checks.max_abs < 1e-3
        assert checks.label_flips_per_1000 == 0
        columns.append(f"{checks.max_abs:.1e}")
    model, _ = load_checkpoint(run)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    # Shown by `pytest -rP`.
    print(f"| {case} | {case.size} | {millions:.2f} | {seconds:.1f} | {' | '.join(columns)} |")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        pytest.param("mobileone_s0", 4.29, 1.07, marks=nightly),
        pytest.param("repvit_m0_9", 4.73, 4.69, marks=nightly),
        pytest.param("fastvit_t8", 3.27, 3.24, marks=nightly),
        pytest.param("repghostnet_100", 2.81, 2.80, marks=nightly),
    ],
)
def test_branches_are_merged_and_batch_normalisation_is_gone(
    name: str, before: float, after: float, apparel: Dataset, tmp_path: Path
) -> None:
    run = trained_run(Case(name, 128), apparel, tmp_path)
    model, _ = load_checkpoint(run)
    convolutions = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    norms = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    done = export(run, "onnx", check=apparel)
    network = read_onnx(done.path)
    operators = [node.op_type for node in network.graph.node]
    print(
        f"| {name} | {convolutions} -> {operators.count('Conv')} | "
        f"{norms} -> {operators.count('BatchNormalization')} | {before} -> {after} |"
    )
    assert spec_of_onnx(network, done.path).provenance.notes["reparameterized"] == (
        f"{before:.2f} M parameters became {after:.2f} M"
    )
    assert operators.count("Conv") <= convolutions
    assert operators.count("BatchNormalization") == 0
