"""Exports to an engine from end to end: by TensorRT-RTX itself, by a stand-in of TensorRT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.data import Dataset
from edgeml.errors import ExportError, InputError, MissingDependencyError, ModelLoadError
from edgeml.files import sha256_of_file
from edgeml.measure.compare import FidelityError
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml.runtimes.tensorrt.build import engine_from_onnx
from edgeml.runtimes.tensorrt.engine_options import EngineOptions, Profile
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml.runtimes.tensorrt.passport import read_engine
from edgeml.spec.model_spec import Precision
from edgeml_export import export
from edgeml_export.int8.ranges import Ranges
from edgeml_export.int8.to_int8 import int8_from_onnx
from edgeml_export.request import RequestError
from edgeml_export.to_fp16 import fp16_from_onnx
from edgeml_export.write import EngineReport
from tests.export.graphs import written
from tests.export.int8.quantized import quantized
from tests.runtimes.tensorrt.engines import machine

pytestmark = [pytest.mark.train, pytest.mark.runtime]

# Some seconds of training leave scores near the thresholds and few images: wide limits.
WIDE = {"max_drop": 10.0}

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_bindings")


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture
def theirs(network: Path, ranges: Ranges, tmp_path: Path) -> Path:
    """An INT8 file for ONNX Runtime on x86: uint8, around zero points, with int32 biases."""
    return int8_from_onnx(network, tmp_path / "theirs.int8.onnx", ranges, layout="x86")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_becomes_an_engine_that_was_compared_with_it(
    precision: Precision, own_run: Path, data: Dataset, test_part: Dataset
) -> None:
    options = EngineOptions(profile=Profile(1, 4, 16), capability=("8.6",))
    done = export(
        own_run, "trt-rtx", precision=precision, calib=data, check=data, engine=options, **WIDE
    )
    infix = "" if precision == "fp32" else f".{precision}"
    assert done.path == own_run / f"model{infix}.rtx.engine"
    kept = {"model.ranges.json"} if precision == "int8" else set()
    beside = {done.path.name + more for more in ("", ".json", ".report.html")}
    assert {path.name for path in own_run.iterdir()} == {"model.safetensors", *kept, *beside}
    passport, _ = read_engine(done.path)
    assert done.sha256 == sha256_of_file(done.path) == passport.plan_sha256
    assert (passport.profile, passport.compute_capability) == ((1, 4, 16), ("8.6",))
    assert passport.precision == passport.spec.precision == precision
    assert done.checks is not None
    assert done.checks.images == len(test_part)
    # The passport contains the metrics of the comparison.
    assert passport.spec.metrics["mAP"] == done.checks.exported.summary()["mAP"]
    report = json.loads(json.dumps(done.to_dict()["engine"]))
    assert (report["library"], report["checked_by"]) == ("tensorrt_rtx", "onnx")
    assert report["products"]["Conv"] == {precision: sum(report["products"]["Conv"].values())}
    assert sum(report["types"].values()) == len(report["layers"]) > 3
    assert done.report is not None
    page = done.report.read_text(encoding="utf-8")
    assert "rounded to FP16 as a GPU would" in page
    assert f'<p class="lead">The ONNX of {done.path.name} against run, on ' in page


@pytest.mark.usefixtures("rtx")
def test_an_engine_that_differs_from_its_source_is_not_kept(
    own_run: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(source: Path, target: Path, **options: Any) -> Path:
        model = read_onnx(fp16_from_onnx(source, target, **options))
        head = max(model.graph.initializer, key=lambda tensor: int(np.prod(tensor.dims)))
        head.raw_data = bytes(len(head.raw_data))
        write_onnx(model, target, spec_of_onnx(model, target))
        return target

    monkeypatch.setattr("edgeml_export.to_fp16.fp16_from_onnx", spoilt)
    with pytest.raises(FidelityError, match=r"model\.fp16\.rtx\.engine"):
        export(own_run, "trt-rtx", precision="fp16", check=data)
    left = {path.name for path in own_run.iterdir()}
    assert left == {"model.safetensors", "model.fp16.rtx.engine.report.html"}


@pytest.mark.usefixtures("rtx")
def test_an_int8_file_of_another_kind_is_refused_or_rewritten(
    theirs: Path, network: Path, data: Dataset
) -> None:
    with pytest.raises(ExportError, match=r"theirs\.int8\.onnx is not for TensorRT") as caught:
        export(theirs, "trt-rtx", precision="int8")
    assert "--retarget" in str(caught.value)
    done = export(theirs, "trt-rtx", precision="int8", retarget=True, check=data, **WIDE)
    assert done.path == theirs.with_name("theirs.int8.rtx.engine")
    passport, _ = read_engine(done.path)
    assert passport.spec.provenance.notes["retargeted"].startswith("to tensorrt: ")
    assert done.engine is not None
    convolutions = sum(node.op_type == "Conv" for node in read_onnx(network).graph.node)
    assert done.engine.products["Conv"] == {"int8": convolutions}
    assert done.checks is not None
    assert done.checks.passed


def test_rewriting_gives_an_onnx_too(theirs: Path, data: Dataset) -> None:
    done = export(
        theirs,
        "onnx",
        precision="int8",
        target="tensorrt",
        retarget=True,
        check=data,
        out=theirs.with_name("ours.onnx"),
        **WIDE,
    )
    assert refused_by_tensorrt(read_onnx(done.path)) == []
    assert spec_of_onnx(read_onnx(done.path), done.path).precision == "int8"
    assert done.checks is not None
    assert done.engine is None


@pytest.mark.usefixtures("rtx")
def test_an_fp16_file_is_built_as_it_is(network: Path, tmp_path: Path) -> None:
    half = fp16_from_onnx(network, tmp_path / "m.fp16.onnx")
    done = export(half, "trt-rtx", precision="fp16")
    assert done.path.name == "m.fp16.rtx.engine"
    assert done.engine is not None
    assert set(done.engine.products["Conv"]) == {"fp16"}


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("kind", "options", "refusal"),
    [
        ("int8", {"precision": "fp16"}, "precision"),
        ("fp16", {}, "precision"),
        ("fp16", {"precision": "int8", "retarget": True}, "precision"),
        ("fp32", {"precision": "int8", "retarget": True}, "retarget"),
        ("fp32", {"out": Path("m.plan")}, "suffix"),
    ],
)
def test_impossible_exports_are_refused(
    kind: str, options: dict[str, Any], refusal: str, network: Path, ranges: Ranges, tmp_path: Path
) -> None:
    source = tmp_path / "source.onnx"
    match kind:
        case "int8":
            int8_from_onnx(network, source, ranges, layout="tensorrt")
        case "fp16":
            fp16_from_onnx(network, source)
        case _:
            shutil.copyfile(network, source)
    (tmp_path / "source.ranges.json").write_text(ranges.to_json())
    with pytest.raises(RequestError) as caught:
        export(source, "trt-rtx", **options)
    assert caught.value.reason == refusal
    assert {path.suffix for path in tmp_path.iterdir()} == {".onnx", ".json"}


@pytest.mark.parametrize(
    ("precision", "version"), [("fp32", "10.16"), ("fp16", "10.3"), ("int8", "11.4")]
)
def test_where_a_gpu_is_the_engine_itself_is_compared(
    precision: Precision,
    version: str,
    own_run: Path,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    with machine(version) as here:
        done = export(own_run, "trt", precision=precision, calib=data, check=data, **WIDE)
        assert here.state.executions > 0
    assert here.cuda.nothing_alive
    assert done.path.suffix == ".engine"
    assert done.engine is not None
    assert done.engine.checked_by == "engine"
    assert done.report is not None
    page = done.report.read_text(encoding="utf-8")
    assert f'<p class="lead">{done.path.name} against ' in page
    assert "The ONNX of" not in page
    passport, _ = read_engine(done.path)
    assert (passport.library, passport.gpu) == ("tensorrt", "Stand-in GPU")
    assert (tmp_path / "cache" / "engines" / "tensorrt.timing").exists()


def test_without_a_gpu_tensorrt_refuses_with_a_remedy(own_run: Path) -> None:
    with machine("11.4", count=0), pytest.raises(ModelLoadError) as caught:
        export(own_run, "trt")
    assert "No NVIDIA GPU can be used here" in str(caught.value)
    assert "Without a GPU, --fmt onnx --target tensorrt writes the file" in str(caught.value)
    assert [path.name for path in own_run.iterdir()] == ["model.safetensors"]


@pytest.mark.usefixtures("rtx")
def test_capability_current_needs_a_gpu_before_any_work(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeml_export.pipeline.Predictor", pytest.fail)
    with pytest.raises(ModelLoadError, match="No NVIDIA GPU can be used here"):
        export(own_run, "trt-rtx", engine=EngineOptions(capability="current"))


@pytest.mark.parametrize(
    ("fmt", "module", "install"),
    [
        ("trt", "tensorrt", "pip install 'edgeml[trt]'"),
        ("trt-rtx", "tensorrt_rtx", "pip install 'edgeml[trt-rtx]'"),
    ],
)
def test_without_the_library_the_error_names_the_remedies(
    fmt: Any, module: str, install: str, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in (module, f"{module}_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError) as caught:
        export(own_run, fmt)
    message = str(caught.value)
    assert "To build TensorRT engines, edgeml needs TensorRT" in message
    assert install in message
    assert "--fmt onnx --target tensorrt writes the file, to be built on the device" in message
    assert "\n" not in message


def test_a_file_with_a_spec_beside_it_is_judged_by_its_graph(tmp_path: Path) -> None:
    """The spec of a file that another tool quantised states fp32 by default."""
    pytest.importorskip("tensorrt_rtx_bindings")
    source = written(quantized(bias="int32"), tmp_path / "bare.onnx")
    with pytest.raises(InputError, match="is int8 already"):
        export(source, "trt-rtx")
    done = export(source, "trt-rtx", precision="int8", retarget=True)
    assert read_engine(done.path)[0].precision == "int8"


@pytest.mark.parametrize(
    ("profile", "batches"),
    [(Profile(4, 4, 4), "batches of 4: "), (Profile(1, 1, 8), "of 1 to 8: ")],
)
def test_the_sentence_about_an_engine_names_its_batches(
    profile: Profile, batches: str, network: Path, tmp_path: Path
) -> None:
    with machine("11.4"):
        built = engine_from_onnx(network, tmp_path / "m.engine", EngineOptions(profile=profile))
    assert batches in EngineReport(built=built, products={}, checked_by="onnx").sentence()
