from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeml.runtimes import RuntimeOptions
from edgeml.spec.provenance import Provenance, Quantizer
from tests.runtimes.nets import every_layer_onnx
from tests.tiny import make_tiny_onnx, tiny_spec

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from edgeml.runtimes.ort import OrtRuntime  # noqa: E402

pytestmark = pytest.mark.runtime


@pytest.fixture
def runtime(tiny_onnx: Path) -> Iterator[OrtRuntime]:
    opened = OrtRuntime(tiny_onnx)
    yield opened
    opened.close()


def test_the_name_has_the_version_and_the_device(runtime: OrtRuntime) -> None:
    assert runtime.name == f"onnxruntime {ort.__version__} CPU"
    assert runtime.input_shape == (None, 3, 32, 32)


@pytest.mark.parametrize(
    ("written", "computed"),
    [
        ("fp32", "f32"),
        ("fp16", "f16" if platform.machine().lower() in ("aarch64", "arm64") else "f32"),
        ("int8", "int8"),
    ],
)
def test_the_precision_is_what_it_computes_in(written: str, computed: str, tmp_path: Path) -> None:
    spec = replace(tiny_spec(), precision=written)
    if written == "int8":  # without, the graph decides, which is in float
        spec = replace(
            spec,
            provenance=Provenance(quantizer=Quantizer(layout="x86", method="minmax", images=1)),
        )
    runtime = OrtRuntime(make_tiny_onnx(tmp_path / "model.onnx", spec=spec))
    assert runtime.metadata["precision"] == computed


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Arm has kernels for FP16")
def test_on_x86_an_fp16_convolution_is_computed_in_fp32(tmp_path: Path) -> None:
    """Independent evidence for the test above: the graph that the provider runs."""
    import onnx

    from edgeml_export.to_fp16 import fp16_from_onnx

    half = fp16_from_onnx(every_layer_onnx(tmp_path / "net.onnx"), tmp_path / "half.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(half, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimized.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    weights = [types[node.input[1]] for node in graph.node if "Conv" in node.op_type]
    assert weights == [onnx.TensorProto.FLOAT]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86 saturates")
@pytest.mark.parametrize(
    ("flags", "exact"),
    [
        ("fpu avx2 avx512f avx512bw", "1"),
        ("fpu avx2 avx512f avx512_vnni avx512_bf16", None),
        ("fpu avx2 avx_vnni", None),
        (None, "1"),
    ],
)
def test_slow_exact_products_are_used_only_without_vnni(
    flags: str | None, exact: str | None, tiny_onnx: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n")
    monkeypatch.setattr("edgeml.runtimes.ort._CPUINFO", cpuinfo)
    session = OrtRuntime(tiny_onnx)._session
    assert session is not None
    entries = session.get_session_options()
    if exact:
        assert entries.get_session_config_entry("session.x64quantprecision") == exact
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            entries.get_session_config_entry("session.x64quantprecision")


@pytest.mark.parametrize("spinning", [False, True])
def test_threads_spin_only_on_request(spinning: bool, tiny_onnx: Path) -> None:
    session = OrtRuntime(tiny_onnx, RuntimeOptions(spinning=spinning))._session
    assert session is not None
    entry = session.get_session_options().get_session_config_entry(
        "session.intra_op.allow_spinning"
    )
    assert entry == str(int(spinning))


def test_for_throughput_a_run_has_one_thread(tiny_onnx: Path) -> None:
    for mode, threads in (("latency", 2), ("throughput", 1)):
        session = OrtRuntime(tiny_onnx, RuntimeOptions(mode=mode, threads=2))._session  # type: ignore[arg-type]
        assert session is not None
        assert session.get_session_options().intra_op_num_threads == threads
