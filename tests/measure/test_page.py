"""The page of an export, or of a comparison: every figure is on it, whatever is missing."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml import ModelSpec, Preprocess
from edgeml.benchmark.speedup import Speedup
from edgeml.errors import InputError
from edgeml.measure.bootstrap import ApLoss
from edgeml.measure.compare import Fidelity, Outputs, Recovery, measure
from edgeml.measure.page import Comparison, export_report
from edgeml.report.svg_figures import Scale
from edgeml_export.int8.budget import MixedPrecision, RankedNode
from edgeml_export.int8.calibration import Calibration
from tests.report.pages import EVIL, check_page

GARMENTS = ("grün", "Überrock", "a name that is far longer than any column has room for, and on")


def outputs(labels: int, images: int = 120, seed: int = 0) -> Outputs:
    """Return logits of two slightly different models; no image shows the last label."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((images, labels)) < 0.3).astype(np.int8)
    targets[:, -1] = 0
    logits = (4.0 * targets - 2 + rng.normal(0, 1.5, targets.shape)).astype(np.float32)
    candidate = (logits + rng.normal(0, 0.5, logits.shape)).astype(np.float32)
    return Outputs(
        reference=logits,
        candidate=candidate,
        targets=targets,
        inputs_equal=images,
        inputs_max_abs=0.0,
    )


def spec(labels: tuple[str, ...], threshold: float = 0.5) -> ModelSpec:
    thresholds = (threshold,) * len(labels)
    return ModelSpec(labels=labels, thresholds=thresholds, preprocess=Preprocess(size=(32, 32)))


def fidelity(labels: tuple[str, ...] = GARMENTS) -> Fidelity:
    return measure(outputs(len(labels)), spec(labels), spec(labels, 0.4375))


def comparison(**changes: Any) -> Comparison:
    """Return a comparison with the required fields only."""
    minimal = Comparison(
        title="m.onnx", reference="FP32", candidate="INT8", fidelity=fidelity(), facts={}
    )
    return replace(minimal, **changes)


def calibrated(images: int, without: tuple[str, ...] = ()) -> Calibration:
    return Calibration(
        paths=tuple(Path(f"{i}.jpg") for i in range(images)), hashes=("ab",), without=without
    )


def full_comparison(labels: tuple[str, ...] = GARMENTS, nodes: int = 8) -> Comparison:
    """Return a comparison with all fields."""
    both, old, new = outputs(len(labels)), spec(labels), spec(labels, 0.4375)
    fitted, unfitted = measure(both, old, new), measure(both, old, old)
    ranked = [
        RankedNode(name=f"/block.{i}/conv", damage=10.0 ** (1 - i), in_float=i < 2, measured=i != 3)
        for i in range(nodes)
    ]
    return comparison(
        kind="export",
        fidelity=replace(fitted, passed=False),
        findings=["mAP fell by 1.50 points, allowed are 0.5 (--max-drop)"],
        max_drop=0.5,
        max_label_drop=3.0,
        scores=both.scores(old, new),
        recovery=Recovery(
            before=unfitted.reference,
            unfitted=unfitted.exported,
            fitted=fitted.exported,
            images=321,
            objective="macro_f1",
        ),
        methods={"minmax": 0.0123, "entropy": 0.0045, "percentile": math.nan},
        method="entropy",
        mixed=MixedPrecision(
            nodes=ranked,
            unit="decisions that change, of 1000",
            steps=[(0, 1.5), (2, 0.4)],
            seconds=12.34,
        ),
        speed=Speedup(ratio=2.81, low=2.75, high=2.88, slow_ms=17.2, fast_ms=6.1, rounds=21),
        calibration=calibrated(300, without=("Überrock",)),
        overlap=7,
        notes=["One thread."],
        facts={"Target": "x86", "File": "m.onnx"},
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def text_of(path: Path) -> str:
    return " ".join(check_page(path).text.split())


def test_all_fields_are_on_the_page(out: Path) -> None:
    export_report(full_comparison(), out)
    text = text_of(out)
    for shown in (
        "m.onnx", "Refused", "mAP fell by 1.50 points, allowed are 0.5 (--max-drop)",
        "120of 120 inputs are equal", "In every byte", "p99.9", "0.500 → 0.438",
        "321 other images, for macro_f1", "old thresholds", "exact match",
        "2 of 8 nodes compute in floating point,", "It took 12.3 s", "/block.7/conv",
        "≈ 0.010",
        "0.012", "0.0045", "✓ chosen", "INT8 is 2.81 times as fast as FP32 here", "21 rounds",
        "300images were used to measure the ranges", "No image shows Überrock", 
        "7 of them were also used",
        calibrated(300).digest[:16], "One thread.", "Targetx86",
    ):  # fmt: skip
        assert shown in text, shown
    assert len([one for one in check_page(out).all("svg") if one.get("class") == "plot"]) == 3


def test_the_figures_are_those_of_the_comparison(out: Path) -> None:
    given = full_comparison()
    export_report(given, out)
    text, drops = text_of(out), given.fidelity.drops
    for drop in (drops.mAP, drops.labels["grün"]):
        low, high = (f"{end:.2f}".replace("-", "\N{MINUS SIGN}") for end in (drop.low, drop.high))
        assert f"{drop.points:.2f}".replace("-", "\N{MINUS SIGN}") in text
        assert f"{low} to {high}" in text
    assert f"{given.fidelity.label_flips_per_1000:.2f}of 1000 labels flip" in text
    for name in ("CF1", "OF1", "macro_F1", "exact_match"):
        for one in (given.recovery.before, given.recovery.unfitted, given.recovery.fitted):
            assert f"{100 * one.summary()[name]:.2f}" in text


def test_labels_are_sorted_by_loss(out: Path) -> None:
    labels = tuple("abcdef")
    export_report(comparison(fidelity=fidelity(labels)), out)
    drops = fidelity(labels).drops.labels
    expected = sorted("abcde", key=lambda name: -drops[name].points)
    shown = re.findall(r'<th scope="row"><div class="named">(.*?)</div>', out.read_text("utf-8"))
    assert shown == ["mAP", *expected, "f"]  # no image shows f
    assert "Labels without a positive here have no AP: f." in text_of(out)


def test_a_label_exceeds_its_limit_only_if_its_interval_is_above_zero(out: Path) -> None:
    given = fidelity(("sure", "doubtful", "absent"))
    drops = {
        **given.drops.labels,
        "sure": ApLoss(points=5.0, low=4.0, high=6.0),
        "doubtful": ApLoss(points=5.0, low=-1.0, high=9.0),
    }
    given = replace(given, drops=replace(given.drops, labels=drops))
    export_report(comparison(fidelity=given, max_label_drop=3.0), out)
    rows = re.findall(r"<tr.*?</tr>", out.read_text("utf-8"), re.S)
    over = {row.split("named\">")[1].split("<")[0]: "more than is allowed" in row
            for row in rows if "named" in row}  # fmt: skip
    assert over == {"mAP": False, "sure": True, "doubtful": False, "absent": False}


@pytest.mark.parametrize(
    "omitted",
    ["findings", "scores", "recovery", "methods", "mixed", "speed", "calibration", "notes"],
)
def test_any_part_may_be_missing(omitted: str, out: Path) -> None:
    nothing: dict[str, Any] = {"findings": (), "methods": {}, "notes": ()}
    export_report(replace(full_comparison(), **{omitted: nothing.get(omitted)}), out)
    page = check_page(out)
    links = {link["href"] for link in page.all("a")}
    assert links <= {f"#{part['id']}" for part in page.all("h2")}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"fidelity": replace(fidelity(), passed=True)},
        {"fidelity": replace(fidelity(), passed=False)},
        {"max_drop": math.inf, "max_label_drop": math.inf},
        {"max_drop": 0.0, "max_label_drop": 0.0},
        {"fidelity": fidelity(("one",))},
        {
            "fidelity": replace(
                fidelity(), max_abs=math.inf, mean_abs=math.inf, inputs_equal=0,
                inputs_max_abs=math.inf, quantiles={"p50": 0.1, "p99.9": math.inf},
            )
        },
        {"fidelity": replace(fidelity(), inputs_equal=3, inputs_max_abs=2.5e-6)},
        {"mixed": MixedPrecision(nodes=[])},
        {"mixed": MixedPrecision(
            nodes=[RankedNode(name="n", damage=damage, in_float=True) for damage in (0, math.nan)],
            unit="flips", steps=[(1, -0.1)],
        )},
        {"scores": (np.zeros((0, 3), np.float32),) * 2},
        {"scores": (np.ones((9, 3), np.float32),) * 2},
        {"calibration": calibrated(1)},
    ],
)  # fmt: skip
def test_extreme_values_make_a_page(changes: dict[str, Any], out: Path) -> None:
    export_report(comparison(**changes), out)
    check_page(out)


def test_a_difference_of_the_inputs_is_shown(out: Path) -> None:
    export_report(
        comparison(fidelity=replace(fidelity(), inputs_equal=3, inputs_max_abs=2.5e-6)), out
    )
    assert "3of 120 inputs are equal" in text_of(out)
    assert "The largest difference is 2.5 × 10⁻⁶" in text_of(out)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.7, 0.9, "INT8 is not faster than FP32 here"), (0.9, 1.1, "no clear difference")],
)
def test_a_candidate_that_is_not_faster_is_reported(
    low: float, high: float, verdict: str, out: Path
) -> None:
    speed = Speedup(ratio=0.8, low=low, high=high, slow_ms=8.0, fast_ms=10.0, rounds=9)
    export_report(comparison(speed=speed), out)
    assert verdict in text_of(out)


def test_markup_in_a_name_is_escaped(out: Path) -> None:
    given = replace(
        full_comparison((EVIL, "b", EVIL + "c")),
        title=EVIL, reference=EVIL, candidate=EVIL, findings=[EVIL], notes=[EVIL],
        facts={EVIL: EVIL}, methods={EVIL: 1.0}, method=EVIL,
        mixed=MixedPrecision(
            nodes=[RankedNode(name=EVIL, kind=EVIL, damage=1.0, in_float=True)],
            unit=EVIL, steps=[(0, 1.0)],
        ),
        calibration=calibrated(1, without=(EVIL,)),
    )  # fmt: skip
    export_report(given, out)
    assert EVIL in check_page(out).text


@pytest.mark.slow
def test_eighty_labels_and_two_hundred_nodes_stay_a_page(out: Path) -> None:
    export_report(full_comparison(tuple(f"label {i}" for i in range(80)), nodes=200), out)
    text = text_of(out)
    assert "And 188 more, in INT8, that cost less." in text
    assert "label 79" in text
    assert out.stat().st_size < 500_000


@pytest.mark.slow
def test_the_same_comparison_gives_the_same_bytes(out: Path, tmp_path: Path) -> None:
    export_report(full_comparison(), out)
    export_report(full_comparison(), tmp_path / "again.html")
    assert out.read_bytes() == (tmp_path / "again.html").read_bytes()


def test_a_page_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        export_report(comparison(), tmp_path / "file" / "report.html")


def test_a_scale_maps_values_to_pixels() -> None:
    scale = Scale(low=-2, high=8, width=116)
    # 100 pixels for 10 points, after a margin of 8; values beyond the ends are moved to them.
    assert [scale.x(value) for value in (-2, 0, 8, -5, 90)] == [8, 28, 108, 8, 108]
    assert scale.ticks() == [-2, 0, 2, 4, 6, 8]
    assert len(Scale(low=-4.8, high=3.7).ticks()) >= 3
    assert 0 in Scale(low=-0.1, high=0.1).ticks()
