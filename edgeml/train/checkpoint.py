"""Checkpoints: a .safetensors file that knows which model it holds and what its labels mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import nn

from edgeml.errors import ModelLoadError, SpecError
from edgeml.files import staged
from edgeml.spec import METADATA_KEY, ModelSpec
from edgeml.train.config import ModelArg
from edgeml.train.model import build_model
from edgeml.train.weights import load_weights, read_weights

MODEL_KEY = "model"
"""Where the model's name and arguments stand in the metadata, as JSON."""


def save_checkpoint(
    path: Path, model: nn.Module, spec: ModelSpec, *, name: str, args: Mapping[str, ModelArg]
) -> None:
    """Write a model's weights and meaning as one .safetensors file, whole or not at all.

    Args:
        path: Where to.
        model: Its state is saved, on whatever device it is.
        spec: Goes into the metadata as `edgeml`.
        name: What `build_model` was given; goes into the metadata as `model`, with `args`.
        args: Arguments of timm's constructor.
    """
    # safetensors wants every tensor dense, in order and with memory of its own.
    tensors = {key: value.cpu().contiguous().clone() for key, value in model.state_dict().items()}
    metadata = {
        METADATA_KEY: spec.to_json(),
        MODEL_KEY: json.dumps({"name": name, "args": dict(args)}),
        "format": "pt",
    }
    with staged(path) as temporary:
        # `save_file` would leave a file that only its owner can read.
        temporary.write_bytes(save(tensors, metadata))


def load_checkpoint(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Build the model that a run folder or its .safetensors holds, in evaluation mode.

    Raises:
        ModelLoadError: The file is missing, damaged, or holds weights of another model.
        SpecError: It does not say what it means: it is not a checkpoint of edgeml.
    """
    weights = read_weights(path)
    spec = weights.spec
    if spec is None or MODEL_KEY not in weights.metadata:
        raise SpecError(
            f"{weights.path.name!r} does not say which model and labels it holds: it is no "
            "checkpoint of edgeml. To start a training from such weights, pass --weights."
        )
    name, args = _model_of(weights.path.name, weights.metadata[MODEL_KEY])
    model = build_model(name, labels=len(spec.labels), args=args)
    if not load_weights(model, weights, spec.labels):
        raise ModelLoadError(f"The head in {weights.path.name!r} does not fit its labels.")
    return model.eval(), spec


def _model_of(file: str, text: str) -> tuple[str, dict[str, ModelArg]]:
    try:
        told = json.loads(text)
        name, args = told["name"], told["args"]
    except (ValueError, KeyError, TypeError) as err:
        raise SpecError(f"{file!r} does not name its model: {text[:80]!r}.") from err
    if not isinstance(name, str) or not isinstance(args, dict):
        raise SpecError(f"{file!r} does not name its model: {text[:80]!r}.")
    return name, args
