from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edgeml.errors import InputError
from edgeml.files import sha256_of_file, staged, write_text


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
