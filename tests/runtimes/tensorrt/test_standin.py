"""The double has the names and signatures of the real library, so tests with it are evidence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")

from edgeml.runtimes.tensorrt import bindings
from tests.runtimes.tensorrt.engines import VERSIONS, Machine, machine
from tests.runtimes.tensorrt.standin import api, standin
from tests.runtimes.tensorrt.test_runtime import TensorRtRuntime

pytestmark = pytest.mark.runtime


@pytest.mark.parametrize("version", VERSIONS)
def test_it_has_all_names_of_its_version_and_no_others(version: str) -> None:
    trt, published = standin(version), api(version)
    assert trt.__version__ == published["version"]
    for name, known in published["classes"].items():
        made: Any = trt
        for part in name.split("."):
            made = getattr(made, part)
        if name in ("IHostMemory", "Logger.Severity"):  # a buffer; ILogger's under another name
            continue
        for member, value in known["enum"].items():
            assert int(getattr(made, member)) == value
        public = {each for each in vars(made) if not each.startswith("_")}
        expected = {
            *known["enum"],
            *([] if known["enum"] else [*known["methods"], *known["properties"]]),
            *(["name", "value"] if known["enum"] else []),
            *(each for each in known["nested"]),
        }
        assert public == {each for each in expected if not each.startswith("__")}, name


def test_the_signatures_are_those_of_the_library_that_is_installed() -> None:
    real = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    published = api("rtx")
    if real.__version__ != published["version"]:
        pytest.skip(
            f"{real.__version__} is installed, the signatures are of {published['version']}"
        )
    for name, known in published["classes"].items():
        made = real
        for part in name.split("."):
            made = getattr(made, part)
        for member, value in known["enum"].items():
            assert int(getattr(made, member)) == value
        for method, how in known["methods"].items():
            doc = getattr(made, method).__doc__.replace("tensorrt_rtx_bindings.tensorrt_rtx", "trt")
            for signature in how["sigs"]:
                assert "*args" in signature or _blank(signature) in _blank(doc), name


def _blank(text: str) -> str:
    """Remove the parts of a signature that not all versions print."""
    return re.sub(r"\s|=?<[^>]*>|typing\.", "", text)


# Names that well-known exporters use and TensorRT 11 has removed.
REMOVED: dict[str, Callable[[Any], Any]] = {
    "BuilderFlag.FP16": lambda trt: trt.BuilderFlag.FP16,
    "BuilderFlag.INT8": lambda trt: trt.BuilderFlag.INT8,
    "IInt8EntropyCalibrator2": lambda trt: trt.IInt8EntropyCalibrator2,
    "EXPLICIT_BATCH": lambda trt: trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH,
    "device_memory_size": lambda trt: trt.ICudaEngine.device_memory_size,
    "platform_has_fast_fp16": lambda trt: trt.Builder.platform_has_fast_fp16,
}


@pytest.mark.parametrize("name", REMOVED)
def test_what_tensorrt_11_removed_is_there_before_and_gone_after(name: str) -> None:
    assert REMOVED[name](standin("10.3")) is not None
    for version in ("11.4", "rtx"):
        with pytest.raises(AttributeError):
            REMOVED[name](standin(version))


def test_a_removed_name_in_edgemls_own_code_fails(
    monkeypatch: pytest.MonkeyPatch, tiny_onnx: Path, tmp_path: Path
) -> None:
    """Plant one where the runtime creates its contexts: it works with 10.3 and not with 11.4."""
    from edgeml.runtimes.tensorrt import slots as ours

    original = ours._new_context

    def planted(model: Any) -> Any:
        model.trt.BuilderFlag.FP16  # noqa: B018
        return original(model)

    monkeypatch.setattr(ours, "_new_context", planted)
    with machine("10.3") as old:
        TensorRtRuntime(old.build(tiny_onnx, tmp_path / "old.engine")).close()
    with machine("11.4") as new:
        engine = new.build(tiny_onnx, tmp_path / "new.engine")
        with pytest.raises(AttributeError, match="no attribute 'FP16'"):
            TensorRtRuntime(engine)


def config(made: Machine) -> Any:
    return made.trt.Builder(bindings.logger(made.trt)).create_builder_config()


WRONG: dict[str, tuple[Callable[[Machine], Any], type[Exception]]] = {
    "a name": (lambda m: m.trt.Bilder, AttributeError),
    "a method": (lambda m: config(m).set_flags(0), AttributeError),
    "a keyword": (lambda m: config(m).set_flag(flags=m.trt.BuilderFlag.TF32), TypeError),
    "an argument too few": (lambda m: config(m).set_flag(), TypeError),
    "an argument too many": (lambda m: config(m).set_flag(m.trt.BuilderFlag.TF32, 1), TypeError),
    "a number for an enum": (lambda m: config(m).set_flag(6), TypeError),
    "another enum": (lambda m: config(m).set_flag(m.trt.DataType.HALF), TypeError),
    "a path for a string": (
        lambda m: m.trt.OnnxParser(
            m.trt.Builder(bindings.logger(m.trt)).create_network(1 << 1), bindings.logger(m.trt)
        ).parse_from_file(Path("x")),
        TypeError,
    ),
    "a property": (lambda m: setattr(config(m), "int8_calibrator", None), AttributeError),
    "the type of a property": (
        lambda m: setattr(config(m), "builder_optimization_level", "high"),
        TypeError,
    ),
    "a read-only property": (
        lambda m: setattr(config(m), "num_optimization_profiles", 2),
        AttributeError,
    ),
    "a constructor": (lambda m: m.trt.ICudaEngine(), TypeError),
    "a base that was not initialised": (
        lambda m: m.trt.Builder(type("L", (m.trt.ILogger,), {"__init__": lambda self: None})()),
        TypeError,
    ),
    "the length of a plan": (lambda m: len(m.trt.IHostMemory(b"x")), TypeError),
    "a status ignored as one value": (lambda m: m.cuda.cudaMalloc(1, 2), TypeError),
    "a name of CUDA": (lambda m: m.cuda.cudaMallocPinned(1), AttributeError),
}


@pytest.mark.parametrize("case", WRONG)
def test_calls_that_the_real_library_refuses_are_refused(case: str) -> None:
    call, error = WRONG[case]
    with machine("11.4") as made:
        made.cuda.cudaGetDeviceCount()
        with pytest.raises(error):
            call(made)
