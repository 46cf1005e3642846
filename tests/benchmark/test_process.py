"""Faults are put into the worker's process; the parent must say what happened, in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeml.benchmark.corpus import draw_photo
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.process import Worker
from edgeml.errors import (
    EdgemlError,
    ImageError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ModelLoadError,
)
from edgeml.image.jpeg import encode_jpeg
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


def opening(model: Path, image: Path, plan: BenchPlan = QUICK) -> dict[str, Any]:
    return {"do": "open", "model": str(model), "images": [str(image)], "plan": asdict(plan)}


def acting(code: str) -> Worker:
    """Start a worker that runs `code` in place of ours."""
    return Worker(Path("model.onnx"), command=[sys.executable, "-c", code])


def check_one_line(error: EdgemlError) -> None:
    assert "\n" not in str(error)
    assert "Traceback" not in str(error)


@pytest.fixture
def worker(model: Path) -> Iterator[Worker]:
    with Worker(model) as started:
        yield started


@pytest.mark.runtime
def test_a_worker_answers_each_step(worker: Worker, model: Path, image: Path) -> None:
    opened = worker.ask(opening(model, image))
    assert opened["runtime"].startswith("onnxruntime")
    assert opened["load_ms"] > 0
    assert opened["first_ms"] > 0
    assert worker.ask({"do": "warm_up"})["calls"] > 0
    assert len(worker.ask({"do": "block"})["samples_ns"]["infer"]) > 0
    assert 20 < worker.ask({"do": "finish"})["peak_rss_mb"] < 1000


@pytest.mark.runtime
def test_threads_of_the_plan_reach_opencv(worker: Worker, model: Path, image: Path) -> None:
    assert worker.ask(opening(model, image, BenchPlan(threads=1)))["opencv_threads"] == 1


def test_a_missing_model_is_the_workers_own_error(worker: Worker, image: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no model.*gone\.onnx") as caught:
        worker.ask(opening(Path("gone.onnx"), image))
    check_one_line(caught.value)


@pytest.mark.runtime
def test_a_damaged_model_is_the_workers_own_error(image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"\x08\x07garbage")
    with Worker(bad) as worker, pytest.raises(ModelLoadError, match=r"bad\.onnx") as caught:
        worker.ask(opening(bad, image))
    check_one_line(caught.value)


@pytest.mark.runtime
def test_an_unreadable_image_is_the_workers_own_error(
    worker: Worker, model: Path, tmp_path: Path
) -> None:
    text = tmp_path / "not_a_picture.jpg"
    text.write_text("not a picture")
    with pytest.raises(ImageError, match="not_a_picture"):
        worker.ask(opening(model, text))


def test_a_library_missing_in_the_worker_names_its_extra() -> None:
    answer = '{"error": {"kind": "MissingDependencyError", "message": "pip install edgeml[onnx]"}}'
    with (
        acting(f"input(); print({answer!r})") as worker,
        pytest.raises(MissingDependencyError, match=r"edgeml\[onnx\]"),
    ):
        worker.ask({"do": "open"})


@pytest.mark.parametrize("kind", ["null", '"KeyboardInterrupt"', '"needs"', '"gone"'])
def test_an_unforeseen_failure_is_an_inference_error(kind: str) -> None:
    answer = f'{{"error": {{"kind": {kind}, "message": "ValueError: 7"}}}}'
    with (
        acting(f"input(); print({answer!r})") as worker,
        pytest.raises(InferenceError, match=r"model\.onnx.*ValueError: 7"),
    ):
        worker.ask({"do": "open"})


@pytest.mark.runtime
def test_an_exception_of_no_known_kind_comes_as_one_line(worker: Worker, image: Path) -> None:
    with pytest.raises(InferenceError, match="KeyError: 'model'") as caught:
        worker.ask({"do": "open", "images": [str(image)]})
    check_one_line(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals of this kind")
@pytest.mark.runtime
def test_a_killed_worker_is_reported_with_its_signal(
    worker: Worker, model: Path, image: Path
) -> None:
    worker.ask(opening(model, image))
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(InferenceError, match=r"SIGKILL.*memory") as caught:
        worker.ask({"do": "block"})
    check_one_line(caught.value)


def test_a_worker_that_crashes_tells_its_last_line() -> None:
    code = "import sys; sys.stdin.readline(); print('first\\nlast words', file=sys.stderr); exit(3)"
    with acting(code) as worker, pytest.raises(InferenceError, match="status 3: last words") as e:
        worker.ask({"do": "open"})
    check_one_line(e.value)


@pytest.mark.parametrize("nonsense", ["not JSON", "{", "\udcff"])
def test_a_worker_that_answers_nonsense_is_ended(nonsense: str) -> None:
    code = f"import time; input(); print({nonsense!r}, flush=True); time.sleep(60)"
    start = time.monotonic()
    with acting(code) as worker, pytest.raises(InferenceError, match="no valid answer"):
        worker.ask({"do": "open"})
    assert time.monotonic() - start < 20


def test_what_a_library_prints_does_not_reach_the_answers(model: Path, image: Path) -> None:
    code = (
        "import sys, os; sys.path[:] = sys.argv[1:]\n"
        "from edgeml.benchmark import worker\n"
        "warm_up = worker.Session.opened = lambda self: (print('noise'), os.write(1, b'noise'), "
        "{'fine': True})[-1]\n"
        "worker.Session.__init__ = lambda self, *rest: None\n"
        "worker.main()"
    )
    with Worker(model, command=[sys.executable, "-c", code, *sys.path]) as worker:
        assert worker.ask(opening(model, image)) == {"fine": True}


def test_a_file_in_the_working_directory_shadows_nothing(
    tmp_path: Path, monkeypatch: Any, image: Path
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')")
    monkeypatch.chdir(tmp_path)
    with Worker(Path("gone.onnx")) as worker, pytest.raises(ModelLoadError):
        worker.ask(opening(Path("gone.onnx"), image))


def test_leaving_the_block_ends_a_worker_that_hangs() -> None:
    with acting("import time; time.sleep(60)") as worker:
        process = psutil.Process(worker.pid)
        assert process.is_running()
    assert not process.is_running()


PARENT = """
import sys; sys.path[:] = sys.argv[3:]
from pathlib import Path
from edgeml.benchmark import BenchPlan, run_benchmark
print("ready", flush=True)
run_benchmark([Path(sys.argv[1])] * 2, images=[Path(sys.argv[2])], plan=BenchPlan(min_s=600))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals of this kind")
@pytest.mark.runtime
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_parent(model: Path, image: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, str(model), str(image), *sys.path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == b"ready\n"
        workers = wait_for_children(parent, 2)
        if ending == signal.SIGINT:  # a terminal sends it to the whole group
            os.killpg(parent.pid, ending)
        else:
            parent.send_signal(ending)
        _, errors = parent.communicate(timeout=20)
        _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert errors.count(b"KeyboardInterrupt") <= 1  # the parent's own, none of a worker


def wait_for_children(parent: subprocess.Popen[bytes], count: int) -> list[psutil.Process]:
    until = time.monotonic() + 20
    while len(children := psutil.Process(parent.pid).children()) < count:
        assert parent.poll() is None, parent.communicate()[1].decode()
        assert time.monotonic() < until, f"only {len(children)} workers were started"
        time.sleep(0.05)
    time.sleep(0.5)  # into the midst of measuring
    return children


def test_a_plan_is_refused_with_the_value() -> None:
    with pytest.raises(InputError, match="min_calls is 0"):
        BenchPlan(min_calls=0)
    with pytest.raises(InputError, match="max_s is -1"):
        BenchPlan(max_s=-1)
    with pytest.raises(InputError, match="block_s is -1"):
        BenchPlan(block_s=-1)
    with pytest.raises(InputError, match="nan"):
        BenchPlan(min_s=float("nan"))
    with pytest.raises(InputError, match="threads is 0"):
        BenchPlan(threads=0)
    with pytest.raises(InputError, match="'multi'"):
        BenchPlan(scenario="multi")  # type: ignore[arg-type]
