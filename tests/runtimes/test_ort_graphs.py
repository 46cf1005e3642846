"""Replaying, on the CPU: the same buffers and bindings as on a GPU, but no graph is recorded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgeml import Predictor
from edgeml.errors import InferenceError, InputError, ModelLoadError
from tests.runtimes.nets import assert_same_in_threads, every_layer_onnx, noise

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from edgeml.runtimes import ort as module  # noqa: E402
from edgeml.runtimes.ort import OrtRuntime  # noqa: E402

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return every_layer_onnx(tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture
def replayed(net: Path) -> OrtRuntime:
    return OrtRuntime(net, graphs=True)


def test_each_shape_gives_what_a_plain_session_gives_first_and_later(
    replayed: OrtRuntime, net: Path
) -> None:
    plain = OrtRuntime(net)
    for turn in range(3):
        for count in (1, 2, 7):
            batch = noise(count, seed=10 * turn + count)
            np.testing.assert_array_equal(replayed.run(batch), plain.run(batch))


def test_a_result_is_the_callers_own(replayed: OrtRuntime) -> None:
    results = [replayed.run(noise(1, seed)) for seed in range(3)]
    assert not np.array_equal(results[1], results[2])
    assert not np.shares_memory(results[1], results[2])


def test_a_callers_batch_is_left_as_it_is(replayed: OrtRuntime) -> None:
    first = noise(1)
    for seed in range(3):
        replayed.run(first if seed == 0 else noise(1, seed))
    np.testing.assert_array_equal(first, noise(1))


def test_more_shapes_than_are_recorded_still_run(replayed: OrtRuntime, net: Path) -> None:
    plain = OrtRuntime(net)
    for count in [*range(1, 13), *range(1, 13)]:
        np.testing.assert_array_equal(replayed.run(noise(count)), plain.run(noise(count)))
    assert replayed._replayed is not None
    assert len(replayed._replayed._recorded) == 8


def test_a_batch_that_is_a_view_is_read_as_it_looks(replayed: OrtRuntime, net: Path) -> None:
    view = noise(4)[::2, :, ::-1]
    replayed.run(view)
    np.testing.assert_allclose(replayed.run(view), OrtRuntime(net).run(view.copy()), atol=1e-6)


def test_another_type_of_a_recorded_shape_is_an_error(replayed: OrtRuntime) -> None:
    replayed.run(noise(1))
    with pytest.raises(InputError, match="float64"):
        replayed.run(noise(1).astype(np.float64))  # type: ignore[arg-type]


def test_eight_threads_get_what_one_alone_gets(replayed: OrtRuntime) -> None:
    with Predictor(replayed) as predictor:
        assert_same_in_threads(predictor)


def test_threads_that_bring_other_shapes_do_not_mix_them_up(
    replayed: OrtRuntime, net: Path
) -> None:
    plain = OrtRuntime(net)
    batches = [noise(1 + seed % 3, seed) for seed in range(60)]
    with ThreadPoolExecutor(8) as pool:
        for got, batch in zip(pool.map(replayed.run, batches), batches, strict=True):
            np.testing.assert_array_equal(got, plain.run(batch))


def test_what_runs_partly_on_the_cpu_is_not_recorded(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = {"CPUExecutionProvider": {"Conv": 1}, "Elsewhere": {"Shape": 1, "Gather": 2}}
    monkeypatch.setattr(module, "placement", lambda _: placed)
    with pytest.raises(ModelLoadError, match=r"Gather, Shape run on the CPU"):
        OrtRuntime(net, graphs=True)


def test_without_a_placement_nothing_is_recorded(
    net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "placement", lambda _: None)
    with pytest.raises(ModelLoadError, match="does not say where"):
        OrtRuntime(net, graphs=True)


def test_a_closed_runtime_raises_an_error(replayed: OrtRuntime) -> None:
    replayed.run(noise(1))
    replayed.close()
    with pytest.raises(InferenceError, match="closed"):
        replayed.run(noise(1))
