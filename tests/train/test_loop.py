"""Training from end to end, on pictures that are drawn for it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgeml import EdgemlError, LabelGroup, ModelSpec, Predictor, Preprocess
from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.errors import DataError, InputError, ModelLoadError
from edgeml.metrics import evaluate
from edgeml.progress import Progress
from edgeml.train.checkpoint import load_checkpoint
from edgeml.train.config import TrainConfig
from edgeml.train.loop import TrainResult, train

pytestmark = pytest.mark.train

LABELS = ("blue", "disc", "red", "square")
TINY = TrainConfig(size=32, epochs=2, batch=12, threads=1)


class Notes(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 pictures of 40 px: a red or blue disc or square, 40 to train on, 12 and 12 to check."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    paths, targets = [], np.zeros((64, 4), np.uint8)
    for i in range(64):
        blue, disc = i % 2, i // 2 % 2
        picture = rng.integers(80, 120, (40, 40, 3), dtype=np.uint8)
        colour = (220, 40, 40) if blue else (40, 40, 220)
        x, y = (int(value) for value in rng.integers(14, 26, 2))
        if disc:
            cv2.circle(picture, (x, y), 9, colour, -1)
        else:
            cv2.rectangle(picture, (x - 9, y - 9), (x + 9, y + 9), colour, -1)
        paths.append(root / f"{i:02d}.png")
        cv2.imwrite(str(paths[-1]), picture)
        targets[i] = (blue, disc, 1 - blue, 1 - disc)
    return Dataset(
        root=root,
        paths=tuple(paths),
        labels=LABELS,
        targets=targets,
        groups=None,
        split=("train",) * 40 + ("val",) * 12 + ("test",) * 12,
        label_groups=(
            LabelGroup(name="colour", labels=("blue", "red"), rule="one"),
            LabelGroup(name="shape", labels=("disc", "square"), rule="one"),
        ),
    )


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


def test_a_run_folder_holds_what_was_promised(run: TrainResult, shapes: Dataset) -> None:
    names = {path.name for path in run.path.iterdir()}
    assert names == {"model.safetensors", "history.csv", "split.csv", "config.json"}
    with open(run.path / "history.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 15))
    assert float(rows[-1]["mAP"]) == pytest.approx(run.history[-1].mAP, rel=1e-5)
    again = read_dataset(run.path / "split.csv")
    assert again.split is not None
    sides = {path.name: side for path, side in zip(again.paths, again.split, strict=True)}
    assert shapes.split is not None
    assert sides == {p.name: side for p, side in zip(shapes.paths, shapes.split, strict=True)}
    settings = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    assert (settings["model"], settings["size"], settings["epochs"]) == ("cnn", 32, 14)


def test_the_spec_tells_labels_groups_metrics_and_origin(run: TrainResult, shapes: Dataset) -> None:
    spec = run.spec
    assert (spec.labels, spec.groups) == (LABELS, shapes.label_groups)
    assert spec.preprocess == Preprocess(size=(32, 32))
    assert spec.metrics["test_mAP"] == pytest.approx(run.metrics.mAP, abs=1e-6)
    best = max(epoch.mAP for epoch in run.history)
    assert spec.metrics["val_mAP"] == pytest.approx(best, abs=1e-6)
    assert spec.origin["data_sha256"] == shapes.digest()
    assert {"model", "torch", "timm", "edgeml"} <= spec.origin.keys()
    # The data came divided: no plan would divide them so again.
    assert "split" not in spec.origin


def test_the_checkpoint_scores_as_the_run_reports(run: TrainResult, shapes: Dataset) -> None:
    test = shapes.part("test")
    with Predictor(run.path) as predictor:
        assert predictor.spec == run.spec
        predictions = predictor.predict_batch(list(test.paths))
    scores = np.stack([prediction.scores for prediction in predictions])
    again = evaluate(scores, test.targets, run.spec)
    assert again.summary() == pytest.approx(run.metrics.summary(), abs=1e-6)


@pytest.mark.parametrize("augment", ["none", "colour_safe"])
def test_two_runs_with_one_seed_give_bit_equal_weights(
    shapes: Dataset, tmp_path: Path, augment: str
) -> None:
    config = replace(TINY, augment=augment, seed=5)
    states = []
    for name in ("a", "b"):
        torch.manual_seed(len(name) + len(states))  # what came before must not matter
        train(shapes, config, tmp_path / name)
        states.append(load_checkpoint(tmp_path / name)[0].state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_another_seed_gives_other_weights(shapes: Dataset, tmp_path: Path) -> None:
    states = []
    for seed in (1, 2):
        out = train(shapes, replace(TINY, epochs=1, seed=seed), tmp_path / str(seed)).path
        states.append(load_checkpoint(out)[0].state_dict())
    assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])


def test_training_leaves_torch_as_it_was(shapes: Dataset, tmp_path: Path) -> None:
    before = torch.get_num_threads(), torch.get_rng_state()
    train(shapes, replace(TINY, epochs=1, threads=1), tmp_path / "run")
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_data_set_without_a_split_is_divided(shapes: Dataset, tmp_path: Path) -> None:
    plan = SplitPlan(val=0.25, test=0.25, seed=3)
    result = train(
        replace(shapes, split=None), replace(TINY, epochs=1, split=plan), tmp_path / "run"
    )
    assert result.metrics.images == pytest.approx(16, abs=4)
    assert SplitPlan.from_text(result.spec.origin["split"]) == plan


def test_a_plan_that_divided_the_data_before_is_remembered(shapes: Dataset, tmp_path: Path) -> None:
    plan = SplitPlan(val=0.25, test=0.25, seed=3)
    divided = split_dataset(replace(shapes, split=None), plan)
    same = train(divided, replace(TINY, epochs=1, split=plan), tmp_path / "same")
    other = train(divided, replace(TINY, epochs=1), tmp_path / "other")
    assert same.spec.origin["split"] == plan.to_text()
    assert "split" not in other.spec.origin


def test_a_run_can_start_from_another_run(
    run: TrainResult, shapes: Dataset, tmp_path: Path
) -> None:
    notes = Notes()
    config = replace(TINY, epochs=1, weights=run.path, size=None, lr=1e-6)
    result = train(shapes, config, tmp_path / "next", progress=notes)
    assert result.spec.preprocess == run.spec.preprocess
    assert result.history[0].train_loss < run.history[0].train_loss
    assert len(result.spec.origin["weights_sha256"]) == 64
    assert not any("new head" in line for line in notes.lines)


def test_a_timm_transformer_trains_at_another_size_than_its_own(
    shapes: Dataset, tmp_path: Path
) -> None:
    config = replace(TINY, model="test_vit", epochs=1)
    notes = Notes()
    result = train(shapes, config, tmp_path / "run", progress=notes)
    assert result.spec.preprocess.mean == (0.5, 0.5, 0.5)  # what timm says of this model
    assert any("--pretrained" in line for line in notes.lines)
    model, _ = load_checkpoint(tmp_path / "run")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


def test_unreadable_pictures_are_refused_before_training(shapes: Dataset, tmp_path: Path) -> None:
    bad, worse = tmp_path / "bad.jpg", tmp_path / "worse.jpg"
    bad.write_bytes(b"not a picture")
    worse.write_bytes(b"no picture either")
    paths = (*shapes.paths[:5], bad, *shapes.paths[6:-1], worse)
    with pytest.raises(DataError, match=r"2 of 64 pictures cannot be used.*bad\.jpg.*worse\.jpg"):
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
    train(shapes, replace(TINY, epochs=1, overwrite=True), once.path)


def test_a_folder_that_cannot_be_made_is_told_at_once(shapes: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="Cannot write"):
        train(shapes, TINY, tmp_path / "file" / "run")


@pytest.mark.parametrize("model", ["cnm", "resnet81"])
def test_a_bad_model_leaves_nothing_behind(shapes: Dataset, tmp_path: Path, model: str) -> None:
    with pytest.raises(ModelLoadError):
        train(shapes, replace(TINY, model=model), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_label_only_is_refused(shapes: Dataset, tmp_path: Path) -> None:
    single = replace(shapes, labels=("blue",), targets=shapes.targets[:, :1], label_groups=())
    with pytest.raises(DataError, match="only one label"):
        train(single, TINY, tmp_path / "run")


def test_an_empty_side_is_refused(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 for validation"):
        train(replace(shapes, split=("train",) * 64), TINY, tmp_path / "run")


def test_without_a_test_side_the_metrics_are_those_of_validation(
    shapes: Dataset, tmp_path: Path
) -> None:
    split = ("train",) * 40 + ("val",) * 24
    result = train(replace(shapes, split=split), replace(TINY, epochs=1), tmp_path / "run")
    assert result.metrics.images == 24
    assert not any(name.startswith("test_") for name in result.spec.metrics)


def test_a_label_that_is_never_trained_on_is_told(shapes: Dataset, tmp_path: Path) -> None:
    wider = np.concatenate([shapes.targets, np.zeros((64, 1), np.uint8)], axis=1)
    notes = Notes()
    more = replace(shapes, labels=(*LABELS, "violet"), targets=wider)
    result = train(more, replace(TINY, epochs=1), tmp_path / "run", progress=notes)
    assert any("'violet'" in line and "cannot be learned" in line for line in notes.lines)
    assert ModelSpec.from_json(result.spec.to_json()) == result.spec


def test_a_loss_that_explodes_is_told(shapes: Dataset, tmp_path: Path) -> None:
    config = replace(TINY, mean=(1e30, 0.0, 0.0), std=(1e-30, 1.0, 1.0))
    with np.errstate(all="ignore"), pytest.raises(EdgemlError, match="lower --lr"):
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
    assert "interrupted" in notes.lines[-1]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 1}, "batch is 1"),
        ({"size": 5000}, "size is 5000"),
        ({"lr": -1.0}, "lr is -1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"augment": "strong"}, "augment is 'strong'"),
        ({"weights": Path("x"), "pretrained": True}, "Both"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        TrainConfig(**settings)  # type: ignore[arg-type]


def test_an_unknown_device_is_refused(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no device 'tpu9'"):
        train(shapes, replace(TINY, device="tpu9"), tmp_path / "run")
