from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeml import ModelSpec, Predictor, Preprocess
from edgeml.data import Dataset
from edgeml.errors import ExportError
from edgeml.network.checkpoint import load_checkpoint
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml_export import to_onnx
from edgeml_export.to_onnx import onnx_from_checkpoint, onnx_from_module

pytestmark = [pytest.mark.train, pytest.mark.runtime]


def spec_for(size: int, labels: tuple[str, ...] = ("a", "b", "c")) -> ModelSpec:
    return ModelSpec(
        labels=labels,
        thresholds=(0.5,) * len(labels),
        preprocess=Preprocess(size=(size, size)),
    )


def small_net() -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 3)).eval()


def run_onnx(path: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": batch})[0]


def exporter_of(path: Path) -> str:
    return spec_of_onnx(read_onnx(path), path).provenance.exporter or ""


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_file_gives_the_logits_of_torch_for_any_batch(
    count: int, run: Path, network: Path, test_part: Dataset
) -> None:
    module, spec = load_checkpoint(run)
    with Predictor(network) as predictor:
        frames = [predictor.read(path) for path in test_part.paths[:count]]
        got = predictor.logits(frames)
    with torch.inference_mode():
        expected = module(torch.from_numpy(spec.preprocess(frames))).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_the_file_is_what_every_runtime_reads(network: Path) -> None:
    model = onnx.load(network, load_external_data=False)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    assert model.ir_version <= 10
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    (images,), (logits,) = model.graph.input, model.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == [
        "batch", 3, 40, 40
    ]  # fmt: skip
    assert [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim] == ["batch", 5]


def test_the_file_contains_no_path_of_this_machine(network: Path) -> None:
    written = network.read_bytes()
    for trace in (b"site-packages", b".py", str(Path(torch.__file__).parent).encode()):
        assert trace not in written


def test_the_same_checkpoint_gives_the_same_bytes(run: Path, network: Path, tmp_path: Path) -> None:
    again = onnx_from_checkpoint(run, tmp_path / "again.onnx")
    assert again.read_bytes() == network.read_bytes()


def test_the_spec_records_the_provenance_of_the_network(run: Path, network: Path) -> None:
    _, before = load_checkpoint(run)
    spec = spec_of_onnx(read_onnx(network), network)
    provenance = spec.provenance
    assert replace(spec, provenance=before.provenance) == before
    assert before.provenance.to_texts().items() <= provenance.to_texts().items()
    assert provenance.exporter == f"torch {torch.__version__} dynamo, opset 18"
    assert len(provenance.checkpoint_sha256 or "") == 64


def test_names_with_spaces_and_umlauts_come_back(tmp_path: Path) -> None:
    spec = spec_for(16, ("rotes Kleid", "grüner Rock", '靴 "a" <b>'))
    path = onnx_from_module(small_net(), spec, tmp_path / "model.onnx")
    with Predictor(path) as predictor:
        assert predictor.spec.labels == spec.labels


def test_exporting_prints_nothing_and_warns_of_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    onnx_from_module(small_net(), spec_for(16), tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)


def test_raw_frames_are_cast_first_and_give_the_same_decisions(
    run: Path, network: Path, test_part: Dataset, tmp_path: Path
) -> None:
    path = onnx_from_checkpoint(run, tmp_path / "raw.onnx", input="uint8")
    assert read_onnx(path).graph.node[0].op_type == "Cast"
    with Predictor(path) as raw, Predictor(network) as usual:
        assert raw.runtime.input_shape == (None, 40, 40, 3)
        frames = [usual.read(image) for image in test_part.paths]
        np.testing.assert_allclose(raw.logits(frames), usual.logits(frames), atol=1e-3)
        labels = [prediction.labels for prediction in raw.predict_batch(frames)]
        assert labels == [prediction.labels for prediction in usual.predict_batch(frames)]


def test_a_network_that_wants_bgr_gets_bgr_from_raw_frames(tmp_path: Path) -> None:
    spec = spec_for(16)
    spec = replace(spec, preprocess=replace(spec.preprocess, channels="bgr"))
    usual = onnx_from_module(small_net(), spec, tmp_path / "usual.onnx")
    raw = onnx_from_module(small_net(), spec, tmp_path / "raw.onnx", input="uint8")
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    with Predictor(usual) as first, Predictor(raw) as second:
        np.testing.assert_allclose(first.logits([frame]), second.logits([frame]), atol=1e-4)


def raises(network: nn.Module, example: Tensor) -> onnx.ModelProto:
    raise RuntimeError("a constraint\nwas violated")


def wrong(exporter: Callable[[nn.Module, Tensor], onnx.ModelProto]) -> Callable[..., object]:
    def export(network: nn.Module, example: Tensor) -> onnx.ModelProto:
        model = exporter(network, example)
        weights = model.graph.initializer[0]
        values = onnx.numpy_helper.to_array(weights) + np.float32(0.5)
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        return model

    return export


@pytest.mark.parametrize(
    "fault", [raises, wrong(to_onnx.EXPORTERS["dynamo"])], ids=["raises", "wrong"]
)
def test_the_older_exporter_is_the_fallback(
    fault: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(to_onnx.EXPORTERS, "dynamo", fault)
    path = onnx_from_module(small_net(), spec_for(16), tmp_path / "model.onnx")
    assert "torchscript" in exporter_of(path)
    batch = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        expected = small_net()(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(run_onnx(path, batch), expected, atol=1e-4)


def test_if_no_exporter_succeeds_the_error_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = to_onnx.EXPORTERS["torchscript"]
    monkeypatch.setitem(to_onnx.EXPORTERS, "dynamo", raises)
    monkeypatch.setitem(to_onnx.EXPORTERS, "torchscript", wrong(older))
    with pytest.raises(ExportError, match=r"dynamo: a constraint was.*torchscript: .*off by") as e:
        onnx_from_module(small_net(), spec_for(16), tmp_path / "model.onnx")
    assert "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


class TwoBranches(nn.Module):
    """Two convolutions that become one for inference, as in RepVGG."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.merged = False

    def reparameterize(self) -> None:
        self.a.weight.data += self.b.weight.data
        assert self.a.bias is not None
        assert self.b.bias is not None
        self.a.bias.data += self.b.bias.data
        self.merged = True

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) if self.merged else self.a(x) + self.b(x)


def test_branches_that_can_be_merged_are_and_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    branches = TwoBranches()
    net = nn.Sequential(branches, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    batch = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        expected = net(batch).numpy()
    path = onnx_from_module(net, spec_for(16), tmp_path / "model.onnx")
    operators = [node.op_type for node in read_onnx(path).graph.node]
    assert operators.count("Conv") == 1
    np.testing.assert_allclose(run_onnx(path, batch.numpy()), expected, atol=1e-5)
    assert not branches.merged
    assert "reparameterized" in spec_of_onnx(read_onnx(path), path).provenance.notes


class WronglyMerged(TwoBranches):
    def reparameterize(self) -> None:
        self.merged = True  # forgets the other branch


def test_branches_that_are_not_the_same_once_merged_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        WronglyMerged(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()
    with pytest.raises(ExportError, match=r"Merging the branches.*up to 0.01 % are rounding"):
        onnx_from_module(net, spec_for(16), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_without_branches_is_not_recorded_as_merged(network: Path) -> None:
    assert "reparameterized" not in spec_of_onnx(read_onnx(network), network).provenance.notes


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_models_of_timm_are_written_by_the_first_exporter(
    name: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(name)
    assert "dynamo" in exporter_of(path)
    torch.manual_seed(0)
    module = timm.create_model(f"test_{name}.r160_in1k", num_classes=1).eval()
    batch = np.random.default_rng(0).normal(size=(3, 3, 160, 160)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(run_onnx(path, batch), expected, atol=1e-4)


def test_a_slimmed_transformer_has_fewer_nodes_and_the_logits_of_torch(
    vit: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    torch.manual_seed(0)
    module = timm.create_model("test_vit.r160_in1k", num_classes=1).eval()
    path = onnx_from_module(module, spec_for(160, ("a",)), tmp_path / "slim.onnx", slim=True)
    assert capfd.readouterr() == ("", "")
    assert not list(recwarn)
    before, after = (len(read_onnx(each).graph.node) for each in (vit, path))
    assert after < before
    note = spec_of_onnx(read_onnx(path), path).provenance.notes["slimmed"]
    assert note.endswith(f": {before} nodes became {after}")
    batch = np.random.default_rng(0).normal(size=(3, 3, 160, 160)).astype(np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(run_onnx(path, batch), expected, atol=1e-4)


def test_a_network_with_nothing_to_merge_stays_as_it_is(tmp_path: Path) -> None:
    usual = onnx_from_module(small_net(), spec_for(16), tmp_path / "usual.onnx")
    slim = onnx_from_module(small_net(), spec_for(16), tmp_path / "slim.onnx", slim=True)
    assert read_onnx(slim).graph == read_onnx(usual).graph
    assert "nothing to merge" in spec_of_onnx(read_onnx(slim), slim).provenance.notes["slimmed"]
    assert "slimmed" not in spec_of_onnx(read_onnx(usual), usual).provenance.notes


def slims_wrongly(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the activation."""
    (relu,) = (node for node in model.graph.node if node.op_type == "Relu")
    for node in model.graph.node:
        node.input[:] = [relu.input[0] if name == relu.output[0] else name for name in node.input]
    model.graph.node.remove(relu)
    return model


def fails_to_slim(model: onnx.ModelProto) -> onnx.ModelProto:
    raise RuntimeError("no way\nto slim")


@pytest.mark.parametrize(
    ("slim", "note"),
    [
        (slims_wrongly, r"not kept: its logits are off by"),
        (fails_to_slim, r"failed: no way to slim"),
    ],
)
def test_if_slimming_fails_the_network_stays_and_a_note_says_why(
    slim: Callable[..., object], note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxslim.slim", slim)
    path = onnx_from_module(small_net(), spec_for(16), tmp_path / "slim.onnx", slim=True)
    usual = onnx_from_module(small_net(), spec_for(16), tmp_path / "usual.onnx")
    assert read_onnx(path).graph == read_onnx(usual).graph
    assert re.search(note, spec_of_onnx(read_onnx(path), path).provenance.notes["slimmed"])
