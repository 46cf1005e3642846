"""Good, bad and hostile files give a result or an error with a reason, the same everywhere."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from edgeml import Predictor
from edgeml.errors import ImageError, ImageReason
from edgeml.image.reading import read_image
from tests.image.corpus import CORPUS, corpus, picture, write_corpus
from tests.tiny import TinyRuntime

ROOT = Path(__file__).parents[2]
WAYS = ("path", "bytes", "PathLike", "batch")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def measured(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Read every file in a process of its own, in a process with nothing else in it."""
    if not hasattr(os, "fork"):
        pytest.skip("memory is measured in forks, which this system has not")
    return json.loads(_run("tests.image.corpus", str(files[0].parent)))  # type: ignore[no-any-return]


def _run(*module: str) -> str:
    """Run a module of the tests in a process that has loaded nothing but OpenCV."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *module], cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.slow
def test_each_file_gives_a_frame_or_its_reason_in_little_memory(
    measured: dict[str, dict[str, Any]], name: str, way: str
) -> None:
    found, expected = measured[f"{name}, {way}"], CORPUS[name][1]
    if isinstance(expected, tuple) and way == "batch":
        assert found["verdict"] == [3, 3]  # the batch (3, 3, 32, 32) of the file and a good picture
    else:
        assert found["verdict"] == (list(expected) if isinstance(expected, tuple) else expected)
    assert found["megabytes"] <= 300


def _assert_mutants_do_no_harm(seed: int, count: int) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("mutants are read in forks, which this system has not")
    found = json.loads(_run("tests.image.fuzz", str(seed), str(count)))
    assert found["mutants"] == count
    assert found["wrong"] == []


@pytest.mark.slow
def test_no_mutant_crashes_or_takes_more_than_300_mb() -> None:
    _assert_mutants_do_no_harm(seed=0, count=1000)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 11))
def test_none_of_a_hundred_thousand_mutants_crashes_or_takes_more_than_300_mb(seed: int) -> None:
    _assert_mutants_do_no_harm(seed, count=10_000)


def _onnxruntime(model: Path) -> Predictor:
    pytest.importorskip("onnxruntime")
    return Predictor(model, runtime="onnxruntime")


def _openvino(model: Path) -> Predictor:
    pytest.importorskip("openvino")
    return Predictor(model, runtime="openvino")


PREDICTORS: dict[str, Callable[[Path], Predictor]] = {
    "numpy": lambda model: Predictor(TinyRuntime()),
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


@pytest.mark.parametrize(
    "runtime",
    ["numpy", *(pytest.param(r, marks=pytest.mark.runtime) for r in ("onnxruntime", "openvino"))],
)
def test_the_verdict_is_the_same_in_each_runtime(
    files: Sequence[Path], runtime: str, request: pytest.FixtureRequest
) -> None:
    model = Path() if runtime == "numpy" else request.getfixturevalue("tiny_onnx")
    with PREDICTORS[runtime](model) as predictor:
        for file in files:
            expected, data = CORPUS[file.name][1], file.read_bytes()
            for images in ([str(file)], [data], [file], [picture(), file, data]):
                good = isinstance(expected, tuple)
                assert _verdict(predictor, images) == (len(images) if good else expected), file.name


def _verdict(predictor: Predictor, images: Sequence[Any]) -> int | str:
    try:
        return len(predictor.predict_batch(images))
    except ImageError as err:
        return err.reason


def test_an_error_says_its_reason_and_its_source(files: Sequence[Path]) -> None:
    for file in files:
        data, expected = corpus()[file.name]
        if isinstance(expected, tuple):
            continue
        assert expected in get_args(ImageReason)
        for image, source in ((file, str(file)), (data, None)):
            with pytest.raises(ImageError) as caught:
                read_image(image)
            assert (caught.value.reason, caught.value.source) == (expected, source)
            message = str(caught.value)
            assert "\n" not in message
            assert source is None or file.name in message


def test_an_error_comes_whole_out_of_another_process() -> None:
    with pytest.raises(ImageError) as caught:
        read_image("gone.jpg")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.reason, copy.source) == (str(caught.value), "missing", "gone.jpg")
