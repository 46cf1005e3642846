"""Folders and tables become data sets, or one line says why not."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from edgeml.data import find_images, read_dataset
from edgeml.errors import DataError, InputError
from edgeml.image.reading import SUFFIXES
from edgeml.spec.labels import LabelGroup
from tests.data.readers.sets import labels_by_path, touch, write_table


def test_a_folder_is_read_with_its_labels(tmp_path: Path) -> None:
    touch(tmp_path, "red_shirt/1.jpg", "red_shirt/deep/er/2.PNG", "blue_dress/ä b.webp")
    dataset = read_dataset(tmp_path)
    assert dataset.labels == ("blue", "dress", "red", "shirt")
    assert labels_by_path(dataset) == {
        "blue_dress/ä b.webp": ("blue", "dress"),
        "red_shirt/1.jpg": ("red", "shirt"),
        "red_shirt/deep/er/2.PNG": ("red", "shirt"),
    }
    assert dataset.targets.dtype == np.int8
    np.testing.assert_array_equal(dataset.targets, [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    assert dataset.split is None
    assert dataset.groups is None


@pytest.mark.parametrize("suffix", sorted({*SUFFIXES, ".JPG"}))
def test_every_image_format_is_found(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"red/1{suffix}", "blue/1.jpg")
    assert len(read_dataset(tmp_path)) == 2


def test_hidden_files_are_ignored_and_others_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "red/1.jpg", "red/.2.jpg", "red/.cache/3.jpg", ".git/4.jpg", "blue/5.jpg")
    touch(tmp_path, "red/notes.txt", "README.md", "red/Thumbs.db", "__MACOSX/red/._1.jpg")
    with caplog.at_level(logging.INFO):
        assert set(labels_by_path(read_dataset(tmp_path))) == {"red/1.jpg", "blue/5.jpg"}
    assert "3 files" in caplog.text


@pytest.mark.parametrize(
    ("group_names", "names"), [((), ("group1", "group2")), (("colour", "kind"), ("colour", "kind"))]
)
def test_the_labels_at_a_position_form_a_group(
    tmp_path: Path, group_names: tuple[str, ...], names: tuple[str, ...]
) -> None:
    touch(tmp_path, "red_shirt/1.jpg", "blue_dress/1.jpg", "red_dress/1.jpg")
    assert read_dataset(tmp_path, group_names=group_names).label_groups == (
        LabelGroup(name=names[0], labels=("blue", "red"), rule="one"),
        LabelGroup(name=names[1], labels=("dress", "shirt"), rule="one"),
    )


@pytest.mark.parametrize("folder", ["blue_dress", "shirt_dress"])
def test_the_number_of_group_names_must_be_that_of_the_groups(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "red_shirt/1.jpg", f"{folder}/1.jpg")
    with pytest.raises(InputError, match="for the 3 names a, b, c"):
        read_dataset(tmp_path, group_names=("a", "b", "c"))


@pytest.mark.parametrize(
    "folders",
    [
        ("red", "blue"),
        ("red_shirt", "blue"),
        ("red_shirt", "blue_dark_dress"),
        ("red_shirt", "shirt_dress"),
        ("red_red", "blue_dress"),
    ],
    ids=["one word", "missing", "one more", "in both positions", "twice"],
)
def test_folders_without_fixed_positions_give_no_groups(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    touch(tmp_path, *(f"{folder}/1.jpg" for folder in folders))
    assert read_dataset(tmp_path).label_groups == ()


def test_blanks_and_empty_words_in_a_folder_name_are_dropped(tmp_path: Path) -> None:
    touch(tmp_path, "red__ shirt_/1.jpg", "blue_dress/1.jpg")
    assert read_dataset(tmp_path).labels == ("blue", "dress", "red", "shirt")


@pytest.mark.parametrize(
    ("delimiter", "labels"),
    [
        ("_", ("light", "other", "red", "shirt-x", "y z")),
        ("-", ("other", "red_light_shirt", "x_y z")),
        (" ", ("other", "red_light_shirt-x_y", "z")),
        ("t-x", ("_y z", "other", "red_light_shir")),
    ],
)
def test_labels_in_a_folder_name_may_have_another_delimiter(
    tmp_path: Path, delimiter: str, labels: tuple[str, ...]
) -> None:
    touch(tmp_path, "red_light_shirt-x_y z/1.jpg", "other/1.jpg")
    assert read_dataset(tmp_path, delimiter=delimiter).labels == labels


def test_with_a_slash_every_folder_on_the_way_is_a_label(tmp_path: Path) -> None:
    touch(tmp_path, "red/shirt/1.jpg", "red/light_blue/x y/2.jpg", "green/3.jpg", "red/red/4.jpg")
    assert labels_by_path(read_dataset(tmp_path, delimiter="/")) == {
        "red/shirt/1.jpg": ("red", "shirt"),
        "red/light_blue/x y/2.jpg": ("light_blue", "red", "x y"),
        "green/3.jpg": ("green",),
        "red/red/4.jpg": ("red",),
    }


def test_nested_folders_of_a_fixed_depth_give_groups(tmp_path: Path) -> None:
    touch(tmp_path, "red/shirt/1.jpg", "blue/shirt/1.jpg", "red/dress/1.jpg")
    names = [group.name for group in read_dataset(tmp_path, delimiter="/").label_groups]
    assert names == ["group1", "group2"]


@pytest.mark.parametrize("delimiter", ["_", "/"])
def test_folders_of_sides_are_a_split_and_no_labels(tmp_path: Path, delimiter: str) -> None:
    inner = "red_shirt" if delimiter == "_" else "red/shirt"
    touch(tmp_path, *(f"{side}/{inner}/{side}.jpg" for side in ("train", "valid", "test")))
    dataset = read_dataset(tmp_path, delimiter=delimiter)
    assert dataset.labels == ("red", "shirt")
    assert dict(zip([p.stem for p in dataset.paths], dataset.split or (), strict=True)) == {
        "train": "train", "valid": "val", "test": "test",
    }  # fmt: skip


def test_folders_named_like_sides_are_labels_only_if_they_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "test/2.jpg")
    with pytest.raises(DataError, match="'test' is a usual name"):
        read_dataset(tmp_path)
    dataset = read_dataset(tmp_path, labels=["train", "test"])
    assert (dataset.labels, dataset.split) == (("test", "train"), None)


@pytest.mark.parametrize("delimiter", ["", "a/b", "//", "\t "])
def test_an_impossible_delimiter_is_refused(tmp_path: Path, delimiter: str) -> None:
    touch(tmp_path, "red/1.jpg", "blue/1.jpg")
    with pytest.raises(InputError, match="The delimiter is"):
        read_dataset(tmp_path, delimiter=delimiter)


def test_composed_and_decomposed_letters_are_one_label(tmp_path: Path) -> None:
    touch(tmp_path, unicodedata.normalize("NFD", "grün") + "_a/1.jpg", "rot_b/1.jpg")
    assert "gr\u00fcn" in read_dataset(tmp_path).labels


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/red/1.jpg", "data/blue/1.jpg")
    monkeypatch.chdir(tmp_path)
    dataset = read_dataset(Path("data"))
    assert dataset.root == tmp_path / "data"
    assert all(path.is_absolute() for path in dataset.paths)


@pytest.mark.parametrize(
    ("files", "source", "words"),
    [
        ((), "gone", "does not exist"),
        ((), "", "There are no images"),
        (("red/a.txt",), "", "There are no images"),
        (("1.jpg", "2.jpg"), "", "2 images are in"),
        (("red/1.jpg", "red/2.jpg"), "", "only the label 'red'"),
        (("images/1.jpg", "labels.csv"), "", "Did you mean"),
    ],
)
def test_unusable_folders_are_refused_in_one_line(
    tmp_path: Path, files: tuple[str, ...], source: str, words: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=words) as caught:
        read_dataset(tmp_path / source)
    assert "\n" not in str(caught.value)


def test_a_table_is_read_with_all_its_columns(tmp_path: Path) -> None:
    touch(tmp_path, "data/ü b.jpg", "data/2.jpg", "outside.jpg")
    table = write_table(
        tmp_path / "data",
        "\ufeffpath,labels,group,split\r\n"
        "ü b.jpg, red ;shirt;;red,ann,train\r\n"
        "2.jpg,,,test\r\n"
        "\r\n"
        "../outside.jpg,dress,bob,val\r\n",
    )
    dataset = read_dataset(table)
    assert dataset.labels == ("dress", "red", "shirt")
    np.testing.assert_array_equal(dataset.targets, [[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert dataset.groups == ("ann", "", "bob")
    assert dataset.split == ("train", "test", "val")
    assert dataset.label_groups == ()
    assert all(path.is_file() for path in dataset.paths)


def test_missing_and_empty_columns_become_none(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    dataset = read_dataset(write_table(tmp_path, "path,labels,group,split\n1.jpg,a,,\n2.jpg,b,,\n"))
    assert dataset.groups is None
    assert dataset.split is None


def test_a_row_that_only_repeats_another_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    table = write_table(tmp_path, "path,labels\n1.jpg,a;b\n2.jpg,c\n./1.jpg,b;a\n")
    assert len(read_dataset(table)) == 2


def test_a_table_may_name_label_groups(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    table = write_table(
        tmp_path, "path,labels,label_groups\n1.jpg,red;shirt,c;g\n2.jpg,dress;blue;new,g;c;\n"
    )
    assert read_dataset(table).label_groups == (
        LabelGroup(name="c", labels=("blue", "red"), rule="one"),
        LabelGroup(name="g", labels=("dress", "shirt"), rule="one"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'path'"),
        ("path\n1.jpg\n", "no column 'labels'"),
        ("path:labels\n1.jpg:a\n", "'path:labels'"),
        ("path,labels,labels\n1.jpg,a,b\n", "'labels' is duplicated"),
        ("path,labels\n1.jpg,\n2.jpg,;\n", "no label"),
        ("path,labels\n1.jpg,a\n3.jpg,b\n4.jpg,b\n", r"line 3.*3\.jpg.*and 1 more"),
        ("path,labels,split\n1.jpg,a,train\n2.jpg,b,dev\n", "line 3: the split is 'dev'"),
        ("path,labels,split\n1.jpg,a,train\n2.jpg,b,\n", "line 3: the split is empty"),
        ("path,labels,split\n1.jpg,a,val\n2.jpg,b,val\n1.jpg,a,test\n", "line 4: .*line 2"),
        ("path,labels,label_groups\n1.jpg,a;b,g\n2.jpg,c,g\n", "line 2: 2 labels but 1"),
        ("path,labels,label_groups\n1.jpg,a,g\n2.jpg,b;c,g;g\n", "line 3: .*one label of .* 'g'"),
        ("path,labels,label_groups\n1.jpg,a,g\n2.jpg,a;b,h;g\n", "line 3: 'a' is in"),
    ],
)
def test_unusable_tables_are_refused_with_file_and_line(
    tmp_path: Path, text: str, words: str
) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=words) as caught:
        read_dataset(write_table(tmp_path, text))
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_named_csv_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "photo.csv"
    table.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(DataError, match=r"photo\.csv, line 1: .* not UTF-8"):
        read_dataset(table)


def test_unknown_columns_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    read_dataset(write_table(tmp_path, "path,labels,spilt\n1.jpg,a,train\n2.jpg,b,test\n"))
    assert "not used: spilt" in caplog.text


def test_images_are_found_in_folders_tables_and_as_single_files(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "deep/a.png", "deep/.hidden.png", "notes.txt")
    table = write_table(tmp_path, "path,labels\nb.jpg,x\n")
    assert find_images(tmp_path) == [tmp_path / "b.jpg", tmp_path / "deep/a.png"]
    assert find_images(table) == [tmp_path / "b.jpg"]
    assert find_images(tmp_path / "b.jpg") == [tmp_path / "b.jpg"]


def test_images_are_found_through_every_file_that_describes_a_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    image = '{"id": 1, "file_name": "1.jpg"}'
    coco = f'{{"images": [{image}], "annotations": [], "categories": [{{"id": 1, "name": "a"}}]}}'
    (tmp_path / "c.json").write_text(coco, "utf-8")
    assert find_images(tmp_path / "c.json") == [tmp_path / "images/1.jpg"]
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/1.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [a]\n", "utf-8")
    assert len(find_images(tmp_path / "data.yaml")) == 2


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_a_place_without_images_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        find_images(tmp_path / name)


def test_the_real_photos_are_read(clothing: Path) -> None:
    dataset = read_dataset(clothing / "labels.csv")
    assert len(dataset) == 3211
    assert len(dataset.labels) == 21
    assert len(set(dataset.groups or ())) == 179
    assert dataset.targets[:, dataset.labels.index("kids")].sum() == 331
