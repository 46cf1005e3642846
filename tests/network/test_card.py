"""How weights were trained: read from their file, timm's config.json and timm's registry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import SpecError
from edgeml.network.card import Card, card_of_config, licence_note, read_card

pytestmark = pytest.mark.train

# As timm 1.0.31 writes it next to model.safetensors (save_for_hf, save_config_for_hf).
HUB: dict[str, Any] = {
    "architecture": "mobilenetv2_100",
    "num_classes": 1000,
    "model_args": {"pad_type": "same", "img_size": 192},
    "pretrained_cfg": {
        "tag": "x_in1k",
        "input_size": [3, 160, 192],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.25, 0.5, 0.5],
        "license": "cc-by-nc-4.0",
    },
}
CARD = Card(
    architecture="mobilenetv2_100",
    args={"pad_type": "same"},
    size=(160, 192),
    mean=(0.5, 0.4, 0.3),
    std=(0.25, 0.5, 0.5),
    interpolation="bilinear",
    licence="cc-by-nc-4.0",
)


def write_config(folder: Path, config: object) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "model.safetensors"


def test_metadata_are_read_as_text() -> None:
    metadata = {
        "architecture": "mobilenetv2_100",
        "pad_type": "same",
        "input_size": "3,160,192",
        "mean": "0.5,0.4,0.3",
        "std": "[0.25, 0.5, 0.5]",
        "interpolation": "bilinear",
        "license": "cc-by-nc-4.0",
    }
    assert read_card(Path("nowhere/x.safetensors"), metadata) == CARD


def test_the_keys_of_other_converters_are_known() -> None:
    metadata = {"timm_model": "mobilenetv2_100", "create_kwargs": '{"pad_type": "same"}'}
    expected = Card(architecture="mobilenetv2_100", args={"pad_type": "same"})
    assert read_card(Path("x.safetensors"), metadata) == expected


def test_timms_config_next_to_the_weights_is_read(tmp_path: Path) -> None:
    assert read_card(write_config(tmp_path, HUB), {}) == CARD


def test_the_flat_config_of_older_timms_is_read(tmp_path: Path) -> None:
    flat = {**HUB, **HUB["pretrained_cfg"]}
    del flat["pretrained_cfg"]
    assert read_card(write_config(tmp_path, flat), {}) == CARD


def test_the_metadata_of_the_file_win_over_the_config(tmp_path: Path) -> None:
    card = read_card(write_config(tmp_path, HUB), {"mean": "0,0,0", "pad_type": ""})
    assert card.mean == (0.0, 0.0, 0.0)
    assert card.args == {"pad_type": ""}
    assert card.licence == "cc-by-nc-4.0"


@pytest.mark.parametrize("config", [{"architectures": ["ViT"]}, [], {"mean": 3}, None])
def test_a_config_of_another_tool_is_ignored(tmp_path: Path, config: object) -> None:
    assert read_card(write_config(tmp_path, config), {}) == Card()


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(SpecError, match=r"config\.json"):
        read_card(tmp_path / "model.safetensors", {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", "0.5"),
        ("std", "a,b,c"),
        ("input_size", "0"),
        ("input_size", "1,2,3,4"),
        ("create_kwargs", "[1]"),
        ("create_kwargs", "{"),
    ],
)
def test_an_invalid_value_is_reported_with_its_key_and_file(key: str, value: str) -> None:
    with pytest.raises(SpecError, match=rf"'{key}' of 'x\.safetensors'"):
        read_card(Path("nowhere/x.safetensors"), {key: value})


@given(
    st.dictionaries(
        st.sampled_from(["mean", "std", "input_size", "model_args", "create_kwargs", "pad_type"]),
        st.text(max_size=12) | st.from_regex(r"[\[\]{}0-9.,\" ]{0,12}"),
    )
)
def test_any_metadata_are_read_or_refused(metadata: dict[str, str]) -> None:
    try:
        card = read_card(Path("nowhere/x.safetensors"), metadata)
    except SpecError:
        return
    assert card.mean is None or len(card.mean) == 3
    assert card.size is None or min(card.size) >= 1


def test_published_weights_have_the_card_of_timms_registry() -> None:
    card = card_of_config(timm.models.get_pretrained_cfg("vit_base_patch16_siglip_224.webli"))
    assert card == Card(
        architecture="vit_base_patch16_siglip_224",
        size=(224, 224),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        licence="apache-2.0",
    )


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("resnet18.a1_in1k", "licence of the weights: apache-2.0"),
        ("resnet50.fb_ssl_yfcc100m_ft_in1k", "forbids commercial use"),
        ("resnet18.fb_swsl_ig1b_ft_in1k", "forbids commercial use"),
        ("mobileone_s0.apple_in1k", "warning.*mobileone-license; read it"),
    ],
)
def test_the_licence_of_published_weights_is_noted(tag: str, words: str) -> None:
    licence = card_of_config(timm.models.get_pretrained_cfg(tag)).licence
    assert re.search(words, licence_note(licence))


def test_a_missing_licence_is_noted() -> None:
    assert "do not state their licence" in licence_note(None)
    assert licence_note("Apache-2.0") == "licence of the weights: Apache-2.0"
