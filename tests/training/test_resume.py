"""A killed run resumes, and ends with exactly the bits of an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgeml.data import Dataset, write_split
from edgeml.errors import InputError
from edgeml.progress import Advance, Progress
from edgeml.training.config import TrainConfig
from edgeml.training.loop import train
from edgeml.training.state import STATE_FILE

pytestmark = [pytest.mark.train, pytest.mark.usefixtures("no_report")]

# A state after each step: only the current step is lost.
TINY = TrainConfig(size=32, epochs=3, batch=8, threads=1, cache=False, save_every=0)

VARIANTS = {
    "plain": TINY,
    "everything": replace(
        TINY,
        accumulate=2,
        mixup=0.2,
        cutmix=1.0,
        augment="strong",
        head_epochs=1,
        smoothing=0.1,
        group_loss="softmax",
        loss="asl",
        head="csra",
    ),
    "dropout": replace(TINY, model="test_vit", size=64, epochs=2),
    "half": replace(TINY, epochs=2, amp="bf16", freeze_bn=True),
}


class Stop(Progress):
    """Ends training after this many batches, like a killed process."""

    def __init__(self, after: int) -> None:
        self.remaining = after

    @contextmanager
    def task(self, name: str, total: int, unit: str = "img") -> Iterator[Advance]:
        def advance(count: int) -> None:
            if name == "train":
                self.remaining -= 1
                if self.remaining < 0:
                    raise Killed

        yield advance


class Killed(BaseException):
    """Not an Exception, so that the code under test does not catch it."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_was_stopped_twice_ends_bit_equal(
    variant: str, shapes: Dataset, tmp_path: Path
) -> None:
    config = VARIANTS[variant]
    uninterrupted = train(shapes, config, tmp_path / "uninterrupted")
    stopped = tmp_path / "stopped"
    for after in (3, 5):  # in the first epoch, and some steps later
        with pytest.raises(Killed):
            train(shapes, config, stopped, resume=after == 5, progress=Stop(after))
    resumed = train(shapes, config, stopped, resume=True)
    assert (stopped / "model.safetensors").read_bytes() == (
        tmp_path / "uninterrupted" / "model.safetensors"
    ).read_bytes()
    same = [replace(row, seconds=0, images_per_s=0, wait=0) for row in uninterrupted.history]
    assert [replace(row, seconds=0, images_per_s=0, wait=0) for row in resumed.history] == same
    assert not (stopped / STATE_FILE).exists()


def test_temporary_files_of_a_killed_process_are_removed(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(shapes, TINY, tmp_path, progress=Stop(2))
    for name in (STATE_FILE, "model.safetensors", "report.json"):
        (tmp_path / f".{name}.k1ll3d").mkdir()
        (tmp_path / f".{name}.k1ll3d" / name).write_bytes(b"incomplete")
    (tmp_path / ".mine").write_text("a file of the user's own")
    train(shapes, TINY, tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [".mine"]


def test_only_the_same_settings_and_data_can_be_resumed(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(shapes, TINY, tmp_path, progress=Stop(2))
    for config, data in (
        (replace(TINY, lr=0.1), shapes),
        (TINY, shapes.select(range(63))),
        (TINY, replace(shapes, split=("val",) + ("train",) * 39 + shapes.split[40:])),
    ):
        with pytest.raises(InputError, match="other settings or other data"):
            train(data, config, tmp_path, resume=True)
    # Settings that do not change the weights may change.
    train(shapes, replace(TINY, workers=3, save_every=60), tmp_path, resume=True)


def test_a_finished_run_and_an_empty_folder_cannot_be_resumed(
    shapes: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds no state to resume from"):
        train(shapes, TINY, tmp_path / "new", resume=True)
    train(shapes, replace(TINY, epochs=1), tmp_path / "run")
    with pytest.raises(InputError, match="holds no state to resume from"):
        train(shapes, replace(TINY, epochs=1), tmp_path / "run", resume=True)


def test_a_damaged_state_is_refused(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(shapes, TINY, tmp_path, progress=Stop(2))
    state = tmp_path / STATE_FILE
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        train(shapes, TINY, tmp_path, resume=True)


RUN = """
import sys
from pathlib import Path
from dataclasses import replace
from edgeml.data import read_dataset
from edgeml.training.loop import train
from tests.training.test_resume import TINY
table, out = Path(sys.argv[1]), Path(sys.argv[2])
config = replace(TINY, epochs=8)
train(read_dataset(table), config, out, resume=(out / "state.safetensors").exists())
"""


def start_run(table: Path, out: Path) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, str(table), str(out)], env=env)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> float:
    """Wait until a file exists; return the time."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)
    return time.monotonic()


@pytest.mark.nightly
def test_ten_runs_killed_at_random_instants_end_bit_equal(shapes: Dataset, tmp_path: Path) -> None:
    table = tmp_path / "data.csv"
    write_split(shapes, table)
    undisturbed = start_run(table, tmp_path / "uninterrupted")
    started = wait_for(tmp_path / "uninterrupted" / STATE_FILE, undisturbed)
    assert undisturbed.wait() == 0
    lasts = time.monotonic() - started
    expected = (tmp_path / "uninterrupted" / "model.safetensors").read_bytes()
    rng = random.Random(0)
    kills = number = 0
    while kills < 10:
        number += 1
        assert number < 40, "the runs end before they can be killed"
        out = tmp_path / f"run{number}"
        victim = start_run(table, out)
        wait_for(out / STATE_FILE, victim)
        time.sleep(rng.uniform(0, lasts))
        victim.send_signal(signal.SIGKILL)
        if victim.wait() != -signal.SIGKILL or not (out / STATE_FILE).exists():
            continue  # it had already ended
        kills += 1
        assert start_run(table, out).wait() == 0
        assert (out / "model.safetensors").read_bytes() == expected, f"kill {kills}"
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
