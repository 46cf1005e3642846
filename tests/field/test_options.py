"""No option is ever without effect: it changes something, or it is refused in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgeml.training.config import TrainConfig
from tests.command import Command, colour_folders
from tests.data.readers.sets import coco, encoded, put

PARTS = {"all three": ("train", "val", "test"), "no test": ("train", "val"),
         "no val": ("train", "test")}  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return colour_folders(tmp_path / "folders", each=4)


def divided(root: Path, parts: str) -> Path:
    """Write data with some of the parts train, val and test as folders, 12 images each."""
    seed = 0
    for part in PARTS[parts]:
        for label in ("cat", "dog"):
            for _ in range(6):
                put(root / part / label / f"{seed}.png", encoded(seed))
                seed += 1
    return root


@pytest.mark.parametrize(
    ("parts", "options", "refused"),
    [
        ("all three", ["--val", 0.2], "--val 0.2"),
        ("all three", ["--val", 0], "--val 0"),
        ("all three", ["--test", 0.2], "--test 0.2"),
        ("all three", ["--seed", 3], "--seed 3"),
        ("all three", ["--seed", 0], "--seed 0"),
        ("all three", ["--near"], "--near"),
        ("all three", ["--no-near"], "--no-near"),
        ("no test", ["--test", 0.2], "--test 0.2"),
        ("no test", ["--seed", 1], "--seed 1"),
        ("no val", ["--test", 0.2], "--test 0.2"),
        ("no val", ["--test", 0], "--test 0"),
        ("all three", [], ""),
        ("no test", ["--test", 0], ""),
        ("no val", ["--val", 0.5, "--seed", 1, "--no-near"], ""),
    ],
)
def test_options_of_a_split_are_refused_where_the_data_have_one(
    edgeml: Command, tmp_path: Path, parts: str, options: list[object], refused: str
) -> None:
    data, out = divided(tmp_path / "data", parts), tmp_path / "split.csv"
    words = ("data", "split", data, "--out", out, *options)
    if refused:
        assert refused in edgeml.refused(*words)
        assert not out.exists()
    else:
        assert edgeml(*words).status == 0


def test_the_seed_decides_what_completes_a_split(edgeml: Command, tmp_path: Path) -> None:
    data, sides = divided(tmp_path / "data", "no val"), []
    for seed in (1, 2, 1):
        out = tmp_path / "split.csv"
        assert edgeml("data", "split", data, "--out", out, "--val", 0.5, "--seed", seed).status == 0
        with open(out, newline="") as file:
            sides.append([row["split"] for row in csv.DictReader(file)])
        assert sides[-1].count("test") == 12
    assert sides[0] == sides[2] != sides[1]


@pytest.mark.parametrize(
    ("form", "options", "refused"),
    [
        ("folders", ["--separator", ","], "--separator ,"),
        ("folders", ["--root", "."], "--root ."),
        ("folders", ["--ignore-labels", "grey"], "'grey'"),
        ("folders", ["--labels", "red,blue", "--ignore-labels", "red"], "'red'"),
        ("coco", ["--delimiter", "/"], "--delimiter /"),
        ("coco", ["--separator", ","], "--separator ,"),
        ("table", ["--delimiter", "/"], "--delimiter /"),
        ("columns", ["--separator", ","], "--separator"),
        ("folders", ["--delimiter", "/"], ""),
        ("table", ["--separator", ";"], ""),
        ("table", ["--ignore-labels", "red"], ""),
    ],
)
def test_options_of_reading_are_refused_where_the_format_has_no_use_for_them(
    edgeml: Command, tmp_path: Path, folders: Path, form: str, options: list[str], refused: str
) -> None:
    data = folders
    names = ("red", "blue", "green") * 2
    for seed in range(6):
        put(tmp_path / "t" / f"{seed}.png", encoded(seed))
    if form == "coco":
        data = coco(tmp_path / "coco")
    elif form == "table":
        rows = [f"{seed}.png,{name}" for seed, name in enumerate(names)]
        data = put(tmp_path / "t" / "t.csv", "\n".join(["path,labels", *rows]))
    elif form == "columns":
        cells = {"red": "1,0,0", "blue": "0,1,0", "green": "0,0,1"}
        rows = [f"{seed}.png,{cells[name]}" for seed, name in enumerate(names)]
        data = put(tmp_path / "t" / "t.csv", "\n".join(["path,red,blue,green", *rows]))
    words = ("data", "audit", data, *options)
    if refused:
        assert refused in edgeml.refused(*words)
    else:
        done = edgeml(*words)
        assert done.status == 0, done.err


@pytest.mark.runtime
def test_options_of_reading_need_data_to_read(edgeml: Command, tiny_onnx: Path) -> None:
    assert "--delimiter" in edgeml.refused("verify", tiny_onnx, "--delimiter", "/")
    assert "--labels" in edgeml.refused("export", tiny_onnx, "--fmt", "onnx", "--labels", "red")


@pytest.mark.train
@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (["--gamma-neg", 3], "--gamma-neg 3"),
        (["--gamma-pos", 1, "--loss", "poly"], "--gamma-pos 1"),
        (["--asl-clip", 0.1, "--loss", "bce"], "--asl-clip 0.1"),
        (["--pos-weight-cap", 5], "--pos-weight-cap 5"),
        (["--distill", 0.7], "--distill 0.7"),
        (["--distill-temperature", 3], "--distill-temperature 3"),
        (["--from-scratch", "--weights", "x.safetensors"], "--from-scratch"),
        (["--resume", "--overwrite"], "--overwrite"),
        (["--find", "lr", "--resume"], "--resume"),
        (["--find", "lr", "--overwrite"], "--overwrite"),
        (["--find", "batch", "--out", "x"], "--out"),
        (["--separator", ","], "--separator ,"),
        (["--labels", "red,blue", "--ignore-labels", "blue"], "'blue'"),
    ],
)
def test_settings_of_training_are_refused_where_another_one_makes_them_useless(
    edgeml: Command, folders: Path, tmp_path: Path, options: list[object], refused: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert refused in edgeml.refused("train", folders, *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.train
@pytest.mark.parametrize(
    ("options", "refused"),
    [(["--val", 0.2], "--val 0.2"), (["--test", 0.3], "--test 0.3"), (["--no-near"], "--no-near")],
)
def test_training_refuses_options_of_a_split_where_the_data_have_one(
    edgeml: Command, tmp_path: Path, options: list[object], refused: str
) -> None:
    data = divided(tmp_path / "data", "all three")
    line = edgeml.refused("train", data, "--out", tmp_path / "run", *options)
    assert refused in line
    assert not (tmp_path / "run").exists()


@pytest.mark.train
@pytest.mark.parametrize(
    ("line", "flag", "expected"),
    [
        ("weights: a.safetensors", ["--from-scratch"], (None, False)),
        ("weights: a.safetensors", ["--pretrained"], (None, True)),
        ("pretrained: true", ["--weights", "b.safetensors"], (Path("b.safetensors"), False)),
    ],
)
def test_a_flag_for_the_initial_weights_replaces_what_a_file_states(
    edgeml: Command, folders: Path, tmp_path: Path, line: str, flag: list[str],
    expected: tuple[Path | None, bool], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[TrainConfig] = []

    def keep(data: object, config: TrainConfig, *args: object, **more: object) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeml.training.loop.train", keep)
    edgeml("train", folders, "--config", put(tmp_path / "s.yaml", line), *flag)
    assert [(config.weights, config.pretrained) for config in seen] == [expected]


@pytest.mark.train
def test_settings_in_a_file_that_do_not_apply_to_the_data_are_no_options(
    edgeml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeml.training.loop.train", stop)
    file = put(tmp_path / "s.yaml", "delimiter: /\nseparator: ','\ndistill: 0.7\nval: 0.3\n")
    data = divided(tmp_path / "data", "all three")
    assert edgeml("train", data, "--config", file).status == 130
    data = divided(tmp_path / "data", "all three")
    assert "--separator" in edgeml.refused("train", data, "--config", file, "--separator", ";")
