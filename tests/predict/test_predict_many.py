"""`Predictor.predict_many`: order, errors in their place, bounded memory, and overlap."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeml import EdgemlError, Prediction, Predictor
from edgeml.errors import ImageError, InferenceError, InputError
from edgeml.image.frame import Frame
from tests.tiny import TinyRuntime


def frames(number: int) -> list[Frame]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 30, 3), np.uint8) for _ in range(number)]


def scores(answers: Iterator[Prediction | EdgemlError]) -> list[NDArray[np.float32]]:
    return [answer.scores for answer in answers if isinstance(answer, Prediction)]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_answers_are_those_of_predict_in_the_order_of_the_images(
    batch: int, workers: int
) -> None:
    predictor, images = Predictor(TinyRuntime()), frames(20)
    expected = [predictor.predict(image).scores for image in images]
    many = predictor.predict_many(images, batch=batch, workers=workers)
    np.testing.assert_array_equal(scores(many), expected)


def test_a_bad_image_is_an_error_in_its_place_and_the_rest_goes_on() -> None:
    images: list[Any] = frames(10)
    images[3], images[4], images[8] = b"no image", "absent.jpg", np.zeros((2, 2))
    answers = list(Predictor(TinyRuntime()).predict_many(images, batch=4))
    assert [type(answer) for answer in answers[3:5]] == [ImageError, ImageError]
    assert type(answers[8]) is InputError
    good = [i for i, answer in enumerate(answers) if isinstance(answer, Prediction)]
    assert good == [0, 1, 2, 5, 6, 7, 9]


def test_of_a_run_that_fails_each_image_is_tried_alone() -> None:
    # The second batch fails as run 1, then its first image alone as run 2.
    runtime = TinyRuntime(failing={1, 2})
    answers = list(Predictor(runtime).predict_many(frames(6), batch=2, workers=1))
    kinds = [type(answer) for answer in answers]
    assert kinds == [Prediction] * 2 + [InferenceError] + [Prediction] * 3


def test_no_more_images_are_taken_than_two_batches_for_each_worker() -> None:
    taken = 0

    def endless() -> Iterator[Frame]:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((8, 8, 3), np.uint8)

    many = Predictor(TinyRuntime()).predict_many(endless(), batch=3, workers=2)
    for read in range(1, 25):
        assert isinstance(next(many), Prediction)
        assert taken <= read + 2 * 2 * 3 + 2  # the batch that is being handed out counts as read
    many.close()  # type: ignore[attr-defined]


def test_workers_run_at_the_same_time() -> None:
    together = threading.Barrier(3)

    class Meeting(TinyRuntime):
        def run(self, batch: Any, /) -> NDArray[np.float32]:
            together.wait(timeout=30)  # alone, each would wait for ever
            return super().run(batch)

    assert len(scores(Predictor(Meeting()).predict_many(frames(6), workers=3))) == 6


def test_who_stops_reading_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    many = Predictor(TinyRuntime()).predict_many(frames(50), workers=4)
    next(many)
    many.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_error_of_the_source_of_images_comes_through() -> None:
    def broken() -> Iterator[Frame]:
        yield from frames(3)
        raise KeyError("camera")

    with pytest.raises(KeyError, match="camera"):
        list(Predictor(TinyRuntime()).predict_many(broken()))


def test_a_closed_predictor_ends_it() -> None:
    predictor = Predictor(TinyRuntime())
    many = predictor.predict_many(iter(frames(100)), workers=2)
    next(many)
    predictor.close()
    with pytest.raises(InferenceError, match="closed"):
        list(many)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"workers": -1}])
def test_a_number_that_cannot_be_meant_is_refused_at_once(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Predictor(TinyRuntime()).predict_many([], **wrong)  # type: ignore[arg-type]


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_both_modes_give_what_single_images_give(runtime: str, mode: Any, tiny_onnx: Path) -> None:
    pytest.importorskip(runtime)
    images = frames(60)
    with Predictor(tiny_onnx, runtime=runtime) as single:
        expected = [single.predict(image).scores for image in images]
    with Predictor(tiny_onnx, runtime=runtime, mode=mode, threads=2) as predictor:
        np.testing.assert_allclose(
            scores(predictor.predict_many(images, batch=2)), expected, atol=1e-6
        )
