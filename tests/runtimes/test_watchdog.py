"""`timeout` stops a run; nothing is stopped that is done in time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml import Predictor
from edgeml.errors import InferenceError, InputError
from edgeml.runtimes import watchdog
from edgeml.runtimes.watchdog import deadline
from tests.runtimes.nets import assert_same_in_threads, endless_onnx, slow_onnx
from tests.tiny import TinyRuntime

FRAME = np.zeros((32, 32, 3), np.uint8)


def threads_of_the_watchdog() -> int:
    return sum(thread.name == "edgeml-watchdog" for thread in threading.enumerate())


def test_what_takes_too_long_is_stopped_and_the_rest_is_not() -> None:
    stopped = threading.Event()
    with deadline(0.02, stopped.set) as alarm:
        assert stopped.wait(30)
    assert alarm.expired
    never = threading.Event()
    with deadline(0.05, never.set) as alarm:
        pass
    assert not never.wait(0.2)
    assert not alarm.expired


def test_a_short_time_is_kept_while_a_long_one_is_watched() -> None:
    short, long = threading.Event(), threading.Event()
    with deadline(1000, long.set):
        for _ in range(5):
            short.clear()
            with deadline(0.01, short.set):
                assert short.wait(30)
    assert not long.is_set()


def test_one_thread_watches_all_and_what_is_over_is_forgotten() -> None:
    def work(_: int) -> None:
        with deadline(500, lambda: None):
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(2000)))
    assert threads_of_the_watchdog() == 1
    with deadline(500, lambda: None):
        watching = watchdog._watchdog
        assert watching is not None
        assert len(watching._alarms) < 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_a_watchdog_of_its_own() -> None:
    code = """
import os, threading
from edgeml.runtimes.watchdog import deadline
with deadline(50, lambda: None):
    child = os.fork()
    if not child:
        rang = threading.Event()
        with deadline(0.01, rang.set):
            os._exit(0 if rang.wait(20) else 1)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False)
    assert ran.returncode == 0


@pytest.mark.runtime
def test_an_endless_loop_in_onnx_runtime_is_stopped_and_the_next_run_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    with Predictor(endless_onnx(tmp_path / "endless.onnx"), timeout=0.2) as predictor:
        for _ in range(2):
            start = time.monotonic()
            with pytest.raises(InferenceError, match=r"longer than timeout=0\.2 s"):
                predictor.predict(FRAME)
            assert time.monotonic() - start >= 0.2


@pytest.mark.runtime
def test_openvino_is_stopped_at_a_layer_and_goes_on_with_the_next_run(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    net = slow_onnx(tmp_path / "slow.onnx")
    with Predictor(net, runtime="openvino") as predictor:
        expected = predictor.predict(FRAME).scores
    with Predictor(net, runtime="openvino", timeout=0.001) as predictor:
        for _ in range(2):
            with pytest.raises(InferenceError, match=r"longer than timeout=0\.001 s"):
                predictor.predict(FRAME)
    with Predictor(net, runtime="openvino", timeout=500) as predictor:
        np.testing.assert_array_equal(predictor.predict(FRAME).scores, expected)


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_with_time_enough_threads_get_what_one_alone_gets(runtime: str, tiny_onnx: Path) -> None:
    pytest.importorskip(runtime)
    with Predictor(tiny_onnx, runtime=runtime, timeout=100) as predictor:
        assert_same_in_threads(predictor)


@pytest.mark.runtime
@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_time_that_cannot_be_meant_is_refused(timeout: float, tiny_onnx: Path) -> None:
    with pytest.raises(InputError, match="timeout is"):
        Predictor(tiny_onnx, timeout=timeout)


@pytest.mark.parametrize("option", ["timeout", "spinning", "precision", "mode", "device"])
def test_options_that_do_not_apply_are_refused(
    option: str, tmp_path: Path, tiny_onnx: Path
) -> None:
    values = {"timeout": 1, "spinning": True, "precision": "fast", "mode": "throughput"}
    changed: Any = {option: values.get(option, "cuda")}
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "model.engine").touch()
    opens: list[Any] = [partial(Predictor, TinyRuntime())]
    if option in ("timeout", "spinning", "precision"):
        opens += [partial(Predictor, tmp_path), partial(Predictor, tmp_path / "model.engine")]
        opens += [partial(Predictor, tiny_onnx, runtime="tensorrt")]
    if option == "spinning":
        opens += [partial(Predictor, tiny_onnx, runtime="openvino")]
    for open_predictor in opens:
        with pytest.raises(InputError, match=f"^{option}=.* does not apply to .* Omit it"):
            open_predictor(**changed)
