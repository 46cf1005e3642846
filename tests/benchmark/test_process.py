"""Workers fail in every way; the parent must report it in one line."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeml.benchmark import process
from edgeml.benchmark.corpus import draw_photo
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.process import Worker
from edgeml.errors import (
    EdgemlError,
    EngineMismatchError,
    ImageError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ModelLoadError,
)
from edgeml.image.jpeg import encode_jpeg
from tests.benchmark import crashing
from tests.tiny import make_tiny_onnx

QUICK = BenchPlan(min_s=0.1, min_calls=10, block_s=0.05, warmup_max_s=0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_onnx(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "photo.jpg"
    path.write_bytes(encode_jpeg(draw_photo(120, 160)))
    return path


@pytest.fixture
def start(tmp_path: Path, image: Path) -> Iterator[Callable[..., Worker]]:
    """Start workers; end them with the test."""
    workers: list[Worker] = []

    def start(model: Path, plan: BenchPlan = QUICK, *, image: Path = image) -> Worker:
        workers.append(Worker(model, [image], plan, log=tmp_path / "worker.log"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.__exit__(None, None, None)


@pytest.fixture
def failing(start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker without a model, each step of which fails in its own way."""
    monkeypatch.setattr(process, "Session", lambda *rest: crashing.Answers())
    return start(Path("model.onnx"))


def check_one_line(error: EdgemlError) -> None:
    assert "\n" not in str(error)
    assert "Traceback" not in str(error)


@pytest.mark.runtime
def test_a_worker_answers_each_step_until_it_is_killed(
    start: Callable[..., Worker], model: Path
) -> None:
    worker = start(model, BenchPlan(block_s=0.05, warmup_max_s=0.1, threads=1))
    loaded = worker.load()
    assert loaded.runtime.startswith("onnxruntime")
    assert loaded.opencv_threads == 1  # from the plan
    assert loaded.load_ms > 0
    assert loaded.first_ms > 0
    assert worker.warm_up().calls > 0
    assert len(worker.block().samples_ns["infer"]) > 0
    assert 20 < (worker.finish() or 50) < 1000
    if os.name != "nt":  # Windows has no such signals
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(InferenceError, match=r"SIGKILL.*memory") as caught:
            worker.block()
        check_one_line(caught.value)


@pytest.mark.runtime
def test_errors_of_the_worker_arrive_as_they_are(
    start: Callable[..., Worker], model: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x08\x07garbage")
    with pytest.raises(ModelLoadError, match=r"bad\.onnx") as caught:
        start(bad).load()
    check_one_line(caught.value)
    text = tmp_path / "not_a_picture.jpg"
    text.write_text("not a picture")
    with pytest.raises(ImageError, match="not_a_picture") as unreadable:
        start(model, image=text).load()
    assert unreadable.value.reason == "unknown_format"


def test_output_does_not_reach_the_answers_and_failures_are_explained(failing: Worker) -> None:
    assert failing.load() == "fine"  # type: ignore[comparison-overlap]
    with pytest.raises(InferenceError, match=r"model\.onnx.*KeyError: 'size'") as caught:
        failing.warm_up()
    check_one_line(caught.value)
    with pytest.raises(MissingDependencyError, match=r"edgeml\[onnx\]") as missing:
        failing.block()
    assert missing.value.name == "onnxruntime"
    end = "SIGABRT" if os.name != "nt" else "status"
    with pytest.raises(InferenceError, match=f"{end}: last words of a library") as crashed:
        failing.finish()
    check_one_line(crashed.value)


def test_the_reason_of_an_exit_has_the_status_and_the_last_line(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "serve", crashing.crash)
    with pytest.raises(InferenceError, match="status 3: last words") as caught:
        start(Path("model.onnx")).load()
    check_one_line(caught.value)


def test_leaving_the_block_ends_a_worker_that_hangs(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "serve", crashing.hang)
    with Worker(Path("model.onnx"), [image], QUICK, log=tmp_path / "log") as worker:
        child = psutil.Process(worker.pid)
        assert child.is_running()
    assert not child.is_running()


def test_a_file_in_the_working_directory_shadows_nothing(
    start: Callable[..., Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["queue.py"]
    if hasattr(sys.flags, "safe_path"):  # Python 3.11: PYTHONSAFEPATH protects `spawn` itself
        names.append("pickle.py")
    for name in names:
        (tmp_path / name).write_text(f"raise SystemExit('the wrong {name}')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelLoadError, match=r"no model.*gone\.onnx") as caught:
        start(Path("gone.onnx")).load()
    check_one_line(caught.value)


def every_error(base: type[EdgemlError] = EdgemlError) -> list[type[EdgemlError]]:
    return [base, *(error for child in base.__subclasses__() for error in every_error(child))]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_survives_the_way_between_processes(kind: type[EdgemlError]) -> None:
    extra: dict[str, Any] = {}
    if kind is ImageError:
        extra = {"reason": "too_large", "source": "a.jpg"}
    elif kind.__name__ == "FidelityError":
        extra = {"fidelity": None}
    error = kind("what happened", **extra)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "what happened"
    assert vars(copy) == vars(error)
    assert isinstance(EngineMismatchError("x"), ModelLoadError)


# Without `if __name__ == "__main__"`: a worker must not run the script of its parent again.
PARENT = """
import sys; sys.path[:] = sys.argv[3:]
from pathlib import Path
from edgeml.benchmark import BenchPlan, run_benchmark
print("ready", flush=True)
run_benchmark(
    [Path(sys.argv[1])] * 2, images=[Path(sys.argv[2])], plan=BenchPlan(min_s=600)
)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.runtime
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(
    model: Path, image: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    script = tmp_path / "script.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(model), str(image), *sys.path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"ready\n"
        workers = wait_for_workers(parent, 2)
        if ending == signal.SIGINT:  # a terminal sends it to the process group
            os.killpg(parent.pid, ending)
        else:
            parent.send_signal(ending)
        output, errors = parent.communicate(timeout=20)
        _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert b"ready" not in output
    assert errors.count(b"KeyboardInterrupt") <= 1  # the parent's own, none from a worker


def is_worker(process: psutil.Process) -> bool:
    try:
        return "--multiprocessing-fork" in process.cmdline()
    except psutil.NoSuchProcess:  # another child, which ended meanwhile; also if it is a zombie
        return False


def wait_for_workers(parent: subprocess.Popen[bytes], count: int) -> list[psutil.Process]:
    """Wait until workers run; return them and multiprocessing's resource tracker."""
    until = time.monotonic() + 60
    while True:
        children = psutil.Process(parent.pid).children()
        workers = [one for one in children if is_worker(one)]
        if len(workers) == count:
            time.sleep(0.5)  # until they measure
            return children
        assert parent.poll() is None, parent.communicate()[1].decode()
        assert time.monotonic() < until, f"only {len(workers)} workers were started"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_calls": 0}, "min_calls is 0"),
        ({"max_s": -1}, "max_s is -1"),
        ({"block_s": -1}, "block_s is -1"),
        ({"min_s": float("nan")}, "nan"),
        ({"threads": 0}, "threads is 0"),
        ({"scenario": "multi"}, "'multi'"),
    ],
)
def test_a_plan_is_refused_with_the_value(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BenchPlan(**fields)
