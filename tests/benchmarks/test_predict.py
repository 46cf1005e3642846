"""The scripts that measure predicting, on the tiny model; what they judge by, on known times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml import ModelSpec, Predictor
from tests.conftest import ROOT
from tests.tiny import make_tiny_onnx, tiny_spec

FOLDER = ROOT / "benchmarks/predict"

Script = Callable[[str], Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Script]:
    """Import one of the scripts, which import each other by name; what they make goes to tmp."""
    import importlib
    import sys

    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    monkeypatch.setattr(load("material"), "OUT", tmp_path)
    yield load
    for name in set(sys.modules) - before:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


def blocks(turns: Any, *milliseconds: float) -> list[Any]:
    """Blocks of three calls, each of which took so long."""
    return [
        turns.Block(wall_ns=[int(1e6 * ms)] * 3, thread_ms=ms, process_ms=2 * ms)
        for ms in milliseconds
    ]


def test_ratios_and_differences_are_those_of_the_rounds(script: Script) -> None:
    turns = script("turns")
    # The machine is three times slower in the last rounds, for both.
    slow = turns.wall_ms(blocks(turns, 2, 2, 2, 2, 6, 6, 6))
    fast = turns.wall_ms(blocks(turns, 1, 1, 1, 1, 3, 3, 3))
    assert turns.ratio(slow, fast) == turns.Estimate(value=2, low=2, high=2)
    assert turns.difference(slow, fast) == turns.Estimate(value=1, low=1, high=3)


def test_every_way_has_a_turn_in_every_round(script: Script) -> None:
    turns = script("turns")
    seen: list[str] = []

    def way(name: str) -> Any:
        def block(seconds: float) -> Any:
            seen.append(name)
            return blocks(turns, 1)[0]

        return block

    pace = turns.Pace(rounds=7, block_s=0, pause_s=0, warmup_s=0)
    found = turns.take_turns({"a": way("a"), "b": way("b")}, pace)
    assert {name: len(taken) for name, taken in found.items()} == {"a": 7, "b": 7}
    rounds = [tuple(seen[i : i + 2]) for i in range(2, len(seen), 2)]
    assert set(rounds) == {("a", "b"), ("b", "a")}


def test_a_block_tells_the_time_of_its_calls(script: Script) -> None:
    import time

    turns = script("turns")
    block = turns.time_block(lambda: time.sleep(0.01), 0.0)
    assert len(block.wall_ns) == turns.FEWEST_CALLS
    assert min(block.wall_ns) >= 10e6
    assert block.process_ms < 10  # it slept


def test_a_figure_is_judged_by_its_limit(script: Script) -> None:
    bars, turns = script("bars"), script("turns")
    found = turns.Estimate(value=1.25, low=1.1, high=1.3)
    assert bars.bar("x", found, at_most=1.2)["holds"] is False
    assert bars.bar("x", found, at_least=1.2)["holds"] is True
    assert bars.bar("x", found)["holds"] is None
    said = bars.line(bars.bar("times the floor", found, at_most=1.2))
    assert said == "times the floor: 1.250 (1.100 to 1.300) <= 1.2: MISSED"


def test_what_was_measured_before_stays_in_the_file(script: Script, tmp_path: Path) -> None:
    material = script("material")
    target = tmp_path / "floor.json"
    material.merge_json(target, {"a": {"bars": []}, "b": {"bars": [1]}})
    material.merge_json(target, {"b": {"bars": [2]}})
    document = json.loads(target.read_text())
    assert document["rows"] == {"a": {"bars": []}, "b": {"bars": [2]}}
    assert document["host"]["cores"]


def test_a_child_has_nothing_set_that_tunes_a_blas(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    material = script("material")
    assert not {"OPENBLAS_CORETYPE", "OMP_NUM_THREADS"} & set(material.child_environment(2))
    assert material.child_environment(1)["OMP_NUM_THREADS"] == "1"


def test_a_grown_photo_has_the_size_and_the_bits_of_a_camera_s(script: Script) -> None:
    material = script("material")
    photo = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (213, 160, 3), dtype=np.uint8), (0, 0), 3
    )
    grown = material.grown(photo, 270, 480)
    assert grown.shape == (270, 480, 3)
    bits = 8 * len(material._encode(grown)) / (270 * 480)
    assert bits == pytest.approx(1.7, abs=0.2)


@pytest.mark.parametrize(
    ("size", "wanted", "factor"),
    [
        ((1080, 1920), (160, 160), 4),
        ((1080, 1920), (224, 224), 4),
        ((480, 640), (224, 224), 2),
        ((213, 160), (160, 160), 1),
        ((1792, 1792), (224, 224), 8),
    ],
)
def test_the_floor_decodes_at_the_smallest_scale_that_is_not_below(
    script: Script, tmp_path: Path, size: tuple[int, int], wanted: tuple[int, int], factor: int
) -> None:
    file = tmp_path / "a.jpg"
    cv2.imwrite(str(file), np.zeros((*size, 3), np.uint8))
    frame = cv2.imread(str(file), script("usual").reduced(size, wanted))
    assert frame is not None
    assert frame.shape[0] == -(-size[0] // factor)


def test_both_ways_of_users_normalise_alike(script: Script) -> None:
    usual = script("usual")
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    preprocess = tiny_spec().preprocess
    one, other = usual.numpy_way(frame, preprocess), usual.area_way(frame, preprocess)
    assert one.shape == other.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Smooth pictures of 64 x 48 pixels."""
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        small = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        frame = cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.jpg"), frame)
    return sorted(folder.glob("*.jpg"))


@pytest.mark.runtime
def test_the_rows_come_out_with_their_bars(
    script: Script, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeml_export.to_openvino import openvino_from_onnx

    floor, turns = script("floor"), script("turns")
    model = make_tiny_onnx(tmp_path / "tiny.onnx")
    compiled = openvino_from_onnx(model, tmp_path / "tiny.xml")
    frames = [cv2.imread(str(file)) for file in pictures]
    for name, value in {
        "network": lambda name: model,
        "ir": lambda name: compiled,
        "photos": lambda: pictures,
        "pictures": lambda height, width, count: pictures,
        "frames": lambda height, width, count: frames,
    }.items():
        monkeypatch.setattr(floor, name, value)
    pace = turns.Pace(rounds=1, block_s=0, pause_s=0, warmup_s=0)
    row = floor.jpeg(1, pace)
    judged = {bar["what"]: bar for bar in row["bars"]}
    assert {"times the floor", "usual code over edgeml"} <= set(judged)
    assert judged["score difference, photos as they are"]["holds"] is True
    assert set(row["stages ms"]) == {"decode", "preprocess", "infer", "postprocess"}
    row = floor.overhead(1, pace)
    assert [bar["at_most"] for bar in row["bars"]] == [
        40,
        None,
        40,
        None,
        40,
        None,
        40,
        None,
        None,
        None,
    ]


@pytest.mark.runtime
def test_starts_and_folders_are_measured_in_processes(
    script: Script, pictures: list[Path], tmp_path: Path
) -> None:
    model = make_tiny_onnx(tmp_path / "tiny.onnx")
    starts = script("cold").measure("onnxruntime", model, pictures[0], 1, starts=1)
    for who in ("edgeml", "bare"):
        (start,) = starts[who]["starts"]
        parts = start["import_ms"] + start["load_ms"] + start["first_ms"]
        assert parts == pytest.approx(start["total_ms"])
        assert start["total_ms"] < start["process_ms"]
    found = script("folder").measure(model, pictures, rounds=1)
    assert {who: len(rates) for who, rates in found.items()} == {"edgeml": 1, "floor": 1}
    assert min(found["edgeml"] + found["floor"]) > 0


def one_of(count: int) -> ModelSpec:
    """A spec as the one with ImageNet's classes: one label of all, mean and deviation 0.5."""
    labels = tuple(f"class_{number}" for number in range(count))
    spec = tiny_spec(labels, 224)
    half = replace(spec.preprocess, mean=(0.5,) * 3, std=(0.5,) * 3)
    return replace(spec, preprocess=half, task="multiclass", activation="softmax")


@pytest.mark.runtime
@pytest.mark.parametrize("kind", ["", ":frames"])
def test_a_tool_in_its_process_says_what_edgeml_says(
    script: Script, pictures: list[Path], tmp_path: Path, kind: str
) -> None:
    peers = script("peers")
    model = make_tiny_onnx(tmp_path / "tiny.onnx", spec=one_of(5))
    with Predictor(model) as predictor:
        scores = [predictor.predict(file).scores for file in pictures]
    for tool in ("edgeml-onnxruntime", "cv2.dnn"):
        with peers.open_peer(tool, model, 1, f"{pictures[0].parent}{kind}") as peer:
            assert peer.ask(do="open")["versions"]["numpy"]
            found = peers.agreement(peer.answers(), scores)
            assert found["same best class"] == 4
            assert found["max |dp|"] < 0.02
            assert len(peer.block(0.0).wall_ns) == 3


@pytest.mark.runtime
def test_an_error_of_a_tool_is_recorded_and_the_others_go_on(
    script: Script, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers, turns = script("peers"), script("turns")
    model = make_tiny_onnx(tmp_path / "tiny.onnx", spec=one_of(5))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    for name, value in {
        "network": lambda name: model,
        "for_tool": lambda tool: broken if tool == "cv2.dnn" else model,
        "pictures": lambda height, width, count: pictures,
    }.items():
        monkeypatch.setattr(peers, name, value)
    pace = turns.Pace(rounds=1, block_s=0, pause_s=0, warmup_s=0)
    row = peers.measure(["edgeml-onnxruntime", "cv2.dnn"], "frames", 1, pace)
    assert set(row["ways"]) == {"edgeml-onnxruntime"}
    assert set(row["failures"]) == {"cv2.dnn"}


@pytest.mark.runtime
def test_what_is_written_for_other_tools_computes_the_same(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime
    import openvino

    material = script("material")
    model = make_tiny_onnx(tmp_path / "imagenet.onnx", spec=one_of(1000))
    batch = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)

    def run(path: Path) -> Any:
        return onnxruntime.InferenceSession(path).run(None, {entry(path): batch})[0]

    def entry(path: Path) -> str:
        return str(onnxruntime.InferenceSession(path).get_inputs()[0].name)

    logits = run(model)
    np.testing.assert_array_equal(run(material.for_tool("edgeml-crop")), logits)
    hugging = material.for_tool("transformers") / "model.onnx"
    assert entry(hugging) == "pixel_values"
    np.testing.assert_array_equal(run(hugging), logits)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(material.for_tool("model_api"), "CPU", exact)
    np.testing.assert_allclose(compiled([batch])[0], logits, atol=1e-4)
    normal = onnxruntime.InferenceSession(model).run(None, {"input": (batch - 0.5) / 0.5})[0]
    powers = np.exp(normal - normal.max())
    found = run(material.for_tool("ultralytics"))
    np.testing.assert_allclose(found, powers / powers.sum(), atol=1e-5)
