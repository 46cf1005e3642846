from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeml import Predictor
from edgeml.errors import InferenceError, InputError, MissingDependencyError, ModelLoadError
from edgeml.runtimes import open_runtime
from tests.runtimes.nets import assert_same_in_threads, every_layer_onnx, noise
from tests.tiny import make_tiny_onnx, tiny_spec

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
from cuda.bindings import runtime as cudart

from edgeml.runtimes.tensorrt import cuda
from edgeml.runtimes.tensorrt.runtime import TensorRtRuntime
from edgeml.runtimes.tensorrt.slots import MAX_CONCURRENT, MAX_GRAPHS
from tests.runtimes.tensorrt.engines import VERSIONS, Machine, machine

pytestmark = pytest.mark.runtime

SIZES = (1, 3, 8, 8, 1, 3, 1, 21, 2, 4, 5, 6, 6, 7, 7, 8)
"""Batches: the least, some, the greatest and beyond it, in an order that replays graphs."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return every_layer_onnx(tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture(scope="module")
def expected(net: Path) -> NDArray[np.float32]:
    """What ONNX Runtime makes of noise(21)."""
    runtime = open_runtime(net)
    logits = runtime.run(noise(21))
    runtime.close()
    return logits


@pytest.fixture(params=VERSIONS)
def here(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine(request.param) as made:
        yield made


@pytest.fixture
def ours() -> Iterator[Machine]:
    with machine("11.4") as made:
        yield made


def closed(runtime: TensorRtRuntime, made: Machine) -> None:
    """Close, and see that nothing is left."""
    runtime.close()
    del runtime
    gc.collect()
    assert made.cuda.nothing_alive, made.cuda.alive
    assert made.cuda.allocated == made.cuda.freed
    assert made.state.alive == 0


def test_every_batch_gives_what_onnxruntime_gives(
    here: Machine, net: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(here.build(net, tmp_path / "m.engine"))
    batch = noise(21)
    for size in SIZES:
        np.testing.assert_allclose(runtime.run(batch[:size]), expected[:size], atol=1e-5)
    closed(runtime, here)


def test_the_name_has_the_version_and_the_gpu(here: Machine, net: Path, tmp_path: Path) -> None:
    with Predictor(here.build(net, tmp_path / "m.engine")) as predictor:
        runtime = predictor.runtime
        assert runtime.name == f"{here.library} {here.state.version} Stand-in GPU"
        assert runtime.input_shape == (None, 3, 32, 32)
        assert runtime.metadata["precision"] == "f32"
        assert predictor.spec == tiny_spec()


def test_a_size_that_comes_twice_is_replayed_as_a_graph(
    ours: Machine, net: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(net, tmp_path / "m.engine"))
    counted = []
    for _ in range(4):
        np.testing.assert_allclose(runtime.run(noise(21)[:2]), expected[:2], atol=1e-5)
        counted.append((ours.state.executions, ours.cuda.launches))
    # Once as it comes; once more before it is recorded, as TensorRT demands; then no more.
    assert counted == [(1, 0), (2, 1), (2, 2), (2, 3)]
    closed(runtime, ours)


def test_no_more_sizes_are_kept_as_graphs_than_are_worth_their_memory(
    ours: Machine, net: Path, tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(net, tmp_path / "m.engine"))
    for size in [1, 2, 3, 4, 5, 6, 7, 8] * 3:
        runtime.run(noise(size))
    assert ours.cuda.alive["execs"] == MAX_GRAPHS == 4
    closed(runtime, ours)


def test_tensorrt_rtx_makes_its_graphs_itself(net: Path, tmp_path: Path) -> None:
    with machine("rtx") as made:
        runtime = TensorRtRuntime(made.build(net, tmp_path / "m.engine"))
        for _ in range(3):
            runtime.run(noise(1))
        assert made.cuda.launches == 0
        closed(runtime, made)


def test_without_graphs_it_runs_all_the_same(
    net: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    with machine("11.4", captures=False) as made:
        runtime = TensorRtRuntime(made.build(net, tmp_path / "m.engine"))
        for size in SIZES:
            np.testing.assert_allclose(runtime.run(noise(21)[:size]), expected[:size], atol=1e-5)
        assert made.cuda.launches == 0
        closed(runtime, made)


def test_a_network_that_cannot_be_recorded_runs_all_the_same(
    ours: Machine, net: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    ours.state.fault_when_recorded = "operation not permitted when stream is capturing"
    runtime = TensorRtRuntime(ours.build(net, tmp_path / "m.engine"))
    for size in SIZES:
        np.testing.assert_allclose(runtime.run(noise(21)[:size]), expected[:size], atol=1e-5)
    assert ours.cuda.launches == 0
    # What was recorded until it failed is thrown away, and is not tried again at each run.
    assert ours.cuda.alive["graphs"] == 0
    assert ours.cuda.captures_begun == MAX_GRAPHS
    closed(runtime, ours)


def test_threads_that_share_it_get_their_own_results(
    here: Machine, net: Path, tmp_path: Path
) -> None:
    with Predictor(here.build(net, tmp_path / "m.engine")) as predictor:
        assert_same_in_threads(predictor, threads=8, each=60)
        assert here.cuda.alive["streams"] <= MAX_CONCURRENT
    del predictor
    gc.collect()
    assert here.cuda.nothing_alive


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.nightly)])
def test_models_opened_and_closed_leave_nothing(
    ours: Machine, tiny_onnx: Path, tmp_path: Path, count: int
) -> None:
    engine = ours.build(tiny_onnx, tmp_path / "m.engine")
    batch = noise(3)
    for _ in range(count):
        runtime = TensorRtRuntime(engine)
        runtime.run(batch[:1])
        runtime.run(batch[:1])
        runtime.run(batch)
        runtime.close()
    del runtime
    gc.collect()
    # Each: two buffers of the GPU, two pinned; an engine, and contexts for one size and the other.
    assert ours.cuda.allocated == ours.cuda.freed == count * 7
    assert ours.cuda.nothing_alive
    assert ours.state.alive == 0


def test_a_runtime_that_is_dropped_frees_its_memory(
    ours: Machine, tiny_onnx: Path, tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(tiny_onnx, tmp_path / "m.engine"))
    runtime.run(noise(1))
    assert ours.cuda.alive["device"]
    del runtime
    gc.collect()
    assert ours.cuda.nothing_alive


def test_a_closed_runtime_raises_and_may_be_closed_again(
    ours: Machine, tiny_onnx: Path, tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(tiny_onnx, tmp_path / "m.engine"))
    runtime.close()
    runtime.close()
    with pytest.raises(InferenceError, match="is closed; open it again"):
        runtime.run(noise(1))
    closed(runtime, ours)


def test_closing_waits_for_a_run(ours: Machine, tiny_onnx: Path, tmp_path: Path) -> None:
    runtime = TensorRtRuntime(ours.build(tiny_onnx, tmp_path / "m.engine"))
    begun, go_on = threading.Event(), threading.Event()
    real = ours.cuda.enqueue

    def slow(stream: int, work: object) -> None:
        begun.set()
        assert go_on.wait(30)
        real(stream, work)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(ours.cuda, "enqueue", slow)
        running = pool.submit(runtime.run, noise(1))
        assert begun.wait(30)
        closing = pool.submit(runtime.close)
        with pytest.raises(TimeoutError):
            closing.result(timeout=0.2)
        assert not ours.cuda.nothing_alive
        go_on.set()
        assert running.result(30).shape == (1, 3)
        closing.result(30)
    closed(runtime, ours)


def test_without_a_gpu_no_tensorrt_object_is_made(tiny_onnx: Path, tmp_path: Path) -> None:
    with machine("11.4") as made:
        engine = made.build(tiny_onnx, tmp_path / "m.engine")
    with machine("11.4", count=0) as bare:
        with pytest.raises(ModelLoadError, match="No NVIDIA GPU can be used here: cudaErrorInsuf"):
            TensorRtRuntime(engine)
        assert bare.state.objects == 0


def test_without_tensorrt_the_line_that_installs_it_is_given(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    with machine("11.4") as made:
        engine = made.build(tiny_onnx, tmp_path / "m.engine")
    with pytest.raises(
        MissingDependencyError, match=r"needs TensorRT: pip install 'edgeml\[trt\]'"
    ):
        TensorRtRuntime(engine)


def test_a_lack_of_memory_is_reported_in_bytes(tiny_onnx: Path, tmp_path: Path) -> None:
    with machine("11.4", memory=60_000) as made:
        engine = made.build(tiny_onnx, tmp_path / "m.engine")
        # 8 pictures of 3 x 32 x 32 float32.
        with pytest.raises(ModelLoadError, match=r"for 98,304 bytes on the GPU: cudaErrorMemoryA"):
            TensorRtRuntime(engine)
        gc.collect()
        assert made.cuda.nothing_alive


def test_threads_share_the_lanes_that_memory_is_enough_for(net: Path, tmp_path: Path) -> None:
    with machine("11.4", memory=250_000) as made:
        with Predictor(made.build(net, tmp_path / "m.engine")) as predictor:
            assert_same_in_threads(predictor, threads=4, each=10)
            assert made.cuda.alive["streams"] <= 2
        del predictor
        gc.collect()
        assert made.cuda.nothing_alive


def test_a_failed_execution_reports_tensorrts_log(
    ours: Machine, tiny_onnx: Path, tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(tiny_onnx, tmp_path / "m.engine"))
    ours.state.fault = "Error Code 1: Cask (kernel launch failed)"
    with pytest.raises(InferenceError, match=r"TensorRT failed: Error Code 1: Cask \(kernel"):
        runtime.run(noise(1))
    ours.state.fault = None
    assert runtime.run(noise(1)).shape == (1, 3)
    closed(runtime, ours)


def test_a_status_of_cuda_is_never_passed_over(
    ours: Machine, tiny_onnx: Path, tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(tiny_onnx, tmp_path / "m.engine"))
    ours.cuda.fault = cudart.cudaError_t.cudaErrorIllegalAddress
    with pytest.raises(InferenceError, match=r"cudaErrorIllegalAddress \(an illegal memory access"):
        runtime.run(noise(1))
    ours.cuda.fault = None
    closed(runtime, ours)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 32, 31), np.float32),
        np.zeros((1, 3, 32, 32), np.float64),
        np.zeros((1, 32, 32, 3), np.uint8),
        np.zeros((3, 32, 32), np.float32),
        np.zeros((0, 3, 32, 32), np.float32),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    batch: NDArray[np.float32], ours: Machine, tiny_onnx: Path, tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(tiny_onnx, tmp_path / "m.engine"))
    with pytest.raises(InputError, match=r"takes \(N, 3, 32, 32\) float32; the batch is"):
        runtime.run(batch)
    closed(runtime, ours)


def test_an_array_that_is_not_contiguous_is_run_as_it_reads(
    ours: Machine, net: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(net, tmp_path / "m.engine"))
    nhwc = np.ascontiguousarray(noise(21).transpose(0, 2, 3, 1))
    np.testing.assert_allclose(runtime.run(nhwc.transpose(0, 3, 1, 2)[:4]), expected[:4], atol=1e-5)
    closed(runtime, ours)


def test_the_result_is_not_overwritten_by_the_next(
    ours: Machine, net: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    runtime = TensorRtRuntime(ours.build(net, tmp_path / "m.engine"))
    first = runtime.run(noise(21)[:1])
    runtime.run(noise(21)[1:2])
    np.testing.assert_allclose(first, expected[:1], atol=1e-5)
    closed(runtime, ours)


def fixed_batch(source: Path, target: Path, batch: int) -> Path:
    """Write a model with its batch fixed."""
    import onnx

    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, target)
    return target


def test_a_batch_that_is_fixed_is_filled_up_and_split(
    here: Machine, net: Path, expected: NDArray[np.float32], tmp_path: Path
) -> None:
    four = fixed_batch(net, tmp_path / "four.onnx", 4)
    runtime = TensorRtRuntime(here.build(four, tmp_path / "m.engine", profile=(4, 4, 4)))
    assert runtime.input_shape == (None, 3, 32, 32)
    for size in (1, 4, 3, 9, 1, 1):
        np.testing.assert_allclose(runtime.run(noise(21)[:size]), expected[:size], atol=1e-5)
    closed(runtime, here)


def raw_input(path: Path) -> Path:
    """Write a model that takes raw pictures (N, 32, 32, 3) uint8 and names their colour."""
    import onnx
    from onnx import TensorProto, helper

    spec = replace(tiny_spec(), input="uint8")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["raw"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float"], ["logits"], axes=[1, 2], keepdims=0),
        ],
        "raw",
        [value("raw", TensorProto.UINT8, ["N", 32, 32, 3])],
        [value("logits", TensorProto.FLOAT, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    helper.set_model_props(model, {"edgeml": spec.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def test_raw_pictures_go_to_the_gpu_as_bytes(here: Machine, tmp_path: Path) -> None:
    engine = here.build(raw_input(tmp_path / "raw.onnx"), tmp_path / "m.engine")
    frames = [np.full((32, 32, 3), tint, np.uint8) for tint in ((9, 0, 0), (1, 2, 3))]
    with Predictor(engine) as predictor:
        logits = predictor.logits(frames)
    np.testing.assert_allclose(logits, [[9, 0, 0], [1, 2, 3]])


def test_the_thread_of_the_caller_stays_with_its_gpu(net: Path, tmp_path: Path) -> None:
    """PyTorch in the same thread would otherwise go on with the GPU of the model."""
    with machine("11.4", count=2) as made:
        engine = made.build(net, tmp_path / "net.engine")
        with Predictor(engine, device="cuda:1") as predictor:
            assert cuda.checked(made.cuda, made.cuda.cudaGetDevice()) == 0
            predictor.runtime.run(noise(2))
            with pytest.raises(InputError):
                predictor.runtime.run(noise(0))
            assert cuda.checked(made.cuda, made.cuda.cudaGetDevice()) == 0
        assert made.cuda.used == {1}


def test_another_gpu_is_used_by_its_number_in_all_threads(net: Path, tmp_path: Path) -> None:
    with machine("11.4", count=2) as made:
        engine = made.build(net, tmp_path / "m.engine")
        made.cuda.used.clear()
        with Predictor(engine, device="cuda:1") as predictor:
            pool = predictor._network._runtime._pool  # type: ignore[attr-defined]
            with (
                pool.acquire(),
                ThreadPoolExecutor(1) as thread,
            ):  # the thread needs a slot of its own
                thread.submit(predictor.logits, [np.zeros((32, 32, 3), np.uint8)]).result(30)
            assert made.cuda.alive["streams"] == 2
            assert made.cuda.used == {1}
        with pytest.raises(ModelLoadError, match="There is no GPU 2; CUDA finds 2, counted from 0"):
            Predictor(engine, device="cuda:2")


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:-1", "cuda:x", "npu:0"])
def test_a_device_that_is_no_gpu_is_refused(device: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"known are auto, cuda and cuda:N"):
        TensorRtRuntime(tmp_path / "m.engine", device=device)


def test_a_network_of_more_labels_than_its_spec_is_refused(ours: Machine, tmp_path: Path) -> None:
    source = make_tiny_onnx(tmp_path / "m.onnx", labels=list("abcde"))
    engine = ours.build(source, tmp_path / "m.engine", spec=tiny_spec())
    with pytest.raises(ModelLoadError, match=r"one input and one output \(N, 3\)"):
        TensorRtRuntime(engine)


def test_what_no_plan_is_is_refused_in_tensorrts_words(
    ours: Machine, tiny_onnx: Path, tmp_path: Path
) -> None:
    import hashlib

    engine = tmp_path / "m.engine"
    digest = hashlib.sha256(b"no plan").hexdigest()
    ours.build(tiny_onnx, engine, plan_sha256=digest, plan_bytes=7)
    engine.write_bytes(b"no plan")
    with pytest.raises(ModelLoadError, match=r"TensorRT 11\.4\.0\.106 refuses m\.engine: .*magic"):
        TensorRtRuntime(engine)
    assert ours.cuda.nothing_alive


def test_a_machine_without_a_gpu_is_an_error() -> None:
    if cuda.device_count():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelLoadError, match=r"No NVIDIA GPU can be used here: cudaError\w+ \("):
        cuda.this_gpu()
