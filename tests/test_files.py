from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeml.errors import InputError
from edgeml.files import sha256_of_file, staged, staging, write_text


def test_a_staged_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "größe.txt"
    with staged(target) as temporary:
        temporary.write_text("done", encoding="utf-8")
        assert not target.exists()
    assert target.read_text(encoding="utf-8") == "done"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_text("old")

    def fail() -> None:
        with staged(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file/out\.txt"):
        write_text(tmp_path / "file" / "out.txt", "text")


def test_the_digest_is_that_of_hashlib(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # more than one chunk
    (tmp_path / "data").write_bytes(data)
    assert sha256_of_file(tmp_path / "data") == hashlib.sha256(data).hexdigest()


WRITER = """
import sys, time
from pathlib import Path
from edgeml.files import staged
with staged(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    sys.stdin.read(1)
    temporary.write_text("whole")
"""

needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")


@contextmanager
def writing(target: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of writing `target`."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, target], env=env, stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        try:
            yield process
        finally:
            process.kill()


@needs_locks
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    target = tmp_path / "model [v1].onnx"
    with writing(target) as process:
        process.send_signal(signal.SIGKILL)
    (left,) = tmp_path.iterdir()
    assert (left / target.name).read_text() == "half"
    write_text(target, "whole")
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == "whole"


@needs_locks
def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    with writing(target) as process:
        write_text(target, "first")
        assert len(list(tmp_path.iterdir())) == 2
        assert target.read_text() == "first"
        process.communicate("\n", timeout=30)
        assert process.returncode == 0
    assert target.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [target]


def test_what_one_process_writes_twice_at_once_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    with staging(target) as folder, staged(target) as temporary:
        assert folder.is_dir()
        temporary.write_text("second")
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_only_looks_alike_is_left_alone(tmp_path: Path) -> None:
    alike = (".model.onnx.old", ".model.onnx.backup12", ".model.onnx.abcdefgh.partial", ".model")
    for name in alike:
        (tmp_path / name).mkdir()
    write_text(tmp_path / "model.onnx", "text")
    assert {path.name for path in tmp_path.iterdir()} == {*alike, "model.onnx"}


@needs_locks
def test_a_folder_taken_for_a_dead_one_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeml import files

    lock, robbed = files._lock, []

    def robbed_once(folder: Path) -> int:
        if not robbed:
            robbed.append(folder)
            folder.rmdir()
        return lock(folder)

    monkeypatch.setattr(files, "_lock", robbed_once)
    with staged(tmp_path / "a.txt") as temporary:
        temporary.write_text("text")
        assert temporary.parent != robbed[0]
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_share_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgeml import files

    monkeypatch.setattr(files, "fcntl", None)
    write_text(tmp_path / "a.txt", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
