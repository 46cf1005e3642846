"""Broken machines, built from fakes: the doctor must say what is wrong, and how to fix it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from edgeml.doctor import probes
from edgeml.doctor.checks import examine


def test_both_onnxruntimes_at_once_are_a_conflict(machine: Any) -> None:
    found = machine({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"})["onnxruntime"]
    assert (found.ok, found.code) == (False, "conflict")
    assert "onnxruntime and onnxruntime-gpu" in found.detail
    assert found.fix == ("pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime")


def test_of_both_onnxruntimes_the_one_for_gpus_is_kept_where_there_is_a_driver(
    machine: Any,
) -> None:
    both = {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.32.0"}
    found = machine(both, files={"driver": "/usr/lib64/libcuda.so.1"})["onnxruntime"]
    assert found.fix.endswith("pip install onnxruntime-gpu")


def test_onnxruntime_for_gpus_needs_a_driver(machine: Any) -> None:
    found = machine({"onnxruntime-gpu": "1.32.0"})["onnxruntime"]
    assert (found.ok, found.code) == (False, "no-driver")


def test_two_opencvs_at_once_are_a_conflict(machine: Any) -> None:
    found = machine({"opencv-python": "5.0", "opencv-python-headless": "5.0"})["opencv"]
    assert (found.ok, found.code) == (False, "conflict")
    assert found.fix == (
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
    assert (found.ok, found.code) == (False, "broken")
    assert error in found.detail
    assert found.fix.endswith("pip install opencv-python-headless")


def test_a_headless_opencv_opens_no_windows(machine: Any) -> None:
    answers = {"cv2": ("5.0", None)}
    found = machine({"opencv-python-headless": "5.0"}, answers=answers)["opencv"]
    assert found.ok is True
    assert "cannot open windows" in found.detail


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_a_library_that_cannot_be_loaded_is_broken(machine: Any, library: str) -> None:
    answers = {library: (None, "ImportError: undefined symbol: foo")}
    found = machine({library: "1.0"}, answers=answers)[library]
    assert (found.ok, found.code) == (False, "broken")
    assert "undefined symbol: foo" in found.detail
    assert found.fix == f"pip install --force-reinstall {library}"


def torch_files(torch: str, vision: str) -> dict[str, str]:
    return {
        "torch": "",
        "torchvision": "",
        "/torch/version.py": f"x = 1\n__version__ = '{torch}'\ncuda = None\n",
        "/torchvision/version.py": f'__version__ = "{vision}"\n',
    }


def test_torch_for_cpus_does_not_fit_torchvision_for_cuda(machine: Any) -> None:
    found = machine(
        {"torch": "2.13.0+cpu", "torchvision": "0.28.0"},
        files=torch_files("2.13.0+cpu", "0.28.0+cu130"),
        requires={"torchvision": ["numpy", "torch==2.13.0"]},
    )["torch"]
    assert (found.ok, found.code) == (False, "other-builds")
    assert "cpu and cu130" in found.detail


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
def test_torch_must_be_the_version_that_torchvision_requires(
    machine: Any, torch: str, requirement: str, fits: bool
) -> None:
    tag = torch.partition("+")[2]
    vision = f"0.28.0+{tag}" if tag else "0.28.0"
    found = machine(
        {"torch": torch, "torchvision": vision},
        files=torch_files(torch, vision),
        requires={"torchvision": [requirement, "gdown; extra == 'gdown'"]},
    )["torch"]
    assert (found.ok, found.code) == (fits, "" if fits else "mismatch")


def test_torch_needs_torchvision_for_timm(machine: Any) -> None:
    found = machine({"torch": "2.15.0"})["torch"]
    assert (found.ok, found.code) == (False, "no-torchvision")
    assert found.fix == "pip install torchvision"


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
def test_the_processors_flags_decide_about_int8_and_bf16(
    machine: Any, key: str, flags: str, int8: bool | None, bf16: bool | None
) -> None:
    found = machine({}, files={"/proc/cpuinfo": CPUINFO.format(key=key, flags=flags)})
    assert found["processor, INT8"].ok is int8
    assert found["processor, BF16"].ok is bf16
    assert ("bfloat16" in found["processor, BF16"].detail) is bool(bf16)


def test_a_bare_machine_lists_how_to_install_each_part(machine: Any) -> None:
    found = machine({})
    assert found["numpy"].ok is False
    assert found["opencv"].ok is False
    for name, extra in {"onnxruntime": "onnx", "openvino": "openvino", "torch": "train"}.items():
        assert found[name].ok is None
        assert found[name].fix == f"pip install 'edgeml[{extra}]'"


@pytest.mark.runtime
def test_this_machine_is_examined_as_json() -> None:
    found = examine()
    document = json.loads(json.dumps([finding.to_dict() for finding in found]))
    assert all(set(one) == {"name", "ok", "detail", "mend", "see"} for one in document)
    by_name = {finding.name: finding for finding in found}
    assert by_name["python"].ok is True
    assert by_name["numpy"].detail == metadata.version("numpy")
    assert by_name["opencv"].ok is True


def test_the_doctor_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.path[:] = sys.argv[1:]; "
        "from edgeml.doctor.checks import examine; examine(); "
        "heavy = {'torch', 'torchvision', 'timm', 'onnx', 'onnxruntime', 'openvino', "
        "'tensorrt', 'tensorrt_rtx_bindings', 'cuda'} & set(sys.modules); "
        "print(heavy); sys.exit(bool(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *sys.path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_library_that_crashes_does_not_take_the_doctor_with_it(tmp_path: Path) -> None:
    assert probes.run_python("import os; os.abort()") == (None, "loading it ended with status -6")
    answer, error = probes.run_python("raise RuntimeError('several\\nlines')")
    assert answer is None
    assert error == "lines"
    assert probes.run_python("print('noise'); print(json.dumps([1]))") == ([1], None)


def test_a_library_that_hangs_is_given_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(probes, "TIMEOUT_S", 0.5)
    assert probes.run_python("import time; time.sleep(60)") == (None, "no answer within 0 s")
