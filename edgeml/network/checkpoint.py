"""Checkpoints: a .safetensors file with weights, the definition of the network, and the spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor, nn

from edgeml.errors import ModelLoadError, SpecError
from edgeml.files import staged
from edgeml.network.card import ModelArg
from edgeml.network.model import build_model, head_of
from edgeml.network.weights import MODEL_KEY, NetworkDefinition, load_weights, read_weights
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import spec_metadata


def save_checkpoint(
    path: Path, model: nn.Module, spec: ModelSpec, *, name: str, args: Mapping[str, ModelArg]
) -> None:
    """Write a model's weights, the kind of its head and its spec as one complete .safetensors file.

    The spec is stored in the metadata as `edgeml`; `name` and `args`, those of `build_model`, as
    `model`. The model may be on any device.
    """
    # safetensors needs dense, contiguous tensors that do not share memory.
    tensors = {key: value.cpu().contiguous().clone() for key, value in model.state_dict().items()}
    metadata = {
        **spec_metadata(spec),
        MODEL_KEY: NetworkDefinition(name=name, args=args, head=head_of(model)).to_json(),
        "format": "pt",
    }
    with staged(path) as temporary:
        # `save_file` would write a file that only its owner can read.
        temporary.write_bytes(tensor_bytes(tensors, metadata))


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Serialise as safetensors, so that equal contents give equal bytes and equal digests.

    The library alone writes the metadata in an order that differs from call to call.
    """
    data = save(dict(tensors), dict(metadata))
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    text = header.encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load_checkpoint(path: Path) -> tuple[nn.Module, ModelSpec]:
    """Return the model of a run folder or of its .safetensors file, in evaluation mode.

    Raises:
        ModelLoadError: The file is missing or damaged, or holds weights of another model.
        SpecError: The file has no spec: it is not an edgeml checkpoint.
    """
    weights = read_weights(path)
    spec, definition = weights.spec, weights.definition
    if spec is None or definition is None:
        raise SpecError(
            f"{weights.path.name!r} does not state its model and labels: it is not an edgeml "
            "checkpoint. To train from such weights, pass them with --weights."
        )
    model = build_model(
        definition.name, labels=len(spec.labels), args=definition.args, head=definition.head
    )
    if not load_weights(model, weights, spec.labels):
        raise ModelLoadError(
            f"The head in {weights.path.name!r} does not fit the labels of its spec."
        )
    return model.eval(), spec
