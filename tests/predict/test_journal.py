"""The file with which a killed run continues: no image is lost, and none is there twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.errors import InputError
from edgeml.predict.journal import Entry, open_journal, stamp_of, to_line

MADE_WITH = {"model": "m" * 64, "runtime": "tiny 1"}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number} ü.png").write_bytes(bytes(number))
    return sorted(map(str, folder.iterdir()))


def entry_of(file: str, word: str = "") -> Entry:
    return {"source": file, "labels": [word], "error": None, **vars(stamp_of(file))}


def run(
    path: Path, files: Sequence[str], *, stop_after: int | None = None, word: str = "", **other: str
) -> list[str]:
    """Process what remains of `files`, up to a stop; return what was processed."""
    done = []
    marker = Path(f"{path}.unfinished")
    with open_journal(path, MADE_WITH | other, marker=marker) as journal:
        left, entries = journal.resume(files)
        list(entries)
        for file in left:
            if len(done) == stop_after:
                return done
            journal.append(entry_of(file, word))
            done.append(file)
        journal.finish(keep=True)
    return done


def sources(path: Path) -> list[str]:
    return [json.loads(line)["source"] for line in path.read_bytes().splitlines()]


def test_a_run_that_ends_leaves_its_lines_and_nothing_else(
    files: list[str], tmp_path: Path
) -> None:
    assert run(tmp_path / "out.jsonl", files) == files
    assert sources(tmp_path / "out.jsonl") == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "photos"]


def test_a_run_that_was_stopped_goes_on_where_it_was(files: list[str], tmp_path: Path) -> None:
    assert run(tmp_path / "out.jsonl", files, stop_after=2) == files[:2]
    assert run(tmp_path / "out.jsonl", files) == files[2:]
    assert sources(tmp_path / "out.jsonl") == files


def test_a_file_cut_at_any_byte_keeps_its_complete_lines_only(
    files: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    run(path, files, stop_after=3)
    content, marker = path.read_bytes(), Path(f"{path}.unfinished").read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        Path(f"{path}.unfinished").write_bytes(marker)
        lines = content[:length].count(b"\n")
        assert run(path, files) == files[lines:], length
        assert sources(path) == files, length


def test_what_a_power_failure_leaves_in_the_middle_is_done_again(
    files: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    run(path, files, stop_after=3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + bytes(len(lines[1])) + lines[2])
    assert run(path, files) == files[1:]
    assert sources(path) == files


def test_a_file_that_has_changed_is_done_again_and_has_one_line(
    files: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    run(path, files, stop_after=3, word="before")
    Path(files[1]).write_bytes(b"another image")
    assert run(path, files, word="after") == [files[1], files[3]]
    lines = path.read_bytes().splitlines()
    words = {entry["source"]: entry["labels"] for entry in map(json.loads, lines)}
    assert words == {f: ["after" if f in (files[1], files[3]) else "before"] for f in files}
    assert len(sources(path)) == len(files)


def test_a_file_that_is_no_longer_requested_is_removed(files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    run(path, files, stop_after=3)
    assert run(path, files[1:]) == [files[3]]
    assert sources(path) == files[1:]


def test_a_file_that_is_named_twice_has_two_lines(files: list[str], tmp_path: Path) -> None:
    path, twice = tmp_path / "out.jsonl", [files[0], files[1], files[0]]
    run(path, twice, stop_after=1)
    assert run(path, twice) == [files[1], files[0]]
    assert sources(path) == twice


def test_a_file_that_is_not_there_counts_as_done_as_long_as_it_is_not(
    files: list[str], tmp_path: Path
) -> None:
    path, absent = tmp_path / "out.jsonl", str(tmp_path / "photos" / "later.png")
    run(path, [absent, *files], stop_after=2)
    assert run(path, [absent, *files], stop_after=0) == []
    Path(absent).write_bytes(b"now")
    assert run(path, [absent, *files]) == [absent, *files[1:]]
    assert sorted(sources(path)) == sorted([absent, *files])


@pytest.mark.parametrize(("name", "value"), [("model", "n" * 64), ("runtime", "tiny 2")])
def test_a_run_with_another_model_or_runtime_is_refused(
    files: list[str], tmp_path: Path, name: str, value: str
) -> None:
    path = tmp_path / "out.jsonl"
    run(path, files, stop_after=2)
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"was started with another {name}.*out.jsonl.unfinished"):
        run(path, files, **{name: value})
    assert path.read_bytes() == before
    assert run(path, files) == files[2:]


def test_a_finished_file_is_replaced(files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    run(path, files)
    assert run(path, files[:2], model="another") == files[:2]
    assert sources(path) == files[:2]


@pytest.mark.parametrize("left", [b"", b'{"format": "edgeml.pre', b"[]"])
def test_a_marker_that_was_cut_short_does_not_describe_an_older_file(
    files: list[str], tmp_path: Path, left: bytes
) -> None:
    path = tmp_path / "out.jsonl"
    run(path, files, model="older")
    Path(f"{path}.unfinished").write_bytes(left)
    assert run(path, files) == files


def test_a_run_of_a_newer_format_is_refused(files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    Path(f"{path}.unfinished").write_bytes(to_line({"format": "edgeml.predict/2", **MADE_WITH}))
    with pytest.raises(InputError, match=r"another format: edgeml.predict/2"):
        run(path, files)


def test_a_second_process_is_refused_while_the_first_writes(
    files: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    with open_journal(path, MADE_WITH, marker=Path(f"{path}.unfinished")) as journal:
        journal.resume(files)
        with pytest.raises(InputError, match=r"Another process is writing '.*out\.jsonl'"):
            run(path, files)
    assert run(path, files) == files


def test_a_place_that_cannot_be_written_is_named(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(InputError, match=r"Cannot write '.*out.jsonl': Is a directory"):
        run(tmp_path / "out.jsonl", files)


@pytest.mark.skipif(os.name == "nt", reason="file names are text on Windows")
def test_a_name_that_is_not_utf_8_comes_back_as_it_was(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn.png")
    Path(name).write_bytes(b"x")
    path = tmp_path / "out.jsonl"
    run(path, [name, str(tmp_path)], stop_after=1)
    assert run(path, [name, str(tmp_path)]) == [str(tmp_path)]
    assert os.fsencode(sources(path)[0]).endswith(b"gr\xfcn.png")


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stops=st.lists(st.integers(0, 4), max_size=5),
    cuts=st.lists(st.integers(0, 30), min_size=5, max_size=5),
    orders=st.lists(st.permutations(range(4)), min_size=5, max_size=5),
)
def test_whatever_happens_in_between_every_file_ends_with_one_line(
    files: list[str], tmp_path: Path, stops: list[int], cuts: list[int], orders: list[list[int]]
) -> None:
    folder = tmp_path / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / "out.jsonl"
    for stop, cut, order in zip(stops, cuts, orders, strict=False):
        run(path, [files[i] for i in order], stop_after=stop)
        if Path(f"{path}.unfinished").exists() and path.exists():
            os.truncate(path, max(path.stat().st_size - cut, 0))
    run(path, files)
    assert sorted(sources(path)) == files
