"""Provenance, and the free texts of edgeml 0.1.0 that are read into it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import SpecError
from edgeml.image.preprocess import Preprocess
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.provenance import Provenance, Quantizer, SplitPlan, provenance_of_texts

SPEC = ModelSpec(labels=("a", "b"), thresholds=(0.5, 0.5), preprocess=Preprocess(size=(8, 8)))

# What edgeml 0.1.0 wrote, step by step: training, calibration, export, INT8, check, retargeting.
ORIGIN = {
    "split": "val=0.1 test=0.2 seed=7 near=1",
    "split_sha256": "5a",
    "model": "resnet18.a1_in1k",
    "model_args": '{"drop_path_rate": 0.1}',
    "data_sha256": "da",
    "torch": "2.9.1",
    "weights_sha256": "3e",
    "weights_license": "apache-2.0",
    "temperature": "1.25",
    "checkpoint_sha256": "c4",
    "exporter": "torch 2.9.1 dynamo, opset 18",
    "quantizer": "edgeml, openvino, minmax of 300 images",
    "calibration_sha256": "ca",
    "overlap": "10 images had more than one role",
    "kept_in_float": "node_conv_1 node_conv_7",
    "arithmetic": "fp16",
    "retargeted": "to tensorrt: 3 outputs",
}

PROVENANCE = Provenance(
    model="resnet18.a1_in1k",
    data_sha256="da",
    split=SplitPlan(0.1, 0.2, 7),
    split_sha256="5a",
    weights_sha256="3e",
    weights_license="apache-2.0",
    temperature=1.25,
    checkpoint_sha256="c4",
    exporter="torch 2.9.1 dynamo, opset 18",
    quantizer=Quantizer(layout="openvino", method="minmax", images=300),
    calibration_sha256="ca",
    overlap=10,
    kept_in_float=("node_conv_1", "node_conv_7"),
    arithmetic="fp16",
    notes={
        "model_args": '{"drop_path_rate": 0.1}',
        "torch": "2.9.1",
        "retargeted": "to tensorrt: 3 outputs",
    },
)


def with_origin(origin: object) -> str:
    """Write SPEC as edgeml 0.1.0 did."""
    fields = json.loads(SPEC.to_json())
    del fields["provenance"]
    return json.dumps({**fields, "origin": origin})


def test_the_origin_of_an_old_spec_is_read_as_provenance() -> None:
    assert ModelSpec.from_json(with_origin(ORIGIN)) == replace(SPEC, provenance=PROVENANCE)


def test_provenance_survives_json() -> None:
    spec = replace(SPEC, provenance=PROVENANCE)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert json.loads(SPEC.to_json())["provenance"] == {}


def test_the_texts_of_a_provenance_have_the_names_that_old_specs_had() -> None:
    texts = PROVENANCE.to_texts()
    assert texts.keys() == ORIGIN.keys() - {"overlap"} | {"overlap"}
    same = ORIGIN.keys() - {"split", "overlap"}
    assert {name: texts[name] for name in same} == {name: ORIGIN[name] for name in same}
    assert texts["split"] == "val 0.1, test 0.2, seed 7, near duplicates together"


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("val=0.1 test=0.2 seed=7", SplitPlan(0.1, 0.2, 7, near=False)),
        ("val=0.15 test=0.15 seed=0 near=1", SplitPlan()),
        (
            'val=0.15 test=0.15 seed=0 hold_out=["black", "dress"]',
            SplitPlan(near=False, hold_out=("black", "dress")),
        ),
    ],
)
def test_an_old_split_is_read(text: str, plan: SplitPlan) -> None:
    assert provenance_of_texts({"split": text}).split == plan


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("split", ""),
        ("split", "val=x test=0.1 seed=0"),
        ("split", "val=1 test=1 seed=0"),
        ("split", "val=0.1 test=0.1 seed=0 near=2"),
        ("split", "val=0.1 test=0.1 seed=0 hold_out=[1,"),
        ("split", 'val=0.1 test=0.1 seed=0 hold_out=["a", "a"]'),
        ("split", f"val=0.1 test=0.1 seed=0 hold_out={'[' * 100_000}]"),
        ("temperature", "warm"),
        ("temperature", "nan"),
        ("quantizer", "NNCF"),
        ("arithmetic", "bf16"),
        ("overlap", "10"),
    ],
)
def test_a_text_that_edgeml_did_not_write_becomes_a_note(name: str, text: str) -> None:
    assert provenance_of_texts({name: text}) == Provenance(notes={name: text})


@given(origin=st.dictionaries(st.sampled_from(list(ORIGIN)) | st.text(), st.text()))
def test_any_old_origin_can_be_read_and_written_again(origin: dict[str, str]) -> None:
    spec = ModelSpec.from_json(with_origin(origin))
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("origin", ["text", ["a"], {"a": 1}, None])
def test_an_origin_that_is_not_a_table_of_texts_is_refused(origin: object) -> None:
    with pytest.raises(SpecError, match="'origin'"):
        ModelSpec.from_json(with_origin(origin))


def test_an_origin_beside_a_provenance_is_refused() -> None:
    fields = {**json.loads(SPEC.to_json()), "origin": {}}
    with pytest.raises(SpecError, match="'origin'"):
        ModelSpec.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("provenance", "field"),
    [
        ({"colour": "red"}, r"provenance\.colour"),
        ({"split": {"val": 1, "test": 1}}, r"provenance\.split"),
        ({"split": {"seed": 0, "fold": 1}}, r"provenance\.split\.fold"),
        ({"quantizer": {"layout": "x86"}}, r"provenance\.quantizer\.method"),
        ({"notes": {"a": 1}}, r"provenance\.notes"),
    ],
)
def test_a_provenance_is_read_strictly(provenance: dict[str, object], field: str) -> None:
    fields = {**json.loads(SPEC.to_json()), "provenance": provenance}
    with pytest.raises(SpecError, match=field):
        ModelSpec.from_json(json.dumps(fields))
