"""docs/json.md: the keys of each example are those that the command prints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.command import Command, colour_folders
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
EXAMPLES = {
    command.split()[1] if command.split()[1] != "data" else "audit": json.loads(example)
    for command, example in re.findall(
        r"^## (edgeml .*?)\n.*?^```json\n(.*?)^```", TEXT, re.M | re.S
    )
}


def shape(value: Any) -> Any:
    """Reduce a document to its keys and the types of its values; of a list, to its first entry."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value[:1]]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return type(value).__name__
    return "number"


def differences(documented: Any, printed: Any, path: str = "") -> list[str]:
    """Return the paths at which two shapes differ; null and an empty list fit anything."""
    if "NoneType" in (documented, printed) or [] in (documented, printed):
        return []
    if isinstance(documented, dict) and isinstance(printed, dict):
        keys = [f"{path}.{key}" for key in sorted(documented.keys() ^ printed.keys())]
        both = documented.keys() & printed.keys()
        return keys + [
            line
            for key in sorted(both)
            for line in differences(documented[key], printed[key], f"{path}.{key}")
        ]
    if isinstance(documented, list) and isinstance(printed, list):
        return differences(documented[0], printed[0], f"{path}[]")
    return [] if documented == printed else [f"{path}: {documented} is {printed}"]


def test_a_missing_key_and_another_type_are_found() -> None:
    documented, printed = shape({"a": 1, "b": [{"c": "x"}]}), shape({"b": [{"c": 2}]})
    assert differences(documented, printed) == [".a", ".b[].c: str is number"]


def test_every_format_in_the_code_is_in_the_table() -> None:
    sources = [*(ROOT / "edgeml").rglob("*.py"), *(ROOT / "export").rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert set(re.findall(r"\"(edgeml(?:\.\w+)?/\d)\"", code)) == set(
        re.findall(r"^\| `(edgeml\S+)`", TEXT, re.M)
    )


@pytest.mark.runtime
@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_a_command_prints_the_documented_keys(
    command: str, edgeml: Command, tiny_onnx: Path, tmp_path: Path
) -> None:
    photos = colour_folders(tmp_path / "photos", each=20)
    split = tmp_path / "split.csv"
    edgeml("data", "split", photos, "--out", split)
    xml = tmp_path / "model.fp16.xml"
    words = {
        "eval": ("eval", tiny_onnx, split),
        "export": ("export", tiny_onnx, "--fmt", "openvino", "--precision", "fp16",
                   "--check", split, "--out", xml),
        "compare": ("compare", tiny_onnx, tiny_onnx, "--data", split),
        "verify": ("verify", tiny_onnx),
        "predict": ("predict", tiny_onnx, photos / "red" / "0.png"),
        "stream": ("stream", tiny_onnx, photos / "red"),
        "bench": ("bench", tiny_onnx, "--seconds", "0.1"),
        "inspect": ("inspect", tiny_onnx),
        "audit": ("data", "audit", photos),
        "doctor": ("doctor",),
    }[command]  # fmt: skip
    printed = edgeml(*words, "--json").json
    assert differences(shape(EXAMPLES[command]), shape(printed)) == []


@pytest.mark.runtime
def test_a_stream_writes_the_documented_lines(
    edgeml: Command, tiny_onnx: Path, tmp_path: Path
) -> None:
    photos = colour_folders(tmp_path / "photos", each=2)
    edgeml("stream", tiny_onnx, photos / "red", "--out", tmp_path / "labels.jsonl")
    lines = (tmp_path / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    (example,) = re.findall(r"^```jsonl\n(.*?)^```", TEXT, re.M | re.S)
    for documented, printed in zip(example.splitlines(), lines, strict=False):
        assert differences(shape(json.loads(documented)), shape(json.loads(printed))) == []
