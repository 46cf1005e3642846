"""Correct specs are read without pydantic; pydantic words what is wrong with others."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edgeml import LabelGroup, ModelSpec, Preprocess
from edgeml.errors import SpecError
from edgeml.spec.plain import UnusualValueError, read_plain
from edgeml.spec.provenance import Provenance, SplitPlan
from tests.tiny import tiny_spec

SPEC = ModelSpec(
    labels=("rot", "grün", "blue"),
    thresholds=(0.5, 0.25, 1.0),
    preprocess=Preprocess(size=(32, 48), resize="crop", crop=0.875),
    groups=(LabelGroup(name="colour", labels=("rot", "grün"), rule="one"),),
    metrics={"mAP": 0.5},
    provenance=Provenance(data_sha256="abc", split=SplitPlan(), notes={"torch": "2"}),
)
READER = TypeAdapter(ModelSpec)


def document() -> dict[str, Any]:
    return {k: v for k, v in json.loads(SPEC.to_json()).items() if k != "format"}


def test_a_correct_spec_is_read_as_pydantic_reads_it() -> None:
    spec = read_plain(ModelSpec, document())
    assert spec == READER.validate_json(json.dumps(document()), strict=True) == SPEC
    assert type(spec.thresholds[2]) is float


def test_a_correct_spec_is_read_without_importing_pydantic() -> None:
    code = (
        "import sys; from edgeml import ModelSpec; ModelSpec.from_json(sys.stdin.read()); "
        "assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], input=SPEC.to_json().encode(), check=True)


_UNUSUAL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "one", "rot", "1", "sigmoid", "\ud800", 10**400, -0.0, 1, 0, 2**60]),
    st.lists(st.one_of(st.integers(0, 3), st.text(max_size=2), st.floats()), max_size=3),
    st.dictionaries(st.sampled_from(["a", "name", "\udfff"]), st.integers(), max_size=2),
)


def _paths(value: Any) -> list[list[Any]]:
    """Return the path of keys to each value in a document."""
    paths: list[list[Any]] = [[]]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    if isinstance(value, (dict, list)):
        for key, one in list(inner):
            paths += [
                [key, *path] for path in (_paths(one) if isinstance(one, (dict, list)) else [[]])
            ]
    return paths


@given(st.data())
def test_pydantic_reads_each_accepted_document_as_the_same_spec(data: st.DataObject) -> None:
    changed = document()
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([path for path in _paths(changed) if path]))
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        kind = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if kind == "replace":
            holder[path[-1]] = data.draw(_UNUSUAL)
        elif kind == "remove":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder["unusual"] = data.draw(_UNUSUAL)
    spec = None
    with suppress(ValueError, TypeError):
        spec = read_plain(ModelSpec, changed)
    if spec is not None:
        assert spec == READER.validate_json(json.dumps(changed), strict=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"thresholds": [0.5, 0.5]},
        {"thresholds": ["a", 0.5, 0.5]},
        {"labels": "rot"},
        {"colour": 1},
        {"preprocess": {"size": [8, 8.5]}},
        {"task": "regression"},
        {"thresholds": [10**400, 0.5, 0.5]},
    ],
)
def test_a_wrong_field_is_reported_with_the_message_of_pydantic(wrong: dict[str, Any]) -> None:
    changed = {**document(), **wrong}
    with pytest.raises(ValidationError) as expected:
        READER.validate_json(json.dumps(changed), strict=True)
    with pytest.raises(SpecError) as error:
        ModelSpec.from_json(json.dumps({"format": "edgeml/1", **changed}))
    assert expected.value.errors()[0]["msg"] in str(error.value)


def test_a_missing_field_is_refused() -> None:
    with pytest.raises((UnusualValueError, TypeError)):
        read_plain(ModelSpec, {"labels": ["a"]})
    assert tiny_spec() == ModelSpec.from_json(tiny_spec().to_json())
