from __future__ import annotations

import json
import string
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml import LabelGroup, ModelSpec, Preprocess
from edgeml.errors import SpecError
from edgeml.spec.decide import probabilities
from edgeml.spec.provenance import Provenance

SPEC = ModelSpec(
    labels=("rot", "weiß", "T-shirt, lang"),
    thresholds=(0.5, 0.25, 0.75),
    preprocess=Preprocess(size=(96, 128), resize="letterbox", interpolation="cubic"),
    groups=(LabelGroup(name="colour", labels=("rot", "weiß"), rule="one"),),
    metrics={"mAP": 0.9},
    provenance=Provenance(model="cnn"),
)


def changed(**fields: object) -> str:
    return json.dumps(json.loads(SPEC.to_json()) | fields)


def test_a_spec_survives_json() -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC


def test_the_json_names_its_format_and_keeps_umlauts_readable() -> None:
    assert json.loads(SPEC.to_json())["format"] == "edgeml/1"
    assert "weiß" in SPEC.to_json()


@given(
    labels=st.lists(st.text(min_size=1), min_size=1, max_size=8, unique=True),
    size=st.tuples(st.integers(1, 4096), st.integers(1, 4096)),
    threshold=st.floats(0, 1),
)
def test_any_label_names_survive_json(
    labels: list[str], size: tuple[int, int], threshold: float
) -> None:
    spec = ModelSpec(
        labels=tuple(labels),
        thresholds=(threshold,) * len(labels),
        preprocess=Preprocess(size=size),
    )
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("[1]", "format None"),
        (changed(format="edgeml/2"), "edgeml/2"),
        (changed(colour="red"), "colour"),
        (changed(labels=["a", "a", "b"]), "different names"),
        (changed(labels=[]), "different names"),
        (changed(thresholds=[0.5]), "3 labels but 1 thresholds"),
        (changed(thresholds=[0.5, 0.5, 1.5]), "1.5"),
        (changed(precision="int4"), "precision"),
        (changed(groups=[{"name": "g", "labels": ["blau"], "rule": "one"}]), "blau"),
        (changed(preprocess={"size": [96, 96], "std": [0, 1, 1]}), "std"),
        (changed(preprocess={"size": [0, 96]}), "size"),
        (changed(preprocess={"size": [96, 96], "resize": "stretch"}), "resize"),
    ],
)
def test_a_wrong_spec_is_refused_and_the_field_is_named(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ModelSpec.from_json(text)


@given(st.text(alphabet=string.printable, max_size=200))
def test_arbitrary_text_is_refused_with_a_spec_error(text: str) -> None:
    with pytest.raises(SpecError):
        ModelSpec.from_json(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=6,
    ),
    st.sampled_from(sorted(json.loads(SPEC.to_json()))),
)
def test_any_json_in_any_field_gives_a_spec_or_a_spec_error(value: object, name: str) -> None:
    try:
        spec = ModelSpec.from_json(changed(**{name: value}))
    except SpecError:
        return
    assert isinstance(spec, ModelSpec)


def test_a_label_cannot_be_in_two_groups() -> None:
    group = SPEC.groups[0]
    with pytest.raises(SpecError, match="two groups"):
        replace(SPEC, groups=(group, replace(group, name="again")))


def test_probabilities_are_sigmoids_and_a_softmax_for_each_choice() -> None:
    spec = ModelSpec(
        labels=("a", "b", "c", "d", "e"),
        thresholds=(0.5,) * 5,
        preprocess=Preprocess(size=(8, 8)),
        groups=(
            LabelGroup(name="one", labels=("c", "a"), rule="one"),
            LabelGroup(name="any", labels=("d", "e"), rule="any"),
        ),
        activation="group_softmax",
    )
    logits = np.array([[1, 2, 3, -4, 900], [-900, 0, -900, 100, -100]], np.float32)
    got = probabilities(logits, spec)
    ratio = 1 / (1 + np.exp(2.0))
    expected = [
        [ratio, 1 / (1 + np.exp(-2.0)), 1 - ratio, 1 / (1 + np.exp(4.0)), 1],
        [0.5, 0.5, 0.5, 1, 0],
    ]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert got.dtype == np.float32
    plain = probabilities(logits, replace(spec, activation="sigmoid"))
    assert plain[0, 2] == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert probabilities(logits, replace(spec, activation="none")) is logits


def test_an_older_spec_without_newer_fields_is_read() -> None:
    fields = json.loads(SPEC.to_json())
    for name in ("task", "layout", "raw_channels", "output"):
        del fields[name]
    del fields["preprocess"]["antialias"]
    assert ModelSpec.from_json(json.dumps(fields)) == SPEC
    assert SPEC.input_sides == (3, 96, 128)
    assert replace(SPEC, input="uint8").input_sides == (96, 128, 3)


def test_softmax_gives_shares_of_one_also_of_logits_that_overflow() -> None:
    spec = replace(SPEC, task="multiclass", groups=(), activation="softmax")
    logits = np.array([[1, 2, 3], [1e4, 0, -1e4]], np.float32)
    expected = np.exp([1.0, 2, 3]) / np.exp([1.0, 2, 3]).sum()
    np.testing.assert_allclose(probabilities(logits, spec), [expected, [1, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "multiclass"}, "needs no groups"),
        ({"task": "multiclass", "groups": ()}, "'softmax', or 'none'"),
        ({"activation": "softmax"}, "'multiclass', not 'multilabel'"),
    ],
)
def test_a_task_and_an_activation_that_contradict_each_other_are_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        replace(SPEC, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_the_input_has_the_layout_colours_and_type_that_the_network_takes(
    layout: str, dtype: str
) -> None:
    levels = Preprocess(size=(5, 4), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    spec = replace(SPEC, preprocess=levels, input=dtype, layout=layout, raw_channels="rgb")  # type: ignore[arg-type]
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    batch = spec.network_input_fitted(frames)
    assert batch.dtype == dtype
    assert batch.shape[1:] == spec.input_sides
    assert batch.flags.c_contiguous
    rows = batch if layout == "nhwc" else batch.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(rows, frames[..., ::-1])
    np.testing.assert_array_equal(spec.network_input(list(frames)), batch)
    np.testing.assert_array_equal(
        spec.normalized_input(batch), frames[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    )
