"""Engines built for real by TensorRT-RTX, which needs no GPU for it, and what ends a build.

Where it is not installed (pip install tensorrt_rtx_cu13_libs tensorrt_rtx_cu13_bindings, 96 MB)
these are skipped. Nothing is run here, and its kernels are not those of TensorRT.
"""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch

from edgeml import ModelSpec, Preprocess
from edgeml.data import Dataset, read_dataset
from edgeml.errors import ExportError, InputError, ModelLoadError
from edgeml.image.reading import read_image
from edgeml.progress import SILENT, Advance, Progress
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.tensorrt import build as build_module
from edgeml.runtimes.tensorrt.build import Built, engine_from_onnx
from edgeml.runtimes.tensorrt.engine_layers import products_of
from edgeml.runtimes.tensorrt.engine_options import EngineOptions, Profile
from edgeml.runtimes.tensorrt.passport import read_engine, read_passport
from edgeml.spec.model_spec import Precision
from edgeml_export.int8.calibration import choose_calibration
from edgeml_export.int8.ranges import measure_ranges
from edgeml_export.int8.to_int8 import int8_from_onnx
from edgeml_export.to_fp16 import fp16_from_onnx
from edgeml_export.to_onnx import onnx_from_module
from tests.export.conftest import draw
from tests.export.graphs import model_of, written
from tests.export.int8.quantized import quantized
from tests.export.test_models import give_statistics

trt = pytest.importorskip("tensorrt_rtx_bindings")

pytestmark = [pytest.mark.train, pytest.mark.runtime]

nightly = pytest.mark.nightly

QUICK = (("resnet18", 64), ("test_vit", 160))
SLOW = (
    ("resnet34", 96),
    ("resnet50", 96),
    ("efficientnet_b0", 96),
    ("efficientnet_lite0", 96),
    ("mobilenetv2_100", 96),
    ("mobilenetv3_small_100", 96),
    ("mobilenetv3_large_100", 96),
    ("mobilenetv4_conv_small", 96),
    ("mobilenetv4_conv_medium", 96),
    ("vit_tiny_patch16_224", 224),
    ("vit_small_patch16_224", 224),
    ("vit_base_patch16_siglip_224", 224),
    ("repvit_m0_9", 96),
    ("mobileone_s0", 96),
    ("fastvit_t8", 128),
)

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset(draw(tmp_path_factory.mktemp("images")))


@pytest.fixture(scope="module")
def typed(
    data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int, Precision], Path]:
    """Give a network of timm as ONNX of a type: random weights, but statistics of pictures."""
    folder = tmp_path_factory.mktemp("typed")

    def make(name: str, size: int, precision: Precision) -> Path:
        path = folder / f"{name}.{precision}.onnx"
        if path.exists():
            return path
        if precision == "fp32":
            torch.manual_seed(0)
            module = timm.create_model(name, num_classes=len(data.labels)).eval()
            spec = ModelSpec(
                labels=data.labels,
                thresholds=(0.5,) * len(data.labels),
                preprocess=Preprocess(size=(size, size)),
            )
            frames = [read_image(one) for one in data.paths[::30]]
            give_statistics(module, torch.from_numpy(spec.preprocess(frames)))
            return onnx_from_module(module, spec, path)
        fp32 = make(name, size, "fp32")
        if precision == "fp16":
            return fp16_from_onnx(fp32, path)
        ranges = measure_ranges(fp32, choose_calibration(data, data.labels, limit=4))
        integers = int8_from_onnx(fp32, folder / "q.onnx", ranges, layout="tensorrt")
        return fp16_from_onnx(integers, path)

    return make


def build(
    source: Path,
    folder: Path,
    *,
    timing_cache: Path | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Built:
    return engine_from_onnx(
        source,
        folder / "m.engine",
        EngineOptions(**options),
        library="tensorrt_rtx",
        timing_cache=timing_cache,
        progress=progress,
    )


def expected_products(network: onnx.ModelProto, precision: Precision) -> dict[str, dict[str, int]]:
    """Count by the ONNX what should compute in what: int8 between two DequantizeLinear nodes.

    A scale that FP16 cannot hold stays FP32, with a Cast behind its DequantizeLinear.
    """
    maker = {output: node for node in network.graph.node for output in node.output}

    def behind(name: str) -> str:
        node = maker.get(name)
        while node is not None and node.op_type == "Cast":
            node = maker.get(node.input[0])
        return node.op_type if node else ""

    types = {tensor.name: tensor.data_type for tensor in network.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(network).graph
    types |= {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    found: dict[str, dict[str, int]] = {}
    for node in network.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            if {behind(name) for name in node.input[:2]} == {"DequantizeLinear"}:
                kind = "int8"
            else:
                kind = "fp16" if types[node.input[1]] == onnx.TensorProto.FLOAT16 else "fp32"
            counts = found.setdefault(node.op_type, {})
            counts[kind] = counts.get(kind, 0) + 1
    if precision == "int8":
        assert any("int8" in counts for counts in found.values())
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("name", "size"), [*QUICK, *(pytest.param(*one, marks=nightly) for one in SLOW)]
)
def test_an_engine_computes_in_the_types_that_the_file_has(
    name: str,
    size: int,
    precision: Precision,
    typed: Callable[[str, int, Precision], Path],
    tmp_path: Path,
) -> None:
    source = typed(name, size, precision)
    built = build(source, tmp_path)
    network = read_onnx(source)
    products = products_of(built.layers, network)
    assert products == expected_products(network, precision)
    assert built.warnings == ()
    assert built.passport.precision == precision
    if name == "resnet18":
        # Its 20 convolutions, as He et al. count them with the three in shortcuts, and one Gemm.
        elsewhere = "fp32" if precision == "fp32" else "fp16"
        assert products == {"Conv": {precision: 20}, "Gemm": {elsewhere: 1}}
    # Shown by `pytest -rP`.
    print(f"| {name} | {precision} | {built.passport.plan_bytes / 1e6:.1f} MB | {products} |")


@pytest.fixture
def source(typed: Callable[[str, int, Precision], Path]) -> Path:
    return typed("test_resnet", 64, "fp16")


def test_an_engine_is_a_pure_plan_with_its_passport_beside_it(source: Path, tmp_path: Path) -> None:
    built = build(source, tmp_path, profile=Profile(1, 2, 4))
    passport, plan = read_engine(tmp_path / "m.engine")
    assert passport == built.passport
    assert {path.name for path in tmp_path.iterdir()} == {"m.engine", "m.engine.json"}
    assert hashlib.sha256(source.read_bytes()).hexdigest() == passport.onnx_sha256
    assert (passport.library, passport.version) == ("tensorrt_rtx", trt.__version__)
    assert (passport.gpu, passport.driver) == (None, None)
    assert passport.portable == "same-capability"
    assert passport.compute_capability == ("8.0", "8.6", "8.9", "12.0")
    assert passport.profile == (1, 2, 4)
    (given,), (answer,) = passport.inputs, passport.outputs
    assert (given.dtype, given.shape) == ("float32", (None, 3, 64, 64))
    assert (answer.dtype, answer.shape) == ("float32", (None, 5))
    assert sum(passport.layers.values()) == len(built.layers)
    assert len(plan) == passport.plan_bytes
    assert plan[1:4] == b"trt"  # the magic of NVIDIA's plans


def test_a_fixed_batch_is_the_profile(tmp_path: Path) -> None:
    nodes = [("GlobalAveragePool", ["input"], "p"), ("Flatten", ["p"], "logits")]
    source = written(model_of(nodes, {}, shape=(3, 2, 16, 16)), tmp_path / "m.onnx")
    assert build(source, tmp_path).passport.profile == (3, 3, 3)


def test_raw_frames_go_into_an_engine(tmp_path: Path) -> None:
    nodes = [
        ("Cast", ["input"], "f", {"to": onnx.TensorProto.FLOAT}),
        ("Transpose", ["f"], "t", {"perm": [0, 3, 1, 2]}),
        ("GlobalAveragePool", ["t"], "p"),
        ("Flatten", ["p"], "logits"),
    ]
    model = model_of(nodes, {}, dtype=onnx.TensorProto.UINT8, shape=("N", 16, 16, 3))
    passport = build(written(model, tmp_path / "m.onnx"), tmp_path).passport
    assert (passport.inputs[0].dtype, passport.inputs[0].shape) == ("uint8", (None, 16, 16, 3))


def test_gpus_can_be_chosen_where_nothing_is_measured(source: Path, tmp_path: Path) -> None:
    built = build(source, tmp_path, capability=("7.5",), timing_cache=tmp_path / "cache")
    assert built.passport.compute_capability == ("7.5",)
    assert not (tmp_path / "cache").exists()


# What is refused before the parser, and what it refuses.


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".onnx"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (quantized(dtype=np.uint8), "q_node: TensorRT reads uint8 as int8"),
        (quantized(zero=3), "q_node: the zero point is not 0"),
        (quantized(bias="int32"), "bd_node: TensorRT refuses an int32 bias"),
        (quantized(zeros=False), "q_node: TensorRT reads uint8 as int8"),
        (quantized(activation_by_channel=True), "q_node: an activation with a scale for each"),
    ],
)
def test_what_tensorrt_would_misread_never_reaches_its_parser(
    model: onnx.ModelProto, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(model, tmp_path / "theirs.onnx")
    monkeypatch.setattr(build_module, "_build", None)
    with pytest.raises(ExportError, match=message) as caught:
        build(source, tmp_path)
    assert "theirs.onnx is not for TensorRT" in str(caught.value)
    assert "--retarget" in str(caught.value)
    assert left(tmp_path) == set()


def test_a_broken_file_is_refused(source: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    half.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with pytest.raises(ModelLoadError, match=r"half\.onnx' is not an ONNX model, or is damaged"):
        build(half, tmp_path)
    assert left(tmp_path) == set()


def test_the_parser_names_the_node_that_it_does_not_know(source: Path, tmp_path: Path) -> None:
    model = onnx.load(source)
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type, node.name = "Swirl", "odd_one"
    onnx.save(model, tmp_path / "odd.onnx")
    message = r"TensorRT-RTX 1\.\S+ cannot read 'odd\.onnx': odd_one \(Swirl\): .*Plugin not found"
    with pytest.raises(ExportError, match=message) as caught:
        build(tmp_path / "odd.onnx", tmp_path)
    assert "cudaError" not in str(caught.value)
    assert left(tmp_path) == set()


def test_a_file_that_is_no_network_is_refused(source: Path, tmp_path: Path) -> None:
    """TensorRT-RTX reads a text file as a network of nothing, and says that all is well."""
    (tmp_path / "text.onnx").write_text("hello world")
    with pytest.raises(ModelLoadError, match="is not an ONNX model"):
        build(tmp_path / "text.onnx", tmp_path)


def test_a_network_without_a_profile_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        build_module, "_set_profile", lambda job, builder, network, config: Profile()
    )
    message = "cannot build 'test_resnet.fp16.onnx': .*no optimization profile has been defined"
    with pytest.raises(ExportError, match=message):
        build(source, tmp_path)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("batches", [(0, 1, 8), (2, 1, 8), (1, 9, 8)])
def test_batches_are_in_order(batches: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="not in order"):
        Profile(*batches)


def test_a_lack_of_memory_names_the_option(
    typed: Callable[[str, int, Precision], Path], tmp_path: Path
) -> None:
    source = typed("test_vit", 160, "fp16")
    with pytest.raises(ExportError, match="workspace") as caught:
        build(source, tmp_path, workspace_mb=1, profile=Profile(1, 64, 64))
    assert "--workspace" in str(caught.value)
    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"capability": ("9.0",)}, r"'9\.0' by name; known are 7\.5, .* current"),
        ({"capability": ()}, "At least one"),
        ({"portable": "ampere+"}, "choose these by their capability"),
        ({"workspace_mb": 0}, "The workspace is 0 MiB"),
    ],
)
def test_what_the_library_does_not_know_is_refused(
    given: dict[str, Any], message: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        build(source, tmp_path, **given)


class Interrupting(Progress):
    """Presses Ctrl-C as soon as a build moves."""

    def __init__(self) -> None:
        self.done = 0

    def task(self, name: str, total: int, unit: str = "img") -> Any:
        from contextlib import contextmanager

        @contextmanager
        def opened() -> Any:
            def advance(count: int) -> None:
                if not self.done:
                    # As the terminal sends it, to the thread that waits for the build.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                self.done += count

            yield advance

        return opened()


def test_ctrl_c_ends_a_build_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    progress = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path, progress=progress)
    assert 0 < progress.done < 100
    assert left(tmp_path) == set()
    assert not [one for one in threading.enumerate() if one.name.startswith("edgeml-build")]
    build(source, tmp_path)  # and the library is as good as before
    assert read_passport(tmp_path / "m.engine").plan_bytes


class Counting(Progress):
    def __init__(self) -> None:
        self.counts: list[int] = []

    def task(self, name: str, total: int, unit: str = "img") -> Any:
        from contextlib import nullcontext

        assert (name, total, unit) == ("Build with TensorRT-RTX", 100, "%")
        advance: Advance = self.counts.append
        return nullcontext(advance)


def test_progress_goes_from_nothing_to_all_in_small_steps(source: Path, tmp_path: Path) -> None:
    progress = Counting()
    build(source, tmp_path, progress=progress)
    assert sum(progress.counts) == 100
    assert all(count >= 0 for count in progress.counts)
    assert len(progress.counts) > 10


def test_a_failed_build_leaves_the_engine_of_before(source: Path, tmp_path: Path) -> None:
    build(source, tmp_path)
    before = read_engine(tmp_path / "m.engine")
    broken = written(quantized(zero=3), tmp_path / "theirs.onnx")
    with pytest.raises(ExportError):
        build(broken, tmp_path)
    assert read_engine(tmp_path / "m.engine") == before
