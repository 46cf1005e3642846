"""Training from end to end, on drawn images."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from edgeml import EdgemlError, ModelSpec, Predictor, Preprocess
from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.errors import DataError, InputError, ModelLoadError
from edgeml.image.reading import read_image
from edgeml.measure.metrics import evaluate
from edgeml.measure.reliability import fit_temperature
from edgeml.network.checkpoint import load_checkpoint
from edgeml.network.model import build_model
from edgeml.progress import SILENT
from edgeml.spec.labels import UNKNOWN
from edgeml.training.config import TrainConfig, read_settings
from edgeml.training.finish import TrainResult
from edgeml.training.loop import train
from edgeml.training.splits import prepare_splits
from tests.notes import Notes
from tests.training.shapes import LABELS

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("no_report")]

TINY = TrainConfig(size=32, epochs=2, batch=12, threads=1, cache=False)


@pytest.fixture(scope="session")
def run(shapes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(shapes, replace(TINY, epochs=14, batch=8), out)


def test_training_learns(run: TrainResult) -> None:
    losses = [epoch.train_loss for epoch in run.history]
    assert losses[-1] < 0.6 * losses[0]
    assert run.metrics.mAP > 0.8
    # A head that starts at the prevalence starts at the entropy of the labels, ln 2 here.
    assert losses[0] < 0.75


def test_a_run_folder_holds_the_documented_files(run: TrainResult, shapes: Dataset) -> None:
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        "model.safetensors", "history.csv", "split.csv", "config.yaml",
        "report.html", "report.json", "per_label.csv",
    }  # fmt: skip
    with open(run.path / "history.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 15))
    assert float(rows[-1]["mAP"]) == pytest.approx(run.history[-1].mAP, rel=1e-5)
    again = read_dataset(run.path / "split.csv")
    assert again.split is not None
    splits = {path.name: split for path, split in zip(again.paths, again.split, strict=True)}
    assert shapes.split is not None
    assert splits == {p.name: split for p, split in zip(shapes.paths, shapes.split, strict=True)}
    settings = read_settings(run.path / "config.yaml")
    assert (settings["model"], settings["size"], settings["epochs"]) == ("cnn", 32, 14)
    assert settings["lr"] == pytest.approx(5e-3)  # resolved defaults are written, too


def test_the_spec_holds_labels_groups_metrics_and_provenance(
    run: TrainResult, shapes: Dataset
) -> None:
    spec = run.spec
    assert (spec.labels, spec.groups) == (LABELS, shapes.label_groups)
    assert spec.preprocess == Preprocess(size=(32, 32))
    assert spec.metrics["test_mAP"] == pytest.approx(run.metrics.mAP, abs=1e-6)
    best = max(epoch.mAP for epoch in run.history)
    assert spec.metrics["val_mAP"] == pytest.approx(best, abs=1e-6)
    assert spec.provenance.data_sha256 == shapes.digest()
    assert {"model", "torch", "timm", "edgeml"} <= spec.provenance.to_texts().keys()
    # The data came divided: no plan would divide them so again.
    assert spec.provenance.split is None


def test_the_checkpoint_scores_as_the_run_reports(run: TrainResult, shapes: Dataset) -> None:
    test = shapes.part("test")
    with Predictor(run.path) as predictor:
        assert predictor.spec == run.spec
        predictions = predictor.predict_batch(list(test.paths))
    scores = np.stack([prediction.scores for prediction in predictions])
    again = evaluate(scores, test.targets, run.spec)
    assert again.summary() == pytest.approx(run.metrics.summary(), abs=1e-6)


@pytest.mark.parametrize("group_loss", ["bce", "softmax"])
def test_the_temperature_is_folded_into_the_head(
    shapes: Dataset, tmp_path: Path, group_loss: Literal["bce", "softmax"]
) -> None:
    frames = [read_image(path) for path in shapes.part("val").paths]
    logits = {}
    for calibrate in (True, False):
        config = replace(TINY, epochs=4, batch=8, group_loss=group_loss, calibrate=calibrate)
        result = train(shapes, config, tmp_path / str(calibrate))
        with Predictor(result.path) as predictor:
            logits[calibrate], spec = predictor.logits(frames), predictor.spec
        if calibrate:
            temperature = spec.provenance.temperature
            assert temperature is not None
    assert 0.2 < temperature < 5
    np.testing.assert_allclose(logits[True] * temperature, logits[False], rtol=1e-4, atol=1e-4)
    # The best temperature of the saved weights is 1.
    remaining = fit_temperature(logits[True], shapes.part("val").targets, spec.softmax_groups())
    assert remaining == pytest.approx(1, abs=2e-3)


def test_a_group_is_learned_and_predicted_as_one_choice(shapes: Dataset, tmp_path: Path) -> None:
    config = replace(TINY, epochs=14, batch=8, group_loss="softmax")
    result = train(shapes, config, tmp_path / "run")
    assert result.spec.activation == "group_softmax"
    assert result.metrics.exact_match > 0.6
    with Predictor(result.path) as predictor:
        scores = predictor.predict(shapes.paths[0]).scores
    assert scores[[0, 2]].sum() == pytest.approx(1)
    assert scores[[1, 3]].sum() == pytest.approx(1)


def test_a_choice_needs_a_group(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no group with exactly one label per image"):
        train(
            replace(shapes, label_groups=()), replace(TINY, group_loss="softmax"), tmp_path / "run"
        )


def test_unknown_labels_are_neither_learned_nor_counted(shapes: Dataset, tmp_path: Path) -> None:
    targets = shapes.targets.copy()
    targets[::3, 1] = UNKNOWN
    partly = replace(shapes, targets=targets, label_groups=())
    result = train(partly, replace(TINY, epochs=14, batch=8), tmp_path / "run")
    known = int((partly.part("test").targets[:, 1] > 0).sum())
    assert result.metrics.labels["disc"].positives == known
    assert result.metrics.mAP > 0.8


def test_a_student_learns_from_a_teacher_without_labels(
    run: TrainResult, shapes: Dataset, tmp_path: Path
) -> None:
    # All targets of the training split are wrong: it can learn from the teacher only.
    targets = shapes.targets.copy()
    targets[:40] = 1 - targets[:40]
    config = replace(TINY, epochs=14, batch=8, seed=7, teacher=run.path, distill=1.0)
    result = train(replace(shapes, targets=targets), config, tmp_path / "student")
    assert result.metrics.mAP > 0.75


def test_a_teacher_must_have_all_labels(run: TrainResult, shapes: Dataset, tmp_path: Path) -> None:
    other = replace(shapes, labels=("blue", "disc", "red", "oval"), label_groups=())
    with pytest.raises(ModelLoadError, match="does not have the labels 'oval'"):
        train(other, replace(TINY, teacher=run.path), tmp_path / "student")


def test_only_the_head_trains_in_head_epochs(
    run: TrainResult, shapes: Dataset, tmp_path: Path
) -> None:
    config = replace(
        TINY, epochs=1, head_epochs=1, weights=run.path, size=None, lr=0.01, calibrate=False
    )
    result = train(shapes, config, tmp_path / "run")
    before, after = (load_checkpoint(path)[0].state_dict() for path in (run.path, result.path))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"head.weight", "head.bias"}


def test_training_stops_early_without_improvement(shapes: Dataset, tmp_path: Path) -> None:
    notes = Notes()
    config = replace(TINY, epochs=20, lr=1e-9, patience=2)
    result = train(shapes, config, tmp_path / "run", progress=notes)
    assert len(result.history) < 20
    assert any("stopped early" in line for line in notes.lines)


def test_gradients_of_small_batches_add_up_to_those_of_a_large_one(
    shapes: Dataset, tmp_path: Path
) -> None:
    # Without batch statistics the mean over both halves equals that of the full batch.
    common = replace(TINY, epochs=1, freeze_bn=True, augment="none", ema=0, calibrate=False, clip=0)
    large = train(shapes, replace(common, batch=20), tmp_path / "large").path
    small = train(shapes, replace(common, batch=10, accumulate=2), tmp_path / "small").path
    states = [load_checkpoint(path)[0].state_dict() for path in (large, small)]
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=1e-3, atol=1e-5)


@pytest.mark.nightly  # it calls a compiler
def test_a_compiled_model_learns_the_same(shapes: Dataset, tmp_path: Path) -> None:
    config = replace(TINY, epochs=14, batch=8, compile=True)
    result = train(shapes, config, tmp_path / "run")
    assert result.metrics.mAP > 0.8
    with Predictor(result.path) as predictor:  # the checkpoint is not compiled
        assert predictor.spec == result.spec


def test_fp16_on_a_cpu_is_refused(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use bf16"):
        train(shapes, replace(TINY, amp="fp16"), tmp_path / "run")


def test_bad_images_are_skipped_by_name_if_configured(shapes: Dataset, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"not an image")
    damaged = replace(shapes, paths=(*shapes.paths[:5], bad, *shapes.paths[6:]))
    notes = Notes()
    config = replace(TINY, epochs=1, skip_bad=True)
    train(damaged, config, tmp_path / "run", progress=notes)
    assert any("bad.jpg" in line for line in notes.lines)
    assert len(read_dataset(tmp_path / "run" / "split.csv")) == 63


def test_a_data_set_without_a_split_is_divided(shapes: Dataset, tmp_path: Path) -> None:
    plan = SplitPlan(val=0.25, test=0.25, seed=3)
    config = replace(TINY, epochs=1, val=0.25, test=0.25, seed=3)
    result = train(replace(shapes, split=None), config, tmp_path / "run")
    assert result.metrics.images == pytest.approx(16, abs=4)
    assert result.spec.provenance.split == plan


def test_a_run_can_start_from_another_run(
    run: TrainResult, shapes: Dataset, tmp_path: Path
) -> None:
    notes = Notes()
    config = replace(TINY, epochs=1, weights=run.path, size=None, lr=1e-6)
    result = train(shapes, config, tmp_path / "next", progress=notes)
    assert result.spec.preprocess == run.spec.preprocess
    assert result.history[0].train_loss < run.history[0].train_loss
    assert len(result.spec.provenance.weights_sha256 or "") == 64
    assert not any("new head" in line for line in notes.lines)


def test_unreadable_images_are_refused_before_training(shapes: Dataset, tmp_path: Path) -> None:
    bad, worse = tmp_path / "bad.jpg", tmp_path / "worse.jpg"
    bad.write_bytes(b"not an image")
    worse.write_bytes(b"not an image either")
    paths = (*shapes.paths[:5], bad, *shapes.paths[6:-1], worse)
    with pytest.raises(DataError, match=r"2 of 64 images cannot be read.*bad\.jpg.*worse\.jpg"):
        train(replace(shapes, paths=paths), TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_model_is_not_overwritten(
    run: TrainResult, shapes: Dataset, tmp_path: Path
) -> None:
    before = (run.path / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="already holds a model"):
        train(shapes, TINY, run.path)
    assert (run.path / "model.safetensors").read_bytes() == before
    once = train(shapes, replace(TINY, epochs=1), tmp_path / "run")
    train(shapes, replace(TINY, epochs=1), once.path, overwrite=True)


def test_a_folder_that_cannot_be_created_is_refused_at_once(
    shapes: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="Cannot write"):
        train(shapes, TINY, tmp_path / "file" / "run")


@pytest.mark.parametrize("model", ["cnm", "resnet81"])
def test_a_bad_model_leaves_nothing_behind(shapes: Dataset, tmp_path: Path, model: str) -> None:
    with pytest.raises(ModelLoadError):
        train(shapes, replace(TINY, model=model), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_single_label_is_refused(shapes: Dataset, tmp_path: Path) -> None:
    single = replace(shapes, labels=("blue",), targets=shapes.targets[:, :1], label_groups=())
    with pytest.raises(DataError, match="only one label"):
        train(single, TINY, tmp_path / "run")


def test_an_empty_split_is_refused(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 for validation"):
        train(replace(shapes, split=("train",) * 64), replace(TINY, val=0.0), tmp_path / "run")


def test_without_a_test_split_the_metrics_are_those_of_validation(
    shapes: Dataset, tmp_path: Path
) -> None:
    split = ("train",) * 40 + ("val",) * 24
    result = train(replace(shapes, split=split), replace(TINY, epochs=1), tmp_path / "run")
    assert result.metrics.images == 24
    assert not any(name.startswith("test_") for name in result.spec.metrics)


def test_a_label_without_training_images_causes_a_warning(shapes: Dataset, tmp_path: Path) -> None:
    wider = np.concatenate([shapes.targets, np.zeros((64, 1), np.uint8)], axis=1)
    notes = Notes()
    more = replace(shapes, labels=(*LABELS, "violet"), targets=wider)
    result = train(more, replace(TINY, epochs=1), tmp_path / "run", progress=notes)
    assert any("'violet'" in line and "cannot be learned" in line for line in notes.lines)
    assert ModelSpec.from_json(result.spec.to_json()) == result.spec


def test_an_exploding_loss_is_an_error(shapes: Dataset, tmp_path: Path) -> None:
    config = replace(TINY, mean=(1e30, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    with pytest.raises(EdgemlError, match="Lower --lr"):
        train(shapes, config, tmp_path / "run")


def test_an_interrupted_run_leaves_its_best_weights(shapes: Dataset, tmp_path: Path) -> None:
    class Impatient(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            if text.startswith("epoch 2/"):
                raise KeyboardInterrupt

    notes = Impatient()
    with pytest.raises(KeyboardInterrupt):
        train(shapes, replace(TINY, epochs=5), tmp_path / "run", progress=notes)
    _, spec = load_checkpoint(tmp_path / "run")
    assert "val_mAP" in spec.metrics
    assert "interrupted: continue with --resume" in notes.lines[-1]


def test_an_unknown_device_is_refused(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no device 'tpu9'"):
        train(shapes, replace(TINY, device="tpu9"), tmp_path / "run")


@pytest.fixture(scope="session")
def short_run(shapes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(shapes, TINY, tmp_path_factory.mktemp("runs") / "short")


def test_repeating_a_run_from_its_settings_gives_bit_equal_weights(
    short_run: TrainResult, shapes: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(99)  # the state of the global generator must not matter
    settings = TrainConfig(**read_settings(short_run.path / "config.yaml"))
    train(shapes, settings, tmp_path / "again")
    weights = (short_run.path / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights


def test_another_seed_gives_other_weights_and_torch_keeps_its_state(
    short_run: TrainResult, shapes: Dataset, tmp_path: Path
) -> None:
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    train(shapes, replace(TINY, seed=1, threads=1), tmp_path)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), generator)
    first, other = (load_checkpoint(path)[0] for path in (short_run.path, tmp_path))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_half_precision_trains_on_a_cpu(shapes: Dataset, tmp_path: Path) -> None:
    result = train(shapes, replace(TINY, epochs=3, amp="bf16"), tmp_path / "run")
    assert result.history[-1].train_loss < 0.95 * result.history[0].train_loss


def test_a_log_for_tensorboard_is_written_if_configured(shapes: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(shapes, replace(TINY, epochs=1, tensorboard=True), tmp_path / "run")
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"validation/mAP" in events.read_bytes()


VIT = replace(TINY, model="test_vit", epochs=1, lr=1e-3, ema=0, weight_decay=0, layer_decay=1.0)


@pytest.fixture(scope="session")
def vit_run(
    shapes: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, list[str]]:
    """A run of a small transformer, and its notes."""
    notes = Notes()
    result = train(shapes, VIT, tmp_path_factory.mktemp("runs") / "vit", progress=notes)
    return result, notes.lines


def test_a_timm_transformer_trains_at_another_size_than_its_default(
    vit_run: tuple[TrainResult, list[str]],
) -> None:
    result, notes = vit_run
    assert result.spec.preprocess.mean == (0.5, 0.5, 0.5)  # timm's value for this model
    assert any("--pretrained" in line for line in notes)
    model, _ = load_checkpoint(result.path)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


def test_gradient_checkpointing_does_not_change_the_weights(
    vit_run: tuple[TrainResult, list[str]], shapes: Dataset, tmp_path: Path
) -> None:
    train(shapes, replace(VIT, grad_checkpointing=True), tmp_path)
    plain, lean = (load_checkpoint(path)[0].state_dict() for path in (vit_run[0].path, tmp_path))
    for key, value in plain.items():
        torch.testing.assert_close(value, lean[key], rtol=1e-4, atol=1e-6)


def test_layer_decay_slows_the_first_layers(
    vit_run: tuple[TrainResult, list[str]], shapes: Dataset, tmp_path: Path
) -> None:
    train(shapes, replace(VIT, layer_decay=0.3), tmp_path)
    torch.manual_seed(0)
    start = build_model("test_vit", labels=4, args={"img_size": 32}).patch_embed.proj.weight
    plain, slow = (load_checkpoint(path)[0] for path in (vit_run[0].path, tmp_path))
    # With Adam a parameter moves by its rate: a slower layer stays closer to its initial value.
    moved = [(model.patch_embed.proj.weight - start).abs().mean() for model in (plain, slow)]
    assert moved[1] < 0.3 * moved[0]


def test_named_groups_must_fit_the_data(shapes: Dataset) -> None:
    bare = replace(shapes, label_groups=())
    splits = prepare_splits(bare, replace(TINY, groups={"colour": ("blue", "red")}), SILENT)
    groups = splits.dataset.label_groups
    assert [(group.name, group.rule) for group in groups] == [("colour", "one")]
    for labels, reason in (
        (("blue", "disc"), "must have exactly one"),
        (("blue", "green"), "no label 'green'"),
        (("blue",), "needs at least two labels"),
    ):
        with pytest.raises(DataError, match=reason):
            prepare_splits(bare, replace(TINY, groups={"wrong": labels}), SILENT)


def test_a_plan_that_would_produce_the_given_split_is_recognised(shapes: Dataset) -> None:
    split = split_dataset(replace(shapes, split=None), SplitPlan(val=0.25, test=0.25, seed=3))
    assert prepare_splits(split, replace(TINY, val=0.25, test=0.25, seed=3), SILENT).planned
    assert not prepare_splits(split, TINY, SILENT).planned
