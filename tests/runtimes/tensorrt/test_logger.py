from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import ModuleType
from typing import Any

import pytest

from edgeml.errors import MissingDependencyError, ModelLoadError
from edgeml.runtimes.tensorrt.bindings import built_for_cuda, captured_log, load, logger

pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
from tests.runtimes.tensorrt.standin import standin

pytestmark = pytest.mark.runtime


@pytest.fixture
def trt() -> Any:
    return standin("11.4")


def say(trt: Any, severity: str, text: str) -> None:
    logger(trt).log(getattr(trt.ILogger.Severity, severity), text)


def test_errors_and_warnings_are_captured_and_info_is_not(trt: Any) -> None:
    with captured_log(trt) as log:
        for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
            say(trt, severity, severity.lower())
    assert log.errors == ["internal_error", "error"]
    assert log.warnings == ["warning"]
    assert len(log) == 3


def test_a_verbose_block_captures_everything(trt: Any) -> None:
    with captured_log(trt, verbose=True) as log:
        say(trt, "VERBOSE", "fused")
    assert log == [("VERBOSE", "fused")]


def test_a_block_captures_errors_of_its_own_thread_only(trt: Any) -> None:
    together = Barrier(4)

    def work(number: int) -> list[str]:
        with captured_log(trt) as log:
            together.wait(30)
            say(trt, "ERROR", str(number))
            together.wait(30)
        return log.errors

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [["0"], ["1"], ["2"], ["3"]]


def test_lines_of_tensorrts_threads_are_captured_by_all_blocks(trt: Any) -> None:
    with captured_log(trt) as log, ThreadPoolExecutor(1) as pool:
        pool.submit(say, trt, "ERROR", "of a worker").result()
    assert log.errors == ["of a worker"]


def test_nothing_is_captured_after_the_block(trt: Any) -> None:
    with captured_log(trt) as log:
        pass
    say(trt, "ERROR", "later")
    assert not log


def test_an_error_that_nobody_listens_to_is_logged(
    trt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    say(trt, "ERROR", "lost otherwise")
    assert "TensorRT: lost otherwise" in caplog.text


def test_there_is_one_logger_for_a_module(trt: Any) -> None:
    assert logger(trt) is logger(trt)
    assert logger(standin("10.3")) is not logger(trt)


REAL = """
from edgeml.runtimes.tensorrt.bindings import captured_log, load, logger
trt = load("tensorrt_rtx")
with captured_log(trt) as log:
    network = trt.Builder(logger(trt)).create_network(0)
    assert not trt.OnnxParser(network, logger(trt)).parse_from_file("/no/such.onnx")
assert any("no/such.onnx" in text for text in log.errors), log
with captured_log(trt) as quiet:
    pass
assert not quiet.errors
"""


def test_the_real_library_speaks_to_it() -> None:
    """In a process of its own, where no other logger was the first."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_cuda_that_a_library_was_built_for_is_read_off_its_package() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    assert built_for_cuda("tensorrt_rtx") in ("12", "13")


@pytest.mark.parametrize(
    ("library", "install"),
    [
        ("tensorrt", r"needs TensorRT: pip install 'edgeml\[trt\]'"),
        ("tensorrt_rtx", r"needs TensorRT-RTX: pip install 'edgeml\[trt-rtx\]'"),
    ],
)
def test_a_library_that_is_absent_is_named_with_what_installs_it(
    library: Any, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=f"To build engines, edgeml {install}"):
        load(library, to="build engines")


def test_a_broken_library_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.11: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(ModelLoadError, match=r"cannot be loaded: libnvinfer\.so\.11: cannot open"):
        load("tensorrt")


def test_a_partial_installation_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "tensorrt.py").write_text("from tensorrt_bindings import *")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(ModelLoadError, match="cannot be loaded: No module named 'tensorrt_bind"):
        load("tensorrt")


def test_tensorrt_without_a_front_end_is_found_by_its_bindings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bindings = ModuleType("tensorrt_rtx_bindings")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", bindings)
    assert load("tensorrt_rtx") is bindings
