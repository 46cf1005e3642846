"""Checkpoints: a .safetensors file that knows which model it holds and what its labels mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from edgeml.errors import ModelLoadError, SpecError
from edgeml.files import staged
from edgeml.network.args import ModelArg
from edgeml.network.model import build_model, head_of
from edgeml.network.weights import MODEL_KEY, Built, load_weights, read_weights
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import spec_metadata


def save_checkpoint(
    path: Path, model: nn.Module, spec: ModelSpec, *, name: str, args: Mapping[str, ModelArg]
) -> None:
    """Write a model's weights and meaning as one .safetensors file, whole or not at all.

    Args:
        path: Where to.
        model: Its state is saved, on whatever device it is, and which head it has.
        spec: Goes into the metadata as `edgeml`.
        name: What `build_model` was given; goes into the metadata as `model`, with `args`.
        args: Arguments of timm's constructor.
    """
    # safetensors wants every tensor dense, in order and with memory of its own.
    tensors = {key: value.cpu().contiguous().clone() for key, value in model.state_dict().items()}
    metadata = {
        **spec_metadata(spec),
        MODEL_KEY: Built(name=name, args=args, head=head_of(model)).to_json(),
        "format": "pt",
    }
    with staged(path) as temporary:
        # `save_file` would leave a file that only its owner can read.
        temporary.write_bytes(tensor_bytes(tensors, metadata))


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Serialise as safetensors; equal contents give equal bytes, and so equal digests.

    The library writes the metadata in an order that differs from call to call.
    """
    data = save(dict(tensors), dict(metadata))
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load_checkpoint(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Build the model that a run folder or its .safetensors holds, in evaluation mode.

    Raises:
        ModelLoadError: The file is missing, damaged, or holds weights of another model.
        SpecError: It does not say what it means: it is not a checkpoint of edgeml.
    """
    weights = read_weights(path)
    spec = weights.spec
    built = weights.built
    if spec is None or built is None:
        raise SpecError(
            f"{weights.path.name!r} does not say which model and labels it holds: it is no "
            "checkpoint of edgeml. To start a training from such weights, pass --weights."
        )
    model = build_model(built.name, labels=len(spec.labels), args=built.args, head=built.head)
    if not load_weights(model, weights, spec.labels):
        raise ModelLoadError(f"The head in {weights.path.name!r} does not fit its labels.")
    return model.eval(), spec
