"""Specs of models from other tools: what is read, what is missing, what is refused."""

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
from edgeml.spec.foreign.hugging_face import spec_of_hugging_face
from edgeml.spec.foreign.label_names import read_labels
from edgeml.spec.foreign.merge import NO_OVERRIDES, SpecOverrides, model_file, spec_for
from edgeml.spec.foreign.model_api import model_info, spec_of_model_api
from edgeml.spec.foreign.timm_hub import spec_of_timm, spec_of_torchvision
from edgeml.spec.foreign.ultralytics import read_simple_yaml, spec_of_ultralytics
from edgeml.spec.storage import write_spec
from tests.command import Command, colour_folders
from tests.spec.foreign.drawn import LABELS, block_means, drawn
from tests.spec.foreign.nets import make_net

DRAWN = json.loads(Path(__file__).with_name("drawn.json").read_text(encoding="utf-8"))
FRAME = np.ascontiguousarray(drawn()[..., ::-1])
STATED = SpecOverrides(
    labels=LABELS,
    resize="squash",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    channels="rgb",
    activation="sigmoid",
)


def cases(tool: str) -> Any:
    return pytest.mark.parametrize("case", DRAWN[tool].values(), ids=DRAWN[tool].keys())


def sigmoid(values: Any) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def softmax(values: Any) -> NDArray[np.float64]:
    powers = np.exp(np.asarray(values, np.float64))
    return powers / powers.sum()


def write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def preprocessed(spec: ModelSpec) -> NDArray[np.float64]:
    return block_means(spec.preprocess([FRAME])[0])


class TestToolFiles:
    """Their files, and their output for a drawn image: see make_drawn.py for the versions."""

    @cases("hugging_face")
    def test_hugging_face(self, tmp_path: Path, case: dict[str, Any]) -> None:
        make_net(tmp_path / "model.onnx", sides=("height", "width"))
        config = {
            "architectures": ["ViTForImageClassification"],
            "id2label": {str(i): name for i, name in enumerate(LABELS)},
        }
        write(tmp_path / "config.json", config)
        write(tmp_path / "preprocessor_config.json", case["processor"])
        spec = spec_for(tmp_path).spec
        scale = 255 if case["processor"].get("do_rescale") is False else 1
        # A level of 255, and where a cut starts between two pixels.
        np.testing.assert_allclose(
            preprocessed(spec) / scale, np.asarray(case["expected"]) / scale, atol=0.06
        )
        assert np.abs(preprocessed(spec) - case["expected"]).mean() < 0.012 * scale
        assert (spec.task, spec.activation) == ("multiclass", "softmax")

    @pytest.mark.runtime
    @cases("ultralytics")
    def test_ultralytics(self, tmp_path: Path, case: dict[str, Any]) -> None:
        path = make_net(tmp_path / "c.onnx", ending=["Softmax"], metadata=case["metadata"], batch=1)
        prediction = Predictor(path).predict(FRAME)
        np.testing.assert_allclose(prediction.scores, softmax(case["expected"]), atol=2e-4)
        best = LABELS[int(np.argmax(case["expected"]))]
        assert prediction.labels == (best,)

    @pytest.mark.runtime
    @cases("model_api")
    def test_model_api(self, tmp_path: Path, case: dict[str, Any]) -> None:
        metadata = {f"model_info {key}": value for key, value in case["metadata"].items()}
        path = make_net(tmp_path / "m.onnx", metadata=metadata)
        scores = Predictor(path).predict(FRAME).scores
        if case == DRAWN["model_api"]["bare"]:  # scaled to a hundredth, or all would be 1
            logits = np.log(np.asarray(case["expected"]) / (1 - np.asarray(case["expected"])))
            got = preprocessed(spec_for(path).spec)
            np.testing.assert_allclose(got / 100, logits, atol=0.02)
            return
        np.testing.assert_allclose(scores, case["expected"], atol=0.01)
        assert np.abs(scores - case["expected"]).mean() < 0.003

    @pytest.mark.runtime
    @cases("timm")
    def test_timm(self, tmp_path: Path, case: dict[str, Any]) -> None:
        make_net(tmp_path / "model.onnx")
        config = {"architecture": "x", "pretrained_cfg": case["pretrained_cfg"]}
        write(tmp_path / "config.json", config | {"label_names": LABELS})
        scores = Predictor(tmp_path).predict(FRAME).scores
        np.testing.assert_allclose(scores, softmax(case["expected"]), atol=2e-4)


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
    spec = spec_for(path, STATED).spec
    with Predictor(path, spec=spec, runtime=runtime) as predictor:
        predictions = predictor.predict_batch([FRAME, FRAME[::-1], FRAME])
    expected = sigmoid(preprocessed(spec_for(make_net(tmp_path / "f.onnx"), STATED).spec))
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
def test_the_last_operation_of_the_graph_sets_activation_and_task(
    tmp_path: Path, ending: list[str], activation: str, task: str
) -> None:
    path = make_net(tmp_path / "m.onnx", ending=ending)
    stated = spec_for(path, replace(STATED, activation=None))
    assert (stated.spec.activation, stated.spec.task) == (activation, task)
    assert stated.sources["activation"] == f"the graph ends in {ending[0]}"
    scores = Predictor(path, spec=stated.spec).predict(FRAME).scores
    means = preprocessed(stated.spec)
    expected = sigmoid(means) if task == "multilabel" else softmax(means)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_missing_fields_are_listed_with_the_option_for_each(tmp_path: Path) -> None:
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
    ("omitted", "option"),
    [
        ("labels", "--labels FILE"),
        ("mean", "--mean"),
        ("channels", "--channels rgb or bgr"),
        ("activation", "ends in AveragePool, which does not decide"),
    ],
)
def test_a_single_missing_field_is_the_only_one_listed(
    tmp_path: Path, omitted: str, option: str
) -> None:
    path = make_net(tmp_path / "m.onnx")
    with pytest.raises(MissingSpecError, match=option) as raised:
        spec_for(path, replace(STATED, **{omitted: None}))
    assert str(raised.value).count("(--") == 1


def test_a_uint8_input_needs_no_mean_because_the_graph_normalises(tmp_path: Path) -> None:
    path = make_net(tmp_path / "m.onnx", dtype="uint8", layout="nhwc")
    spec = spec_for(path, replace(STATED, mean=None, std=None)).spec
    assert (spec.input, spec.raw_channels, spec.layout) == ("uint8", "rgb", "nhwc")


@pytest.mark.parametrize(
    ("net", "overrides", "error"),
    [
        ({"ending": ["Softmax"]}, STATED, "a second sigmoid would spoil"),
        (
            {},
            replace(STATED, labels=["a", "b"]),
            "2 labels .argument., but the output 'scores'.*48",
        ),
        ({}, replace(STATED, size=(32, 32)), "stated as .32, 32.; the graph takes .64, 64."),
        ({}, replace(STATED, layout="nhwc"), "stated as nhwc; the graph takes .any, 3, 64, 64."),
        ({}, replace(STATED, output="logits"), "no output 'logits'; it has scores"),
        ({}, replace(STATED, task="multiclass", activation="sigmoid", crop=2.0), "crop is 2.0"),
    ],
)
def test_an_override_that_contradicts_the_graph_is_refused(
    tmp_path: Path, net: dict[str, Any], overrides: SpecOverrides, error: str
) -> None:
    with pytest.raises(SpecError, match=error):
        spec_for(make_net(tmp_path / "m.onnx", **net), overrides)


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_named_one_of_several_outputs_is_used(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    path = make_net(tmp_path / "m.onnx", ending=["Sigmoid"], second="features")
    means = preprocessed(spec_for(make_net(tmp_path / "f.onnx"), STATED).spec)
    for output, overrides, expected in (
        ("scores", replace(STATED, output="scores", activation=None), sigmoid(means)),
        (
            "features",
            replace(STATED, output="features", activation="none", task="multilabel"),
            means,
        ),
    ):
        spec = spec_for(path, overrides).spec
        assert spec.output == output
        scores = Predictor(path, spec=spec, runtime=runtime).predict(FRAME).scores
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    with pytest.raises(SpecError, match="no output 'x'"):
        Predictor(path, spec=replace(spec, output="x"), runtime=runtime)


@pytest.mark.runtime
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_a_written_spec_is_read_back(tmp_path: Path, inside: bool, kind: str) -> None:
    ov = pytest.importorskip("openvino")
    path = make_net(tmp_path / "m.onnx")
    if kind == "xml":
        ov.save_model(ov.Core().read_model(path), tmp_path / "m.xml")
        path = tmp_path / "m.xml"
    spec = spec_for(path, STATED).spec
    before = Predictor(path, spec=spec).predict(FRAME).scores
    written = write_spec(path, spec, inside=inside)
    assert written == (path if inside else tmp_path / f"m.{kind}.json")
    with Predictor(path) as predictor:
        assert predictor.spec == spec
        np.testing.assert_array_equal(predictor.predict(FRAME).scores, before)
    again = spec_for(path, SpecOverrides(threshold=0.75))
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
    config = {"problem_type": "multi_label_classification"}
    stated = spec_for(hf_folder(tmp_path, config, {}))
    assert (stated.spec.task, stated.spec.activation) == ("multilabel", "sigmoid")
    assert set(stated.spec.thresholds) == {0.5}
    assert stated.sources["activation"] == "config.json: problem_type"
    assert stated.sources["mean"] == "preprocessor_config.json: image_mean"
    assert stated.sources["thresholds"] == "default"


@pytest.mark.parametrize(
    ("config", "processor", "error"),
    [
        ({"architectures": ["BertModel"]}, {}, "BertModel"),
        ({"problem_type": "regression"}, {}, "regression"),
        ({"id2label": {"0": "a", "2": "b"}}, {}, "none for '1'"),
        ({"id2label": {str(i): None for i in range(48)}}, {}, "not a list of names"),
        ({}, {"image_processor_type": "NewImageProcessor"}, "NewImageProcessor"),
        ({}, {"resample": 5}, "resample is 5"),
        ({}, {"do_resize": False}, "do_resize is false"),
        ({}, {"size": {"longest_edge": 5}}, "longest_edge"),
        ({}, {"size": {"shortest_edge": 64}}, "different sizes"),
        ({}, {"image_mean": "x"}, "image_mean is 'x'"),
        ({}, {"image_std": [0, 1, 1]}, "std"),
        ({}, {"rescale_factor": 0}, "rescale_factor is 0"),
        ({}, {"do_center_crop": True, "crop_size": 100}, "cannot cut"),
    ],
)
def test_a_hugging_face_folder_that_edgeml_cannot_run_is_refused(
    tmp_path: Path, config: dict[str, Any], processor: dict[str, Any], error: str
) -> None:
    with pytest.raises(SpecError, match=error):
        spec_for(hf_folder(tmp_path, config, processor))


def test_overrides_replace_a_tool_file_that_cannot_be_used(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, {}, {"image_processor_type": "NewImageProcessor"})
    overrides = replace(STATED, size=(64, 64), layout="nchw")
    assert spec_for(folder, overrides).sources["resize"] == "argument"


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"architectures": 5}', "[" * 100_000])
def test_a_damaged_config_is_refused(tmp_path: Path, text: str) -> None:
    folder = hf_folder(tmp_path, {}, {})
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        spec_for(folder)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"task": "detect"}, "'detect'"),
        ({"names": "__import__('os').system('true')"}, "names"),
        ({"names": "(" * 5000}, "names"),
        ({"names": "{0: 'a', 2: 'b'}"}, "none for '1'"),
        ({"imgsz": "[0, 5]"}, "imgsz is .\\[0, 5\\]"),
        ({"imgsz": "[32, 32]"}, "do not belong together"),
    ],
)
def test_an_ultralytics_file_that_edgeml_cannot_run_is_refused(
    tmp_path: Path, changes: dict[str, str], error: str
) -> None:
    metadata = DRAWN["ultralytics"]["classify"]["metadata"] | changes
    with pytest.raises(SpecError, match=error):
        spec_for(make_net(tmp_path / "m.onnx", ending=["Softmax"], metadata=metadata))


def test_the_metadata_yaml_of_an_ultralytics_folder_is_read_without_a_yaml_library(
    tmp_path: Path,
) -> None:
    import yaml

    document = {
        "description": "Ultralytics YOLO11n-cls model trained on x: y",
        "date": "2026-11-24T15:45:01.803459+00:00",
        "task": "classify",
        "imgsz": [64, 48],
        "names": {0: "hat", 1: "it's: a dress", 2: "yes", 3: "7", 4: "größe", 5: 'a "b" # c'},
        "args": {"batch": 1, "half": False, "data": None},
        "channels": 3,
    }
    path = tmp_path / "metadata.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    stated = spec_of_ultralytics(read_simple_yaml(path), "metadata.yaml")
    assert stated.labels == tuple(document["names"].values())  # type: ignore[attr-defined]
    assert stated.size == (64, 48)


@pytest.mark.parametrize("text", ["- a", "a: 1\n  b\n", 'names:\n  0: "\\x"\n', "\tnames: 1"])
def test_yaml_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        read_simple_yaml(tmp_path / "metadata.yaml")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model_type": "ssd"}, "'ssd'"),
        ({"hierarchical": "True"}, "hierarchical"),
        ({"resize_type": "fit_to_window"}, "fit_to_window"),
        ({"intensity_mode": "percentile"}, "percentile"),
        ({"mean_values": "a b c"}, "expected numbers"),
        ({"mean_values": "1 2"}, "three numbers"),
        ({"pad_value": "INFINITY"}, "pad_value is 'INFINITY'"),
        ({"pad_value": "nan"}, "pad_value is 'nan'"),
        ({"labels": "a b"}, "2 labels"),
    ],
)
def test_a_model_api_file_that_edgeml_cannot_run_is_refused(
    tmp_path: Path, changes: dict[str, str], error: str
) -> None:
    metadata = DRAWN["model_api"]["standard"]["metadata"] | changes
    metadata = {f"model_info {key}": value for key, value in metadata.items()}
    with pytest.raises(SpecError, match=error):
        spec_for(make_net(tmp_path / "m.onnx", metadata=metadata))


def test_duplicate_names_get_their_number() -> None:
    class Weights:
        name = "V1"
        meta = {"categories": ["crane", "dog", "crane"]}  # noqa: RUF012

        def transforms(self) -> object:
            transform = type("Transform", (), {})()
            transform.crop_size, transform.resize_size, transform.antialias = [224], [256], True
            transform.interpolation = type("Filter", (), {"value": "bilinear"})
            transform.mean, transform.std = [0.5] * 3, [0.5] * 3
            return transform

    stated = spec_of_torchvision(Weights())
    assert stated.labels == ("crane 0", "dog", "crane 2")
    assert stated.crop == 224 / 256


def test_a_folder_resolves_to_its_model_but_a_run_folder_does_not(tmp_path: Path) -> None:
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
    assert read_labels(tmp_path / name) == labels


@pytest.mark.runtime
class TestInspect:
    def options(self, folder: Path) -> tuple[object, ...]:
        (folder / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
        return (
            "--labels", folder / "labels.txt", "--resize", "crop", "--crop", "0.875",
            "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--channels", "rgb",
        )  # fmt: skip

    def test_missing_fields_are_one_line(self, tmp_path: Path, edgeml: Command) -> None:
        path = make_net(tmp_path / "m.onnx")
        assert "--labels FILE" in edgeml.refused("inspect", path)
        assert "--labels FILE" in edgeml.refused("predict", path, path)
        assert "--activation" in edgeml.refused("inspect", path, *self.options(tmp_path))

    def test_the_spec_that_it_writes_serves_every_other_command(
        self, tmp_path: Path, edgeml: Command
    ) -> None:
        path = make_net(tmp_path / "m.onnx", ending=["Softmax"], batch=1)
        options = self.options(tmp_path)
        described = edgeml("inspect", path, *options, "--json").json
        assert isinstance(described, dict)
        assert described["sources"]["labels"] == "argument"
        assert described["sources"]["activation"] == "the graph ends in Softmax"
        assert described["sources"]["size"] == "the graph"
        assert described["task"] == "multiclass"
        assert "written" not in described
        shown = edgeml("inspect", path, *options, "--write-spec").out
        assert "m.onnx.json" in shown
        assert "the graph ends in Softmax" in shown
        assert len(shown.splitlines()) == len(set(shown.splitlines()))
        image = tmp_path / "l3" / "a.png"
        image.parent.mkdir()
        cv2.imwrite(str(image), FRAME)
        predicted = edgeml("predict", path, image, "--json").json
        assert isinstance(predicted, list)
        assert len(predicted[0]["labels"]) == 1
        colour_folders(tmp_path / "data")
        for old, new in (("red", "l3"), ("green", "l4"), ("blue", "l5")):
            (tmp_path / "data" / old).rename(tmp_path / "data" / new)
        measured = edgeml("eval", path, tmp_path / "data", "--json").json
        assert isinstance(measured, dict)
        assert set(measured["metrics"]) >= {"top1", "top5", "mAP"}

    def test_it_writes_into_the_model_only_with_inside(
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


def test_no_overrides_change_nothing(tiny_onnx: Path) -> None:
    stated = spec_for(tiny_onnx, NO_OVERRIDES)
    assert set(stated.sources.values()) == {"in the file"}
    assert stated.spec == Predictor(tiny_onnx).spec


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(value=ANYTHING, data=st.data())
def test_any_value_in_any_field_is_read_or_a_spec_error(value: object, data: st.DataObject) -> None:
    processor = data.draw(st.sampled_from(list(DRAWN["hugging_face"].values())))["processor"]
    config = {"architectures": ["ViTForImageClassification"], "id2label": {"0": "a", "1": "b"}}
    pretrained = dict(next(iter(DRAWN["timm"].values()))["pretrained_cfg"])
    name = data.draw(st.sampled_from(sorted({*processor, *config, "problem_type"})))
    with suppress(SpecError):
        stated = spec_of_hugging_face(config | {name: value}, processor | {name: value}, ("c", "p"))
        assert stated.layout == "nchw"
    name = data.draw(st.sampled_from([*pretrained, "crop_mode", "label_names"]))
    with suppress(SpecError):
        stated = spec_of_timm({"pretrained_cfg": pretrained | {name: value}}, "c", None)
        assert stated.layout == "nchw"


@settings(deadline=None, max_examples=200)
@given(value=st.text(max_size=40) | st.sampled_from(["INFINITY", "nan", "9" * 400]), data=st.data())
def test_any_text_in_any_key_is_read_or_a_spec_error(value: str, data: st.DataObject) -> None:
    theirs = DRAWN["ultralytics"]["classify"]["metadata"]
    with suppress(SpecError):
        key = data.draw(st.sampled_from(sorted(theirs)))
        assert spec_of_ultralytics(theirs | {key: value}, "m").labels is not None
    keys = ["pad_value", "confidence_threshold", "mean_values", "scale_values", "resize_type",
            "multilabel", "orig_height", "embedded_processing", "interpolation_mode"]  # fmt: skip
    info = DRAWN["model_api"]["standard"]["metadata"] | {"embedded_processing": "True"}
    with suppress(SpecError):
        key = data.draw(st.sampled_from(keys))
        assert spec_of_model_api(info | {key: value}, "m").labels is not None


@settings(deadline=None, max_examples=100)
@given(text=st.text(max_size=200))
def test_any_text_as_metadata_yaml_is_read_or_a_spec_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "metadata.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with suppress(SpecError):
        assert isinstance(read_simple_yaml(path), dict)


@pytest.mark.runtime
@pytest.mark.parametrize("other", [{"layout": "nhwc"}, {"dtype": "float16"}, {"dtype": "uint8"}])
def test_inputs_of_another_layout_or_type_are_compared_after_normalisation(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    root = colour_folders(tmp_path / "data", each=1)
    for number, old in enumerate(("red", "green", "blue")):
        (root / old).rename(root / f"l{number}")
    first = make_net(tmp_path / "a.onnx")
    second = make_net(tmp_path / "b.onnx", **other)
    with (
        Predictor(first, spec=spec_for(first, STATED).spec) as a,
        Predictor(second, spec=spec_for(second, STATED).spec) as b,
    ):
        fidelity = compare(a, b, read_dataset(root))
    assert fidelity.inputs_max_abs < 1e-3
    assert fidelity.max_abs < 2e-3


def test_keys_for_model_api_are_written_only_if_they_can_express_the_spec(
    tmp_path: Path,
) -> None:
    spec = spec_for(make_net(tmp_path / "m.onnx"), STATED).spec
    one = replace(spec, task="multiclass", activation="softmax")
    assert model_info(spec)["multilabel"] == "True"
    assert model_info(one)["multilabel"] == "False"
    cut = replace(spec, preprocess=replace(spec.preprocess, resize="squash_crop"))
    assert model_info(cut) == {}


@pytest.mark.runtime
def test_opening_a_model_of_ours_does_not_import_the_readers_of_other_tools(
    tiny_onnx: Path,
) -> None:
    code = (
        "import sys; from edgeml import Predictor; Predictor(sys.argv[1]); "
        "foreign = {'edgeml.spec.foreign.merge', 'edgeml.spec.foreign.read_graph', 'xml.etree'}; "
        "assert not foreign & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_onnx)], check=True)


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_scores_of_a_model_api_file_with_explanations_are_used(
    tmp_path: Path, runtime: str
) -> None:
    pytest.importorskip(runtime)
    case = DRAWN["model_api"]["standard"]
    metadata = {f"model_info {key}": value for key, value in case["metadata"].items()}
    path = make_net(tmp_path / "m.onnx", metadata=metadata, second="feature_vector")
    with Predictor(path, runtime=runtime) as predictor:
        assert predictor.spec.output == "scores"
        scores = predictor.predict(FRAME).scores
    np.testing.assert_allclose(scores, case["expected"], atol=0.01)
