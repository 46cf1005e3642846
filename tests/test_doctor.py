"""Broken machines are put together from fakes; the doctor must name what is wrong, and mend it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeml import doctor
from edgeml.doctor import Finding, examine

Versions = dict[str, str]


@pytest.fixture
def machine(monkeypatch: Any) -> Callable[..., dict[str, Finding]]:
    """Give a function that examines a machine with these packages and files, and no others."""

    def made(
        versions: Versions,
        *,
        files: dict[str, str] | None = None,
        answers: dict[str, Any] | None = None,
        requires: dict[str, list[str]] | None = None,
    ) -> dict[str, Finding]:
        def version(name: str) -> str:
            if name not in versions:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        def ask(code: str) -> tuple[Any, str | None]:
            for module, answer in (answers or {}).items():
                if f"import {module}" in code:
                    return answer
            return ["1.0", "CPUExecutionProvider"], None

        texts = files or {}
        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(metadata, "requires", lambda name: (requires or {}).get(name))
        monkeypatch.setattr(
            util,
            "find_spec",
            lambda name: SimpleNamespace(origin=f"/{name}/__init__.py") if name in texts else None,
        )
        monkeypatch.setattr(doctor, "_ask", ask)
        monkeypatch.setattr(doctor, "_read", lambda path: texts.get(path.as_posix(), ""))
        monkeypatch.setattr(doctor, "_driver_file", lambda: texts.get("driver"))
        found = examine()
        for finding in found:
            assert "\n" not in finding.detail
            assert finding.detail
            if finding.ok is False:
                assert finding.mend, f"{finding.name} says what is wrong but not what to do"
        assert len({finding.name for finding in found}) == len(found)
        return {finding.name: finding for finding in found}

    return made


def test_both_onnxruntimes_at_once_are_a_conflict_with_the_line_that_mends_it(machine: Any) -> None:
    found = machine({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"})["onnxruntime"]
    assert found.ok is False
    assert "onnxruntime and onnxruntime-gpu" in found.detail
    assert found.mend == ("pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime")


def test_of_both_onnxruntimes_the_one_for_gpus_is_kept_where_there_is_a_driver(
    machine: Any,
) -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"}
    found = machine(both, files={"driver": "/usr/lib64/libcuda.so.1"})["onnxruntime"]
    assert found.mend.endswith("pip install onnxruntime-gpu")


def test_onnxruntime_for_gpus_without_a_driver_is_told(machine: Any) -> None:
    found = machine({"onnxruntime-gpu": "1.32.0"})["onnxruntime"]
    assert found.ok is False
    assert "no CUDA driver" in found.detail


def test_two_opencvs_at_once_are_a_conflict(machine: Any) -> None:
    found = machine({"opencv-python": "5.0", "opencv-python-headless": "5.0"})["opencv"]
    assert found.ok is False
    assert found.mend == (
        "pip uninstall -y opencv-python opencv-python-headless && pip install opencv-python"
    )


def test_an_opencv_that_pip_does_not_know_is_fine(machine: Any) -> None:
    found = machine({}, files={"cv2": ""}, answers={"cv2": ("4.8.0", None)})["opencv"]
    assert found.ok is True
    assert "4.8.0" in found.detail


def test_an_opencv_without_its_graphics_library_is_replaced_by_the_headless_one(
    machine: Any,
) -> None:
    error = "ImportError: libGL.so.1: cannot open shared object file"
    answers = {"cv2": (None, error)}
    found = machine({"opencv-python": "5.0"}, answers=answers)["opencv"]
    assert found.ok is False
    assert error in found.detail
    assert found.mend.endswith("pip install opencv-python-headless")


def test_a_headless_opencv_is_told_to_open_no_windows(machine: Any) -> None:
    answers = {"cv2": ("5.0", None)}
    found = machine({"opencv-python-headless": "5.0"}, answers=answers)["opencv"]
    assert found.ok is True
    assert "cannot open windows" in found.detail


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_a_library_that_cannot_be_loaded_is_told_with_its_error(machine: Any, library: str) -> None:
    answers = {library: (None, "ImportError: undefined symbol: foo")}
    found = machine({library: "1.0"}, answers=answers)[library]
    assert found.ok is False
    assert "undefined symbol: foo" in found.detail
    assert found.mend == f"pip install --force-reinstall {library}"


def torch_files(torch: str, vision: str) -> dict[str, str]:
    return {
        "torch": "",
        "torchvision": "",
        "/torch/version.py": f"x = 1\n__version__ = '{torch}'\ncuda = None\n",
        "/torchvision/version.py": f'__version__ = "{vision}"\n',
    }


def test_torch_for_cpus_beside_torchvision_for_cuda_is_told(machine: Any) -> None:
    found = machine(
        {"torch": "2.13.0+cpu", "torchvision": "0.28.0"},
        files=torch_files("2.13.0+cpu", "0.28.0+cu130"),
        requires={"torchvision": ["numpy", "torch==2.13.0"]},
    )["torch"]
    assert found.ok is False
    assert "built for cpu and cu130" in found.detail


@pytest.mark.parametrize(
    ("torch", "requirement", "fits"),
    [
        ("2.13.0", "torch==2.13.0", True),
        ("2.13.1", "torch==2.13.0", False),
        ("2.12.0", "torch (==2.13.0)", False),
        ("2.15.0", "torch (>=2.14.0)", True),
        ("2.9.0", "torch>=2.14.0", False),
        ("2.15.0+cu132", "torch==2.15.0", True),
        ("2.15.0", "torch", True),
        ("2.15.0", "torchdata==1.0", True),
    ],
)
def test_torch_must_be_what_torchvision_asks_for(
    machine: Any, torch: str, requirement: str, fits: bool
) -> None:
    tag = torch.partition("+")[2]
    vision = f"0.28.0+{tag}" if tag else "0.28.0"
    found = machine(
        {"torch": torch, "torchvision": vision},
        files=torch_files(torch, vision),
        requires={"torchvision": [requirement, "gdown; extra == 'gdown'"]},
    )["torch"]
    assert found.ok is fits


def test_torch_without_torchvision_is_told_as_timm_needs_it(machine: Any) -> None:
    found = machine({"torch": "2.15.0"})["torch"]
    assert found.ok is False
    assert found.mend == "pip install torchvision"


def test_tensorrt_without_a_driver_is_told_and_never_loaded(machine: Any) -> None:
    sys.modules.pop("tensorrt", None)
    found = machine({"tensorrt": "11.1"})["tensorrt"]
    assert found.ok is False
    assert "no CUDA driver" in found.detail
    assert "tensorrt" not in sys.modules


def test_a_driver_tells_its_version(machine: Any) -> None:
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:24:52 UTC 2025"
    files = {"driver": "/usr/lib64/libcuda.so.1", "/proc/driver/nvidia/version": line}
    found = machine({}, files=files)["cuda driver"]
    assert found.ok is True
    assert "580.65.06" in found.detail


CPUINFO = "processor\t: 0\n{key}\t\t: fpu {flags} sse\nbugs\t: spectre\n"


@pytest.mark.parametrize(
    ("key", "flags", "int8", "bf16"),
    [
        ("flags", "avx2", None, None),
        ("flags", "avx2 avx_vnni", True, None),
        ("flags", "avx2 avx512_vnni avx512_bf16", True, True),
        ("flags", "avx512_vnni amx_bf16 amx_int8", True, True),
        ("Features", "asimd asimddp", True, None),
        ("Features", "asimd asimddp i8mm bf16", True, True),
        ("Features", "asimd", None, None),
    ],
)
def test_the_processors_flags_say_what_int8_and_bf16_bring(
    machine: Any, key: str, flags: str, int8: bool | None, bf16: bool | None
) -> None:
    found = machine({}, files={"/proc/cpuinfo": CPUINFO.format(key=key, flags=flags)})
    assert found["processor, INT8"].ok is int8
    assert found["processor, BF16"].ok is bf16
    assert ("bfloat16" in found["processor, BF16"].detail) is bool(bf16)


def test_a_bare_machine_is_told_what_brings_each_part(machine: Any) -> None:
    found = machine({})
    assert found["numpy"].ok is False
    assert found["opencv"].ok is False
    for name, extra in {"onnxruntime": "onnx", "openvino": "openvino", "torch": "train"}.items():
        assert found[name].ok is None
        assert found[name].mend == f"pip install 'edgeml[{extra}]'"


def test_this_machine_is_examined_as_json() -> None:
    found = examine()
    document = json.loads(json.dumps([finding.to_dict() for finding in found]))
    assert all(set(one) == {"name", "ok", "detail", "mend"} for one in document)
    told = {finding.name: finding for finding in found}
    assert told["python"].ok is True
    assert told["numpy"].detail == metadata.version("numpy")
    assert told["opencv"].ok is True


def test_the_doctor_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.path[:] = sys.argv[1:]; from edgeml.doctor import examine; examine(); "
        "heavy = {'torch', 'torchvision', 'timm', 'onnx', 'onnxruntime', 'openvino', "
        "'tensorrt'} & set(sys.modules); print(heavy); sys.exit(bool(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *sys.path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_library_that_crashes_does_not_take_the_doctor_with_it(tmp_path: Path) -> None:
    assert doctor._ask("import os; os.abort()") == (None, "loading it ended with status -6")
    answer, error = doctor._ask("raise RuntimeError('several\\nlines')")
    assert answer is None
    assert error == "lines"
    assert doctor._ask("print('noise'); print(json.dumps([1]))") == ([1], None)


def test_a_library_that_hangs_is_given_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.5)
    assert doctor._ask("import time; time.sleep(60)") == (None, "no answer within 0 s")
