from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml import Predictor
from edgeml.errors import EngineMismatchError, EngineReason, InputError, ModelLoadError, SpecError
from edgeml.runtimes.tensorrt.passport import (
    Passport,
    Tensor,
    passport_path,
    read_passport,
    write_passport,
)
from edgeml.spec.provenance import Provenance
from tests.command import Command, colour_folders
from tests.tiny import make_tiny_onnx, tiny_spec

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
from tests.runtimes.tensorrt.engines import Machine, machine

pytestmark = pytest.mark.runtime

PASSPORT = Passport(
    library="tensorrt",
    version="11.4.0.106",
    cuda="13",
    driver="580.65.06",
    gpu="NVIDIA A10",
    compute_capability=("8.6",),
    portable="exact",
    profile=(1, 1, 8),
    inputs=(Tensor(name="input", dtype="float32", shape=(None, 3, 32, 32)),),
    outputs=(Tensor(name="logits", dtype="float32", shape=(None, 3)),),
    plan_sha256="ab" * 32,
    plan_bytes=1234,
    onnx_sha256="cd" * 32,
    precision="int8",
    layers={"int8": 20, "fp32": 2},
    spec=tiny_spec(["grün", "red", "blue"]),
)


def test_a_passport_comes_back_from_its_json() -> None:
    text = PASSPORT.to_json()
    assert Passport.from_json(text) == PASSPORT
    assert json.loads(text)["format"] == "edgeml.engine/1"
    assert json.loads(text)["spec"]["format"] == "edgeml/1"


def edited(engine: Path, **changes: Any) -> None:
    """Change fields of a passport."""
    path = passport_path(engine)
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields.update(changes)
    path.write_text(json.dumps({k: v for k, v in fields.items() if v != "GONE"}), encoding="utf-8")


def changed(engine: Path, change: Callable[[bytes], bytes]) -> None:
    engine.write_bytes(change(engine.read_bytes()))


def flip_one_bit(engine: Path) -> None:
    changed(engine, lambda plan: plan[:-1] + bytes([plan[-1] ^ 1]))


def swap(engine: Path) -> None:
    """Give two engines each other's passports."""
    other = engine.with_name("other.engine")
    mine, theirs = passport_path(engine), passport_path(other)
    text = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    theirs.write_bytes(text)


def from_json(engine: Path) -> None:
    """Give an engine the spec of another format as its passport."""
    passport_path(engine).write_text(tiny_spec().to_json(), encoding="utf-8")


HERE = ("Stand-in GPU", "8.6")
VERSION = "11.4.0.106"

Tampering = Callable[[Path], Any]

FOREIGN: dict[str, tuple[Tampering, EngineReason, tuple[str, ...]]] = {
    "the other library": (
        lambda e: edited(e, library="tensorrt_rtx"),
        "library",
        ("TensorRT-RTX", "TensorRT"),
    ),
    "an older version": (
        lambda e: edited(e, version="10.3.0"),
        "version",
        ("an older TensorRT", "10.3.0", VERSION),
    ),
    "a newer version": (
        lambda e: edited(e, version="11.5.0.2"),
        "version",
        ("a newer TensorRT", "11.5.0.2", VERSION),
    ),
    "another model of GPU": (lambda e: edited(e, gpu="NVIDIA A10"), "gpu", ("NVIDIA A10", *HERE)),
    "another capability": (
        lambda e: edited(e, gpu="NVIDIA H100", compute_capability=["9.0"]),
        "gpu",
        ("NVIDIA H100", "9.0", *HERE),
    ),
    "several capabilities": (
        lambda e: edited(
            e, gpu=None, portable="same-capability", compute_capability=["8.9", "12.0"]
        ),
        "gpu",
        ("8.9 or 12.0", *HERE),
    ),
    "a driver that is too old": (
        lambda e: edited(e, cuda="14"),
        "driver",
        ("CUDA 14", "CUDA 13.0", "up to 13.0"),
    ),
    "version-compatible, newer": (
        lambda e: edited(e, portable="version", version="11.6.0"),
        "version",
        ("11.6.0", VERSION),
    ),
    "version-compatible, too old": (
        lambda e: edited(e, portable="version", version="8.6.1"),
        "version",
        ("8.6.1", VERSION, "only engines of 10"),
    ),
    "a flipped bit": (flip_one_bit, "changed", ("model.engine", "sha256")),
    "cut short": (lambda e: changed(e, lambda plan: plan[:-100]), "truncated", ("model.engine",)),
    "something appended": (
        lambda e: changed(e, lambda plan: plan + b"x"),
        "longer",
        ("model.engine",),
    ),
    "empty": (lambda e: e.write_bytes(b""), "empty", ("model.engine",)),
    "a swapped passport": (swap, "other-passport", ("model.engine", "other.engine.json")),
    "no passport": (
        lambda e: passport_path(e).unlink(),
        "no-passport",
        ("model.engine", "model.engine.json"),
    ),
    "half a passport": (
        lambda e: passport_path(e).write_text(PASSPORT.to_json()[:300], encoding="utf-8"),
        "passport",
        ("JSON",),
    ),
    "no text": (
        lambda e: passport_path(e).write_bytes(b"\xff\xfe\x00"),
        "passport",
        ("UTF-8",),
    ),
    "a newer format": (
        lambda e: edited(e, format="edgeml.engine/2"),
        "passport",
        ("edgeml.engine/2", "edgeml.engine/1", "update edgeml"),
    ),
    "another kind of format": (from_json, "passport", ("edgeml/1", "edgeml.engine/1")),
    "no format": (lambda e: edited(e, format="GONE"), "passport", ("edgeml.engine/1",)),
    "a field is missing": (
        lambda e: edited(e, plan_sha256="GONE"),
        "passport",
        ("'plan_sha256': Field req",),
    ),
    "an unknown field": (lambda e: edited(e, speed=3), "passport", ("'speed': Unexpected",)),
    "a field of another type": (
        lambda e: edited(e, plan_bytes="9"),
        "passport",
        ("'plan_bytes': Input",),
    ),
    "batches out of order": (lambda e: edited(e, profile=[4, 1, 8]), "passport", ("(4, 1, 8)",)),
    "no spec": (lambda e: edited(e, spec=None), "passport", ("spec",)),
}


@pytest.fixture
def built(tmp_path: Path) -> Any:
    """A machine with two valid engines: model.engine and other.engine."""
    with machine("11.4") as made:
        for name, labels in (("model", 3), ("other", 5)):
            source = make_tiny_onnx(tmp_path / f"{name}.onnx", labels=list("abcde")[:labels])
            made.build(source, tmp_path / f"{name}.engine")
        yield made, tmp_path / "model.engine"


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_engine_is_refused_before_it_is_deserialised(
    built: tuple[Machine, Path], case: str
) -> None:
    made, engine = built
    tamper, reason, values = FOREIGN[case]
    Predictor(engine).close()
    before = made.state.deserialised
    tamper(engine)
    with pytest.raises(EngineMismatchError) as caught:
        Predictor(engine, runtime="tensorrt")
    assert caught.value.reason == reason
    for value in values:
        assert value in str(caught.value)
    assert made.state.deserialised == before == 1
    assert made.cuda.nothing_alive


@pytest.mark.parametrize(
    ("fields", "gpu"),
    [
        ({"portable": "same-capability", "gpu": "NVIDIA A10"}, {}),
        ({"portable": "ampere+", "gpu": "NVIDIA H100", "compute_capability": ("9.0",)}, {}),
        ({"portable": "ampere+", "compute_capability": ()}, {"capability": (12, 0)}),
        ({"gpu": None, "compute_capability": ("7.5", "8.6"), "portable": "same-capability"}, {}),
        ({"cuda": "12"}, {}),
        ({"cuda": None, "driver": None}, {}),
    ],
)
def test_engines_run_on_the_other_machines_that_they_are_for(
    fields: dict[str, Any], gpu: dict[str, Any], tiny_onnx: Path, tmp_path: Path
) -> None:
    with machine("11.4", **gpu) as made:
        Predictor(made.build(tiny_onnx, tmp_path / "m.engine", **fields)).close()
        assert made.state.deserialised == 1


def test_an_engine_for_ampere_is_refused_on_an_older_gpu(tiny_onnx: Path, tmp_path: Path) -> None:
    with machine("11.4", capability=(7, 5)) as made:
        engine = made.build(
            tiny_onnx, tmp_path / "m.engine", portable="ampere+", compute_capability=("8.6",)
        )
        with pytest.raises(EngineMismatchError, match=r"8\.0 \(Ampere\).*7\.5") as caught:
            Predictor(engine)
        assert caught.value.reason == "gpu"


def test_an_engine_with_host_code_runs_only_if_it_is_trusted(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    from edgeml.runtimes.tensorrt.runtime import TensorRtRuntime

    with machine("11.4") as made:
        engine = made.build(tiny_onnx, tmp_path / "m.engine", portable="version")
        with pytest.raises(ModelLoadError, match="carries host code"):
            Predictor(engine)
        assert made.state.deserialised == 0
        with Predictor(TensorRtRuntime(engine, trusted=True)) as predictor:
            assert predictor.spec.labels == ("red", "green", "blue")


@pytest.mark.parametrize("field", ["inputs", "outputs", "profile"])
def test_a_passport_of_another_network_is_detected(
    field: str, tiny_onnx: Path, tmp_path: Path
) -> None:
    wrong: dict[str, Any] = {
        "inputs": PASSPORT.outputs,
        "outputs": PASSPORT.inputs,
        "profile": (1, 1, 16),
    }
    with machine("11.4") as made:
        engine = made.build(tiny_onnx, tmp_path / "m.engine", **{field: wrong[field]})
        # The caught error would keep the engine alive.
        with pytest.raises(EngineMismatchError, match="is not what its passport states"):
            Predictor(engine)
        assert made.cuda.nothing_alive


def test_a_passport_is_written_next_to_its_engine(tmp_path: Path) -> None:
    write_passport(PASSPORT, tmp_path / "m.engine")
    assert [path.name for path in tmp_path.iterdir()] == ["m.engine.json"]
    assert read_passport(tmp_path / "m.engine") == PASSPORT


def test_a_passport_names_gpus_unless_it_is_for_all() -> None:
    with pytest.raises(SpecError, match="must name the GPUs"):
        replace(PASSPORT, compute_capability=())
    with pytest.raises(SpecError, match=r"expected such as '8\.6'"):
        replace(PASSPORT, compute_capability=("sm_86",))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from([*json.loads(PASSPORT.to_json()), "unknown"])


@given(st.text() | JSON.map(json.dumps))
@settings(max_examples=100, deadline=None)
def test_other_text_than_a_passport_is_a_spec_error(text: str) -> None:
    with pytest.raises(SpecError):
        Passport.from_json(text)


def test_a_passport_with_the_origin_of_an_old_spec_is_read() -> None:
    fields = json.loads(PASSPORT.to_json())
    del fields["spec"]["provenance"]
    fields["spec"]["origin"] = {"model": "cnn", "torch": "2.9"}
    provenance = Passport.from_json(json.dumps(fields)).spec.provenance
    assert provenance == Provenance(model="cnn", notes={"torch": "2.9"})


@given(FIELDS, JSON)
@settings(max_examples=150, deadline=None)
def test_a_field_of_any_value_is_read_or_refused(field: str, value: Any) -> None:
    fields = {**json.loads(PASSPORT.to_json()), field: value}
    try:
        passport = Passport.from_json(json.dumps(fields))
    except SpecError:
        return
    assert Passport.from_json(passport.to_json()) == passport


def test_an_engine_of_a_library_that_is_not_installed_is_refused(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    with machine("rtx") as made:
        engine = made.build(tiny_onnx, tmp_path / "m.engine")
        with pytest.raises(EngineMismatchError) as caught:
            Predictor(engine, runtime="tensorrt")
        assert caught.value.reason == "library"


def test_engines_are_for_the_runtimes_that_read_them(tiny_onnx: Path, tmp_path: Path) -> None:
    with machine("11.4") as made:
        engine = made.build(tiny_onnx, tmp_path / "m.engine")
        with pytest.raises(ModelLoadError, match=r"'openvino' does not read 'm\.engine'"):
            Predictor(engine, runtime="openvino")
        with pytest.raises(InputError, match=r"No runtime 'trt'; known are .*tensorrt_rtx"):
            Predictor(engine, runtime="trt")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """An engine of another machine, on one without a GPU and TensorRT."""
    with machine("11.4") as made:
        return made.build(make_tiny_onnx(tmp_path / "é net.onnx"), tmp_path / "é net.engine")


def test_inspect_prints_the_passport_of_an_engine(edgeml: Command, elsewhere: Path) -> None:
    report = edgeml("inspect", elsewhere, "--json").json
    passport = read_passport(elsewhere)
    assert report["runtime"] == f"tensorrt {passport.version}"
    assert (report["gpu"], report["compute_capability"]) == ("Stand-in GPU", ["8.6"])
    assert (report["bytes"], report["sha256"]) == (passport.plan_bytes, passport.plan_sha256)
    assert report["bytes"] == elsewhere.stat().st_size
    assert (report["labels"], report["format"]) == (list(passport.spec.labels), "edgeml/1")
    assert report["profile"] == [1, 1, 8]
    assert report["inputs"] == [{"name": "input", "dtype": "float32", "shape": [None, 3, 32, 32]}]
    assert report["fits_passport"] is True
    assert re.search(r"compute_capability +8\.6\n", edgeml("inspect", elsewhere).out)


def test_verify_of_an_engine_for_another_machine_compares_it_with_its_passport(
    edgeml: Command, elsewhere: Path
) -> None:
    done = edgeml("verify", elsewhere)
    assert done.status == 0
    assert "é net.engine is intact and matches its passport; it was not run: No" in done.out
    report = edgeml("verify", elsewhere, "--json").json
    assert (report["passed"], report["findings"], report["checks"]) == (True, [], None)
    assert "No NVIDIA GPU" in report["not_run"]
    with machine("11.4", name="Another GPU"):
        done = edgeml("verify", elsewhere)
        assert "built on Stand-in GPU; here is Another GPU" in done.out
    with machine("11.4") as made:
        done = edgeml("verify", elsewhere)
        assert made.state.executions
        assert "é net.engine is sound" in done.out


def test_an_engine_that_is_damaged_is_neither_inspected_nor_verified(
    edgeml: Command, elsewhere: Path
) -> None:
    changed(elsewhere, lambda plan: plan[:-9])
    assert "é net.engine is cut short" in edgeml.refused("inspect", elsewhere)
    done = edgeml("verify", elsewhere)
    assert done.status == 1
    assert "é net.engine is not sound: é net.engine is cut short" in done.err


def test_verify_against_a_source_needs_the_machine_of_the_engine(
    edgeml: Command, elsewhere: Path, tmp_path: Path
) -> None:
    photos = colour_folders(tmp_path / "photos")
    line = edgeml.refused(
        "verify", elsewhere, "--against", elsewhere.with_suffix(".onnx"), "--data", photos
    )
    assert "é net.engine cannot be compared on this machine: No NVIDIA GPU can be used" in line


def test_an_rtx_engine_that_is_refused_is_built_again_for_the_gpu_that_is_here(
    tmp_path: Path,
) -> None:
    """With the default capabilities it would be refused again: they do not contain Hopper."""
    with machine("rtx", capability=(9, 0)) as made:
        usual = {"compute_capability": ("8.0", "8.6", "8.9", "12.0"), "gpu": None}
        engine = made.build(make_tiny_onnx(tmp_path / "net.onnx"), tmp_path / "n.engine", **usual)
        with pytest.raises(EngineMismatchError, match="--fmt trt-rtx --capability current, or"):
            Predictor(engine)
