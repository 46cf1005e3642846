"""How predictions, specs and predictors show themselves, in a line and in a notebook."""

from __future__ import annotations

import base64
import copy
import gc
import pickle
import weakref
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgeml import LabelGroup, ModelSpec, Prediction, Predictor, Preprocess
from edgeml.image.frame import Frame
from edgeml.predict.display import predictor_html
from edgeml.spec.provenance import Provenance
from tests.tiny import TinyRuntime, tiny_spec

COLOURS, OTHERS = ("red", "green", "blue"), ("striped", "torn", "wet", "old")


def spec_of(
    labels: tuple[str, ...] = COLOURS + OTHERS, groups: tuple[LabelGroup, ...] = ()
) -> ModelSpec:
    thresholds = tuple(0.25 + 0.0625 * (i % 4) for i in range(len(labels)))
    preprocess = Preprocess(size=(48, 64))
    return ModelSpec(labels=labels, thresholds=thresholds, preprocess=preprocess, groups=groups)


def prediction_of(
    spec: ModelSpec, scores: dict[str, float], labels: tuple[str, ...] = ()
) -> Prediction:
    row = np.array([scores.get(label, 0.0) for label in spec.labels], np.float32)
    return Prediction(row, labels, spec)


class Page(HTMLParser):
    """What a browser would make of it: elements, attributes, and the text of each element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.depth = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.depth += tag != "img"
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.depth -= 1
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data


def picture_in(html: str) -> Frame | None:
    for tag, attributes in Page(html).elements:
        if tag == "img":
            kind, _, data = str(attributes["src"]).partition(",")
            assert kind == "data:image/jpeg;base64"
            decoded = np.frombuffer(base64.b64decode(data), np.uint8)
            return cv2.imdecode(decoded, cv2.IMREAD_COLOR)
    return None


class TestLine:
    def test_it_says_what_is_present_best_first(self) -> None:
        scores = {"red": 0.5, "wet": 0.987, "blue": 0.4}
        assert repr(prediction_of(spec_of(), scores, ("red", "wet"))) == (
            "Prediction(wet 0.99, red 0.50)"
        )

    def test_of_no_label_it_says_the_best(self) -> None:
        line = repr(prediction_of(spec_of(), {"blue": 0.2}))
        assert line == "Prediction(no label; best is blue 0.20)"

    def test_it_stays_short_and_on_one_line(self) -> None:
        labels = tuple(f"label\n{i}" for i in range(900))
        spec = spec_of(labels)
        scores = {label: 1 - i / 1000 for i, label in enumerate(labels)}
        for shown in (prediction_of(spec, scores, labels), spec):
            assert "\n" not in repr(shown)
            assert len(repr(shown)) < 160
        assert "and 895 more" in repr(prediction_of(spec, scores, labels))

    def test_a_spec_and_a_predictor_say_what_they_are(self) -> None:
        assert repr(tiny_spec()) == (
            "ModelSpec(3 labels: red, green, blue; 32 x 32 squash, float32, fp32)"
        )
        assert repr(Predictor(TinyRuntime())) == (
            "Predictor(tiny numpy, computes in f32, 3 labels: red, green, blue)"
        )


class TestHtml:
    @given(text=st.text(min_size=1, max_size=30))
    def test_no_text_of_a_model_becomes_html(self, text: str) -> None:
        hostile = f'<script>alert("{text}")</script>\'"><img src=x onerror=alert(1)>&amp;'
        spec = ModelSpec(
            labels=(hostile, "b"),
            thresholds=(0.5, 0.5),
            preprocess=Preprocess(size=(8, 8)),
            groups=(LabelGroup(name=hostile + "g", labels=("b",)),),
            metrics={hostile: 0.5},
            provenance=Provenance(model=hostile, notes={hostile: hostile}),
        )
        runtime = TinyRuntime(tiny_spec(("a", "b"), size=8))
        runtime.name = hostile
        shown = prediction_of(spec, {hostile: 0.9, "b": 0.7}, (hostile,))
        for thing in (shown, Predictor(runtime, spec=spec)):
            page = Page(thing._repr_html_())
            assert {tag for tag, _ in page.elements} <= {"div", "span"}
            assert {name for _, attributes in page.elements for name in attributes} <= {
                "style",
                "title",
            }
            assert page.depth == 0
            assert any('<script>alert("' in text for text in page.texts)

    def test_nothing_is_fetched_and_text_takes_the_colour_of_the_page(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "x.png"), np.full((40, 50, 3), 90, np.uint8))
        predictor = Predictor(TinyRuntime())
        shown = predictor.predict(tmp_path / "x.png")
        for thing in (shown, predictor):
            page = Page(thing._repr_html_())
            for _, attributes in page.elements:
                style = str(attributes.get("style"))
                assert "url(" not in style
                assert str(attributes.get("src", "data:")).startswith("data:")
                declared = dict(part.split(":", 1) for part in style.split(";") if ":" in part)
                # The green of a tick is read on white and on black; no text has another colour.
                assert declared.get("color", "#1f9d6b") == "#1f9d6b"
                assert "background-color" not in declared

    def test_bars_are_as_long_as_scores_with_a_mark_at_the_threshold(self) -> None:
        spec = spec_of(groups=(LabelGroup(name="colour", labels=COLOURS, rule="one"),))
        scores = {"red": 0.125, "green": 0.0625, "striped": 0.875}
        page = Page(prediction_of(spec, scores, ("red", "striped"))._repr_html_())
        titles = {str(a["title"]).split(":")[0]: a for _, a in page.elements if "title" in a}
        assert list(titles) == ["red", "green", "striped"]
        assert str(titles["striped"]["title"]) == "striped: 0.8750, threshold 0.4375"
        assert "#1f9d6b 87.5%" in str(titles["striped"]["style"])
        assert "calc(43.8% - 1px)" in str(titles["striped"]["style"])
        assert "12.5%" in str(titles["red"]["style"])
        assert "threshold" not in str(titles["red"]["title"])  # one of the group is chosen anyhow
        assert "calc" not in str(titles["red"]["style"])
        texts = [text for text in page.texts if text]
        assert texts[:4] == ["colour, one of 3", "red", "0.12", "✓"]
        assert "1 more, under 0.01" in texts
        assert "3 more, under 0.01" in texts
        assert texts.count("✓") == 2

    def test_where_one_label_of_all_is_chosen_no_threshold_is_shown(self) -> None:
        spec = replace(spec_of(), task="multiclass", activation="softmax")
        html = prediction_of(spec, {"wet": 0.875, "old": 0.125}, ("wet",))._repr_html_()
        assert [text for text in Page(html).texts if text][:2] == ["one of 7", "wet"]
        assert "threshold" not in html + predictor_html(TinyRuntime(), spec)

    def test_of_a_thousand_labels_the_best_are_shown(self) -> None:
        labels = tuple(f"label {i}" for i in range(1000))
        scores = {label: 1 - i / 1000 for i, label in enumerate(labels)}
        page = Page(prediction_of(spec_of(labels), scores)._repr_html_())
        assert sum("title" in attributes for _, attributes in page.elements) == 12
        assert "988 more, at most 0.99" in page.texts
        assert len(predictor_html(TinyRuntime(), spec_of(labels))) < 10_000


class TestPicture:
    @pytest.fixture
    def frame(self) -> Frame:
        out = np.zeros((300, 600, 3), np.uint8)
        out[:, :300], out[:, 300:] = (20, 30, 200), (200, 30, 20)
        return out

    def check(self, html: str) -> None:
        shown = picture_in(html)
        assert shown is not None
        assert shown.shape == (112, 224, 3)
        assert np.abs(shown[:, :100].astype(int) - (20, 30, 200)).mean() < 6
        assert np.abs(shown[:, 130:].astype(int) - (200, 30, 20)).mean() < 6

    def test_a_file_a_frame_and_a_pil_image_are_shown(self, frame: Frame, tmp_path: Path) -> None:
        path = tmp_path / "red ü.png"
        path.write_bytes(cv2.imencode(".png", frame)[1].tobytes())
        pil = Image.fromarray(np.ascontiguousarray(frame[..., ::-1]))
        predictor = Predictor(TinyRuntime())
        for image in (path, str(path), frame, pil):
            self.check(predictor.predict(image)._repr_html_())
        for answer in predictor.predict_many([path, b"not an image", frame], batch=3):
            if isinstance(answer, Prediction):
                self.check(answer._repr_html_())
        for answer in predictor.predict_batch([frame, path]):
            self.check(answer._repr_html_())

    def test_a_frame_is_not_kept_alive(self) -> None:
        frame = np.zeros((30, 60, 3), np.uint8)
        predictor, alive = Predictor(TinyRuntime()), weakref.ref(frame)
        shown = [predictor.predict(frame), *predictor.predict_many([frame])]
        assert alive() is not None
        del frame
        gc.collect()
        assert alive() is None
        assert len(shown) == 2

    def test_what_is_gone_or_was_bytes_leaves_the_bars(self, frame: Frame, tmp_path: Path) -> None:
        predictor, path = Predictor(TinyRuntime()), tmp_path / "x.png"
        path.write_bytes(cv2.imencode(".png", frame)[1].tobytes())
        from_file, from_bytes = predictor.predict(path), predictor.predict(path.read_bytes())
        path.unlink()
        passing = predictor.predict(frame.copy())
        for shown in (from_file, from_bytes, passing, prediction_of(spec_of(), {"red": 0.5})):
            html = shown._repr_html_()
            assert picture_in(html) is None
            assert "red" in html

    def test_a_prediction_is_copied_and_goes_to_other_processes(
        self, frame: Frame, tmp_path: Path
    ) -> None:
        predictor, path = Predictor(TinyRuntime()), tmp_path / "x.png"
        path.write_bytes(cv2.imencode(".png", frame)[1].tobytes())
        for image in (frame, path):
            before = predictor.predict(image)
            for after in (pickle.loads(pickle.dumps(before)), copy.deepcopy(before)):
                np.testing.assert_array_equal(after.scores, before.scores)
                assert repr(after) == repr(before)
                assert (picture_in(after._repr_html_()) is None) == (image is frame)
