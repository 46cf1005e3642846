from __future__ import annotations

import io
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image

from edgeml import LabelGroup, Predictor
from edgeml.errors import (
    ImageError,
    InferenceError,
    InputError,
    ModelLoadError,
    SpecError,
)
from edgeml.image.frame import Frame
from tests.tiny import LABELS, TinyRuntime, make_tiny_onnx, tiny_spec

RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)  # BGR


def plain(colour: tuple[int, int, int], height: int = 48, width: int = 64) -> Frame:
    frame: Frame = np.empty((height, width, 3), np.uint8)
    frame[:] = colour
    return frame


def test_predict_names_the_label_that_is_present() -> None:
    prediction = Predictor(TinyRuntime()).predict(plain(GREEN))
    assert prediction.labels == ("green",)
    assert prediction.top(1)[0][0] == "green"


def test_scores_are_the_sigmoid_of_the_logits_in_the_specs_order() -> None:
    predictor = Predictor(TinyRuntime())
    frame = plain(BLUE)
    logits = predictor.logits([frame])[0].astype(np.float64)
    prediction = predictor.predict(frame)
    np.testing.assert_allclose(prediction.scores, 1 / (1 + np.exp(-logits)), rtol=1e-6)
    assert prediction.scores.dtype == np.float32
    assert list(prediction.to_dict()["scores"]) == list(LABELS)


def test_a_batch_gives_what_single_images_give_bit_for_bit() -> None:
    predictor = Predictor(TinyRuntime())
    frames = [plain(RED), plain(GREEN, 31, 77), plain(BLUE, 200, 10)]
    singly = [predictor.predict(frame).scores for frame in frames]
    batch = predictor.predict_batch(frames)
    np.testing.assert_array_equal([p.scores for p in batch], singly)
    assert predictor.predict_batch([]) == []


def test_path_bytes_pil_and_array_are_the_same_image(tmp_path: Path) -> None:
    frame = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), (0, 0), 3
    )
    path = tmp_path / "ein Bild – größer.png"
    path.write_bytes(cv2.imencode(".png", frame)[1].tobytes())
    pil = Image.open(io.BytesIO(path.read_bytes()))
    predictor = Predictor(TinyRuntime())
    first, *others = (
        predictor.predict(image).scores
        for image in (frame, path, str(path), path.read_bytes(), pil)
    )
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), InputError, r"\(4, 4, 3\) float32"),
        (np.zeros((4, 4), np.uint8), InputError, r"\(4, 4\) uint8"),
        (np.zeros((0, 4, 3), np.uint8), InputError, r"\(0, 4, 3\)"),
        (b"", ImageError, "empty"),
        (b"no image", ImageError, "damaged"),
        ("missing.jpg", ImageError, r"missing\.jpg"),
        (3.5, ImageError, "float"),
    ],
)
def test_what_is_no_image_is_refused_in_words(
    image: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Predictor(TinyRuntime()).predict(image)


def test_the_group_rule_picks_one_label() -> None:
    group = LabelGroup(name="colour", labels=LABELS, rule="one")
    spec = replace(tiny_spec(), thresholds=(1.0,) * 3, groups=(group,))
    assert Predictor(TinyRuntime(), spec=spec).predict(plain(RED)).labels == ("red",)
    without = replace(spec, groups=())
    assert Predictor(TinyRuntime(), spec=without).predict(plain(RED)).labels == ()


def test_a_closed_predictor_says_so() -> None:
    with Predictor(TinyRuntime()) as predictor:
        predictor.predict(plain(RED))
    with pytest.raises(InferenceError, match="closed"):
        predictor.predict(plain(RED))


def test_an_output_that_is_not_finite_is_refused() -> None:
    predictor = Predictor(TinyRuntime())
    with pytest.raises(InferenceError, match="finite"):
        predictor.interpret(np.array([[np.nan, 0, 0]], np.float32))


def test_a_spec_that_does_not_fit_the_model_is_refused_on_loading() -> None:
    with pytest.raises(SpecError, match="32, 32"):
        Predictor(TinyRuntime(), spec=tiny_spec(size=64))


def test_a_spec_of_another_width_is_refused() -> None:
    predictor = Predictor(TinyRuntime(), spec=tiny_spec(labels=("red", "green")))
    with pytest.raises(InferenceError, match="2 labels"):
        predictor.predict(plain(RED))


def test_a_model_without_spec_is_refused_and_both_places_are_named() -> None:
    runtime = TinyRuntime()
    mute = type("Mute", (TinyRuntime,), {"metadata": {}})()
    with pytest.raises(SpecError, match="no spec inside"):
        Predictor(mute)
    assert Predictor(mute, spec=runtime.spec).predict(plain(RED)).labels == ("red",)


@pytest.mark.runtime
class TestOnRealRuntimes:
    @pytest.fixture(params=["onnxruntime", "openvino"])
    def predictor(self, request: pytest.FixtureRequest, tiny_onnx: Path) -> Predictor:
        pytest.importorskip(request.param)
        return Predictor(tiny_onnx, runtime=request.param)

    def test_it_agrees_with_the_same_network_in_numpy(self, predictor: Predictor) -> None:
        frames = [plain(RED), plain(GREEN), plain((40, 90, 200))]
        expected = Predictor(TinyRuntime()).logits(frames)
        np.testing.assert_allclose(predictor.logits(frames), expected, rtol=1e-5, atol=1e-5)

    def test_it_may_be_shared_between_threads(self, predictor: Predictor) -> None:
        rng = np.random.default_rng(0)
        frames = [plain(tuple(rng.integers(0, 256, 3))) for _ in range(16)]
        expected = [predictor.predict(frame).scores for frame in frames]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda i: predictor.predict(frames[i % 16]).scores, range(480)))
        for i, scores in enumerate(results):
            np.testing.assert_array_equal(scores, expected[i % 16])

    def test_closing_it_is_final(self, predictor: Predictor) -> None:
        predictor.close()
        with pytest.raises(InferenceError, match="closed"):
            predictor.predict(plain(RED))

    def test_an_fp32_file_is_computed_in_fp32(self, predictor: Predictor) -> None:
        assert predictor.runtime.metadata["precision"] == "f32"


@pytest.mark.runtime
def test_a_sidecar_wins_over_the_spec_inside(tmp_path: Path) -> None:
    path = make_tiny_onnx(tmp_path / "model.onnx")
    strict = replace(tiny_spec(), thresholds=(1.0, 1.0, 1.0))
    (tmp_path / "model.onnx.json").write_text(strict.to_json(), encoding="utf-8")
    assert Predictor(path).predict(plain(RED)).labels == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.onnx", None, "no model"),
        ("model.tflite", b"x", "model.tflite"),
        ("broken.onnx", b"not a protobuf", "refuses"),
        ("broken.xml", b"<net", "refuses"),
    ],
)
@pytest.mark.runtime
def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=message):
        Predictor(tmp_path / name)


def test_an_unknown_runtime_or_device_is_refused(tiny_onnx: Path) -> None:
    with pytest.raises(InputError, match="tflite"):
        Predictor(tiny_onnx, runtime="tflite")
    with pytest.raises(InputError, match="npu7"):
        Predictor(tiny_onnx, device="npu7")


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
class TestALife:
    """What happens to a Predictor beside predicting."""

    @pytest.fixture(autouse=True)
    def _installed(self, runtime: str) -> None:
        pytest.importorskip(runtime)

    def test_closing_while_others_predict_gives_results_or_an_error(
        self, runtime: str, tiny_onnx: Path
    ) -> None:
        for _ in range(10):
            predictor = Predictor(tiny_onnx, runtime=runtime)
            expected = predictor.predict(plain(RED)).scores
            started = threading.Barrier(5)

            def work(predictor: Predictor = predictor, started: Any = started) -> list[Any]:
                results: list[Any] = []
                started.wait(30)
                for _ in range(30):
                    try:
                        results.append(predictor.predict(plain(RED)).scores)
                    except InferenceError as err:
                        results.append(str(err))
                return results

            with ThreadPoolExecutor(4) as pool:
                futures = [pool.submit(work) for _ in range(4)]
                started.wait(30)
                predictor.close()
                predictor.close()
            for one in [one for future in futures for one in future.result()]:
                if isinstance(one, str):
                    assert "closed" in one
                else:
                    np.testing.assert_array_equal(one, expected)

    def test_two_of_one_file_do_not_disturb_each_other(self, runtime: str, tiny_onnx: Path) -> None:
        with Predictor(tiny_onnx, runtime=runtime) as one:
            with Predictor(tiny_onnx, runtime=runtime) as two:
                np.testing.assert_array_equal(
                    one.predict(plain(RED)).scores, two.predict(plain(RED)).scores
                )
            assert one.predict(plain(RED)).labels == ("red",)

    def test_one_that_is_forgotten_is_freed(self, runtime: str, tiny_onnx: Path) -> None:
        predictor = Predictor(tiny_onnx, runtime=runtime)
        predictor.predict(plain(RED))
        left = weakref.ref(predictor.runtime)
        del predictor
        assert left() is None  # at once: nothing holds on to it, and it is in no cycle

    def test_warmed_up_it_has_run_before_the_first_image(
        self, runtime: str, tiny_onnx: Path
    ) -> None:
        with Predictor(tiny_onnx, runtime=runtime, warm_up=True) as predictor:
            assert predictor.predict(plain(GREEN)).labels == ("green",)

    @pytest.mark.nightly
    def test_five_hundred_in_turn_leave_no_memory_files_or_threads(
        self, runtime: str, tiny_onnx: Path
    ) -> None:
        process = psutil.Process()

        def once() -> None:
            with Predictor(tiny_onnx, runtime=runtime) as predictor:
                predictor.predict(plain(RED))

        for _ in range(50):
            once()
        before = process.memory_info().rss, process.num_fds(), process.num_threads()
        for _ in range(500):
            once()
        after = process.memory_info().rss, process.num_fds(), process.num_threads()
        assert after[0] - before[0] < 10 * 2**20
        assert after[1:] == before[1:]


def test_warming_up_runs_the_network_once() -> None:
    runtime = TinyRuntime()
    Predictor(runtime, warm_up=True)
    assert runtime.runs == 1


@pytest.mark.train
def test_a_run_folder_is_safe_to_share_and_refuses_what_the_others_refuse(
    tmp_path: Path,
) -> None:
    torch = pytest.importorskip("torch")
    from edgeml.runtimes.torch_ import TorchRuntime

    runtime = object.__new__(TorchRuntime)  # a module without a checkpoint
    pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    runtime.__dict__.update(
        _module=pooled.eval(),
        _device="cpu",
        _process=os.getpid(),
        name=f"torch {torch.__version__} CPU",
        input_shape=(None, 3, 32, 32),
        metadata={"edgeml": tiny_spec().to_json()},
    )
    with Predictor(runtime) as predictor:
        frames = [plain((i, 2 * i, 3 * i)) for i in range(60)]
        alone = [predictor.predict(frame).scores for frame in frames]
        with ThreadPoolExecutor(8) as pool:
            together = list(
                pool.map(lambda i: predictor.predict(frames[i % 60]).scores, range(480))
            )
        for i, scores in enumerate(together):
            np.testing.assert_array_equal(scores, alone[i % 60])
        with pytest.raises(InputError, match="not finite"):
            predictor.runtime.run(np.full((1, 3, 32, 32), np.nan, np.float32))
        runtime.__dict__["_process"] = -1
        with pytest.raises(InferenceError, match="PyTorch does not survive"):
            predictor.predict(plain(RED))
