"""TensorBoard logs, read back with TensorBoard's own reader."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
from edgeml.errors import InputError, MissingDependencyError
from edgeml.training.history import Epoch
from edgeml.training.tensorboard import open_log

pytestmark = pytest.mark.train

VALUES = {"epoch": 1, "lr": 3e-4, "train_loss": 0.7, "val_loss": 0.6, "images_per_s": 123.0}
ROW = Epoch(**{one.name: VALUES.get(one.name, 0.5) for one in fields(Epoch)})  # type: ignore[arg-type]


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read (epoch, value) by tag."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_every_number_of_a_row_is_a_scalar_of_its_epoch(tmp_path: Path) -> None:
    with open_log(tmp_path / "logs") as write:
        write(ROW)
        write(replace(ROW, epoch=2, train_loss=0.5))
    read = curves(tmp_path / "logs")
    assert len(read) == len(asdict(ROW)) - 1
    assert [step for step, _ in read["loss/train"]] == [1, 2]
    assert [value for _, value in read["loss/train"]] == pytest.approx([0.7, 0.5])
    for tag, value in (
        ("loss/validation", 0.6),
        ("optimizer/lr", 3e-4),
        ("speed/images_per_s", 123.0),
        ("validation/mAP", 0.5),
        ("validation/exact_match", 0.5),
    ):
        assert read[tag][0] == (1, pytest.approx(value))


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with open_log(tmp_path) as write:
        write(ROW)
        assert curves(tmp_path)["validation/mAP"] == [(1, 0.5)]


def test_what_is_not_a_number_leaves_a_gap(tmp_path: Path) -> None:
    with open_log(tmp_path) as write:
        write(replace(ROW, mAP=math.nan))
        write(replace(ROW, epoch=2))
    assert curves(tmp_path)["validation/mAP"] == [(2, 0.5)]


def test_a_resumed_run_continues_its_curve(tmp_path: Path) -> None:
    with open_log(tmp_path) as write:
        for epoch in (1, 2, 3):
            write(replace(ROW, epoch=epoch, mAP=0.25))
    with open_log(tmp_path, first_epoch=3) as write:
        write(replace(ROW, epoch=3, mAP=0.75))
    assert curves(tmp_path)["validation/mAP"] == [(1, 0.25), (2, 0.25), (3, 0.75)]


def test_a_folder_that_is_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(InputError, match="logs"), open_log(tmp_path / "logs"):
        pass


def test_without_tensorboard_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    for name in [one for one in sys.modules if one.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"edgeml\[tensorboard\]"), open_log(tmp_path):
        pass
