"""Tensors of weights files: .safetensors, and checkpoints of PyTorch without their code."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from edgeml.errors import ModelLoadError
from edgeml.spec.model_spec import quoted_names

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".bin")

# Where training scripts store the weights; averaged ones first, as timm does.
_INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors by name, and the metadata, of a .safetensors file or a checkpoint of PyTorch.

    A checkpoint is read with `weights_only`, so nothing in it is executed.

    Raises:
        ModelLoadError: The file is damaged, of another format, or holds more than tensors.
    """
    if file.suffix.lower() in TORCH_SUFFIXES:
        return _read_checkpoint(file)
    if file.suffix.lower() != ".safetensors":
        raise ModelLoadError(
            f"{file.name!r} is neither a .safetensors file nor a checkpoint of PyTorch "
            f"({', '.join(TORCH_SUFFIXES)})."
        )
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, dict(opened.metadata() or {})
    except (SafetensorError, OSError) as err:
        raise ModelLoadError(f"{file.name!r} cannot be read as safetensors: {err}.") from err


def _read_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        # The options of the script, which timm stores too, are plain attributes.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as err:  # whatever damaged bytes cause
        refused = re.search(r"GLOBAL (\S+)", str(err))
        why = f"it holds a {refused[1]}, which may execute code" if refused else "it is damaged"
        raise ModelLoadError(
            f"{file.name!r} cannot be read as a checkpoint of tensors: {why}. Where it comes from, "
            "save its state dict alone: safetensors.torch.save_file(model.state_dict(), FILE)."
        ) from err
    table = content if isinstance(content, Mapping) else {}
    inner = next((table[key] for key in _INSIDE if isinstance(table.get(key), Mapping)), table)
    tensors = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    if not tensors:
        found = quoted_names([*map(str, table)]) or f"a value of type {type(content).__name__}"
        raise ModelLoadError(
            f"{file.name!r} has no tensors by name, but {found}; edgeml reads a state dict, or one "
            f"under {', '.join(_INSIDE)}."
        )
    name = table.get("arch")
    return tensors, {"architecture": name} if isinstance(name, str) else {}


def adapted(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights under the model's names, as far as they are its own.

    Wrappers put a prefix before every name, such as `module.`; other parts of the wrapper are left
    out. So are buffers that the model computes itself, as timm's own filter does.
    """
    expected = model.state_dict()
    tensors = _without_prefix(tensors, expected)
    computed = {name for name, _ in model.named_buffers()} - expected.keys()
    tensors = {name: tensor for name, tensor in tensors.items() if name not in computed}
    if expected.keys() == tensors.keys():
        return tensors
    try:
        module: Any = sys.modules[type(model).__module__]
        filtered = dict(module.checkpoint_filter_fn(dict(tensors), model))
    except Exception:  # there is none, or it does not know these weights
        return tensors
    return filtered if _faults(filtered, expected) < _faults(tensors, expected) else tensors


def _faults(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int:
    return len(tensors.keys() ^ expected.keys())


def _without_prefix(tensors: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """Remove the one prefix with which the model's names are there, if they are not without it."""
    names = set(expected)
    if not names or len(names & tensors.keys()) * 2 > len(names):
        return dict(tensors)
    counts: dict[str, int] = {}
    for key in tensors:
        parts = key.split(".")
        for i in range(1, len(parts)):
            if ".".join(parts[i:]) in names:
                prefix = ".".join(parts[:i]) + "."
                counts[prefix] = counts.get(prefix, 0) + 1
    found = [prefix for prefix, count in counts.items() if count * 2 > len(names)]
    if len(found) != 1:
        return dict(tensors)
    prefix = found[0]
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
