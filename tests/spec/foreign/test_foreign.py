"""Specs of models that others made: what is read, what is missing, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeml import ModelSpec, Predictor
from edgeml.data import read_dataset
from edgeml.errors import InputError, MissingSpecError, ModelLoadError, SpecError
from edgeml.measure.compare import compare
from edgeml.runtimes.onnx_file import model_info
from edgeml.spec.foreign import hugging_face, model_api, timm_hub, ultralytics, values
from edgeml.spec.foreign.merge import NOTHING, Said, model_file, spec_for
from edgeml.spec.storage import write_spec
from tests.command import Command, colour_folders
from tests.spec.foreign.drawn import LABELS, block_means, drawn
from tests.spec.foreign.nets import make_net

DRAWN = json.loads(Path(__file__).with_name("drawn.json").read_text(encoding="utf-8"))
FRAME = np.ascontiguousarray(drawn()[..., ::-1])
SAID = Said(
    labels=LABELS,
    resize="squash",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    channels="rgb",
    activation="sigmoid",
)


def cases(tool: str) -> Any:
    return pytest.mark.parametrize("told", DRAWN[tool].values(), ids=DRAWN[tool].keys())


def sigmoid(values: Any) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def softmax(values: Any) -> NDArray[np.float64]:
    powers = np.exp(np.asarray(values, np.float64))
    return powers / powers.sum()


def write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def preprocessed(spec: ModelSpec) -> NDArray[np.float64]:
    return block_means(spec.preprocess([FRAME])[0])


class TestWhatToolsWrote:
    """Their files, and what they made of a drawn picture: see make_drawn.py for the versions."""

    @cases("hugging_face")
    def test_hugging_face(self, tmp_path: Path, told: dict[str, Any]) -> None:
        make_net(tmp_path / "model.onnx", sides=("height", "width"))
        config = {
            "architectures": ["ViTForImageClassification"],
            "id2label": {str(i): name for i, name in enumerate(LABELS)},
        }
        write(tmp_path / "config.json", config)
        write(tmp_path / "preprocessor_config.json", told["processor"])
        spec = spec_for(tmp_path).spec
        scale = 255 if told["processor"].get("do_rescale") is False else 1
        # A level of 255, and where a cut starts between two pixels.
        np.testing.assert_allclose(
            preprocessed(spec) / scale, np.asarray(told["expected"]) / scale, atol=0.06
        )
        assert np.abs(preprocessed(spec) - told["expected"]).mean() < 0.012 * scale
        assert (spec.task, spec.activation) == ("multiclass", "softmax")

    @pytest.mark.runtime
    @cases("ultralytics")
    def test_ultralytics(self, tmp_path: Path, told: dict[str, Any]) -> None:
        path = make_net(tmp_path / "c.onnx", ending=["Softmax"], metadata=told["metadata"], batch=1)
        prediction = Predictor(path).predict(FRAME)
        np.testing.assert_allclose(prediction.scores, softmax(told["expected"]), atol=2e-4)
        best = LABELS[int(np.argmax(told["expected"]))]
        assert prediction.labels == (best,)

    @pytest.mark.runtime
    @cases("model_api")
    def test_model_api(self, tmp_path: Path, told: dict[str, Any]) -> None:
        metadata = {f"model_info {key}": value for key, value in told["metadata"].items()}
        path = make_net(tmp_path / "m.onnx", metadata=metadata)
        scores = Predictor(path).predict(FRAME).scores
        if told == DRAWN["model_api"]["bare"]:  # made of a hundredth, as else all would be 1
            logits = np.log(np.asarray(told["expected"]) / (1 - np.asarray(told["expected"])))
            got = preprocessed(spec_for(path).spec)
            np.testing.assert_allclose(got / 100, logits, atol=0.02)
            return
        np.testing.assert_allclose(scores, told["expected"], atol=0.01)
        assert np.abs(scores - told["expected"]).mean() < 0.003

    @pytest.mark.runtime
    @cases("timm")
    def test_timm(self, tmp_path: Path, told: dict[str, Any]) -> None:
        make_net(tmp_path / "model.onnx")
        config = {"architecture": "x", "pretrained_cfg": told["pretrained_cfg"]}
        write(tmp_path / "config.json", config | {"label_names": LABELS})
        scores = Predictor(tmp_path).predict(FRAME).scores
        np.testing.assert_allclose(scores, softmax(told["expected"]), atol=2e-4)


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("batch", ["N", 2])
def test_a_bare_file_runs_in_any_layout_type_and_batch(
    tmp_path: Path, runtime: str, layout: str, dtype: str, batch: int | str
) -> None:
    pytest.importorskip(runtime)
    path = make_net(tmp_path / "m.onnx", layout=layout, dtype=dtype, batch=batch)
    spec = spec_for(path, SAID).spec
    with Predictor(path, spec=spec, runtime=runtime) as predictor:
        predictions = predictor.predict_batch([FRAME, FRAME[::-1], FRAME])
    expected = sigmoid(preprocessed(spec_for(make_net(tmp_path / "f.onnx"), SAID).spec))
    np.testing.assert_allclose(predictions[0].scores, expected, atol=2e-3)
    np.testing.assert_array_equal(predictions[2].scores, predictions[0].scores)
    assert np.abs(predictions[1].scores - expected).max() > 0.02


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("ending", "activation", "task"),
    [
        (["Softmax"], "none", "multiclass"),
        (["LogSoftmax"], "softmax", "multiclass"),
        (["Sigmoid"], "none", "multilabel"),
    ],
)
def test_what_the_graph_ends_in_needs_not_be_said_and_gives_probabilities(
    tmp_path: Path, ending: list[str], activation: str, task: str
) -> None:
    path = make_net(tmp_path / "m.onnx", ending=ending)
    reading = spec_for(path, replace(SAID, activation=None))
    assert (reading.spec.activation, reading.spec.task) == (activation, task)
    assert reading.sources["activation"] == f"the graph ends in {ending[0]}"
    scores = Predictor(path, spec=reading.spec).predict(FRAME).scores
    means = preprocessed(reading.spec)
    expected = sigmoid(means) if task == "multilabel" else softmax(means)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_what_is_missing_is_listed_with_the_option_for_each(tmp_path: Path) -> None:
    path = make_net(tmp_path / "m.onnx", sides=("H", "W"), second="features")
    with pytest.raises(MissingSpecError) as raised:
        spec_for(path)
    text = str(raised.value)
    for option in ("labels", "size", "resize", "mean", "std", "channels", "output"):
        assert f"--{option}" in text
    assert "scores, features" in text
    assert "--layout" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        ("labels", "--labels FILE"),
        ("mean", "--mean"),
        ("channels", "--channels rgb or bgr"),
        ("activation", "ends in AveragePool, which does not tell"),
    ],
)
def test_the_only_fact_that_is_missing_is_the_only_one_named(
    tmp_path: Path, left_out: str, named: str
) -> None:
    path = make_net(tmp_path / "m.onnx")
    with pytest.raises(MissingSpecError, match=named) as raised:
        spec_for(path, replace(SAID, **{left_out: None}))
    assert str(raised.value).count("(--") == 1


def test_a_uint8_input_is_normalised_inside_so_nobody_has_to_say_a_mean(tmp_path: Path) -> None:
    path = make_net(tmp_path / "m.onnx", dtype="uint8", layout="nhwc")
    spec = spec_for(path, replace(SAID, mean=None, std=None)).spec
    assert (spec.input, spec.raw_channels, spec.layout) == ("uint8", "rgb", "nhwc")


@pytest.mark.parametrize(
    ("net", "said", "error"),
    [
        ({"ending": ["Softmax"]}, SAID, "applied once more, sigmoid would spoil"),
        ({}, replace(SAID, labels=["a", "b"]), "2 labels .argument., but the output 'scores'.*48"),
        ({}, replace(SAID, size=(32, 32)), "said to be .32, 32.; the graph takes .64, 64."),
        ({}, replace(SAID, layout="nhwc"), "said to be nhwc; the graph takes .any, 3, 64, 64."),
        ({}, replace(SAID, output="logits"), "no output 'logits'; it has scores"),
        ({}, replace(SAID, task="multiclass", activation="sigmoid", crop=2.0), "crop is 2.0"),
    ],
)
def test_what_contradicts_the_graph_is_refused(
    tmp_path: Path, net: dict[str, Any], said: Said, error: str
) -> None:
    with pytest.raises(SpecError, match=error):
        spec_for(make_net(tmp_path / "m.onnx", **net), said)


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_of_several_outputs_the_named_one_is_taken(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    path = make_net(tmp_path / "m.onnx", ending=["Sigmoid"], second="features")
    means = preprocessed(spec_for(make_net(tmp_path / "f.onnx"), SAID).spec)
    for output, said, expected in (
        ("scores", replace(SAID, output="scores", activation=None), sigmoid(means)),
        ("features", replace(SAID, output="features", activation="none", task="multilabel"), means),
    ):
        spec = spec_for(path, said).spec
        assert spec.output == output
        scores = Predictor(path, spec=spec, runtime=runtime).predict(FRAME).scores
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    with pytest.raises(SpecError, match="no output 'x'"):
        Predictor(path, spec=replace(spec, output="x"), runtime=runtime)


@pytest.mark.runtime
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_a_spec_that_was_written_is_found_again(tmp_path: Path, inside: bool, kind: str) -> None:
    ov = pytest.importorskip("openvino")
    path = make_net(tmp_path / "m.onnx")
    if kind == "xml":
        ov.save_model(ov.Core().read_model(path), tmp_path / "m.xml")
        path = tmp_path / "m.xml"
    spec = spec_for(path, SAID).spec
    before = Predictor(path, spec=spec).predict(FRAME).scores
    written = write_spec(path, spec, inside=inside)
    assert written == (path if inside else tmp_path / f"m.{kind}.json")
    with Predictor(path) as predictor:
        assert predictor.spec == spec
        np.testing.assert_array_equal(predictor.predict(FRAME).scores, before)
    again = spec_for(path, Said(threshold=0.75))
    assert set(again.spec.thresholds) == {0.75}
    assert again.sources["thresholds"] == "argument"
    assert again.sources["mean"] == ("in the file" if inside else f"beside: m.{kind}.json")
    assert replace(again.spec, thresholds=spec.thresholds) == spec
    if not inside:
        with pytest.raises(InputError, match="would win"):
            write_spec(path, spec, inside=True)


def hf_folder(folder: Path, config: Mapping[str, Any], processor: Mapping[str, Any]) -> Path:
    make_net(folder / "model.onnx", sides=("height", "width"))
    usual = {
        "architectures": ["ViTForImageClassification"],
        "id2label": {str(i): name for i, name in enumerate(LABELS)},
    }
    write(folder / "config.json", {**usual, **config})
    write(folder / "preprocessor_config.json", {**DRAWN_VIT, **processor})
    return folder


DRAWN_VIT = DRAWN["hugging_face"]["ViT"]["processor"]


def test_a_hugging_face_model_of_several_labels_gets_sigmoids(tmp_path: Path) -> None:
    told = {"problem_type": "multi_label_classification"}
    reading = spec_for(hf_folder(tmp_path, told, {}))
    assert (reading.spec.task, reading.spec.activation) == ("multilabel", "sigmoid")
    assert set(reading.spec.thresholds) == {0.5}
    assert reading.sources["activation"] == "config.json: problem_type"
    assert reading.sources["mean"] == "preprocessor_config.json: image_mean"
    assert reading.sources["thresholds"] == "default"


@pytest.mark.parametrize(
    ("config", "processor", "error"),
    [
        ({"architectures": ["BertModel"]}, {}, "BertModel"),
        ({"problem_type": "regression"}, {}, "regression"),
        ({"id2label": {"0": "a", "2": "b"}}, {}, "none for '1'"),
        ({"id2label": {str(i): i for i in range(48)}}, {}, "no list of names"),
        ({}, {"image_processor_type": "NewImageProcessor"}, "NewImageProcessor"),
        ({}, {"resample": 5}, "resample is 5"),
        ({}, {"do_resize": False}, "do_resize false"),
        ({}, {"size": {"longest_edge": 5}}, "longest_edge"),
        ({}, {"size": {"shortest_edge": 64}}, "different sizes"),
        ({}, {"image_mean": "x"}, "image_mean is 'x'"),
        ({}, {"image_std": [0, 1, 1]}, "std"),
        ({}, {"rescale_factor": 0}, "rescale_factor is 0"),
        ({}, {"do_center_crop": True, "crop_size": 100}, "no crop"),
    ],
)
def test_what_a_hugging_face_folder_says_wrong_or_edgeml_does_not_do_is_refused(
    tmp_path: Path, config: dict[str, Any], processor: dict[str, Any], error: str
) -> None:
    with pytest.raises(SpecError, match=error):
        spec_for(hf_folder(tmp_path, config, processor))


def test_what_a_person_says_helps_where_a_tools_file_is_of_no_use(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, {}, {"image_processor_type": "NewImageProcessor"})
    said = replace(SAID, size=(64, 64), layout="nchw")
    assert spec_for(folder, said).sources["resize"] == "argument"


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"architectures": 5}', "[" * 100_000])
def test_a_config_that_is_damaged_is_refused(tmp_path: Path, text: str) -> None:
    folder = hf_folder(tmp_path, {}, {})
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        spec_for(folder)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"task": "detect"}, "'detect'"),
        ({"names": "__import__('os').system('true')"}, "names"),
        ({"names": "(" * 5000}, "names"),
        ({"names": "{0: 'a', 2: 'b'}"}, "none for '1'"),
        ({"imgsz": "[0, 5]"}, "no size"),
        ({"imgsz": "[32, 32]"}, "do not belong together"),
    ],
)
def test_what_is_no_ultralytics_classifier_is_refused(
    tmp_path: Path, told: dict[str, str], error: str
) -> None:
    metadata = DRAWN["ultralytics"]["classify"]["metadata"] | told
    with pytest.raises(SpecError, match=error):
        spec_for(make_net(tmp_path / "m.onnx", ending=["Softmax"], metadata=metadata))


def test_the_metadata_yaml_of_an_ultralytics_folder_is_read_without_a_yaml_library(
    tmp_path: Path,
) -> None:
    import yaml

    told = {
        "description": "Ultralytics YOLO11n-cls model trained on x: y",
        "date": "2026-11-24T15:45:01.803459+00:00",
        "task": "classify",
        "imgsz": [64, 48],
        "names": {0: "hat", 1: "it's: a dress", 2: "yes", 3: "7", 4: "größe", 5: 'a "b" # c'},
        "args": {"batch": 1, "half": False, "data": None},
        "channels": 3,
    }
    path = tmp_path / "metadata.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False, allow_unicode=True), encoding="utf-8")
    facts = ultralytics.ultralytics(ultralytics.read_simple_yaml(path), "metadata.yaml")
    assert facts["labels"][0] == list(told["names"].values())  # type: ignore[attr-defined]
    assert facts["size"][0] == (64, 48)


@pytest.mark.parametrize("text", ["- a", "a: 1\n  b\n", 'names:\n  0: "\\x"\n', "\tnames: 1"])
def test_yaml_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        ultralytics.read_simple_yaml(tmp_path / "metadata.yaml")


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"model_type": "ssd"}, "'ssd'"),
        ({"hierarchical": "True"}, "tree of labels"),
        ({"resize_type": "fit_to_window"}, "fit_to_window"),
        ({"intensity_mode": "percentile"}, "percentile"),
        ({"mean_values": "a b c"}, "expected numbers"),
        ({"mean_values": "1 2"}, "three numbers"),
        ({"labels": "a b"}, "2 labels"),
    ],
)
def test_what_model_api_does_and_edgeml_does_not_is_refused(
    tmp_path: Path, told: dict[str, str], error: str
) -> None:
    metadata = DRAWN["model_api"]["standard"]["metadata"] | told
    metadata = {f"model_info {key}": value for key, value in metadata.items()}
    with pytest.raises(SpecError, match=error):
        spec_for(make_net(tmp_path / "m.onnx", metadata=metadata))


def test_names_that_occur_twice_get_their_number() -> None:
    class Weights:
        name = "V1"
        meta = {"categories": ["crane", "dog", "crane"]}  # noqa: RUF012

        def transforms(self) -> object:
            made = type("Transform", (), {})()
            made.crop_size, made.resize_size, made.antialias = [224], [256], True
            made.interpolation = type("Filter", (), {"value": "bilinear"})
            made.mean, made.std = [0.5] * 3, [0.5] * 3
            return made

    facts = timm_hub.torchvision(Weights())
    assert facts["labels"][0] == ["crane 0", "dog", "crane 2"]
    assert facts["crop"][0] == 224 / 256


def test_a_folder_gives_its_model_and_a_run_folder_stays_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    make_net(run / "model.onnx")
    (run / "model.safetensors").touch()
    assert model_file(run) == run
    (run / "config.json").write_text("{}")
    assert model_file(run) == run / "model.onnx"
    make_net(run / "model_quantized.onnx")
    assert model_file(run) == run / "model.onnx"
    (run / "model.onnx").rename(run / "other.onnx")
    with pytest.raises(ModelLoadError, match=r"other\.onnx"):
        model_file(run)
    for path in run.glob("*.onnx"):
        path.unlink()
    with pytest.raises(ModelLoadError, match="Optimum"):
        model_file(run)


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("l.txt", "a\n b c \n\n", ["a", "b c"]),
        ("l.json", '["a", "b"]', ["a", "b"]),
        ("l.json", '{"1": "b", "0": "a"}', ["a", "b"]),
    ],
)
def test_labels_are_read_from_lines_or_json(
    tmp_path: Path, name: str, text: str, labels: list[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert values.read_labels(tmp_path / name) == labels


@pytest.mark.runtime
class TestInspect:
    def options(self, folder: Path) -> tuple[object, ...]:
        (folder / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
        return (
            "--labels", folder / "labels.txt", "--resize", "crop", "--crop", "0.875",
            "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--channels", "rgb",
        )  # fmt: skip

    def test_it_says_what_is_missing_in_one_line(self, tmp_path: Path, edgeml: Command) -> None:
        path = make_net(tmp_path / "m.onnx")
        assert "--labels FILE" in edgeml.refused("inspect", path)
        assert "--labels FILE" in edgeml.refused("predict", path, path)
        assert "--activation" in edgeml.refused("inspect", path, *self.options(tmp_path))

    def test_what_it_writes_serves_every_other_command(
        self, tmp_path: Path, edgeml: Command
    ) -> None:
        path = make_net(tmp_path / "m.onnx", ending=["Softmax"], batch=1)
        options = self.options(tmp_path)
        told = edgeml("inspect", path, *options, "--json").json
        assert isinstance(told, dict)
        assert told["sources"]["labels"] == "argument"
        assert told["sources"]["activation"] == "the graph ends in Softmax"
        assert told["sources"]["size"] == "the graph"
        assert told["task"] == "multiclass"
        assert "written" not in told
        shown = edgeml("inspect", path, *options, "--write-spec").out
        assert "m.onnx.json" in shown
        assert "the graph ends in Softmax" in shown
        assert len(shown.splitlines()) == len(set(shown.splitlines()))
        picture = tmp_path / "l3" / "a.png"
        picture.parent.mkdir()
        cv2.imwrite(str(picture), FRAME)
        predicted = edgeml("predict", path, picture, "--json").json
        assert isinstance(predicted, list)
        assert len(predicted[0]["labels"]) == 1
        colour_folders(tmp_path / "data")
        for old, new in (("red", "l3"), ("green", "l4"), ("blue", "l5")):
            (tmp_path / "data" / old).rename(tmp_path / "data" / new)
        measured = edgeml("eval", path, tmp_path / "data", "--json").json
        assert isinstance(measured, dict)
        assert set(measured["metrics"]) >= {"top1", "top5", "mAP"}

    def test_only_if_it_shall_it_writes_into_the_model(
        self, tmp_path: Path, edgeml: Command
    ) -> None:
        path = make_net(tmp_path / "m.onnx", ending=["Sigmoid"])
        before = path.read_bytes()
        options = self.options(tmp_path)
        assert "--write-spec" in edgeml.refused("inspect", path, *options, "--inside")
        edgeml("inspect", path, *options)
        assert path.read_bytes() == before
        edgeml("inspect", path, *options, "--write-spec", "--inside")
        assert path.read_bytes().startswith(before)
        assert edgeml("inspect", path).status == 0
        assert not (tmp_path / "m.onnx.json").exists()

    @pytest.mark.parametrize(
        ("option", "value"),
        [("--size", "big"), ("--mean", "1,2"), ("--torchvision", "ResNet50"), ("--labels", "none")],
    )
    def test_a_value_that_cannot_be_read_is_one_line(
        self, tmp_path: Path, edgeml: Command, option: str, value: str
    ) -> None:
        if option == "--torchvision":
            pytest.importorskip("torchvision")
        path = make_net(tmp_path / "m.onnx")
        assert value in edgeml.refused("inspect", path, option, value)


def test_nothing_said_changes_nothing(tiny_onnx: Path) -> None:
    reading = spec_for(tiny_onnx, NOTHING)
    assert set(reading.sources.values()) == {"in the file"}
    assert reading.spec == Predictor(tiny_onnx).spec


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(value=ANYTHING, data=st.data())
def test_any_value_in_any_field_gives_facts_or_a_spec_error(
    value: object, data: st.DataObject
) -> None:
    processor = data.draw(st.sampled_from(list(DRAWN["hugging_face"].values())))["processor"]
    config = {"architectures": ["ViTForImageClassification"], "id2label": {"0": "a", "1": "b"}}
    pretrained = dict(next(iter(DRAWN["timm"].values()))["pretrained_cfg"])
    name = data.draw(st.sampled_from(sorted({*processor, *config, "problem_type"})))
    with suppress(SpecError):
        told = hugging_face.hugging_face(
            config | {name: value}, processor | {name: value}, ("c", "p")
        )
        assert told["layout"][0] == "nchw"
    name = data.draw(st.sampled_from([*pretrained, "crop_mode", "label_names"]))
    with suppress(SpecError):
        told = timm_hub.timm({"pretrained_cfg": pretrained | {name: value}}, "c", None)
        assert told["layout"][0] == "nchw"


@settings(deadline=None, max_examples=200)
@given(value=st.text(max_size=40), data=st.data())
def test_any_text_in_any_key_gives_facts_or_a_spec_error(value: str, data: st.DataObject) -> None:
    theirs = DRAWN["ultralytics"]["classify"]["metadata"]
    with suppress(SpecError):
        told = ultralytics.ultralytics(
            theirs | {data.draw(st.sampled_from(sorted(theirs))): value}, "m"
        )
        assert "labels" in told
    keys = ["pad_value", "confidence_threshold", "mean_values", "scale_values", "resize_type",
            "multilabel", "orig_height", "embedded_processing", "interpolation_mode"]  # fmt: skip
    info = DRAWN["model_api"]["standard"]["metadata"] | {"embedded_processing": "True"}
    with suppress(SpecError):
        told = model_api.model_api(info | {data.draw(st.sampled_from(keys)): value}, "m")
        assert "labels" in told


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=200))
def test_any_text_as_metadata_yaml_gives_a_table_or_a_spec_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "metadata.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with suppress(SpecError):
        assert isinstance(ultralytics.read_simple_yaml(path), dict)


@pytest.mark.runtime
@pytest.mark.parametrize("other", [{"layout": "nhwc"}, {"dtype": "float16"}, {"dtype": "uint8"}])
def test_inputs_of_another_layout_or_type_are_compared_by_what_they_mean(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    root = colour_folders(tmp_path / "data", each=1)
    for number, old in enumerate(("red", "green", "blue")):
        (root / old).rename(root / f"l{number}")
    first = make_net(tmp_path / "a.onnx")
    second = make_net(tmp_path / "b.onnx", **other)
    with (
        Predictor(first, spec=spec_for(first, SAID).spec) as a,
        Predictor(second, spec=spec_for(second, SAID).spec) as b,
    ):
        fidelity = compare(a, b, read_dataset(root))
    assert fidelity.inputs_max_abs < 1e-3
    assert fidelity.max_abs < 2e-3


def test_keys_for_model_api_say_one_label_or_several_and_nothing_that_they_cannot(
    tmp_path: Path,
) -> None:
    spec = spec_for(make_net(tmp_path / "m.onnx"), SAID).spec
    one = replace(spec, task="multiclass", activation="softmax")
    assert model_info(spec)["multilabel"] == "True"
    assert model_info(one)["multilabel"] == "False"
    cut = replace(spec, preprocess=replace(spec.preprocess, resize="squash_crop"))
    assert model_info(cut) == {}


@pytest.mark.runtime
def test_a_model_of_our_own_is_opened_without_what_reads_those_of_others(tiny_onnx: Path) -> None:
    code = (
        "import sys; from edgeml import Predictor; Predictor(sys.argv[1]); "
        "foreign = {'edgeml.spec.foreign.merge', 'edgeml.spec.foreign.read_graph', 'xml.etree'}; "
        "assert not foreign & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_onnx)], check=True)


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_of_a_model_api_file_that_explains_itself_the_scores_are_taken(
    tmp_path: Path, runtime: str
) -> None:
    pytest.importorskip(runtime)
    told = DRAWN["model_api"]["standard"]
    metadata = {f"model_info {key}": value for key, value in told["metadata"].items()}
    path = make_net(tmp_path / "m.onnx", metadata=metadata, second="feature_vector")
    with Predictor(path, runtime=runtime) as predictor:
        assert predictor.spec.output == "scores"
        scores = predictor.predict(FRAME).scores
    np.testing.assert_allclose(scores, told["expected"], atol=0.01)
