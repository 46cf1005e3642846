"""A spec is found in the same place by all who look for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgeml import ModelSpec, Predictor
from edgeml.predict.inspection import describe
from edgeml.spec.foreign.merge import spec_for
from edgeml.spec.storage import find_spec, sidecar_path, spec_in, spec_metadata, write_spec
from tests.tiny import tiny_spec

SPEC = tiny_spec()
OTHER = replace(SPEC, thresholds=(0.75,) * len(SPEC.labels))


def test_a_spec_survives_metadata() -> None:
    assert spec_in(spec_metadata(SPEC)) == SPEC
    assert spec_in({"another": "key"}) is None


def test_the_file_next_to_a_model_wins_over_its_metadata(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    assert find_spec(model, {}) is None
    assert find_spec(model, spec_metadata(SPEC)) == (SPEC, "in the file")
    write_spec(model, OTHER)
    assert find_spec(model, spec_metadata(SPEC)) == (OTHER, f"beside: {model.name}.json")
    assert find_spec(None, spec_metadata(SPEC)) == (SPEC, "in the file")


def test_a_report_next_to_a_run_folder_is_not_read_as_its_spec(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "run.json").write_text('{"metrics": {}}')
    assert find_spec(run, spec_metadata(SPEC)) == (SPEC, "in the file")


def test_the_passport_of_an_engine_is_not_read_as_a_spec(tmp_path: Path) -> None:
    engine = tmp_path / "m.engine"
    sidecar_path(engine).write_text("{}")
    assert find_spec(engine, spec_metadata(SPEC)) == (SPEC, "in the file")


@pytest.mark.runtime
@pytest.mark.parametrize("inside", [False, True])
def test_predictor_inspect_and_spec_for_find_the_same_spec(
    tiny_onnx: Path, tmp_path: Path, inside: bool
) -> None:
    model = Path(shutil.copy(tiny_onnx, tmp_path))
    write_spec(model, OTHER, inside=inside)
    with Predictor(model) as predictor:
        assert predictor.spec == OTHER
    assert spec_for(model).spec == OTHER
    described = describe(model)
    assert described["thresholds"] == list(OTHER.thresholds)
    assert described["sources"]["labels"] == ("in the file" if inside else "beside: tiny.onnx.json")


def test_a_spec_is_not_written_inside_where_the_file_next_to_it_would_win(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    write_spec(model, SPEC)
    with pytest.raises(ValueError, match=r"m\.onnx\.json"):
        write_spec(model, SPEC, inside=True)
    assert ModelSpec.from_json(sidecar_path(model).read_text(encoding="utf-8")) == SPEC
