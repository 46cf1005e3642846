from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml import Predictor
from edgeml.errors import ExportError, ModelLoadError, SpecError
from edgeml.runtimes import open_runtime
from edgeml.runtimes.tensorrt.passport import read_passport
from tests.runtimes.nets import every_layer_onnx, noise
from tests.tiny import make_tiny_onnx, tiny_spec

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
from edgeml.runtimes.tensorrt.engine_cache import open_onnx
from tests.runtimes.tensorrt.engines import VERSIONS, Machine, machine
from tests.runtimes.tensorrt.standin_does import unpack

pytestmark = pytest.mark.runtime


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return every_layer_onnx(tmp_path / "net.onnx")


class Counted:
    """Opens and closes a model, and counts what was built for that."""

    def __init__(self) -> None:
        self.builds = 0

    def open(self, made: Machine, path: Path) -> str:
        made.state.before_build = self._note
        with Predictor(path, runtime=made.library) as predictor:
            return predictor.runtime.name

    def _note(self, network: Any, config: Any) -> None:
        self.builds += 1


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_onnx_file_is_built_at_its_first_use_and_cached(
    version: str, net: Path, cache: Path, counted: Counted
) -> None:
    runtime = open_runtime(net)
    expected = runtime.run(noise(9))
    runtime.close()
    with machine(version) as made:
        for _ in range(3):
            assert counted.open(made, net).startswith(f"{made.library} {made.state.version}")
        assert counted.builds == 1
        with Predictor(net, runtime=made.library) as predictor:
            np.testing.assert_allclose(predictor.runtime.run(noise(9)), expected, atol=1e-5)
            assert predictor.spec == tiny_spec()
    names = {path.suffix for path in cache.iterdir()}
    assert {".engine", ".json", ".lock"} <= names


def test_another_gpu_driver_or_version_gets_an_engine_of_its_own(
    net: Path, cache: Path, counted: Counted
) -> None:
    machines: list[tuple[str, dict[str, Any]]] = [
        ("11.4", {"driver": 13010}),
        ("11.4", {}),
        ("11.4", {"name": "Another GPU"}),
        ("11.4", {"capability": (8, 9)}),
        ("10.16", {}),
        ("rtx", {}),
    ]
    for version, gpu in machines * 2:
        with machine(version, **gpu) as made:
            counted.open(made, net)
    assert counted.builds == len(machines) == len(list(cache.glob("*.engine")))


def test_engines_of_older_versions_and_drivers_are_removed(
    net: Path, cache: Path, counted: Counted, tmp_path: Path
) -> None:
    other = make_tiny_onnx(tmp_path / "other.onnx")
    for version, driver in (("10.3", 12060), ("10.16", 12060), ("10.16", 13000)):
        with machine(version, driver=driver) as made:
            counted.open(made, net)
            if version == "10.3":
                counted.open(made, other)
    assert counted.builds == 4
    assert len(list(cache.glob("net-*.engine"))) == len(list(cache.glob("net-*.json"))) == 1
    assert len(list(cache.glob("other-*.engine"))) == 1
    with machine("10.3", driver=13000) as made:  # another environment on the same machine
        counted.open(made, net)
    assert len(list(cache.glob("net-*.engine"))) == 2
    for version in ("10.16", "10.3"):
        with machine(version, driver=13000) as made:
            counted.open(made, net)
    assert counted.builds == 5


def test_a_file_that_changed_is_built_again(net: Path, counted: Counted) -> None:
    with machine("11.4") as made:
        counted.open(made, net)
        make_tiny_onnx(net)
        counted.open(made, net)
        assert counted.builds == 2


def test_weights_in_another_file_are_part_of_the_engine_and_of_its_name(
    net: Path, counted: Counted
) -> None:
    import onnx

    model = onnx.load(net)
    onnx.save(model, net, save_as_external_data=True, location="net.data", size_threshold=0)
    weights = net.parent / "net.data"
    for content in (weights.read_bytes(), bytes(weights.stat().st_size)):
        weights.write_bytes(content)
        for _ in range(2):
            with machine("11.4") as made:
                counted.open(made, net)
    assert counted.builds == 2


@pytest.mark.parametrize("kept", ["a folder", "in no folder"])
def test_a_build_succeeds_without_a_file_for_measurements(
    kept: str, net: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from edgeml.runtimes.tensorrt.build import engine_from_onnx

    timings = tmp_path / "a folder" if kept == "a folder" else net / "below a file"
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "with a file").touch()
    with machine("11.4"):
        engine_from_onnx(net, tmp_path / "n.engine", timing_cache=timings)
    assert (tmp_path / "n.engine").exists()
    assert "measurements cannot be written" in caplog.text


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    "harm",
    [
        lambda engine: damage(engine),
        lambda engine: engine.with_name(engine.name + ".json").unlink(),
        lambda engine: engine.write_bytes(b""),
        lambda engine: engine.unlink(),
    ],
)
def test_an_engine_that_was_damaged_in_the_cache_is_built_again(
    harm: Any, net: Path, cache: Path, counted: Counted
) -> None:
    with machine("11.4") as made:
        counted.open(made, net)
        harm(next(cache.glob("*.engine")))
        counted.open(made, net)
        counted.open(made, net)
        assert counted.builds == 2


def test_who_comes_at_the_same_time_waits_for_the_one_build(net: Path, counted: Counted) -> None:
    with machine("11.4") as made:
        with ThreadPoolExecutor(6) as pool:
            names = list(pool.map(lambda _: counted.open(made, net), range(6)))
        assert len(names) == 6
        assert counted.builds == 1
        assert made.cuda.nothing_alive


def test_a_build_shows_itself_on_stderr(
    net: Path, capsys: pytest.CaptureFixture[str], counted: Counted
) -> None:
    with machine("11.4") as made:
        counted.open(made, net)
        out, err = capsys.readouterr()
        assert not out
        assert "Building net.onnx for Stand-in GPU with TensorRT, once: " in err
        counted.open(made, net)
        assert capsys.readouterr() == ("", "")


def test_a_spec_beside_the_file_is_taken_where_none_is_inside(net: Path, counted: Counted) -> None:
    import onnx

    model = onnx.load(net)
    del model.metadata_props[:]
    onnx.save(model, net)
    with machine("11.4") as made:
        with pytest.raises(SpecError):
            counted.open(made, net)
        Path(f"{net}.json").write_text(tiny_spec(["a", "b", "c"]).to_json(), encoding="utf-8")
        with Predictor(net, runtime="tensorrt") as predictor:
            assert predictor.spec.labels == ("a", "b", "c")


def test_without_a_gpu_nothing_is_built(net: Path, cache: Path, counted: Counted) -> None:
    with machine("11.4", count=0) as made:
        with pytest.raises(ModelLoadError, match="No NVIDIA GPU can be used here"):
            counted.open(made, net)
        assert made.state.objects == counted.builds == 0
    assert not cache.exists()


@pytest.mark.parametrize("version", ["11.4", "rtx"])
def test_an_engine_is_built_on_the_requested_gpu(
    version: str, net: Path, cache: Path, counted: Counted
) -> None:
    names = ("Small GPU", "Large GPU")
    with machine(version, count=2, names=names) as made:
        made.state.before_build = counted._note
        for device, name in [("cuda:1", "Large GPU"), ("auto", "Small GPU"), ("cuda:1", "")]:
            made.cuda.used.clear()
            before = set(cache.glob("*.engine"))
            runtime = open_onnx(net, tiny_spec(), library=made.library, device=device)
            assert runtime.run(noise(2)).shape == (2, 3)
            runtime.close()
            assert made.cuda.used == {1 if device == "cuda:1" else 0}
            for engine in set(cache.glob("*.engine")) - before:
                assert unpack(engine.read_bytes())[0]["on"] == read_passport(engine).gpu == name
        assert counted.builds == 2
        assert made.cuda.nothing_alive


def test_two_gpus_of_one_model_share_an_engine(net: Path, counted: Counted) -> None:
    with machine("11.4", count=2) as made:
        made.state.before_build = counted._note
        for device in ("cuda:1", "cuda:0"):
            open_onnx(net, tiny_spec(), library="tensorrt", device=device).close()
        with pytest.raises(ModelLoadError, match="There is no GPU 2; CUDA finds 2"):
            open_onnx(net, tiny_spec(), library="tensorrt", device="cuda:2")
        assert counted.builds == 1


def test_a_failed_build_leaves_no_file_and_a_reason(tmp_path: Path, cache: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x08no onnx")
    with machine("11.4"), pytest.raises((ModelLoadError, ExportError), match="broken"):
        Predictor(broken, runtime="tensorrt")
    assert not list(cache.glob("*.engine*"))


def test_without_a_cache_that_can_be_written_the_engine_is_built_for_this_process(
    net: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    counted: Counted,
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        with machine("11.4") as made:
            counted.open(made, net)
    assert counted.builds == 2
    assert caplog.text.count("not kept") == 2


def test_the_cache_lies_where_the_system_keeps_such_things(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgeml.files import user_cache

    platformdirs = pytest.importorskip("platformdirs")
    monkeypatch.delenv("EDGEML_CACHE")
    assert user_cache("engines", extra="trt") == Path(
        platformdirs.user_cache_dir("edgeml", appauthor=False), "engines"
    )
