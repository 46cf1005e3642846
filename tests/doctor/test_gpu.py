"""The GPU side of the doctor, on machines built from fakes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeml.doctor import gpu, probes
from edgeml.doctor.gpu import Driver, Gpu, find_libraries
from edgeml.runtimes.known_issues import KNOWN_ISSUES, known_issue
from tests.command import Command

LINE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sun Jul 27 07:24:52 UTC 2025"
LIB = "/usr/lib64/libcuda.so.1"
H100 = ["NVIDIA H100 80GB HBM3", "9.0", 81559]
RTX = ["NVIDIA GeForce RTX 4090", "8.9", 24564]


def driver(cuda: int = 13000, status: int = 0, gpus: Any = (H100,)) -> dict[str, Any]:
    """Return the parts of a machine with a driver."""
    answer = {"cuda": cuda, "status": status, "gpus": list(gpus) if status == 0 else []}
    files = {"driver": LIB, "/proc/driver/nvidia/version": LINE.format("580.65.06")}
    return {"files": files, "answers": {"ctypes": (answer, None)}}


def ort_gpu(cuda: str = "13.0") -> dict[str, str]:
    return {
        "onnxruntime": "",
        "/onnxruntime/capi/build_and_package_info.py": f"cuda_version = '{cuda}'\n",
    }


def libraries(cuda: str, *without: str) -> dict[tuple[str, str], str]:
    names = {"cublas": cuda, "cublasLt": cuda, "cudart": cuda, "curand": "10", "cudnn": "9"}
    return {(name, n): "/there" for name, n in names.items() if name not in without}


def test_a_driver_reports_its_version_its_cuda_and_the_gpus(machine: Any) -> None:
    found = machine({}, **driver())
    assert found["cuda driver"].ok is True
    assert found["cuda driver"].detail == f"580.65.06 ({LIB}), for CUDA up to 13.0"
    assert found["gpu"].detail == ("NVIDIA H100 80GB HBM3 (compute capability 9.0, 81559 MiB)")


def test_a_machine_without_an_nvidia_gpu_lacks_nothing(machine: Any) -> None:
    found = machine({})
    assert "gpu" not in found
    for name in ("cuda driver", "cuda libraries", "cuda-bindings", "tensorrt", "tensorrt-rtx"):
        assert found[name].ok is None


def test_a_container_without_access_to_the_gpu_is_recognised(machine: Any) -> None:
    files = {"/proc/driver/nvidia/version": LINE.format("580.65.06")}
    found = machine({}, files=files, answers={"ctypes": (None, "OSError: libcuda.so.1")})
    assert (found["cuda driver"].ok, found["cuda driver"].code) == (False, "no-library")
    assert "--gpus all" in found["cuda driver"].fix


def test_a_driver_library_that_cannot_be_loaded_is_broken(machine: Any) -> None:
    answers = {"ctypes": (None, "loading it ended with status -11")}
    found = machine({}, files={"driver": LIB}, answers=answers)["cuda driver"]
    assert (found.ok, found.code) == (False, "broken")
    assert "status -11" in found.detail


@pytest.mark.parametrize(
    ("status", "visible", "code", "fix"),
    [
        (100, None, "not-started", "nvidia-smi"),
        (100, "", "hidden", "unset CUDA_VISIBLE_DEVICES"),
        (803, None, "not-started", "restart"),
        (999, "0", "not-started", "nvidia_uvm"),
        (3, None, "not-started", "restart"),
    ],
)
def test_a_driver_that_does_not_start_comes_with_a_fix(
    machine: Any, monkeypatch: Any, status: int, visible: str | None, code: str, fix: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = machine({}, **driver(status=status))["cuda driver"]
    assert (found.ok, found.code) == (False, code)
    assert fix in found.fix


@pytest.mark.parametrize(
    ("number", "wanted", "without", "cuda", "ok", "code"),
    [
        ("13", "13.0", (), 13000, True, ""),
        ("13", "13.0", ("cudnn",), 13000, True, ""),
        ("12", "12.8", (), 13000, True, ""),
        ("13", "13.0", ("cublasLt",), 13000, False, "cuda-libraries"),
        ("13", "13.0", ("curand",), 13000, False, "cuda-libraries"),
        ("12", "13.0", (), 13000, False, "cuda-libraries"),
        ("13", "13.0", (), 12080, False, "driver-too-old"),
    ],
)
def test_cuda_libraries_must_be_those_that_onnxruntime_and_the_driver_can_use(
    machine: Any,
    number: str,
    wanted: str,
    without: tuple[str, ...],
    cuda: int,
    ok: bool,
    code: str,
) -> None:
    there = driver(cuda)
    there["files"] |= ort_gpu(wanted)
    there["answers"]["base64"] = [["CUDAExecutionProvider"], ""], None
    found = machine({"onnxruntime-gpu": "1.31.1"}, libraries=libraries(number, *without), **there)
    libs = found["cuda libraries"]
    assert (libs.ok, libs.code) == (ok, code)
    assert libs.see == (known_issue(code).link if code else None)
    if code == "driver-too-old":
        assert "driver 580" in libs.fix


def test_without_onnxruntime_gpu_no_cuda_library_is_needed(machine: Any) -> None:
    found = machine({}, libraries={("cudart", "12"): "/there"}, **driver())
    assert found["cuda libraries"].ok is True
    assert found["cuda libraries"].detail == "/there: cudart 12"


LOG = """\x1b[1;31m2026-11-24 [E:onnxruntime:Default, provider_bridge_ort.cc] Failed to load \
library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object \
file: No such file or directory\x1b[m
"""


@pytest.mark.parametrize(
    ("answer", "ok", "detail"),
    [
        (([["CUDAExecutionProvider", "CPUExecutionProvider"], ""], None), True, "starts"),
        (([["CPUExecutionProvider"], LOG], None), False, "libcublasLt.so.13"),
        ((None, "loading it ended with status -11"), False, "status -11"),
        (([["CPUExecutionProvider"], ""], None), False, "does not start"),
    ],
)
def test_onnx_runtime_is_started_on_the_gpu(
    machine: Any, answer: Any, ok: bool, detail: str
) -> None:
    there = driver()
    there["files"] |= ort_gpu()
    there["answers"] = {**there["answers"], "base64": answer}
    found = machine({"onnxruntime-gpu": "1.31.1"}, libraries=libraries("13"), **there)
    assert found["onnxruntime, CUDA"].code == ("" if ok else "not-started")
    assert detail in found["onnxruntime, CUDA"].detail
    assert "\x1b" not in found["onnxruntime, CUDA"].detail
    assert ok or found["onnxruntime, CUDA"].see


def test_tensorrt_is_never_loaded_without_a_driver(machine: Any) -> None:
    sys.modules.pop("tensorrt", None)
    found = machine({"tensorrt": "11.1"})["tensorrt"]
    assert (found.ok, found.code) == (False, "no-driver")
    assert "tensorrt" not in sys.modules


@pytest.mark.parametrize(
    ("versions", "release", "cuda", "ok", "code"),
    [
        ({"tensorrt": "11.4.0.106"}, None, 13000, True, ""),
        ({"tensorrt": "10.3.0"}, "36", 12060, True, ""),
        ({"tensorrt": "8.6.1"}, None, 13000, False, "too-old"),
        ({"tensorrt": "10.2.0"}, None, 13000, False, "too-old"),
        ({"tensorrt": "11.4.0.106"}, "36", 12060, False, "tensorrt-jetpack"),
        ({"tensorrt": "11.4.1"}, "38", 13000, True, ""),
        (
            {"tensorrt": "11.4.0.106", "tensorrt_cu13_libs": "11.4.0.106"},
            None,
            12080,
            False,
            "driver-too-old",
        ),
        (
            {"tensorrt": "11.4.0.106", "onnxruntime-gpu": "1.31.1"},
            None,
            13000,
            True,
            "tensorrt-provider",
        ),
        ({"tensorrt": "10.16.1", "onnxruntime-gpu": "1.31.1"}, None, 13000, True, ""),
        ({"tensorrt_cu12": "10.16.1"}, None, 13000, True, ""),
    ],
)
def test_a_tensorrt_must_fit_edgeml_the_driver_and_the_jetson(
    machine: Any,
    versions: dict[str, str],
    release: str | None,
    cuda: int,
    ok: bool,
    code: str,
) -> None:
    there = driver(cuda)
    if release:
        there["files"]["/etc/nv_tegra_release"] = f"# R{release} (release), REVISION: 4.3, GCID: 1"
    found = machine(versions, **there)["tensorrt"]
    assert (found.ok, found.code) == (ok, code)
    links = {issue.name: issue.link for issue in KNOWN_ISSUES}
    assert found.see == links.get(code)


def test_the_tensorrt_of_jetpack_is_found_without_pip(machine: Any) -> None:
    there = driver()
    there["files"]["tensorrt"] = ""
    assert "JetPack" in machine({}, **there)["tensorrt"].detail


@pytest.mark.parametrize(("release", "pack", "ok"), [("36", "6", True), ("35", "5", False)])
def test_a_jetson_is_recognised(machine: Any, release: str, pack: str, ok: bool) -> None:
    text = f"# R{release} (release), REVISION: 4.3, GCID: 38968081, BOARD: generic"
    found = machine({}, files={"/etc/nv_tegra_release": text})["jetson"]
    assert found.ok is ok
    assert f"JetPack {pack}" in found.detail


BOTH = {"tensorrt_rtx_cu13_libs": "1.7.1.116", "tensorrt_rtx_cu13_bindings": "1.7.1.116"}


@pytest.mark.parametrize(
    ("versions", "gpus", "ok", "code"),
    [
        (BOTH, (), True, ""),
        (BOTH, (RTX,), True, ""),
        (BOTH, (H100,), True, "tensorrt-rtx-gpus"),
        ({"tensorrt_rtx_cu13_bindings": "1.7.1.116"}, (), False, "mismatch"),
        ({**BOTH, "tensorrt_rtx_cu13_libs": "1.6.0"}, (), False, "mismatch"),
    ],
)
def test_tensorrt_rtx_builds_anywhere_but_runs_on_listed_gpus(
    machine: Any, versions: dict[str, str], gpus: Any, ok: bool, code: str
) -> None:
    found = machine(versions, **driver(gpus=gpus))["tensorrt-rtx"]
    assert (found.ok, found.code) == (ok, code)
    assert ("compute capability 9.0" in found.detail) is bool(found.see)


def test_libraries_are_found_in_packages_before_the_system(
    tmp_path: Path, monkeypatch: Any
) -> None:
    new, old, system = (
        tmp_path / name for name in ("site/nvidia/cu13/lib", "site/torch/lib", "ld")
    )
    for folder, names in (
        (new, ["libcublas.so.13", "libcublasLt.so.13", "libcublas.so", "libnvblas.so.13"]),
        (old, ["libcublas.so.13", "libcudart.so.12", "libcudart.so.12.1.1"]),
        (system, ["libcurand.so.10", "libcudart.so.12"]),
    ):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), str(tmp_path / "absent")])
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{system}:")
    found = {key: where for key, where in find_libraries().items() if str(tmp_path) in where}
    assert found == {
        ("cublas", "13"): str(new),
        ("cublasLt", "13"): str(new),
        ("cudart", "12"): str(old),
        ("curand", "10"): str(system),
    }


FAKE_DRIVER = """
#include <stddef.h>
#include <string.h>
int cuDriverGetVersion(int *v) { *v = 13010; return 0; }
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *n) { *n = 2; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 7; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device == 8 ? "Second" : "First", length); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 6000000000ul; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 12 : attribute == 76 ? 1 : -1; return 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("status", [0, 803])
def test_a_driver_is_queried_through_its_c_interface(
    status: int, tmp_path: Path, monkeypatch: Any
) -> None:
    """A test double in C, with the names and types of cuda.h."""
    (tmp_path / "driver.c").write_text(FAKE_DRIVER)
    subprocess.run(
        ["cc", "-shared", "-fPIC", f"-DSTATUS={status}", "driver.c", "-o", "libcuda.so.1"],
        cwd=tmp_path,
        check=True,
    )
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setattr(probes, "driver_file", lambda: None)
    found = gpu.query_driver()
    gpus = (Gpu("First", "12.1", 5722), Gpu("Second", "12.1", 5722)) if status == 0 else ()
    assert found == Driver(
        file="libcuda.so.1", kernel=found.kernel, cuda=(13, 1), status=status, gpus=gpus
    )
    assert found.present


@pytest.mark.runtime
def test_a_session_on_cuda_is_started_in_a_child_that_returns_its_log() -> None:
    """Without CUDA in the build, ONNX Runtime warns and opens on the CPU, which must be noticed."""
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this build has CUDA")
    (providers, log), error = probes.run_python(gpu._START_CUDA)
    assert (providers, error) == (["CPUExecutionProvider"], None)
    assert "not in available provider names" in log


def test_the_table_of_known_issues_is_printed_with_links(edgeml: Command) -> None:
    table = edgeml("doctor", "--known-issues", "--json").json
    assert isinstance(table, list)
    assert [issue["name"] for issue in table] == [issue.name for issue in KNOWN_ISSUES]
    text = edgeml("doctor", "--known-issues").out
    assert all(issue.link in text for issue in KNOWN_ISSUES)


def test_cached_engines_are_reported_with_their_folder_and_size(
    machine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path))
    assert "kept engines" not in machine({})
    folder = tmp_path / "engines"
    folder.mkdir()
    for name, size in (("a.engine", 1_500_000), ("a.engine.json", 500_000), ("a.lock", 0)):
        (folder / name).write_bytes(bytes(size))
    detail = machine({})["kept engines"].detail
    assert detail.startswith(f"1 with 2.0 MB in {folder};")
