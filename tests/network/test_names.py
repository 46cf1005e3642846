"""Short names, wrong names, and names that would load anything."""

from __future__ import annotations

import pytest
import timm
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import ModelLoadError
from edgeml.network.names import _SUGGESTED, CNN, full_name, near_names

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("cnn", "cnn"),
        ("resnet18", "resnet18"),
        ("resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("mobilenetv3_small", "mobilenetv3_small_100"),
        ("mobilenetv3_large", "mobilenetv3_large_100"),
        ("mobilenetv2.ra_in1k", "mobilenetv2_100.ra_in1k"),
        ("vit_tiny", "vit_tiny_patch16_224"),
        ("vit_base", "vit_base_patch16_224"),
        ("vit_base_patch16_siglip", "vit_base_patch16_siglip_224"),
        ("vit_base_patch16_siglip_gap", "vit_base_patch16_siglip_gap_224"),
    ],
)
def test_a_name_without_its_usual_ending_is_completed(short: str, full: str) -> None:
    assert full_name(short) == full


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("siglip", ["vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224"]),
        ("vit", ["vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224"]),
        ("ViT-B/16", ["vit_base_patch16_224"]),
        ("resnet", ["resnet18", "resnet34", "resnet50"]),
        ("ResNet-50", ["resnet50"]),
        ("resnet81", ["resnet18"]),
        ("mobilenetv4", ["mobilenetv4_conv_small", "mobilenetv4_conv_medium"]),
        ("mobilenet_v3_small", ["mobilenetv3_small_100"]),
        ("efficientnet", ["efficientnet_b0", "efficientnet_lite0"]),
        ("eficientnet_b0", ["efficientnet_b0"]),
        ("repvit", ["repvit_m0_9"]),
        ("mobileone", ["mobileone_s0"]),
        ("ccn", ["cnn"]),
        ("xyzzy", []),
        ("-", []),
    ],
)
def test_the_most_similar_names_come_first(wrong: str, nearest: list[str]) -> None:
    near = near_names(wrong, [CNN, *timm.list_models()])
    assert near[: len(nearest)] == nearest
    assert bool(near) == bool(nearest)
    with pytest.raises(ModelLoadError, match="There is no model") as error:
        full_name(wrong)
    assert all(name in str(error.value) for name in nearest)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "local-dir:/tmp/x", "", "cnn.v2", ".a1"])
def test_names_outside_timms_list_are_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match="There is no model"):
        full_name(name)


def test_suggested_names_exist() -> None:
    assert {full_name(name) for name in _SUGGESTED} == set(_SUGGESTED)


@given(st.text(max_size=20))
def test_any_text_gets_suggestions_or_none(text: str) -> None:
    near = near_names(text, ["cnn", "resnet18", "vit_tiny_patch16_224"])
    assert set(near) <= {"cnn", "resnet18", "vit_tiny_patch16_224"}
