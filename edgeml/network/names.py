"""Names of models: which exist, what a short one stands for, which lie near a wrong one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import timm

from edgeml.errors import ModelLoadError

CNN = "cnn"
"""Our own small network."""

# What timm's names end in when nothing is special: the width multiplier 1.00, the usual input.
_USUAL_ENDINGS = ("_100", "_224", "_patch16_224")

# Named first when several would do: models for an edge device, and the teachers of such.
_SUGGESTED = (
    CNN, "resnet18", "resnet34", "resnet50", "efficientnet_b0", "efficientnet_lite0",
    "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium", "vit_tiny_patch16_224", "vit_small_patch16_224",
    "vit_base_patch16_224", "vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224",
    "repvit_m0_9", "mobileone_s0",
)  # fmt: skip


def full_name(name: str) -> str:
    """Give the name that timm knows: `mobilenetv3_small` is `mobilenetv3_small_100`.

    A tag of published weights stays where it is. What could be several models, such as `vit`, is
    not guessed.

    Raises:
        ModelLoadError: There is no such model; names the nearest. `hf-hub:` and `local-dir:` names
            are refused too: they would load anything.
    """
    architecture, dot, tag = name.partition(".")
    known = {CNN, *timm.list_models()}
    if name == CNN or (architecture in known and architecture != CNN):
        return name
    for ending in _USUAL_ENDINGS:
        if architecture + ending in known:
            return architecture + ending + dot + tag
    near = near_names(architecture, known)
    hint = f"; near it are {', '.join(near)}" if near else ""
    raise ModelLoadError(f"There is no model {name!r}{hint}. Take 'cnn' or a name that timm knows.")


def near_names(name: str, known: Iterable[str], count: int = 4) -> list[str]:
    """Give the names nearest to a wrong one, the likeliest first.

    First those that begin with it, then those that contain it, then, among the ones that we
    suggest, those that it abbreviates (`ViT-B/16`), and last those that are spelt alike; case and
    separators do not count.
    """
    wanted = _plain(name)
    if not wanted:
        return []
    plain = {one: _plain(one) for one in known}
    letters = re.compile(".*".join(wanted))
    alike = difflib.get_close_matches(wanted, sorted(set(plain.values())), n=count, cutoff=0.6)

    def rank(one: str) -> tuple[int, bool, int, str]:
        text, suggested = plain[one], one in _SUGGESTED
        if text.startswith(wanted):
            kind = 0
        elif wanted in text:
            kind = 1
        elif suggested and letters.match(text):
            kind = 2
        elif text in alike:
            return 3, False, alike.index(text), one
        else:
            kind = 4
        order = _SUGGESTED.index(one) if suggested else len(one)
        return kind, not suggested, order, one

    return [one for one in sorted(plain, key=rank)[:count] if rank(one)[0] < 4]


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
