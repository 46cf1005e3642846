"""Images that a model was trained on are not scored, whatever happened to the data since."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgeml import ModelSpec, Predictor
from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset, write_split
from edgeml.data.run_split import find_run_split
from edgeml.data.split import split_digest
from edgeml.errors import DataError
from edgeml.measure.evaluation import evaluate_model
from edgeml.spec.provenance import Provenance
from tests.command import Command, colour_folders
from tests.data.readers.sets import encoded, put
from tests.notes import Notes
from tests.tiny import TinyRuntime, tiny_spec

PLAN = SplitPlan(val=0.2, test=0.3, near=False)


class Run:
    """A run on 30 images in red/, green/ and blue/: its folder, its model and its data."""

    def __init__(self, root: Path, *, digests: bool = True) -> None:
        self.data = colour_folders(root / "data", each=10)
        self.folder = root / "run"
        self.divided = split_dataset(read_dataset(self.data), PLAN)
        self.spec = replace(
            tiny_spec(),
            provenance=Provenance(
                data_sha256=self.divided.digest(),
                split=PLAN,
                split_sha256=split_digest(self.divided),
            ),
        )
        self.folder.mkdir()
        write_split(self.divided, self.folder / "split.csv")
        if not digests:
            as_of_0_1_0(self.folder / "split.csv")

    def side(self, name: str, number: int = 0) -> Path:
        return self.divided.part(name).paths[number]  # type: ignore[arg-type]

    def evaluate(
        self,
        data: Path,
        part: str | None = None,
        *,
        model: Path | None = None,
        spec: ModelSpec | None = None,
    ) -> tuple[int, int | None, str]:
        """Return the number of images that are scored, those seen in training, and the warnings."""
        notes, spec = Notes(), spec or self.spec
        run = find_run_split(model or self.folder, spec, data)
        with Predictor(TinyRuntime(spec)) as predictor:
            done = evaluate_model(
                predictor, read_dataset(data), part, run=run, progress=notes  # type: ignore[arg-type]
            )  # fmt: skip
        lines = [line for line in notes.lines if line.startswith("warning")]
        return done.images, done.seen_in_training, "\n".join(lines)


def as_of_0_1_0(table: Path) -> None:
    """Rewrite a split.csv with absolute paths and without digests."""
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [f"{row['data_root']}/{row['path']},{row['labels']},{row['split']}" for row in rows]
    table.write_text("\n".join(["path,labels,split", *lines]) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_unchanged_data_give_the_test_part(run: Run) -> None:
    assert run.evaluate(run.data) == (9, 0, "")
    assert run.evaluate(run.data, "val") == (6, 0, "")


def replace_training_image(run: Run) -> None:
    put(run.side("train"), encoded(99))


def replace_test_image(run: Run) -> None:
    put(run.side("test"), encoded(99))


def add_images(run: Run) -> None:
    put(run.data / "red" / "new1.png", encoded(98))
    put(run.data / "red" / "new2.png", encoded(99))


def rename_training_images(run: Run) -> None:
    for path in run.divided.part("train").paths:
        path.rename(path.with_name(f"renamed_{path.name}"))


def relabel_training_image(run: Run) -> None:
    path = run.side("train")
    other = "red" if path.parent.name != "red" else "blue"
    path.rename(run.data / other / "moved.png")


def remove_training_image(run: Run) -> None:
    run.side("train").unlink()


def copy_training_image(run: Run) -> None:
    shutil.copy(run.side("train"), run.data / "red" / "copy.png")


def move_all(run: Run) -> None:
    run.data.rename(run.data.with_name("elsewhere"))
    run.data = run.data.with_name("elsewhere")
    replace_unrelated = run.data / "red" / "extra.png"
    put(replace_unrelated, encoded(97))


@pytest.mark.parametrize(
    ("change", "images", "warned"),
    [
        (replace_training_image, 10, 1),
        (replace_test_image, 9, 1),
        (add_images, 11, 2),
        (rename_training_images, 9, 0),
        (relabel_training_image, 9, 0),
        (remove_training_image, 9, 0),
        (copy_training_image, 9, 0),
        (move_all, 10, 1),
    ],
)
def test_changed_data_are_matched_image_by_image(
    run: Run, change: Callable[[Run], None], images: int, warned: int
) -> None:
    change(run)
    scored, seen, warning = run.evaluate(run.data)
    assert (scored, seen) == (images, 0)
    assert bool(warning) == bool(warned)
    assert f"{warned} of " in warning or not warned


def test_only_known_images_belong_to_a_side_that_is_named(run: Run) -> None:
    add_images(run)
    scored, seen, warning = run.evaluate(run.data, "test")
    assert (scored, seen) == (9, 0)
    assert "2 of 32 " in warning


@pytest.mark.parametrize(("part", "counts"), [("all", (30, 15)), ("train", (15, 15))])
def test_training_images_are_scored_and_counted_if_the_user_wants_it(
    run: Run, part: str, counts: tuple[int, int]
) -> None:
    scored, seen, warning = run.evaluate(run.data, part)
    assert (scored, seen) == counts
    assert f"15 of these {scored} " in warning


def test_a_split_of_the_data_does_not_make_training_images_test_images(run: Run) -> None:
    other = replace(
        run.divided, split=tuple("train" if side == "test" else "test" for side in _sides(run))
    )
    write_split(other, run.data / "other.csv")
    scored, seen, warning = run.evaluate(run.data / "other.csv")
    assert (scored, seen) == (6, 0)  # the validation images, which nothing was trained on
    assert "15 of the 21 test " in warning
    assert run.evaluate(run.data / "other.csv", "all")[:2] == (30, 15)


def _sides(run: Run) -> tuple[str, ...]:
    assert run.divided.split is not None
    return run.divided.split


def test_data_of_training_images_alone_are_refused(run: Run, tmp_path: Path) -> None:
    rows = [f"{path},{path.parent.name}" for path in run.divided.part("train").paths]
    table = put(tmp_path / "t.csv", "\n".join(["path,labels", *rows]))
    with pytest.raises(DataError, match=r"15 are training"):
        run.evaluate(table)
    assert run.evaluate(table, "all")[:2] == (15, 15)


def test_a_test_part_of_training_images_alone_is_refused(run: Run) -> None:
    sides = tuple("test" if side == "train" else "train" for side in _sides(run))
    write_split(replace(run.divided, split=sides), run.data / "other.csv")
    with pytest.raises(DataError, match=r"all 15 test images"):
        run.evaluate(run.data / "other.csv")


def test_data_that_the_run_does_not_know_are_all_scored(run: Run, tmp_path: Path) -> None:
    for number, label in enumerate(("red", "green", "blue") * 2):
        put(tmp_path / "other" / label / f"{number}.png", encoded(number))
    assert run.evaluate(tmp_path / "other") == (6, 0, "")


@pytest.mark.parametrize("name", ["model.onnx", "model.int8.xml", "model.safetensors"])
def test_a_file_in_the_run_folder_knows_its_run(run: Run, name: str) -> None:
    replace_test_image(run)
    assert run.evaluate(run.data, model=run.folder / name)[:2] == (9, 0)


def test_a_file_without_its_run_is_not_known_to_be_unseen_when_the_data_changed(
    run: Run, tmp_path: Path
) -> None:
    away = tmp_path / "device" / "model.onnx"
    assert run.evaluate(run.data, model=away) == (9, 0, "")
    split = run.folder / "split.csv"
    assert run.evaluate(split, model=away) == (9, 0, "")
    add_images(run)
    scored, seen, warning = run.evaluate(run.data, model=away)
    assert (scored, seen) == (32, None)
    assert "these 32 images" in warning
    put(away.parent / "split.csv", split.read_bytes())
    assert run.evaluate(run.data, model=away)[:2] == (11, 0)


def test_the_split_of_another_run_does_not_count(run: Run, tmp_path: Path) -> None:
    other = split_dataset(read_dataset(run.data), replace(PLAN, seed=5))
    write_split(other, tmp_path / "split.csv")
    scored, seen, warning = run.evaluate(tmp_path / "split.csv", model=tmp_path / "model.onnx")
    assert (scored, seen) == (9, None)
    assert "these 9 images" in warning


def test_a_model_without_provenance_may_have_seen_everything(run: Run, tmp_path: Path) -> None:
    scored, seen, warning = run.evaluate(
        run.data, model=tmp_path / "foreign.onnx", spec=tiny_spec()
    )
    assert (scored, seen) == (30, None)
    assert "these 30 images" in warning


def test_a_run_of_0_1_0_is_matched_by_path_and_not_certain(tmp_path: Path) -> None:
    run = Run(tmp_path, digests=False)
    assert run.evaluate(run.data) == (9, 0, "")
    assert run.evaluate(run.folder / "split.csv")[:2] == (9, 0)
    put(run.side("train"), encoded(99))
    scored, seen, warning = run.evaluate(run.data)
    assert (scored, seen) == (9, None)
    assert "these 9 images" in warning


def test_training_images_of_a_run_of_0_1_0_are_no_test_images_of_the_data(tmp_path: Path) -> None:
    run = Run(tmp_path, digests=False)
    other = replace(
        run.divided, split=tuple("train" if side == "test" else "test" for side in _sides(run))
    )
    write_split(other, run.data / "other.csv")
    scored, seen, warning = run.evaluate(run.data / "other.csv")
    assert (scored, seen) == (6, None)
    assert "15 of the 21 test " in warning


# Tables of images that are elsewhere now.


def reads(table: Path, **options: Path) -> Dataset:
    return read_dataset(table, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("digests", [True, False])
def test_a_split_is_read_from_where_the_images_are_now(tmp_path: Path, digests: bool) -> None:
    run = Run(tmp_path, digests=digests)
    before = reads(run.folder / "split.csv")
    run.data.rename(tmp_path / "mounted")
    with pytest.raises(DataError, match="--root"):
        reads(run.folder / "split.csv")
    after = reads(run.folder / "split.csv", root=tmp_path / "mounted")
    assert after.split == before.split == run.divided.split
    assert [path.relative_to(tmp_path / "mounted") for path in after.paths] == [
        path.relative_to(run.data) for path in before.paths
    ]


def test_paths_that_may_mean_two_places_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "x/a.png"):
        put(tmp_path / "now" / name, encoded(0))
    table = put(tmp_path / "t.csv", "path,labels\n/old/x/a.png,red\n/old/x/a.png,red\n")
    with pytest.raises(DataError, match=r"'x/a.png' or 'a.png'"):
        reads(table, root=tmp_path / "now")


def test_other_images_decide_where_one_path_may_mean_two_places(tmp_path: Path) -> None:
    for name in ("a.png", "x/a.png", "x/b.png"):
        put(tmp_path / "now" / name, encoded(0))
    table = put(tmp_path / "t.csv", "path,labels\n/old/x/a.png,red\nC:\\old\\x\\b.png,blue\n")
    with pytest.raises(DataError):
        reads(table, root=tmp_path / "now")  # two roots: nothing in common
    table = put(tmp_path / "t.csv", "path,labels\n/old/x/a.png,red\n/old/x/b.png,blue\n")
    paths = reads(table, root=tmp_path / "now").paths
    assert [path.relative_to(tmp_path / "now").as_posix() for path in paths] == [
        "x/a.png",
        "x/b.png",
    ]


def test_a_label_may_still_be_called_root(tmp_path: Path) -> None:
    put(tmp_path / "a.png", encoded(0))
    put(tmp_path / "b.png", encoded(1))
    table = put(tmp_path / "t.csv", "path,root,leaf\na.png,1,0\nb.png,0,1\n")
    assert reads(table).labels == ("leaf", "root")


@pytest.mark.train
def test_a_real_run_keeps_the_digests_of_its_images(
    edgeml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeml.training.finish.train_report", lambda training, out: None)
    data, run = colour_folders(tmp_path / "data", each=10), tmp_path / "run"
    words = ("--epochs", 1, "--size", 32, "--threads", 1, "--no-near", "--test", 0.3)
    assert edgeml("train", data, "--out", run, *words).status == 0
    put(data / "red" / "9.png", encoded(99))
    first = edgeml("eval", run, data, "--json").json
    exported = edgeml("export", run, "--fmt", "onnx")
    assert exported.status == 0, exported.err
    second = edgeml("eval", run / "model.onnx", data, "--json").json
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["seen_in_training"] == second["seen_in_training"] == 0
    assert first["images"] == second["images"]
    assert first["images"] in (9, 10)  # 9 for the test, and the replaced image
