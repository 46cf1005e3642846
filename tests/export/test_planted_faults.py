"""Faults that are planted in honest files: each is caught by `edgeml verify`, which exits 1.

The source needs thresholds of its own, far from 0.5, and has no groups that would decide instead.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeml import ModelSpec, Predictor
from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.measure.evaluation import score
from edgeml.measure.thresholds import fit_thresholds
from edgeml.network.checkpoint import load_checkpoint, save_checkpoint
from edgeml.progress import SILENT
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml_export import ExportRequest, export
from edgeml_export.check import check_model
from edgeml_export.request import SUFFIXES
from edgeml_export.roles import Roles
from edgeml_export.to_openvino import openvino_from_onnx
from edgeml_export.verify import verify
from edgeml_export.write import Job, RecordingProgress, Written, rewrite_spec
from tests.command import Command
from tests.export.conftest import draw
from tests.report.pages import check_page

pytestmark = [pytest.mark.train, pytest.mark.runtime]

Planting = Callable[[Path], None]

KINDS = [
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "int8"),
    *[
        pytest.param(fmt, precision, marks=pytest.mark.nightly)
        for fmt, precision in (("onnx", "fp16"), ("openvino", "fp32"), ("openvino", "fp16"))
    ],
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 64 by 56 pixels that neither trained nor calibrated: every resize matters."""
    return draw(tmp_path_factory.mktemp("photos"), seed=1, each=12)


@pytest.fixture(scope="module")
def source(run: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, with some labels claimed too readily and others not, and thresholds that know it."""
    model, spec = load_checkpoint(run)
    head = [one for one in model.modules() if isinstance(one, torch.nn.Linear)][-1]
    with torch.no_grad():
        head.bias += torch.tensor([3.0, -3, 3, -3, 3])
    folder = tmp_path_factory.mktemp("source")
    spec = replace(spec, groups=())
    save_checkpoint(folder / "model.safetensors", model.eval(), spec, name="cnn", args={})
    train = split_dataset(data, SplitPlan()).part("train")
    with Predictor(folder) as predictor:
        thresholds = fit_thresholds(score(predictor, train), train.targets)
    spec = replace(spec, thresholds=thresholds)
    save_checkpoint(folder / "model.safetensors", model, spec, name="cnn", args={})
    return folder


@pytest.fixture(scope="module")
def honest(
    source: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str, str], Path]:
    """Give the source in a format, a precision and with an input, written once."""
    folder = tmp_path_factory.mktemp("honest")

    def written(fmt: str, precision: str, input: str = "float32") -> Path:
        path = folder / f"{precision}.{input}{SUFFIXES[fmt]}"
        if not path.exists():
            export(source, fmt, precision=precision, calib=data, input=input, out=path)
        return path

    return written


def copied(path: Path, folder: Path) -> Path:
    """Give a copy of a model that may be spoilt."""
    for one in path.parent.glob(f"{path.stem}.*"):
        shutil.copy(one, folder)
    return folder / path.name


def spec_of(path: Path) -> ModelSpec:
    with Predictor(path) as predictor:
        return predictor.spec


def in_spec(**changes: Any) -> Planting:
    """Change the spec inside a written file."""
    return lambda path: rewrite_spec(path, replace(spec_of(path), **changes))


def in_preprocess(**changes: Any) -> Planting:
    def plant(path: Path) -> None:
        spec = spec_of(path)
        rewrite_spec(path, replace(spec, preprocess=replace(spec.preprocess, **changes)))

    return plant


def labels_in_another_order(path: Path) -> None:
    spec = spec_of(path)
    first, *others = spec.labels
    rewrite_spec(path, replace(spec, labels=(*others, first)))


SPEC_FAULTS: dict[str, tuple[Planting, str]] = {
    "mean": (in_preprocess(mean=(0.5, 0.5, 0.5)), "inputs of 72 images differ"),
    "deviation": (in_preprocess(std=(0.25, 0.25, 0.25)), "inputs of 72 images differ"),
    "channels": (in_preprocess(channels="bgr"), "inputs of 72 images differ"),
    "crop": (in_preprocess(resize="crop"), "inputs of 72 images differ"),
    "letterbox": (in_preprocess(resize="letterbox"), "inputs of 72 images differ"),
    "interpolation": (in_preprocess(interpolation="cubic"), "inputs of 72 images differ"),
    "labels": (labels_in_another_order, "labels are in another order"),
    "thresholds": (in_spec(thresholds=(0.5,) * 5), "thresholds are worse"),
    "activation": (in_spec(activation="none"), "its spec promises probabilities"),
}
"""By name: what is planted, and the words that name the level at which it is caught."""


def edited(path: Path, change: Callable[[onnx.GraphProto], None]) -> None:
    """Change the network of an ONNX file and leave its spec alone."""
    model = read_onnx(path)
    change(model.graph)
    write_onnx(model, path, spec_of_onnx(model, path))


def change_constant(graph: onnx.GraphProto, fits: Callable[[Any], bool], change: Any) -> None:
    """Change the one constant that fits."""
    held = [tensor for tensor in graph.initializer if fits(onnx.numpy_helper.to_array(tensor))]
    (tensor,) = held
    values = change(onnx.numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def transposed_head(graph: onnx.GraphProto) -> None:
    """Swap the rows of two labels in the last layer, the bias with them."""

    def swap(values: Any) -> Any:
        axis = values.shape.index(5)
        return np.take(values, [1, 0, 2, 3, 4], axis)

    change_constant(graph, lambda v: v.ndim == 2 and 5 in v.shape and v.dtype.kind == "f", swap)
    change_constant(graph, lambda v: v.shape == (5,) and v.dtype.kind == "f", swap)


def sigmoid_inside(graph: onnx.GraphProto) -> None:
    """Let the network return probabilities although its spec promises logits."""
    output = graph.output[0].name
    maker = next(node for node in graph.node if output in node.output)
    maker.output[list(maker.output).index(output)] = "logits_inside"
    graph.node.append(onnx.helper.make_node("Sigmoid", ["logits_inside"], [output]))


def wrong_mean_inside(graph: onnx.GraphProto) -> None:
    """Subtract half of what is the mean."""
    spec_shift = np.array((0.485, 0.456, 0.406)) / np.array((0.229, 0.224, 0.225))

    def is_shift(values: Any) -> bool:
        return values.shape == (1, 3, 1, 1) and np.allclose(values.ravel(), spec_shift, atol=1e-2)

    change_constant(graph, is_shift, lambda values: values / 2)


def channels_swapped_inside(graph: onnx.GraphProto) -> None:
    change_constant(graph, lambda v: v.tolist() == [2, 1, 0], lambda values: values[::-1].copy())


GRAPH_FAULTS = {
    "head": (transposed_head, "float32"),
    "sigmoid": (sigmoid_inside, "float32"),
    "mean": (wrong_mean_inside, "uint8"),
    "channels": (channels_swapped_inside, "uint8"),
}
"""By name: what is done to the network, and the input that it must have."""


@pytest.mark.parametrize("input", ["float32", "uint8"])
@pytest.mark.parametrize(("fmt", "precision"), KINDS)
def test_an_honest_file_is_verified(
    fmt: str, precision: str, input: str, honest: Any, source: Path, photos: Path, edgeml: Command
) -> None:
    path = honest(fmt, precision, input)
    result = edgeml("verify", path, "--against", source, "--data", photos, "--json")
    assert (result.status, result.json["findings"]) == (0, []), result.err
    assert result.json["checks"]["inputs_equal"] == 72
    assert edgeml("verify", path).status == 0


@pytest.mark.parametrize("fault", SPEC_FAULTS)
@pytest.mark.parametrize(("fmt", "precision"), KINDS)
def test_a_fault_in_the_spec_is_caught(
    fmt: str, precision: str, fault: str, honest: Any, source: Path, photos: Path,
    edgeml: Command, tmp_path: Path,
) -> None:  # fmt: skip
    plant, message = SPEC_FAULTS[fault]
    path = copied(honest(fmt, precision), tmp_path)
    plant(path)
    result = edgeml("verify", path, "--against", source, "--data", photos)
    assert result.status == 1
    line = result.err.strip().splitlines()[-1]
    assert message in line
    assert path.name in line


@pytest.mark.parametrize("fault", GRAPH_FAULTS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_fault_in_the_graph_is_caught(
    precision: str, fault: str, honest: Any, source: Path, photos: Path,
    edgeml: Command, tmp_path: Path,
) -> None:  # fmt: skip
    change, input = GRAPH_FAULTS[fault]
    path = copied(honest("onnx", precision, input), tmp_path)
    edited(path, change)
    result = edgeml("verify", path, "--against", source, "--data", photos, "--json")
    assert result.status == 1
    assert result.json["passed"] is False
    assert result.json["checks"]["inputs_equal"] == 72  # the graph lies, its spec does not
    assert path.name in result.err.strip().splitlines()[-1]


@pytest.mark.parametrize("fault", GRAPH_FAULTS)
@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.nightly)])
def test_a_fault_in_the_graph_of_an_xml_is_caught(
    precision: str, fault: str, honest: Any, source: Path, photos: Path, tmp_path: Path
) -> None:
    change, input = GRAPH_FAULTS[fault]
    network = copied(honest("onnx", "fp32", input), tmp_path)
    edited(network, change)
    path = openvino_from_onnx(network, tmp_path / "m.xml", fp16=precision == "fp16")
    found = verify(path, against=source, data=read_dataset(photos))
    assert found.findings


# Thresholds are no matter of the network, and labels in another order cannot be compared at all.
REFUSED = [
    *[(SPEC_FAULTS[name][0], "float32") for name in ("mean", "channels", "crop", "activation")],
    *[
        (lambda path, change=change: edited(path, change), on)
        for change, on in GRAPH_FAULTS.values()
    ],
]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("plant", "input"), REFUSED, ids=["mean", "channels", "crop", "activation", *GRAPH_FAULTS]
)
def test_the_check_of_an_export_finds_the_fault(
    precision: str, plant: Planting, input: str, honest: Any, source: Path, photos: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    path = copied(honest("onnx", precision, input), tmp_path)
    plant(path)
    with Predictor(source) as reference:
        job = Job(
            request=ExportRequest(source=source, fmt="onnx", precision=precision, input=input),
            source_precision=None,
            reference=reference,
            roles=Roles(calibration=None, fitting=None, reporting=read_dataset(photos)),
            folder=tmp_path,
            progress=RecordingProgress(SILENT),
            started=0.0,
        )
        checked = check_model(job, Written(path=path, onnx=path), None)
    assert checked.findings
    assert checked.fidelity is not None
    assert checked.fidelity.passed is False


def zeroed_batch(graph: onnx.GraphProto) -> None:
    """Subtract the first image's logits from all: a batch of one gives 0, of two more."""
    output = graph.output[0].name
    maker = next(node for node in graph.node if output in node.output)
    maker.output[list(maker.output).index(output)] = "own"
    first = onnx.numpy_helper.from_array(np.zeros(1, np.int64), "first")
    graph.initializer.append(first)
    graph.node.append(onnx.helper.make_node("Gather", ["own", "first"], ["of_first"], axis=0))
    graph.node.append(onnx.helper.make_node("Sub", ["own", "of_first"], [output]))


def not_a_number(graph: onnx.GraphProto) -> None:
    def spoil(values: Any) -> Any:
        values[0] = np.nan
        return values

    change_constant(graph, lambda v: v.shape == (5,) and v.dtype.kind == "f", spoil)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (zeroed_batch, "depends on its batch"),
        (not_a_number, "for 6 of 6 drawn images its output is NaN or infinity"),
    ],
)
def test_faulty_outputs_are_found_without_a_source(
    change: Any, message: str, honest: Any, edgeml: Command, tmp_path: Path
) -> None:
    path = copied(honest("onnx", "fp32"), tmp_path)
    edited(path, change)
    result = edgeml("verify", path)
    assert (result.status, result.out) == (1, "")
    assert message in result.err


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5000]), "m.onnx is not sound"),
        (in_preprocess(size=(48, 48)), "the model takes"),
        (in_spec(labels=("a", "b"), thresholds=(0.5, 0.5)), "2 labels"),
        (in_spec(activation="none"), "its spec promises probabilities"),
    ],
    ids=["cut off", "size", "labels", "activation"],
)
def test_a_file_that_does_not_fit_itself_is_found(
    plant: Planting, message: str, honest: Any, edgeml: Command, tmp_path: Path
) -> None:
    path = copied(honest("onnx", "fp32"), tmp_path).rename(tmp_path / "m.onnx")
    plant(path)
    result = edgeml("verify", path)
    assert result.status == 1
    assert message in result.err
    assert "Traceback" not in result.err


def test_a_layout_for_another_target_is_named(honest: Any, edgeml: Command) -> None:
    path = honest("onnx", "int8")
    assert edgeml("verify", path).status == 0
    assert edgeml("verify", path, "--target", "x86").status == 0
    result = edgeml("verify", path, "--target", "tensorrt")
    assert result.status == 1
    assert "is not sound" in result.err


def test_incomplete_arguments_are_refused(
    honest: Any, source: Path, photos: Path, edgeml: Command, tmp_path: Path
) -> None:
    path = honest("onnx", "fp32")
    assert "absent" in edgeml.refused("verify", tmp_path / "absent.onnx")
    assert "--data" in edgeml.refused("verify", path, "--against", source)
    assert "--against" in edgeml.refused("verify", path, "--data", photos)
    assert "--html" in edgeml.refused("verify", path, "--html", tmp_path / "page.html")


def test_the_report_of_a_refusal_names_the_reason(
    honest: Any, source: Path, photos: Path, edgeml: Command, tmp_path: Path
) -> None:
    path = copied(honest("onnx", "int8"), tmp_path)
    edited(path, transposed_head)
    page = tmp_path / "page.html"
    words = ("--against", source, "--data", photos, "--html", page)
    result = edgeml("verify", path, *words)
    assert result.status == 1
    assert "metric         mAP lost" in result.out
    text = check_page(page).text
    assert "Refused" in text
    assert "(--max-drop)" in text
    assert edgeml("verify", path, *words, "--max-drop", 100, "--max-label-drop", 100).status == 1
