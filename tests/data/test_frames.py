"""Frames are the input of the Predictor, decoded once, and right after damage to their store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeml.data import frames as frames_module
from edgeml.data.frames import Frames, decoded_frames, frames_and_faults
from edgeml.data.framestore import FrameStore, cache_size, clear_cache, default_cache
from edgeml.errors import DataError, InputError
from edgeml.image.preprocess import Preprocess

SMALL = Preprocess(size=(24, 28), interpolation="cubic")
ROOT = Path(__file__).parents[2]

FILL = """
import sys, time
from pathlib import Path
from edgeml.data import frames
from edgeml.image.preprocess import Preprocess

folder, cache, chunk, seconds = Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:])
frames._CHUNK_IMAGES = int(chunk)
read_file = frames.read_file
def slow(path):
    time.sleep(seconds)
    return read_file(path)
frames.read_file = slow
print("filling", flush=True)
sides = [(sorted(folder.iterdir()), Preprocess(size=(24, 28), interpolation="cubic"))]
with frames.decoded_frames(sides, threads=2, advance=lambda n: None, cache=cache) as (side,):
    print(len(side))
"""


def write_images(folder: Path, count: int, seed: int = 0) -> list[Path]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = [folder / f"{row:03}.jpg" for row in range(count)]
    for path in paths:
        coarse = rng.integers(0, 256, (6, 5, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(coarse, (100, 120), interpolation=cv2.INTER_CUBIC))
    return paths


def expected(paths: Sequence[Path], preprocess: Preprocess = SMALL) -> NDArray[np.uint8]:
    return np.array([preprocess.fit(cv2.imread(str(path))) for path in paths], np.uint8)


@contextmanager
def opened(
    paths: Sequence[Path], cache: Path | None, preprocess: Preprocess = SMALL
) -> Iterator[Frames]:
    sides = [(paths, preprocess)]
    with decoded_frames(sides, threads=3, advance=lambda n: None, cache=cache) as (side,):
        yield side


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the names of the images that are decoded into a store."""
    names: list[str] = []
    decode = frames_module.decode_image

    def counted(data: bytes, name: str, **more: tuple[int, int]) -> NDArray[np.uint8]:
        names.append(name)
        return decode(data, name, **more)

    monkeypatch.setattr(frames_module, "decode_image", counted)
    return names


@pytest.mark.parametrize("cached", [False, True])
def test_frames_are_what_the_predictor_sees(tmp_path: Path, cached: bool) -> None:
    paths = write_images(tmp_path / "in", 6)
    done: list[int] = []
    sides = [(paths, SMALL), ((), SMALL), (paths[:2], Preprocess(size=(40, 40), resize="crop"))]
    cache = tmp_path / "cache" if cached else None
    with decoded_frames(sides, threads=3, advance=done.append, cache=cache) as (all_, none, crops):
        np.testing.assert_array_equal(all_[:], expected(paths))
        np.testing.assert_array_equal(all_[np.array([4, 1, 4])], expected(paths)[[4, 1, 4]])
        assert none[:].shape == (0, 24, 28, 3)
        np.testing.assert_array_equal(crops[:], expected(paths[:2], sides[2][1]))
        assert [len(side) for side in (all_, none, crops)] == [6, 0, 2]
    assert sum(done) == 8


def test_a_second_run_decodes_only_new_images(tmp_path: Path, decoded: list[str]) -> None:
    paths = write_images(tmp_path / "in", 7)
    with opened(paths[:6], tmp_path / "cache"):
        assert len(decoded) == 6
    with opened(paths[:6], tmp_path / "cache") as side:
        assert len(decoded) == 6
        np.testing.assert_array_equal(side[:], expected(paths[:6]))
    with opened(paths, tmp_path / "cache") as side:
        assert decoded[6:] == [str(paths[6])]
        np.testing.assert_array_equal(side[:], expected(paths))


def test_the_content_counts_and_not_the_name(tmp_path: Path, decoded: list[str]) -> None:
    paths = write_images(tmp_path / "in", 3)
    twin = tmp_path / "in" / "twin.jpg"
    twin.write_bytes(paths[0].read_bytes())
    with opened([*paths, twin], tmp_path / "cache") as side:
        assert len(decoded) == 3
        assert len(side.stored) == 3
        np.testing.assert_array_equal(side[:], expected([*paths, twin]))
    paths[1].write_bytes(write_images(tmp_path / "other", 1, seed=1)[0].read_bytes())
    with opened(paths, tmp_path / "cache") as side:
        assert decoded[3:] == [str(paths[1])]
        np.testing.assert_array_equal(side[:], expected(paths))


def test_each_way_to_fit_has_its_own_store(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 2)
    ways = [
        SMALL,
        Preprocess(size=(24, 28)),
        Preprocess(size=(24, 28), resize="crop"),
        Preprocess(size=(24, 28), resize="crop", crop=0.8),
        Preprocess(size=(24, 28), resize="letterbox"),
        Preprocess(size=(24, 28), resize="letterbox", pad=0),
    ]
    for _ in range(2):
        for way in ways:
            with opened(paths, tmp_path / "cache", way) as side:
                np.testing.assert_array_equal(side[:], expected(paths, way))
    assert len(list((tmp_path / "cache").glob("*.frames"))) == len(ways)


def test_the_normalisation_does_not_affect_the_store(tmp_path: Path, decoded: list[str]) -> None:
    paths = write_images(tmp_path / "in", 2)
    for way in (Preprocess(size=(9, 9)), Preprocess(size=(9, 9), mean=(0, 0, 0), channels="bgr")):
        with opened(paths, tmp_path / "cache", way):
            assert len(decoded) == 2


def test_unreadable_images_are_named_and_the_others_stored(
    tmp_path: Path, decoded: list[str]
) -> None:
    paths = write_images(tmp_path / "in", 4)
    paths[2].write_bytes(b"\xff\xd8 not an image")
    gone = tmp_path / "gone.jpg"
    for _ in range(2):
        with (
            pytest.raises(DataError, match=r"(?s)2 of 5 images.*002\.jpg.*Also: .*gone\.jpg"),
            opened([*paths, gone], tmp_path / "cache"),
        ):
            pass
        assert len(set(decoded)) == 4
    sides = [([*paths, gone], SMALL)]
    cache = tmp_path / "cache"
    with frames_and_faults(sides, threads=1, advance=lambda n: None, cache=cache) as (
        frames,
        faults,
    ):
        assert list(faults) == [paths[2], gone]
        assert "No such file" in faults[gone]
        assert frames[0].rows[[2, 4]].tolist() == [-1, -1]
        np.testing.assert_array_equal(
            frames[0][np.array([0, 1, 3])], expected([*paths[:2], paths[3]])
        )


def test_an_image_that_changed_since_it_was_hashed_is_not_stored_under_its_old_hash(
    tmp_path: Path,
) -> None:
    paths = write_images(tmp_path / "in", 2)
    sides, hashes = [(paths, SMALL)], [["0" * 64, "1" * 64]]
    with (
        pytest.raises(DataError, match="changed while it was read"),
        decoded_frames(
            sides, threads=1, advance=lambda n: None, cache=tmp_path / "cache", hashes=hashes
        ),
    ):
        pass


@pytest.mark.parametrize("suffix", [".frames", ".index"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "zeroed", "longer", "gone"])
def test_damaged_frames_are_not_used_but_decoded_again(
    tmp_path: Path, suffix: str, damage: str
) -> None:
    paths = write_images(tmp_path / "in", 5)
    with opened(paths, tmp_path / "cache"):
        pass
    file = next((tmp_path / "cache").glob(f"*{suffix}"))
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    match damage:
        case "cut":
            file.write_bytes(data[: middle + 7])
        case "flipped":
            data[middle] ^= 1
            file.write_bytes(data)
        case "zeroed":
            file.write_bytes(bytes(len(data)))
        case "longer":
            file.write_bytes(data + b"\1" * 29)
        case _:
            file.unlink()
    for count in (5, 6):
        more = write_images(tmp_path / "in", count)
        with opened(more, tmp_path / "cache") as side:
            np.testing.assert_array_equal(side[:], expected(more))


def _filling(
    tmp_path: Path, script: str = FILL, *, chunk: int = 2, seconds: float = 0.01
) -> subprocess.Popen[str]:
    arguments = [str(tmp_path / "in"), str(tmp_path / "cache"), str(chunk), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.slow
def test_the_frames_of_a_killed_run_are_used(tmp_path: Path, decoded: list[str]) -> None:
    paths = write_images(tmp_path / "in", 60)
    with _filling(tmp_path, seconds=0.05) as process:
        deadline = time.monotonic() + 30
        while cache_size(tmp_path / "cache") < 8 * 24 * 28 * 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with opened(paths, tmp_path / "cache") as side:
        np.testing.assert_array_equal(side[:], expected(paths))
    assert 0 < len(decoded) <= 60 - 6


def test_two_processes_fill_one_store_at_once(tmp_path: Path, decoded: list[str]) -> None:
    paths = write_images(tmp_path / "in", 40)
    both = [_filling(tmp_path) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["filling\n40\n"] * 2
    with opened(paths, tmp_path / "cache") as side:
        np.testing.assert_array_equal(side[:], expected(paths))
        assert len(side.stored) == 40
    assert not decoded


def test_frames_in_use_outlive_their_store(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "in", 4)
    with opened(paths, tmp_path / "cache") as side:
        size = cache_size(tmp_path / "cache")
        assert size >= 4 * 24 * 28 * 3
        (tmp_path / "cache" / "README").write_text("not ours")
        assert clear_cache(tmp_path / "cache") == size
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["README"]
        np.testing.assert_array_equal(side[:], expected(paths))
    assert cache_size(tmp_path / "cache") == cache_size(tmp_path / "none") == 0


def test_a_full_disk_stops_only_what_has_no_room_in_memory_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_images(tmp_path / "in", 3)
    usage = type("Usage", (), {"free": 1000})()
    monkeypatch.setattr("edgeml.data.framestore.shutil.disk_usage", lambda folder: usage)
    for cache in (tmp_path / "new" / "cache", None):
        with opened(paths, cache) as side:
            np.testing.assert_array_equal(side[:], expected(paths))
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    for cache in (tmp_path / "new" / "cache", None):
        with pytest.raises(InputError, match=r"0 MB free"), opened(paths, cache):
            pass


def test_the_default_cache_is_in_the_cache_folder_of_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert default_cache() == Path(os.environ["EDGEML_CACHE"], "frames")
    monkeypatch.delenv("EDGEML_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache().parts[-2:] == ("edgeml", "frames")
    if sys.platform == "linux":
        assert default_cache() == tmp_path / "edgeml" / "frames"


def test_reading_a_store_creates_no_files(tmp_path: Path) -> None:
    assert FrameStore(tmp_path / "cache", SMALL).mapped().shape == (0, 24, 28, 3)
    assert not (tmp_path / "cache").exists()
