"""A small network that has really learnt something, and the images it learnt from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from edgeml import ModelSpec, Preprocess
from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.files import sha256_of_file
from edgeml.image.reading import read_image
from edgeml.network.checkpoint import save_checkpoint
from edgeml.network.model import build_model
from edgeml.spec.provenance import Provenance
from edgeml_export import pipeline
from edgeml_export.int8.calibration import choose_calibration
from edgeml_export.int8.ranges import Ranges, measure_ranges
from edgeml_export.request import Input
from edgeml_export.to_onnx import onnx_from_checkpoint, onnx_from_module
from tests.export.int8.outlier import Planted, plant_outlier

SIZE = 40

COLOURS = {"red": (40, 40, 210), "green": (50, 190, 60), "blue": (210, 70, 40)}
SHAPES = ("ball", "box")
EACH = 40
"""Images of each colour and shape: 240, of which 168 train and 36 test."""


def draw(folder: Path, seed: int = 0, each: int = EACH) -> Path:
    """Draw balls and boxes in three colours on cluttered grounds, in the folder layout."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        for shape in SHAPES:
            (folder / f"{name}_{shape}").mkdir(parents=True)
            for number in range(each):
                picture = _picture(rng, colour, shape)
                cv2.imwrite(str(folder / f"{name}_{shape}" / f"{number:03}.jpg"), picture)
    return folder


def _picture(
    rng: np.random.Generator, colour: tuple[int, int, int], shape: str
) -> NDArray[np.uint8]:
    ground = rng.integers(60, 200, (4, 4, 3), np.uint8)
    picture = cv2.resize(ground, (64, 56), interpolation=cv2.INTER_CUBIC)
    tint = np.clip(np.array(colour) + rng.integers(-35, 36, 3), 0, 255).tolist()
    x, y, reach = (int(v) for v in rng.integers((22, 20, 9), (42, 36, 18)))
    if shape == "ball":
        cv2.circle(picture, (x, y), reach, tint, -1)
    else:
        cv2.rectangle(picture, (x - reach, y - reach), (x + reach, y + reach), tint, -1)
    noise = rng.normal(0, 12, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def data(pictures: Path) -> Dataset:
    return read_dataset(pictures)


@pytest.fixture(scope="session")
def test_part(data: Dataset) -> Dataset:
    return split_dataset(data, SplitPlan()).part("test")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """PyTorch's threads wait for each other: beside other work, two are far slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip timing INT8 against FP32, which takes seconds."""
    monkeypatch.setattr(pipeline, "measure_speed", lambda *_: None)


@pytest.fixture(scope="session")
def onnx_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Let PyTorch export a checkpoint once: it takes seconds, and gives the same bytes again."""
    folder = tmp_path_factory.mktemp("once")

    def export(source: Path, target: Path, *, input: Input = "float32", slim: bool = False) -> Path:
        weights = source / "model.safetensors" if source.is_dir() else source
        path = folder / f"{sha256_of_file(weights)}.{input}.{slim}.onnx"
        if not path.exists():
            onnx_from_checkpoint(source, path, input=input, slim=slim)
        shutil.copyfile(path, target)
        return target

    return export


@pytest.fixture(autouse=True)
def exported_once(monkeypatch: pytest.MonkeyPatch, onnx_once: Callable[..., Path]) -> None:
    """Use `onnx_once` in exports; tests of `onnx_from_checkpoint` import the function itself."""
    monkeypatch.setattr("edgeml_export.to_onnx.onnx_from_checkpoint", onnx_once)


def learn(model: nn.Module, batch: Tensor, targets: NDArray[np.int8], *, epochs: int) -> None:
    """Train for some seconds: enough to be far better than chance."""
    wanted = torch.from_numpy(targets.astype(np.float32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(batch)).split(24):
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(model(batch[rows]), wanted[rows]).backward()
            optimizer.step()


@pytest.fixture(scope="session")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with our CNN after some seconds of training. Do not write into it."""
    plan = SplitPlan()
    train = split_dataset(data, plan).part("train")
    spec = ModelSpec(
        labels=data.labels,
        thresholds=(0.5,) * len(data.labels),
        preprocess=Preprocess(size=(SIZE, SIZE)),
        groups=data.label_groups,
        provenance=Provenance(data_sha256=data.digest(), split=plan),
    )
    torch.manual_seed(0)
    model = build_model("cnn", labels=len(data.labels), args={})
    batch = torch.from_numpy(spec.preprocess([read_image(path) for path in train.paths]))
    learn(model, batch, train.targets, epochs=6)
    folder = tmp_path_factory.mktemp("run")
    save_checkpoint(folder / "model.safetensors", model.eval(), spec, name="cnn", args={})
    return folder


@pytest.fixture(scope="session")
def network(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as FP32 ONNX. Do not change it."""
    return onnx_from_checkpoint(run, tmp_path_factory.mktemp("network") / "model.onnx")


@pytest.fixture(scope="session")
def ranges(network: Path, data: Dataset) -> Ranges:
    """The ranges of the network's tensors on 60 images."""
    return measure_ranges(network, choose_calibration(data, data.labels, limit=60))


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vision transformer of six blocks with random weights and one label, as FP32 ONNX."""
    return of_timm("test_vit.r160_in1k", tmp_path_factory.mktemp("vit") / "vit.onnx")


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual network of four blocks with random weights and one label, as FP32 ONNX."""
    return of_timm("test_resnet.r160_in1k", tmp_path_factory.mktemp("resnet") / "resnet.onnx")


def of_timm(name: str, path: Path) -> Path:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=1).eval()
    spec = ModelSpec(labels=("a",), thresholds=(0.5,), preprocess=Preprocess(size=(160, 160)))
    return onnx_from_module(module, spec, path)


@pytest.fixture(scope="session")
def planted(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A residual network after some seconds of training, with an outlier planted in its stem."""
    folder = tmp_path_factory.mktemp("planted")
    split = split_dataset(data, SplitPlan())
    train = split.part("train")
    spec = ModelSpec(
        labels=data.labels,
        thresholds=(0.5,) * len(data.labels),
        preprocess=Preprocess(size=(SIZE, SIZE)),
        groups=data.label_groups,
    )
    torch.manual_seed(0)
    model = timm.create_model(
        "test_resnet.r160_in1k", num_classes=len(data.labels), layers=(2, 2, 2, 2)
    )
    inputs = {
        part: spec.preprocess([read_image(path) for path in split.part(part).paths])
        for part in ("train", "val", "test")
    }
    batch = torch.from_numpy(inputs["train"])
    learn(model, batch, train.targets, epochs=8)
    original = onnx_from_module(model.eval(), spec, folder / "original.onnx")
    makes, takes = plant_outlier(original, folder / "planted.onnx")
    path = folder / "planted.onnx"
    planted = Planted(
        path=path,
        makes=makes,
        takes=takes,
        ranges=measure_ranges(path, choose_calibration(train, data.labels, limit=60)),
        spec=spec,
        inputs=inputs,
        targets={part: split.part(part).targets for part in ("val", "test")},
        folder=folder,
    )
    np.testing.assert_array_equal(planted.scores(path, "test"), planted.scores(original, "test"))
    return planted
