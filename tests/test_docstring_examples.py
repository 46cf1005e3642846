"""The examples in the docstrings of the public entry points run and print what they show."""

from __future__ import annotations

import doctest
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from tests.command import Command, colour_folders

pytestmark = pytest.mark.runtime

EXAMPLES = {
    "Predictor": "edgeml.predict.predictor",
    "ModelSpec": "edgeml.spec.model_spec",
    "export": "edgeml_export.pipeline",
    "run_stream": "edgeml.streaming.pipeline",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_shows(
    name: str, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Command
) -> None:
    shutil.copy(tiny_onnx, tmp_path / "model.onnx")
    folders = colour_folders(tmp_path / "folders", each=20)
    shutil.copy(folders / "red" / "0.png", tmp_path / "red.png")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        shutil.copy(folders / "red" / f"{number}.png", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    edgeml("data", "split", "folders", "--out", "split.csv")
    module = import_module(EXAMPLES[name])
    tests = doctest.DocTestFinder(recurse=False).find(
        getattr(module, name), name, globs={**vars(module), "Path": Path}
    )
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert sum(result.attempted for result in results) >= 2
    assert sum(result.failed for result in results) == 0
