"""Settings: read from YAML and flags, checked in one place, and equal when read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import InputError
from edgeml.training.config import TrainConfig, choices, read_settings, settings

pytestmark = pytest.mark.train


def read(text: str, folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path)


def test_written_settings_read_back_equal(tmp_path: Path) -> None:
    config = TrainConfig(
        model="mobilenetv2_100",
        model_args={"pad_type": "same", "drop_rate": 0.1, "flag": True},
        weights=Path("ü ber/weights.safetensors"),
        mean=(0.5, 0.5, 0.5),
        groups={"farbe": ("grün", "rot"), "garment": ("hat", "shirt")},
        hold_out=("grün", "hat"),
        lr=1e-5,
        threads=2,
        objective="precision>=0.9",
    )
    assert TrainConfig(**read(config.to_yaml(), tmp_path)) == config


@hypothesis.settings(deadline=None)
@given(
    epochs=st.integers(1, 10**6),
    lr=st.none() | st.floats(1e-12, 10),
    smoothing=st.floats(0, 0.9),
    model=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20),
    loss=st.sampled_from(["bce", "asl", "poly", "db"]),
    freeze_bn=st.booleans(),
)
def test_any_settings_read_back_equal(tmp_path_factory: Any, **values: Any) -> None:
    config = TrainConfig(**values)
    folder = tmp_path_factory.mktemp("yaml")
    assert TrainConfig(**read(config.to_yaml(), folder)) == config


def test_numbers_may_be_written_in_scientific_notation(tmp_path: Path) -> None:
    # YAML 1.1 reads 1e-3 as text.
    assert read("lr: 1e-3\nepochs: 20\nsize: null", tmp_path) == {
        "lr": 0.001, "epochs": 20, "size": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nmodle: cnn", "line 2: there is no setting 'modle'; did you mean 'model'"),
        ("epochs: 3\n\nlr: fast", "line 3: lr is 'fast'"),
        ("augment: colour-safe", "line 1: augment is 'colour-safe'"),
        ("groups: {a: b}", "line 1: groups is"),
        ("epochs: [", "is not valid YAML"),
        ("- epochs", "contains no settings"),
        ("3: 4", "there is no setting '3'"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("a: &a [*a]", "there is no setting 'a'"),
    ],
)
def test_a_bad_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig(**read(text, tmp_path))
    assert message in str(caught.value)
    assert "config.yaml" in str(caught.value)


def test_an_empty_file_sets_nothing_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    assert read("# only a comment\n", tmp_path) == {}
    with pytest.raises(InputError, match="Cannot read"):
        read_settings(tmp_path / "absent.yaml")


@hypothesis.settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_settings_or_one_clear_error(tmp_path_factory: Any, text: str) -> None:
    folder = tmp_path_factory.mktemp("yaml")
    (folder / "config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome: object
    try:
        outcome = TrainConfig(**read_settings(folder / "config.yaml"))
    except InputError as err:
        outcome = str(err)
    assert isinstance(outcome, TrainConfig) or "config.yaml" in str(outcome)


@pytest.mark.parametrize("name", [name for name, kind, _ in settings() if choices(kind)])
def test_an_unknown_choice_is_refused_with_the_existing_ones(name: str) -> None:
    with pytest.raises(InputError, match="the choices are"):
        TrainConfig(**{name: "nonsense"})


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [(name, one.low, one.high) for name, _, one in settings() if one.low > -1e9],
)
def test_a_number_out_of_range_is_refused_with_the_range(
    name: str, low: float, high: float
) -> None:
    with pytest.raises(InputError, match=f"{name} is .*; it must be {low:g}"):
        TrainConfig(**{name: low - 1})
    if high < 1e9:
        with pytest.raises(InputError, match=f"to {high:g}"):
            TrainConfig(**{name: high + 1})


def test_every_setting_has_a_help_text() -> None:
    for name, _, setting in settings():
        assert setting.help, name
        assert setting.panel, name


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="exclude each other"):
        TrainConfig(weights=Path("x"), pretrained=True)
    with pytest.raises(InputError, match="lr is nan"):
        TrainConfig(lr=float("nan"))
    with pytest.raises(InputError, match="macro_f1"):
        TrainConfig(objective="best_f1")
    with pytest.raises(InputError, match="leave something for training"):
        replace(TrainConfig(), val=0.6, test=0.5)
