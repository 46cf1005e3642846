"""The builder with doubles of TensorRT 10.3, 10.16 and 11.4, built from their signatures.

They refuse every name, keyword and type that the real module of that version does not have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import ExportError, InputError, ModelLoadError
from edgeml.runtimes.tensorrt import build as build_module
from edgeml.runtimes.tensorrt.build import Built, engine_from_onnx
from edgeml.runtimes.tensorrt.engine_options import EngineOptions, Profile
from edgeml.runtimes.tensorrt.passport import Portable, read_engine
from edgeml.runtimes.tensorrt.runtime import incompatibility
from tests.export.graphs import model_of, weights, written
from tests.export.int8.quantized import quantized
from tests.runtimes.tensorrt.engines import VERSIONS, Machine, machine
from tests.runtimes.tensorrt.standin_does import unpack

pytestmark = pytest.mark.runtime


@pytest.fixture
def source(tmp_path: Path) -> Path:
    nodes = [
        ("Conv", ["input", "w"], "y"),
        ("Relu", ["y"], "r"),
        ("GlobalAveragePool", ["r"], "p"),
        ("Flatten", ["p"], "logits"),
    ]
    return written(model_of(nodes, {"w": weights(2, 3, 3, 3)}), tmp_path / "source.onnx")


def build(here: Machine, source: Path, timing_cache: Path | None = None, **options: Any) -> Built:
    return engine_from_onnx(
        source,
        source.with_name("m.engine"),
        EngineOptions(**options),
        library=here.library,
        timing_cache=timing_cache,
    )


def header_of(source: Path) -> dict[str, Any]:
    """Return the arguments of the double's builder, which its plan contains."""
    header, _ = unpack(source.with_name("m.engine").read_bytes())
    return header


@pytest.mark.parametrize("version", VERSIONS)
def test_one_way_builds_with_all_versions(version: str, source: Path) -> None:
    with machine(version) as here:
        built = build(here, source, profile=Profile(1, 2, 4), workspace_mb=64)
        flags = here.trt.BuilderFlag
        header = header_of(source)
        assert not header["flags"] >> int(flags.TF32) & 1
        assert header["verbosity"] == "DETAILED"
        assert header["profile"] == {"input": [[n, 3, 16, 16] for n in (1, 2, 4)]}
        assert header["version"] == built.passport.version == here.state.version
        assert incompatibility(built.passport) is None
    passport, _ = read_engine(source.with_name("m.engine"))
    assert passport == built.passport
    if version == "rtx":
        assert header["capabilities"] == ["SM80", "SM86", "SM89", "SM120"]
        assert (passport.gpu, passport.portable) == (None, "same-capability")
    else:
        assert (passport.gpu, passport.portable) == ("Stand-in GPU", "exact")
        assert passport.compute_capability == ("8.6",)


@pytest.mark.parametrize("elsewhere", [{"count": 0}, {"capability": (7, 5)}, {"name": "Another"}])
def test_an_engine_is_not_run_where_it_would_not_run(
    elsewhere: dict[str, Any], source: Path
) -> None:
    with machine("11.4") as here:
        passport = build(here, source).passport
    with machine("11.4", **elsewhere):
        assert incompatibility(passport)
    with machine("10.16"):
        assert incompatibility(passport)


def test_an_engine_of_this_gpu_alone_is_built_by_tensorrt_rtx_too(source: Path) -> None:
    with machine("rtx", capability=(12, 0)) as here:
        built = build(here, source, capability="current")
    assert header_of(source)["capabilities"] == ["CURRENT"]
    assert built.passport.compute_capability == ("12.0",)


@pytest.mark.parametrize(
    ("version", "portable", "level"),
    [
        ("10.3", "ampere+", "AMPERE_PLUS"),
        ("10.16", "same-capability", "SAME_COMPUTE_CAPABILITY"),
        ("11.4", "same-capability", "SAME_COMPUTE_CAPABILITY"),
        ("11.4", "version", "NONE"),
    ],
)
def test_where_else_an_engine_runs_is_set_in_the_builder_and_the_passport(
    version: str, portable: Portable, level: str, source: Path
) -> None:
    with machine(version) as here:
        seen = {}

        def look(network: Any, config: Any) -> None:
            seen["level"] = config.hardware_compatibility_level.name
            seen["version"] = config.get_flag(here.trt.BuilderFlag.VERSION_COMPATIBLE)

        here.state.before_build = look
        passport = build(here, source, portable=portable).passport
    assert seen == {"level": level, "version": portable == "version"}
    assert passport.portable == portable


def test_an_old_tensorrt_refuses_what_it_cannot_build(source: Path) -> None:
    with (
        machine("10.3") as here,
        pytest.raises(InputError, match=r"TensorRT 10\.3\.0 builds no 'same-capability' engines"),
    ):
        build(here, source, portable="same-capability")


@pytest.mark.parametrize("version", ["10.3", "11.4"])
def test_measurements_are_stored_for_the_next_build_on_this_gpu(
    version: str, source: Path, tmp_path: Path
) -> None:
    with machine(version) as here:
        for builds in (1, 2):
            build(here, source, timing_cache=tmp_path / "stored.timing")
            assert len(json.loads((tmp_path / "stored.timing").read_bytes())) == builds


@pytest.mark.parametrize("version", VERSIONS)
def test_a_failed_build_reports_tensorrts_log(
    version: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        build_module, "_set_profile", lambda job, builder, network, config: Profile()
    )
    with machine(version) as here, pytest.raises(ExportError, match="no optimization profile"):
        build(here, source)
    assert not source.with_name("m.engine").exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_what_tensorrt_would_misread_reaches_no_version(version: str, tmp_path: Path) -> None:
    source = written(quantized(zero=3), tmp_path / "theirs.onnx")
    with machine(version) as here, pytest.raises(ExportError, match="zero point is not 0"):
        build(here, source)
    assert here.state.logger is None  # no object was made


@pytest.mark.parametrize("version", ["10.3", "10.16", "11.4"])
def test_tensorrt_asks_for_a_gpu_before_it_makes_an_object(version: str, source: Path) -> None:
    with (
        machine(version, count=0) as here,
        pytest.raises(ModelLoadError, match="No NVIDIA GPU can be used here"),
    ):
        build(here, source)
    assert here.state.logger is None


def test_a_gpu_can_be_chosen_for_tensorrt_rtx_only(source: Path) -> None:
    with machine("11.4") as here, pytest.raises(InputError, match="for TensorRT-RTX only"):
        build(here, source, capability=("8.6",))


@pytest.mark.parametrize(
    ("planted", "gone"),
    [
        (lambda trt, config: config.set_flag(trt.BuilderFlag.FP16), "FP16"),
        (lambda trt, config: trt.IInt8EntropyCalibrator2, "IInt8EntropyCalibrator2"),
        (lambda trt, config: config.algorithm_selector, "algorithm_selector"),
    ],
)
def test_what_tensorrt_11_has_no_more_would_be_noticed(
    planted: Any, gone: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doubles do fail where a tutorial's calls are planted in the builder."""
    real = build_module._configure

    def configure(job: Any, builder: Any, network: Any, config: Any) -> Profile:
        planted(job.trt, config)
        return real(job, builder, network, config)

    monkeypatch.setattr(build_module, "_configure", configure)
    with machine("11.4") as here, pytest.raises(AttributeError, match=gone):
        build(here, source)


def test_layers_come_from_the_inspector_where_a_gpu_is(source: Path) -> None:
    with machine("11.4") as here:
        built = build(here, source)
        assert here.state.deserialised == 1
        assert here.state.alive == 0
    assert {layer.name for layer in built.layers} >= {"y_node", "p_node"}
