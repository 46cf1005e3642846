"""Arrays that are accepted, and the errors for others: the same in every runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgeml import EdgemlError, Predictor
from edgeml.errors import ImageError, InferenceError, InputError
from tests.tiny import TinyRuntime

FRAME = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
BATCH = np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype(np.float32)


class Subclass(np.ndarray):  # type: ignore[type-arg]
    pass


def broken(value: float, batch: NDArray[np.float32] = BATCH) -> NDArray[np.float32]:
    copy = batch.copy()
    copy[1, 2, 3, 4] = value
    return copy


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def shifted(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy whose elements are not aligned."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[:] = array
    return view


# What reads as the same numbers gives the same result.
FRAMES: dict[str, Callable[[], Any]] = {
    "as it is": lambda: FRAME,
    "Fortran's order": lambda: np.asfortranarray(FRAME),
    "a view with gaps": lambda: np.repeat(np.repeat(FRAME, 2, 0), 3, 1)[::2, ::3],
    "turned and turned back": lambda: FRAME[::-1][::-1],
    "negative strides": lambda: np.ascontiguousarray(FRAME[::-1, ::-1, ::-1])[::-1, ::-1, ::-1],
    "read-only": lambda: read_only(FRAME),
    "a subclass": lambda: FRAME.view(Subclass),
    "a window": lambda: np.pad(FRAME, ((3, 4), (5, 6), (0, 0)))[3:-4, 5:-6],
}

# The mending line of each message, run on the array, makes a frame of it.
NO_FRAMES: dict[str, tuple[Callable[[], Any], type[EdgemlError], str]] = {
    "grey": (lambda: FRAME[..., 0], InputError, "COLOR_GRAY2BGR"),
    "grey, three axes": (lambda: FRAME[..., :1], InputError, "COLOR_GRAY2BGR"),
    "two channels": (lambda: FRAME[..., :2], InputError, r"\(40, 30, 2\) uint8\."),
    "BGRA": (lambda: np.dstack([FRAME, FRAME[..., 0]]), InputError, "COLOR_BGRA2BGR"),
    "channels first": (lambda: FRAME.transpose(2, 0, 1), InputError, r"transpose\(1, 2, 0\)"),
    "a batch": (lambda: FRAME[None], InputError, r"predict_batch\(list"),
    "five axes": (lambda: FRAME[None, None], InputError, r"\(1, 1, 40, 30, 3\)"),
    "one axis": (lambda: FRAME.ravel(), InputError, r"\(3600,\)"),
    "no axis": (lambda: np.array(3, np.uint8), InputError, r"\(\) uint8"),
    "no rows": (lambda: FRAME[:0], InputError, "no pixel"),
    "no columns": (lambda: FRAME[:, :0], InputError, "no pixel"),
    "no channels": (lambda: FRAME[..., :0], InputError, "no pixel"),
    "float64 of 0 to 1": (lambda: FRAME / 255, InputError, r"255 \* frame"),
    "float32 of 0 to 255": (lambda: FRAME.astype(np.float32), InputError, "float32"),
    "float16": (lambda: FRAME.astype(np.float16), InputError, "float16"),
    "NaN": (lambda: np.full((8, 8, 3), np.nan), InputError, "float64"),
    "Inf": (lambda: np.full((8, 8, 3), np.inf, np.float32), InputError, "float32"),
    "int8": (lambda: FRAME.astype(np.int8), InputError, r"frame\.astype\(np\.uint8\)"),
    "int64": (lambda: FRAME.astype(np.int64), InputError, r"frame\.astype\(np\.uint8\)"),
    "uint16": (lambda: FRAME.astype(np.uint16) << 8, InputError, r"frame >> 8"),
    "big-endian uint16": (lambda: FRAME.astype(">u2"), InputError, r"frame >> 8"),
    "uint32": (lambda: FRAME.astype(np.uint32), InputError, "uint32"),
    "bool": (lambda: FRAME > 9, InputError, r"bool"),
    "complex": (lambda: FRAME.astype(complex), InputError, "complex128"),
    "objects": (lambda: FRAME.astype(object), InputError, "object"),
    "text": (lambda: FRAME.astype("U3"), InputError, "U3"),
    "dates": (lambda: FRAME.astype("M8[s]"), InputError, "datetime64"),
    "a structure": (lambda: np.zeros((4, 4, 3), [("r", "u1")]), InputError, r"\(4, 4, 3\)"),
    "masked": (lambda: np.ma.masked_less(FRAME, 9), InputError, r"filled\(0\)"),
    "a list": (lambda: FRAME.tolist(), ImageError, "list"),
    "a number": (lambda: 3, ImageError, "int"),
    "None": (lambda: None, ImageError, "NoneType"),
}

BATCHES: dict[str, Callable[[], Any]] = {
    "as it is": lambda: BATCH,
    "Fortran's order": lambda: np.asfortranarray(BATCH),
    "negative strides": lambda: np.ascontiguousarray(BATCH[::-1, ::-1])[::-1, ::-1],
    "channels last in memory": lambda: np.ascontiguousarray(BATCH.transpose(0, 2, 3, 1)).transpose(
        0, 3, 1, 2
    ),
    "read-only": lambda: read_only(BATCH),
    "not aligned": lambda: shifted(BATCH),
    "a subclass": lambda: BATCH.view(Subclass),
}

NO_BATCHES: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: broken(np.nan), "not finite"),
    "Inf": (lambda: broken(np.inf), "not finite"),
    "-Inf": (lambda: broken(-np.inf), "not finite"),
    "both": (lambda: broken(-np.inf, broken(np.inf)[::-1]), "not finite"),
    "float64": (lambda: BATCH.astype(np.float64), r"\(2, 3, 32, 32\) float64"),
    "float16": (lambda: BATCH.astype(np.float16), "float16"),
    "big-endian": (lambda: BATCH.astype(">f4"), ">f4"),
    "integers": (lambda: BATCH.astype(np.int32), "int32"),
    "uint8": (lambda: BATCH.astype(np.uint8), "uint8"),
    "bool": (lambda: BATCH > 0, "bool"),
    "objects": (lambda: BATCH.astype(object), "object"),
    "complex": (lambda: BATCH.astype(np.complex64), "complex64"),
    "one image": (lambda: BATCH[0], r"\(3, 32, 32\)"),
    "another size": (lambda: BATCH[..., :16], r"\(2, 3, 32, 16\)"),
    "channels last": (lambda: BATCH.transpose(0, 2, 3, 1), r"\(2, 32, 32, 3\)"),
    "no image": (lambda: BATCH[:0], r"\(0, 3, 32, 32\)"),
    "no rows": (lambda: BATCH[:, :, :0], r"\(2, 3, 0, 32\)"),
    "five axes": (lambda: BATCH[None], r"\(1, 2, 3, 32, 32\)"),
    "a list": (lambda: BATCH.tolist(), "list"),
    "None": (lambda: None, "NoneType"),
}


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def predictor(request: pytest.FixtureRequest, tiny_onnx: Path) -> Iterator[Predictor]:
    pytest.importorskip(request.param)
    with Predictor(tiny_onnx, runtime=request.param) as opened:
        yield opened


@pytest.mark.runtime
@pytest.mark.parametrize("case", FRAMES)
def test_a_frame_in_any_memory_is_the_same_frame(case: str, predictor: Predictor) -> None:
    expected = predictor.predict(FRAME.copy()).scores
    np.testing.assert_array_equal(predictor.predict(FRAMES[case]()).scores, expected)


@pytest.mark.runtime
def test_a_frame_on_disk_is_the_same_frame(predictor: Predictor, tmp_path: Path) -> None:
    np.save(tmp_path / "frame.npy", FRAME)
    mapped = np.load(tmp_path / "frame.npy", mmap_mode="r")
    expected = predictor.predict(FRAME).scores
    np.testing.assert_array_equal(predictor.predict(mapped).scores, expected)


@pytest.mark.runtime
@pytest.mark.parametrize("case", NO_FRAMES)
def test_what_is_no_frame_is_refused_with_what_mends_it(case: str, predictor: Predictor) -> None:
    make, kind, message = NO_FRAMES[case]
    with pytest.raises(kind, match=message) as error:
        predictor.predict(make())
    assert type(error.value) is kind
    with pytest.raises(kind) as elsewhere:
        Predictor(TinyRuntime()).predict(make())
    assert str(error.value) == str(elsewhere.value)


@pytest.mark.parametrize(
    "array",
    [FRAME[..., 0], np.dstack([FRAME, FRAME[..., 0]]), FRAME / 255, FRAME.astype(np.int64)],
)
def test_the_line_in_the_message_makes_a_frame(array: NDArray[Any]) -> None:
    import cv2

    with pytest.raises(InputError) as error:
        Predictor(TinyRuntime()).predict(array)
    line = str(error.value).rpartition(": ")[2].rstrip(".")
    mended = eval(line, {"cv2": cv2, "np": np, "frame": array})
    assert Predictor(TinyRuntime()).predict(mended).scores.shape == (3,)


@pytest.mark.runtime
def test_a_picture_of_pil_is_one_in_any_mode(predictor: Predictor) -> None:
    for mode in ("RGB", "L", "RGBA", "P", "1", "CMYK", "YCbCr"):
        image = Image.fromarray(FRAME[..., ::-1]).convert(mode)
        expected = predictor.predict(np.asarray(image.convert("RGB"))[..., ::-1]).scores
        np.testing.assert_array_equal(predictor.predict(image).scores, expected)


@pytest.mark.runtime
@pytest.mark.train
def test_a_tensor_of_torch_is_refused_as_a_list_is(predictor: Predictor) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(ImageError, match="Tensor"):
        predictor.predict(torch.from_numpy(FRAME))
    with pytest.raises(InputError, match="Tensor"):
        predictor.runtime.run(torch.from_numpy(BATCH))


@pytest.mark.runtime
@pytest.mark.parametrize("case", BATCHES)
def test_a_batch_in_any_memory_is_the_same_batch(case: str, predictor: Predictor) -> None:
    expected = BATCH.mean(axis=(2, 3)) @ TinyRuntime()._weights.T
    np.testing.assert_allclose(predictor.runtime.run(BATCHES[case]()), expected, atol=1e-5)


@pytest.mark.runtime
@pytest.mark.parametrize("case", NO_BATCHES)
def test_what_is_no_batch_is_refused_in_the_same_words(case: str, tiny_onnx: Path) -> None:
    make, message = NO_BATCHES[case]
    messages = set()
    for runtime in ("onnxruntime", "openvino"):
        pytest.importorskip(runtime)
        with (
            Predictor(tiny_onnx, runtime=runtime) as predictor,
            pytest.raises(InputError, match=message) as error,
        ):
            predictor.runtime.run(make())
        messages.add(str(error.value))
    assert len(messages) == 1


@pytest.mark.runtime
def test_only_batches_from_elsewhere_are_searched_for_nan(predictor: Predictor) -> None:
    batch = predictor.prepare([FRAME, FRAME[::-1]])
    expected = predictor.runtime.run(batch)
    np.testing.assert_array_equal(predictor.infer(batch), expected)
    np.testing.assert_array_equal(predictor.logits([FRAME, FRAME[::-1]]), expected)
    # A network's output is still refused, although its input was not searched.
    with pytest.raises(InferenceError, match="not a finite number"):
        predictor.interpret(predictor.infer(broken(np.nan)))


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_runtime_of_any_origin_is_not_run_on_nan(batch: int | None) -> None:
    class Fixed(TinyRuntime):
        @property
        def input_shape(self) -> tuple[int | None, int, int, int]:
            return (batch, *super().input_shape[1:])

    runtime = Predictor(Fixed()).runtime
    np.testing.assert_allclose(runtime.run(BATCH), TinyRuntime().run(BATCH), rtol=1e-6)
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="not finite"):
            runtime.run(broken(value))
