"""Names of models: completing short ones, refusing unknown ones, suggesting similar ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import timm

from edgeml.errors import ModelLoadError

CNN = "cnn"
"""Our own small network."""
# The usual endings of timm's names: width multiplier 1.00, input of 224 pixels, patches of 16.
_USUAL_ENDINGS = ("_100", "_224", "_patch16_224")
# Suggested first: models for edge devices, and teachers for them.
_SUGGESTED = (
    CNN, "resnet18", "resnet34", "resnet50", "efficientnet_b0", "efficientnet_lite0",
    "mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small",
    "mobilenetv4_conv_medium", "vit_tiny_patch16_224", "vit_small_patch16_224",
    "vit_base_patch16_224", "vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224",
    "repvit_m0_9", "mobileone_s0",
)  # fmt: skip


def full_name(name: str) -> str:
    """Return the name that timm uses: `mobilenetv3_small_100` for `mobilenetv3_small`.

    Names are completed where they enter edgeml: from the user's settings and from checkpoints. A
    tag of published weights is preserved. An ambiguous name, such as `vit`, is not guessed.

    Raises:
        ModelLoadError: As `check_name`.
    """
    architecture, dot, tag = name.partition(".")
    completed = (architecture + ending + dot + tag for ending in ("", *_USUAL_ENDINGS))
    full = next((one for one in completed if _exists(one)), name)
    check_name(full)
    return full


def check_name(name: str) -> None:
    """Refuse a name that is neither `cnn` nor a full name of timm.

    Raises:
        ModelLoadError: The model does not exist; suggests similar names. `hf-hub:` and
            `local-dir:` names are refused too, because they would load anything.
    """
    architecture, dot, _ = name.partition(".")
    if _exists(name):
        if dot and architecture != CNN:
            _check_tag(name, architecture)
        return
    near = near_names(name.partition(".")[0], {CNN, *timm.list_models()})
    hint = f"; similar names are {', '.join(near)}" if near else ""
    raise ModelLoadError(f"There is no model {name!r}{hint}. Use 'cnn' or a model name of timm.")


def _check_tag(name: str, architecture: str) -> None:
    """Refuse a tag under which timm publishes no weights of an architecture."""
    try:
        timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as err:
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        near = near_names(name, known) or known[:4]
        hint = f"similar names are {', '.join(near)}" if near else f"use {architecture!r}"
        raise ModelLoadError(f"timm has no weights {name!r}; {hint}.") from err


def _exists(name: str) -> bool:
    return name == CNN or name.partition(".")[0] in timm.list_models()


def near_names(name: str, known: Iterable[str], count: int = 4) -> list[str]:
    """Return the names most similar to a wrong one, best first.

    The order: names that begin with it, names that contain it, suggested names that it abbreviates
    (`ViT-B/16`), names with similar spelling. Case and separators do not count.
    """
    query = _plain(name)
    if not query:
        return []
    plain = {one: _plain(one) for one in known}
    letters = re.compile(".*".join(query))
    alike = difflib.get_close_matches(query, sorted(set(plain.values())), n=count, cutoff=0.6)

    def rank(one: str) -> tuple[int, bool, int, str]:
        text, suggested = plain[one], one in _SUGGESTED
        if text.startswith(query):
            kind = 0
        elif query in text:
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
