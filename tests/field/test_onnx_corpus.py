"""Every command on ONNX files of many kinds: the originating runtime's answer, or one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from tests.command import Command, Result
from tests.field import corpus_broken, corpus_graphs, corpus_operators, corpus_types
from tests.field.corpus import LABELS, SIDE, Case

pytestmark = [pytest.mark.runtime, pytest.mark.usefixtures("untimed")]

CASES = [
    *corpus_graphs.versions(), *corpus_graphs.batches(), *corpus_graphs.outputs(),
    *corpus_graphs.inputs(), *corpus_graphs.ends(), *corpus_graphs.external_data(),
    *corpus_graphs.functions_and_branches(), *corpus_operators.operators(),
    *corpus_operators.constants(), *corpus_operators.names(), *corpus_types.types(),
    *corpus_broken.broken(), *corpus_broken.metadata(),
]  # fmt: skip
IMAGES = 3
WIDE = ("--max-drop", "100", "--max-label-drop", "100", "--search-minutes", "0.1",
        "--allow-overlap", "--calib-method", "minmax")  # fmt: skip
COMMON = {
    "--mean": "0.485,0.456,0.406", "--std": "0.229,0.224,0.225", "--resize": "squash",
    "--channels": "rgb",
}  # fmt: skip


@pytest.fixture(autouse=True)
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pages, which take half the time of an export."""
    monkeypatch.setattr("edgeml_export.pipeline.write_report", lambda *_, **__: None)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of exactly the networks' size, in folders named after labels."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label in LABELS:
        (root / label).mkdir()
        for number in range(IMAGES):
            ground = rng.integers(0, 256, (4, 4, 3), np.uint8)
            picture = cv2.resize(ground, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(root / label / f"{number}.png"), picture)
    (root.parent / "names.txt").write_text("\n".join(LABELS))
    return root


def files(images: Path) -> list[Path]:
    return sorted(images.rglob("*.png"))


def input_of(file: Path, spec: Mapping[str, Any]) -> NDArray[Any]:
    """Do to an image of the right size what a spec states, with numpy."""
    frame = cv2.imread(str(file))
    frame_spec = spec["preprocess"]
    raw = spec["input"] == "uint8"
    order = spec["raw_channels"] if raw else frame_spec["channels"]
    pixels = frame[..., ::-1] if order == "rgb" else frame
    if not raw:
        mean, std = (np.array(frame_spec[key]) for key in ("mean", "std"))
        pixels = (pixels / 255.0 - mean) / std
    if not (spec["layout"] == "nhwc" or (raw and spec["layout"] == "auto")):
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None], spec["input"])


def answers(model: Path, spec: Mapping[str, Any], images: Path) -> NDArray[np.float64]:
    """Return the probabilities of ONNX Runtime itself, one image at a time."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    batch = session.get_inputs()[0].shape[0]
    count = batch if isinstance(batch, int) and batch > 0 else 1
    rows = []
    for file in files(images):
        one = np.repeat(input_of(file, spec), count, axis=0)
        output = spec["output"] or session.get_outputs()[0].name
        (result,) = session.run([output], {session.get_inputs()[0].name: one})
        rows.append(np.asarray(result, np.float64).reshape(count, -1)[0])
    logits = np.stack(rows)
    if spec["activation"] == "softmax":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return 1 / (1 + np.exp(-logits)) if spec["activation"] == "sigmoid" else logits


def options_of(case: Case, images: Path) -> list[str]:
    taken = dict(COMMON)
    for key in ("--mean", "--std", "--channels"):
        if key in case.options:
            del taken[key]
    if case.states.get("input") == "uint8":
        taken.pop("--mean", None)
        taken.pop("--std", None)
    words = [word for pair in taken.items() for word in pair]
    return [*words, "--labels", str(images.parent / "names.txt"), *case.options]


def checked(result: Result, *, allowed: tuple[int, ...] = (0,)) -> Result:
    assert result.status in allowed, result.err
    assert "Traceback" not in result.err
    if result.status == 2:
        errors = [line for line in result.err.splitlines() if line.startswith("edgeml: ")]
        assert len(errors) == 1, result.err
        assert "/tmp/tmp" not in errors[0], errors
    return result


def predicted(edgeml: Command, model: Path, images: Path) -> NDArray[np.float64]:
    result = checked(edgeml("predict", model, *files(images), "--json"))
    return np.array([list(one["scores"].values()) for one in result.json])  # type: ignore[attr-defined]


def exports(edgeml: Command, case: Case, model: Path, images: Path, folder: Path) -> Iterator[str]:
    """Export in all forms, and yield what is wrong with the results."""
    expected = predicted(edgeml, model, images)
    for form, suffix in (("onnx", "onnx"), ("openvino", "xml")):
        for precision in ("fp32", "fp16", "int8"):
            if (form, precision) == ("onnx", "fp32"):
                continue
            out = folder / f"{precision}.{suffix}"
            calibrated = ["--calib", images] if precision == "int8" else []
            result = checked(
                edgeml("export", model, "--fmt", form, "--precision", precision, "--check", images,
                       "--out", out, *WIDE, *calibrated), allowed=(0, 1, 2))  # fmt: skip
            kinds = {f"{form} {precision}", f"all {form}", "all"}
            if (result.status != 0) != bool(kinds & set(case.no_export)):
                yield f"{form} {precision}: {result.status}, {result.err[-400:]}"
            if result.status:
                continue
            tolerance = {"fp32": 1e-3, "fp16": 1e-2, "int8": 0.1}[precision]
            off = np.abs(predicted(edgeml, out, images) - expected).max()
            if off > max(tolerance, case.tolerance):
                yield f"{form} {precision} is off by {off:.3g}"


def problems(
    edgeml: Command, case: Case, images: Path, folder: Path, *, everything: bool
) -> Iterator[str]:
    """Run the commands on a file; yield what is wrong."""
    (folder / "in").mkdir()
    model = case.build(folder / "in")
    spec = checked(
        edgeml("inspect", model, *options_of(case, images), "--write-spec", "--json"),
        allowed=(2,) if case.refused else (0,),
    )
    commands = [("predict", model, *files(images)[:1]), ("verify", model, "--json")]
    if everything:
        commands.append(("eval", model, images, "--json"))
    if everything and CASES.index(case) % 8 == 0:  # it opens models as the others do, and is slow
        commands.append(("bench", model, "--seconds", "0.1"))
    for words in commands:
        result = edgeml(*words)
        verdicts = (1, 2) if case.refused and words[0] == "verify" else (2 if case.refused else 0,)
        if result.status not in verdicts or "Traceback" in result.err:
            yield f"{words[0]}: {result.status}, {result.err[-300:]}{result.out[-300:]}"
    if case.refused:
        yield from (
            ()
            if not everything
            else [
                f"export: {done.status}, {done.err[-300:]}"
                for done in [
                    edgeml("export", model, "--fmt", "openvino", "--out", folder / "o.xml")
                ]
                if done.status != 2 or "Traceback" in done.err
            ]
        )
        return
    stated: Any = spec.json
    for key, value in case.states.items():
        if stated[key] != value:
            yield f"{key} is {stated[key]}, not {value}"
    off = np.abs(predicted(edgeml, model, images) - answers(model, stated, images)).max()
    if not off <= case.tolerance:
        yield f"off by {off:.3g}"
    if everything:
        yield from exports(edgeml, case, model, images, folder)


@pytest.mark.nightly
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_command_gives_the_right_answer_or_one_line(
    case: Case, edgeml: Command, images: Path, tmp_path: Path
) -> None:
    assert not list(problems(edgeml, case, images, tmp_path, everything=True))


SAMPLE = (
    "opset 9, IR 3", "opset 25, IR 13", "Reshape to 1", "probabilities, logits", "uint8 NHWC",
    "NHWC of Keras", "weights in a subfolder", "a function in a function", "If, computed",
    "QDQ, U8S8 by channel", "weights only, 8 bits", "FP16, ends too", "Git LFS", "boxes",
)  # fmt: skip


@pytest.mark.parametrize("name", SAMPLE)
def test_files_of_many_kinds_are_read_or_refused(
    name: str, edgeml: Command, images: Path, tmp_path: Path
) -> None:
    (case,) = (case for case in CASES if case.name == name)
    assert not list(problems(edgeml, case, images, tmp_path, everything=False))
