"""`edgeml train` on the command line: flags, settings files, resuming."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from edgeml import cli
from edgeml.training import config
from edgeml.training.config import TrainConfig, read_settings
from edgeml.training.state import STATE_FILE
from tests.command import Command, colour_folders

pytestmark = pytest.mark.train

QUICK = ("--epochs", 2, "--size", 32, "--threads", 1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_folders(tmp_path_factory.mktemp("data") / "ph otos ü", each=10)


def test_flags_win_over_a_settings_file(edgeml: Command, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "my settings.yaml"
    file.write_text("epochs: 50\nbatch: 4\naugment: none\n", encoding="utf-8")
    run = tmp_path / "run"
    done = edgeml("train", photos, "--config", file, *QUICK, "--out", run, "--json")
    assert done.status == 0, done.err
    message = read_settings(run / "config.yaml")
    assert (message["epochs"], message["batch"], message["augment"]) == (2, 4, "none")
    assert isinstance(done.json, dict)
    assert {"path", "images", "metrics", "labels"} <= done.json.keys()


def test_every_kind_of_flag_reaches_the_settings(
    edgeml: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainConfig] = []

    def train(data: object, chosen: TrainConfig, *args: object, **more: object) -> None:
        seen.append(chosen)
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeml.training.loop.train", train)
    edgeml(
        "train", photos, "--model-args", "pad_type=same", "--model-args", "drop_rate=0.1",
        "--mean", "0.5,0.5,0.5", "--groups", "colour=red,blue", "--hold-out", "red+blue",
        "--no-calibrate", "--freeze-bn", "--loss", "asl", "--lr", "1e-3", "--from-scratch",
    )  # fmt: skip
    assert seen == [
        TrainConfig(
            model_args={"pad_type": "same", "drop_rate": 0.1},
            mean=(0.5, 0.5, 0.5),
            groups={"colour": ("red", "blue")},
            hold_out=("red", "blue"),
            calibrate=False,
            freeze_bn=True,
            loss="asl",
            lr=1e-3,
        )
    ]


def test_every_setting_has_a_flag_with_help(
    edgeml: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = edgeml("train", "--help").out
    for name, _, setting in config.settings():
        assert f"--{name.replace('_', '-')} " in shown, name
        assert setting.help[:30] in shown, name


@pytest.mark.usefixtures("no_report")
def test_a_killed_run_resumes_without_other_flags(
    edgeml: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = edgeml(
        "train", photos, *QUICK, "--batch", 4, "--out", tmp_path / "uninterrupted"
    )
    assert uninterrupted.status == 0, uninterrupted.err
    run = tmp_path / "run"

    def interrupt(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgeml.training.loop.finish", interrupt)
        stopped = edgeml("train", photos, *QUICK, "--batch", 4, "--out", run)
    assert stopped.status == 130
    assert (run / STATE_FILE).exists()
    resumed = edgeml("train", photos, "--resume", "--out", run)
    assert resumed.status == 0, resumed.err
    weights = (run / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "uninterrupted" / "model.safetensors").read_bytes()


def test_resume_refuses_other_settings_and_folders_without_a_run(
    edgeml: Command, photos: Path, tmp_path: Path
) -> None:
    none = tmp_path / "none"
    assert "no run" in edgeml.refused("train", photos, "--resume", "--out", none)
    assert not none.exists()
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(TrainConfig(cache=False).to_yaml(), encoding="utf-8")
    line = edgeml.refused("train", photos, "--resume", "--out", run)
    assert "the run is finished" in line
    file = tmp_path / "x.yaml"
    file.write_text("lr: 1", encoding="utf-8")
    line = edgeml.refused("train", photos, "--resume", "--config", file, "--out", run)
    assert "omit --config" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--loss", "bcee"), "bce"),
        (("--epochs", "many"), "valid integer"),
        (("--epochs", 0), "epochs is 0; it must be 1 or more"),
        (("--smoothing", 2), "0 to 0.9"),
        (("--mean", "1,2"), "0.485,0.456,0.406"),
        (("--mean", "a,b,c"), "0.485,0.456,0.406"),
        (("--groups", "colour"), "key=value"),
        (("--objective", "best"), "macro_f1"),
        (("--objective", "precision>=2"), "precision>="),
        (("--weights", "absent.safetensors"), "no weights"),
        (("--weights", "x", "--pretrained"), "exclude each other"),
        (("--device", "tpu"), "no device 'tpu'"),
        (("--lrr", 1), "--lr"),
        (("--find", "seed"), "lr"),
        (("--config", "absent.yaml"), "Cannot read"),
        (("--delimiter", ""), "delimiter"),
    ],
)
def test_a_wrong_flag_is_refused_in_one_line(
    edgeml: Command, photos: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    done = edgeml("train", photos, "--out", tmp_path / "run", *words)
    assert (done.status, done.out) == (2, "")
    assert message in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_in_a_file_is_refused_with_its_line(
    edgeml: Command, photos: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("epochs: 3\nlearning_rate: 1\n", encoding="utf-8")
    line = edgeml.refused("train", photos, "--config", file, "--out", tmp_path / "run")
    assert "x.yaml, line 2" in line


@pytest.mark.usefixtures("no_report")
def test_a_combination_can_be_held_out(edgeml: Command, tmp_path: Path) -> None:
    data = tmp_path / "synth"
    words = ("--images", 160, "--size", 32, "--layout", "folders")
    assert edgeml("data", "synth", data, *words).status == 0
    run = tmp_path / "run"
    done = edgeml("train", data, *QUICK, "--hold-out", "red+shirt", "--out", run)
    assert done.status == 0, done.err
    with open(run / "split.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    held = [row for row in rows if {"red", "shirt"} <= set(row["labels"].split(";"))]
    assert held
    assert {row["split"] for row in held} == {"test"}
    assert "red + shirt" in done.err


def test_the_learning_rate_is_searched_for_without_training(
    edgeml: Command, photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = edgeml("train", photos, *QUICK, "--find", "lr", "--out", run, "--json")
    assert done.status == 0, done.err
    assert isinstance(done.json, dict)
    assert done.json["lr"] > 0
    assert Path(done.json["report"]).exists()
    assert not (run / "model.safetensors").exists()


def test_the_command_does_not_duplicate_the_flag_of_a_setting() -> None:
    own = {"data", "out", "config", "resume", "overwrite", "find", "json"}
    assert not own & {name for name, _, _ in config.settings()}
    assert cli.app
