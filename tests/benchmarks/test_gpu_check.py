"""The command that tries everything on a GPU, tried without one.

Its runner is tried with steps of a line; its steps are run on the CPU, which stands in for the GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import gpu_check, gpu_common, gpu_steps
from benchmarks.gpu_check import STEPS, Outcome, document, line, place_of, run_all, run_step
from benchmarks.gpu_common import Notes
from tests.conftest import ROOT


def child(body: str) -> list[str]:
    """A command that runs `body` as a step: `notes` and `name` are there."""
    start = (
        "import sys, time, os\nfrom pathlib import Path\n"
        "from benchmarks.gpu_steps import Notes\nname, work = sys.argv[1], Path(sys.argv[3])\n"
        "notes = Notes(work / f'{name}.notes.json')\n"
    )
    return [sys.executable, "-c", start + body]


def outcome(body: str, work: Path, seconds: float = 20) -> Outcome:
    return run_step("a", work, seconds=seconds, command=child(body))


def test_a_step_passes_with_its_figures_and_checks(tmp_path: Path) -> None:
    found = outcome(
        "notes.figure('ms', 1.5); notes.must('it holds', True); notes.end('passed')", tmp_path
    )
    assert (found.status, found.reason) == ("passed", None)
    assert (found.figures, found.checks) == ({"ms": 1.5}, {"it holds": True})


def test_a_step_fails_if_what_must_hold_does_not(tmp_path: Path) -> None:
    found = outcome(
        "notes.must('2 is 3', False); notes.must('ok', True); notes.end('passed')", tmp_path
    )
    assert (found.status, found.reason) == ("failed", "does not hold: 2 is 3")


def test_a_step_that_crashes_keeps_what_it_noted(tmp_path: Path) -> None:
    found = outcome("notes.figure('before', 1); os.abort()", tmp_path)
    assert found.status == "crashed"
    assert "SIGABRT" in (found.reason or "")
    assert found.figures == {"before": 1}


def test_a_step_that_dies_of_an_exception_tells_its_last_line(tmp_path: Path) -> None:
    found = outcome("raise SystemError('odd')", tmp_path)
    assert (found.status, found.reason) == ("crashed", "it ended with status 1: SystemError: odd")


@pytest.mark.slow
def test_a_step_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    body = (
        "import subprocess\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "notes.figure('pid', other.pid); time.sleep(60)"
    )
    found = outcome(body, tmp_path, seconds=4)
    assert (found.status, found.reason) == ("timed out", "not done after 4 s")
    deadline = time.monotonic() + 20
    while is_running(int(found.figures["pid"])) and time.monotonic() < deadline:
        time.sleep(0.05)  # a process goes on for a moment after SIGKILL
    assert not is_running(int(found.figures["pid"]))


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_notes_of_an_earlier_run_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    assert outcome("notes.end('passed')", tmp_path).status == "passed"
    assert outcome("os._exit(3)", tmp_path).status == "crashed"


def test_no_step_is_begun_when_the_time_is_spent(tmp_path: Path) -> None:
    steps = {"a": 60.0, "b": 60.0}
    command = child("time.sleep(0.5); notes.end('passed')")
    found = run_all(steps, tmp_path, seconds=gpu_check._LEAST_S + 0.4, command=command)
    assert [one.status for one in found] == ["passed", "not reached"]


def test_a_step_gets_no_more_time_than_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "_LEAST_S", 0.5)
    (found,) = run_all({"a": 600.0}, tmp_path, seconds=1, command=child("time.sleep(60)"))
    assert found.status == "timed out"


@pytest.mark.parametrize(
    ("raised", "status", "reason"),
    [
        ("gpu_common.SkippedError('no GPU')", "skipped", "no GPU"),
        ("ModuleNotFoundError(name='onnx')", "skipped", "onnx is not installed"),
        ("MissingDependencyError('pip install it')", "skipped", "pip install it"),
        ("ImportError('undefined symbol')", "failed", "undefined symbol"),
        ("ValueError('two\\nlines')", "failed", "ValueError: two lines"),
    ],
)
def test_a_missing_requirement_differs_from_a_failure(
    raised: str, status: str, reason: str, tmp_path: Path
) -> None:
    body = (
        "from benchmarks import gpu_common, gpu_steps\n"
        "from edgeml.errors import MissingDependencyError\n"
        f"def step(*_): raise {raised!s}\n"
        "gpu_steps._FUNCTIONS['machine'] = step\ngpu_steps.run('machine', work)"
    )
    found = run_step("machine", tmp_path, seconds=20, command=child(body))
    assert (found.status, found.reason) == (status, reason)


def test_every_step_has_a_function_and_none_is_without_a_limit() -> None:
    assert list(STEPS) == list(gpu_steps._FUNCTIONS)


def test_the_json_is_named_after_the_gpu() -> None:
    gpu = {"gpus": [{"name": "NVIDIA H100 80GB HBM3"}]}
    found = [Outcome(step="machine", status="passed", figures=gpu)]
    assert place_of(found).parent.name == "nvidia-h100-80gb-hbm3"
    smi = {"nvidia_smi": ["NVIDIA L4, 580.65.06, 23034 MiB"]}
    assert (
        place_of([Outcome(step="machine", status="skipped", figures=smi)]).parts[-2] == "nvidia-l4"
    )
    assert place_of([]).parent.name == "no-gpu"


def test_the_json_holds_every_step_and_a_summary() -> None:
    found = [
        Outcome(step="a", status="passed", seconds=1.0),
        Outcome(step="b", status="skipped", reason="no GPU"),
        Outcome(step="c", status="skipped", reason="no GPU"),
    ]
    report = json.loads(json.dumps(document(found, seconds=2.34)))
    assert report["schema"] == "edgeml.gpu_check/1"
    assert report["summary"] == {"passed": 1, "skipped": 2}
    assert [step["step"] for step in report["steps"]] == ["a", "b", "c"]
    assert "no GPU" in line(found[1])


@pytest.mark.slow
def test_without_a_gpu_steps_that_need_one_are_skipped_with_a_reason(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks/gpu_check.py"), "--out", str(out),
            "--only", "machine", "torch", "ort-cuda", "trt-run",
        ],
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    steps = {step["step"]: step for step in report["steps"]}
    assert steps["machine"]["status"] == "passed"
    assert steps["machine"]["figures"]["packages"]["numpy"]
    for name in ("torch", "ort-cuda", "trt-run"):
        assert steps[name]["status"] == "skipped"
        assert "no NVIDIA GPU can be used" in steps[name]["reason"]
    assert len(done.stdout.splitlines()) == 5


def report(work: Path, step: str) -> dict[str, Any]:
    """Run a step in this process; give what it noted."""
    notes = Notes(work / f"{step}.notes.json")
    gpu_steps._FUNCTIONS[step](notes, work)
    noted: dict[str, Any] = json.loads((work / f"{step}.notes.json").read_text())
    return noted


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU stand in for the GPU, on less of everything."""
    monkeypatch.setattr(gpu_common, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_common, "require_gpu", lambda: None)
    monkeypatch.setattr(gpu_common, "IMAGES", 144)
    monkeypatch.setattr(gpu_common, "EPOCHS", 1)
    monkeypatch.setattr(gpu_common, "SIZE", 32)
    monkeypatch.setattr(gpu_common, "COMMON", "resnet10t")
    monkeypatch.setattr(gpu_common, "COMMON_SIZE", 64)
    monkeypatch.setattr(gpu_common, "PICTURES", 6)
    monkeypatch.setattr(gpu_common, "CALLS", 3)
    latency = gpu_common.latency
    monkeypatch.setattr(gpu_common, "latency", lambda call: latency(call, seconds=0.0))


@pytest.mark.nightly
@pytest.mark.train
@pytest.mark.runtime
def test_the_steps_that_train_export_and_run_do_so_on_the_cpu(
    tmp_path: Path, on_the_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a proof of anything on a GPU, but that no step stumbles over its own feet there."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    steps = ("torch", "train", "models", "ort-cuda", "ort-graphs")
    done = {step: report(tmp_path, step) for step in steps}
    untrained = "it learns: mAP on the test side above 0.5"
    for step, noted in done.items():
        assert all(held for name, held in noted["checks"].items() if name != untrained), step
        assert noted["figures"]
    assert done["train"]["figures"]["flips_per_1000"] == 0
    assert sum(done["models"]["figures"]["files"].values()) == 6
    assert done["ort-cuda"]["figures"]["cnn_fp16_difference"] == 0
    assert done["ort-cuda"]["figures"]["resnet18_fp32_batch8_ms"]["p50"] > 0
    assert "cnn_fp32: 8 threads, 3 calls each, none wrong" in done["ort-graphs"]["checks"]


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("version", "steps"),
    [
        ("11.4", ("trt-build", "trt-run", "trt-cache", "cuda")),
        ("10.3", ("trt-build", "trt-run")),
        ("rtx", ("trt-rtx-build", "trt-rtx-run", "trt-rtx-current")),
    ],
)
def test_the_steps_for_tensorrt_run_over_the_stand_in(
    version: str,
    steps: tuple[str, ...],
    tmp_path: Path,
    on_the_cpu: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")
    from tests.runtimes.nets import every_layer_onnx

    machine = pytest.importorskip("tests.runtimes.tensorrt.engines").machine
    every_layer_onnx(tmp_path / gpu_common.FILES["cnn", "fp32"])
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    with machine(version, **({"capability": (12, 0)} if version == "rtx" else {})) as here:
        monkeypatch.setattr(gpu_common, "free_memory", lambda: -sum(here.cuda.alive.values()))
        done = {step: report(tmp_path, step) for step in steps}
        assert here.cuda.nothing_alive
    for noted in done.values():
        assert all(noted["checks"].values()), noted["checks"]
        assert noted["checks"] or noted["figures"]
    ran = done[steps[1]]
    assert ran["figures"]["cnn_fp32_flips_per_1000"] == 0
    assert ran["checks"]["a changed engine is refused"]
    assert ran["checks"]["cnn_fp32: a batch of 3 says what 6 say"]


def test_a_step_without_models_is_reported(tmp_path: Path, on_the_cpu: None) -> None:
    with pytest.raises(gpu_common.SkippedError, match="left no file"):
        gpu_common.made_files(tmp_path)


def test_a_figure_that_is_no_number_does_not_spoil_the_json(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "a.notes.json")
    notes.figure("difference", float("nan"))
    report = json.loads((tmp_path / "a.notes.json").read_text(), parse_constant=pytest.fail)
    assert report["figures"] == {"difference": "nan"}


def test_the_latency_is_given_in_milliseconds_without_the_first_calls() -> None:
    calls: list[None] = []
    found = gpu_common.latency(lambda: calls.append(None), seconds=0.0)
    assert len(calls) == 10
    assert found["calls"] == 7
    assert 0 <= found["p50"] <= found["p95"] < 1000


def test_the_bad_ends_are_those_that_the_exit_status_tells() -> None:
    assert frozenset({"failed", "crashed", "timed out"}) == gpu_check.BAD
