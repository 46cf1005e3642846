"""Many files through a model: what is listed, what is written, and what a stop leaves behind."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeml import Prediction, Predictor
from edgeml.errors import InputError
from edgeml.predict.journal import Entry
from edgeml.predict.many_files import (
    Outputs,
    classify,
    list_files,
    predict_files,
    resume_key,
    write_overlay,
)
from edgeml.progress import Progress
from tests.command import Command, colour_folders
from tests.tiny import LABELS, TinyRuntime, make_tiny_onnx, tiny_spec

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images, a broken one, and a file that is not an image."""
    folder = colour_folders(tmp_path / "photos")
    (folder / "red" / "5.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("not an image")
    return folder


class Notes(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class Stopping(TinyRuntime):
    """Ends with Ctrl-C at one of its runs."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def run(self, batch: NDArray[Any], /) -> NDArray[np.float32]:
        if self.runs == self._at:
            raise KeyboardInterrupt
        return super().run(batch)


class Ready:
    """Answers at once, with as many labels as one likes."""

    def __init__(self, labels: int) -> None:
        self.spec = tiny_spec([f"label {i}" for i in range(labels)])
        self.runtime = TinyRuntime(self.spec)

    def predict_many(self, images: Any, **how: Any) -> Iterator[Prediction]:
        for _ in images:
            yield Prediction(
                np.random.default_rng(0).random(len(self.spec.labels), np.float32), (), self.spec
            )


def lines_of(path: Path) -> list[Entry]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class TestList:
    def test_a_folder_gives_its_pictures_and_those_below_by_name(self, tmp_path: Path) -> None:
        for name in (
            "b.jpg",
            "a/z.PNG",
            "a.jpg",
            "ä/ö ü.webp",
            "a/no.txt",
            ".hidden.jpg",
            ".h/x.jpg",
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "loop").symlink_to(tmp_path)
        files = [os.path.relpath(file, tmp_path) for file in list_files([tmp_path])]
        assert files == ["a/z.PNG", "a.jpg", "b.jpg", "ä/ö ü.webp"]

    def test_files_are_named_as_they_were_given(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos)
        assert list_files([Path("red/0.png"), Path("blue")])[:2] == ["red/0.png", "blue/0.png"]

    def test_a_txt_names_one_on_each_line_and_what_is_absent_is_a_matter_of_that_line(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "list.txt").write_bytes("\ufeffa b.jpg\r\n\nü/absent.jpg\n a.jpg".encode())
        assert list_files([tmp_path / "list.txt"]) == ["a b.jpg", "ü/absent.jpg", " a.jpg"]

    def test_a_dash_reads_names_from_stdin(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Stdin:
            buffer = io.BytesIO(b"x.jpg\ny.jpg\n")

        monkeypatch.setattr("sys.stdin", Stdin)
        assert list_files([Path("-")]) == ["x.jpg", "y.jpg"]

    def test_what_has_no_picture_is_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty.txt").write_text("\n\n")
        for name in ("empty", "empty.txt"):
            with pytest.raises(InputError, match=f"no images in '.*{name}'"):
                list_files([tmp_path / name])
        with pytest.raises(InputError, match="There is no image 'absent'"):
            list_files([Path("absent")])


class TestResults:
    def test_each_file_has_its_own_prediction_in_order_and_a_bad_one_its_reason(
        self, photos: Path
    ) -> None:
        predictor, files = Predictor(TinyRuntime()), list_files([photos])
        results = list(predict_files(predictor, files))
        assert [result.source for result in results] == files
        assert len(results) == 13
        for result in results:
            if result.source.endswith("5.jpg"):
                assert result.prediction is None
                assert "unknown_format: " in str(result.error)
                continue
            assert result.prediction is not None
            expected = predictor.predict(result.source)
            np.testing.assert_array_equal(result.prediction.scores, expected.scores)
            assert result.labels == (Path(result.source).parent.name,)

    def test_all_outputs_say_the_same(self, photos: Path, tmp_path: Path) -> None:
        pq = pytest.importorskip("pyarrow.parquet")
        predictor, files = Predictor(TinyRuntime()), list_files([photos])
        outputs = Outputs(
            jsonl=tmp_path / "o" / "r.jsonl",
            csv=tmp_path / "o" / "r.csv",
            parquet=tmp_path / "o" / "r.parquet",
        )
        entries: list[Entry] = []
        tally = classify(predictor, files, outputs, on_entry=entries.append)
        assert (tally.images, tally.failed) == (13, 1)
        assert "5.jpg" in str(tally.first_error)
        assert sorted(p.name for p in (tmp_path / "o").iterdir()) == [
            "r.csv", "r.jsonl", "r.parquet",
        ]  # fmt: skip
        expected = [result.to_dict() for result in predict_files(predictor, files)]
        assert entries == expected
        for line, entry in zip(lines_of(outputs.jsonl or tmp_path), expected, strict=True):
            file = os.stat(line["source"])
            assert line["bytes"] == file.st_size
            assert line["modified"] == pytest.approx(file.st_mtime, abs=1e-6)
            assert {name: line[name] for name in entry} == entry
        with open(tmp_path / "o" / "r.csv", newline="", encoding="utf-8") as text:
            table = list(csv.DictReader(text))
        rows = pq.read_table(tmp_path / "o" / "r.parquet").to_pylist()
        for entry, cells, row in zip(expected, table, rows, strict=True):
            assert row["source"] == cells["source"] == entry["source"]
            assert row["labels"] == [x for x in cells["labels"].split(";") if x] == entry["labels"]
            assert row["error"] == (cells["error"] or None) == entry["error"]
            for name in LABELS:
                score = entry["scores"].get(name)
                assert row[name] == score
                assert cells[name] == ("" if score is None else f"{score:.6f}")

    def test_a_label_that_is_called_as_a_column_has_another_column(self, tmp_path: Path) -> None:
        pytest.importorskip("pyarrow")
        from edgeml.predict.tables import columns_of, write_parquet

        assert columns_of(["error", "red"]) == ["source", "labels", "error", "error (score)", "red"]
        entry = {"source": "a", "labels": [], "error": None, "scores": {"error": 0.5, "red": 1.0}}
        write_parquet([entry], ["error", "red"], tmp_path / "t.parquet")

    @pytest.mark.slow
    def test_results_are_not_kept_in_memory(self, tmp_path: Path) -> None:
        # 1,000 results of 300 labels take some 27 MB as objects.
        files, outputs = (
            ["absent.jpg"] * 1000,
            Outputs(jsonl=tmp_path / "r.jsonl", csv=tmp_path / "r.csv"),
        )
        tracemalloc.start()
        try:
            classify(Ready(300), files, outputs)  # type: ignore[arg-type]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4e6
        assert len((tmp_path / "r.csv").read_text().splitlines()) == 1001


class TestOutputs:
    def test_two_outputs_of_one_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="the same file"):
            Outputs(jsonl=tmp_path / "a", csv=tmp_path / "a").check([])

    def test_overlays_among_the_images_are_refused(self, photos: Path) -> None:
        with pytest.raises(InputError, match="as images"):
            Outputs(overlay=photos / "marked").check([photos])
        Outputs(overlay=photos.parent / "marked").check([photos])

    def test_parquet_without_pyarrow_is_refused_before_the_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r"edgeml\[parquet\]"):
            Outputs(parquet=tmp_path / "t.parquet").check([])

    def test_overlays_of_equal_names_do_not_collide(self, tmp_path: Path) -> None:
        predictor, frame = Predictor(TinyRuntime()), np.full((60, 80, 3), 99, np.uint8)
        names = ["a/rotes Kleid ü.png", "b/rotes Kleid ü.png", "a/rotes Kleid ü.jpg", "b/x.y.png"]
        names.append(f"b/{'ä' * 120}.png")
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix, frame)[1].tobytes())
        files, folder = [str(tmp_path / name) for name in names], tmp_path / "marked"
        for _ in range(2):
            classify(predictor, files, Outputs(overlay=folder))
            written = sorted(path.name for path in folder.iterdir())
            assert len(written) == 5
        assert sum(bool(re.fullmatch(r"rotes Kleid ü-\w{8}\.jpg", name)) for name in written) == 3
        assert sum(bool(re.fullmatch(r"x\.y-\w{8}\.jpg", name)) for name in written) == 1
        for path in folder.iterdir():
            data = np.frombuffer(path.read_bytes(), np.uint8)
            assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (60, 80, 3)

    def test_an_overlay_is_the_picture_with_something_drawn_on_it(self, tmp_path: Path) -> None:
        frame = np.full((200, 300, 3), 150, np.uint8)
        cv2.imwrite(str(tmp_path / "x.png"), frame)
        source = str(tmp_path / "x.png")
        path = write_overlay(source, Predictor(TinyRuntime()).predict(source), tmp_path / "o")
        drawn = cv2.imread(str(path))
        assert np.abs(drawn.astype(int) - 150)[100:].max() < 5
        assert np.abs(drawn.astype(int) - 150)[:60, :60].max() > 50


class TestGoingOn:
    def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
        self, photos: Path, tmp_path: Path
    ) -> None:
        files, outputs = list_files([photos]), Outputs(csv=tmp_path / "t.csv")
        complete = Outputs(csv=tmp_path / "complete.csv")
        classify(Predictor(TinyRuntime()), files, complete)
        notes, runtime = Notes(), Stopping(at=7)
        with pytest.raises(KeyboardInterrupt):
            classify(Predictor(runtime, threads=1), files, outputs, batch=1, progress=notes)
        assert notes.lines == [
            f"7 of 13 images are done and stored in {outputs.journal}: "
            "the same command continues from there."
        ]
        assert not (tmp_path / "t.csv").exists()
        notes, runtime = Notes(), TinyRuntime()
        entries: list[Entry] = []
        tally = classify(
            Predictor(runtime, threads=1),
            files,
            outputs,
            batch=1,
            on_entry=entries.append,
            progress=notes,
        )
        assert notes.lines == ["7 of 13 images were done before."]
        assert runtime.runs == 12 - 7
        assert [entry["source"] for entry in entries] == files
        assert (tally.images, tally.failed) == (13, 1)
        assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "complete.csv").read_bytes()
        assert not list(tmp_path.glob("*unfinished*"))

    def test_another_model_spec_or_runtime_does_not_go_on(
        self, photos: Path, tmp_path: Path
    ) -> None:
        from dataclasses import replace

        files, outputs = list_files([photos]), Outputs(jsonl=tmp_path / "r.jsonl")
        with pytest.raises(KeyboardInterrupt):
            classify(Predictor(Stopping(at=3), threads=1), files, outputs, batch=1)
        stricter = replace(tiny_spec(), thresholds=(0.9, 0.9, 0.9))
        with pytest.raises(InputError, match="another spec"):
            classify(Predictor(TinyRuntime(), spec=stricter), files, outputs)
        renamed = TinyRuntime()
        renamed.name = "tiny numpy 2"
        with pytest.raises(InputError, match="another runtime: tiny numpy, and now it is tiny n"):
            classify(Predictor(renamed), files, outputs)

    def test_the_model_is_known_by_its_bytes(self, tmp_path: Path) -> None:
        pytest.importorskip("onnx")
        first, copy = tmp_path / "a.onnx", tmp_path / "b.onnx"
        make_tiny_onnx(first)
        copy.write_bytes(first.read_bytes())
        other = make_tiny_onnx(tmp_path / "c.onnx", labels=("red", "green", "blau"))
        predictor = Predictor(TinyRuntime())
        assert resume_key(predictor, first) == resume_key(predictor, copy)
        assert resume_key(predictor, first)["model"] != resume_key(predictor, other)["model"]


COMMAND = [
    sys.executable,
    "-c",
    "import sys; sys.argv[0] = 'edgeml'; from edgeml.cli import main; main()",
]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def long_list(photos: Path, tmp_path: Path) -> Path:
    """A list of 6,000 names, so that there is time to stop in between."""
    path = tmp_path / "list.txt"
    names = sorted(map(str, photos.glob("*/*")))
    path.write_text("\n".join((names * 600)[:6000]))
    return path


@pytest.mark.runtime
@posix
class TestCommand:
    def started(self, *words: object, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "predict", *map(str, words)],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
        )  # fmt: skip

    def finish(self, *words: object, **more: Any) -> tuple[int, str, str]:
        with self.started(*words, **more) as child:
            out, err = child.communicate(timeout=120)
        return child.returncode, out, err

    def test_ctrl_c_ends_in_two_lines_and_the_same_command_goes_on(
        self, tiny_onnx: Path, long_list: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "r.jsonl"
        words = (tiny_onnx, long_list, "--jsonl", out)
        with self.started(*words) as child:
            while not out.exists() or out.stat().st_size < 10_000:
                time.sleep(0.01)
                assert child.poll() is None
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=60)
        assert child.returncode == 130
        lines = err.splitlines()
        done = len(out.read_text().splitlines())
        assert lines[-2:] == [
            f"{done} of 6000 images are done and stored in {out}: "
            "the same command continues from there.",
            "edgeml: Stopped.",
        ]
        status, text, err = self.finish(*words)
        assert f"{done} of 6000 images were done before." in err
        assert status == 2  # an image is broken
        assert text == f"6000 images, {err.split('edgeml: ')[1].split()[0]} failed: {out}\n"
        assert [entry["source"] for entry in lines_of(out)] == long_list.read_text().splitlines()

    def test_a_reader_that_has_enough_ends_it_quietly(
        self, tiny_onnx: Path, long_list: Path
    ) -> None:
        for more in ([], ["--json"]):
            with self.started(tiny_onnx, long_list, *more) as child:
                assert child.stdout is not None
                assert child.stdout.readline()
                child.stdout.close()
                assert child.stderr is not None
                err = child.stderr.read()
                child.wait(timeout=60)
            assert (child.returncode, err) == (0, "")

    def test_without_a_model_nothing_is_written(self, photos: Path, tmp_path: Path) -> None:
        status, text, err = self.finish("no.onnx", photos, "--jsonl", tmp_path / "new" / "r.jsonl")
        assert (status, text) == (2, "")
        assert err.splitlines()[-1] == "edgeml: There is no model 'no.onnx'."
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("option", ["--jsonl", "--csv"])
    def test_a_full_disk_is_one_line_and_finished_images_stay(
        self, tiny_onnx: Path, photos: Path, tmp_path: Path, option: str
    ) -> None:
        out = tmp_path / "out"
        words = (tiny_onnx, photos, option, out)

        def small_files() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

        status, text, err = self.finish(*words, preexec_fn=small_files)
        assert (status, text) == (2, "")
        line = err.splitlines()[-1]
        assert re.search(
            r"Cannot write '.*out.*': File too large.*the same command continues", line
        )
        status, text, err = self.finish(*words)
        assert "images were done before" in err
        assert text.startswith("13 images, 1 failed")

    def test_results_on_a_full_disk_are_one_line(self, tiny_onnx: Path, photos: Path) -> None:
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*COMMAND, "predict", str(tiny_onnx), str(photos)],
                env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            )  # fmt: skip
        assert done.returncode == 2
        error = "edgeml: Cannot write the results: No space left on device."
        assert done.stderr.splitlines()[-1] == error

    def test_with_a_bar_on_the_terminal_results_still_go_to_the_pipe(
        self, tiny_onnx: Path, photos: Path
    ) -> None:
        pty = pytest.importorskip("pty")
        terminal, theirs = pty.openpty()
        child = subprocess.Popen(
            [*COMMAND, "predict", str(tiny_onnx), str(photos)],
            env=environment() | {"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=theirs, text=True,
        )  # fmt: skip
        os.close(theirs)
        out, _ = child.communicate(timeout=60)
        shown = os.read(terminal, 1 << 16).decode()
        os.close(terminal)
        assert "13/13" in shown
        assert len(out.splitlines()) == 13
        assert "img/s" in shown
        assert "red/0.png" not in shown

    @pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.nightly)])
    def test_killed_at_any_instant_it_goes_on_to_the_same_files(
        self, tiny_onnx: Path, long_list: Path, tmp_path: Path, kills: int
    ) -> None:
        def words(folder: Path) -> list[object]:
            tables = ["--csv", folder / "t.csv", "--parquet", folder / "t.parquet"]
            return [tiny_onnx, long_list, "--jsonl", folder / "r.jsonl", *tables]

        assert self.finish(*words(tmp_path / "complete"))[0] == 2
        size = (tmp_path / "complete" / "r.jsonl").stat().st_size
        rng, folder, killed, counts = random.Random(kills), tmp_path / "killed", 0, list[int]()
        journal, names = folder / "r.jsonl", long_list.read_text().splitlines()
        while killed < kills:
            if not (folder / "r.jsonl.unfinished").exists():
                shutil.rmtree(folder, ignore_errors=True)
            done = journal.stat().st_size if journal.exists() else 0
            # At the end is where tables are written.
            wanted = min(done + rng.expovariate(6 / size), size)
            with self.started(*words(folder)) as child:
                until = time.monotonic() + 60
                while child.poll() is None and time.monotonic() < until:
                    time.sleep(0.002)
                    if journal.exists() and wanted <= journal.stat().st_size != done:
                        until = min(until, time.monotonic() + rng.uniform(0, 0.05))
                killed += child.poll() is None
                child.kill()
                child.communicate()
            for table in (folder / "t.csv", folder / "t.parquet"):
                same = tmp_path / "complete" / table.name
                assert not table.exists() or table.read_bytes() == same.read_bytes()
            if (folder / "r.jsonl").exists():
                text = (folder / "r.jsonl").read_bytes()
                lines = text[: text.rfind(b"\n") + 1].decode().splitlines()
                assert [json.loads(line)["source"] for line in lines] == names[: len(lines)]
                counts.append(len(lines))
        assert self.finish(*words(folder))[0] == 2
        assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
            "r.jsonl", "t.csv", "t.parquet",
        }  # fmt: skip
        for name in ("r.jsonl", "t.csv", "t.parquet"):
            assert (folder / name).read_bytes() == (tmp_path / "complete" / name).read_bytes()
        print(f"{killed} killed, after {counts} lines")  # shown by `pytest -rP`


EVERY_WRITE = """
import os, signal, sys
from pathlib import Path
from edgeml import Predictor
from edgeml import files as edgeml_files
from edgeml.predict.many_files import Outputs, classify
from tests.tiny import TinyRuntime

STEPS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
files, folder = sys.argv[2:], Path(sys.argv[1])
outputs = Outputs(jsonl=folder / "r.jsonl", csv=folder / "t.csv")

def run(last_step):
    done = 0
    def step():
        nonlocal done
        done += 1
        return done == last_step
    def count(event, args):
        if event in STEPS and step():
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    write = os.write
    def half(descriptor, data):
        if step():
            write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(descriptor, data)
    os.write = half
    classify(Predictor(TinyRuntime(), threads=1), files, outputs)
    os._exit(0)

def in_a_child(last_step):
    if pid := os.fork():
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    run(last_step)

def scores():
    return [path.read_bytes() for path in (outputs.jsonl, outputs.csv)]

os.fsync = lambda descriptor: None  # the machine stays on, and disks are slow
classify(Predictor(TinyRuntime(), threads=1), files, outputs)  # imports are not steps
edgeml_files._cleaned.clear()  # as in a process that has just begun
expected, step = scores(), 0
while True:
    step += 1
    for path in folder.iterdir():
        path.unlink()
    killed = in_a_child(step)
    in_a_child(step)  # and once more in the run that continues
    in_a_child(0)
    assert scores() == expected, step
    assert len(os.listdir(folder)) == 2, os.listdir(folder)
    if not killed:
        break
print(step)
"""


@posix
@pytest.mark.slow
def test_killed_before_any_step_or_within_any_write_it_goes_on_to_the_same_files(
    photos: Path, tmp_path: Path
) -> None:
    files = sorted(map(str, photos.glob("red/*")))[:3]
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", EVERY_WRITE, tmp_path / "out", *files],
        env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


def test_the_command_says_what_it_did_and_json_is_one_document(
    edgeml: Command, tiny_onnx: Path, photos: Path, tmp_path: Path
) -> None:
    result = edgeml("predict", tiny_onnx, photos, "--jsonl", tmp_path / "r.jsonl", "--json")
    assert [set(entry) for entry in result.json] == [{"source", "labels", "scores", "error"}] * 13
    assert len(lines_of(tmp_path / "r.jsonl")) == 13
    result = edgeml("predict", tiny_onnx, photos)
    assert len(result.out.splitlines()) == 13
    assert f"{photos}/blue/0.png: blue" in result.out
