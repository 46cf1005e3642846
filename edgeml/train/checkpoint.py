"""Checkpoints: a .safetensors file that knows which model it holds and what its labels mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from edgeml.errors import ModelLoadError, SpecError
from edgeml.files import staged
from edgeml.preprocess import Preprocess
from edgeml.spec import METADATA_KEY, ModelSpec
from edgeml.train.config import ModelArg
from edgeml.train.model import build_model, head_of
from edgeml.train.weights import MODEL_KEY, Built, load_weights, read_weights


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
        METADATA_KEY: spec.to_json(),
        MODEL_KEY: Built(name=name, args=args, head=head_of(model)).to_json(),
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


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained model that a student of no more labels learns from.

    Attributes:
        model: In evaluation mode, without gradients.
        spec: What it means; its labels may be more than the student's, in another order.
        column_order: For each of the student's labels, the column of the teacher's output.
    """

    model: nn.Module
    spec: ModelSpec
    column_order: tuple[int, ...]

    def logits(self, pictures: Tensor, preprocess: Preprocess) -> Tensor:
        """Give logits (N, student's labels) float32 for pictures as the student sees them.

        Args:
            pictures: (N, 3, H, W), normalised for the student. Wants them on the teacher's device.
            preprocess: How the student's pictures were prepared; they are brought to the
                teacher's size, colour order and normalisation.
        """
        with torch.no_grad():
            prepared = _translated(pictures.float(), preprocess, self.spec.preprocess)
            logits: Tensor = self.model(prepared).float()
        return logits[:, list(self.column_order)]


def load_teacher(path: Path, labels: Sequence[str]) -> Teacher:
    """Load a run to learn from.

    Args:
        path: A run folder, or its .safetensors.
        labels: Of the student, in its order.

    Raises:
        ModelLoadError: The file cannot be used, or the teacher lacks labels; names them.
        SpecError: It is no checkpoint of edgeml.
    """
    model, spec = load_checkpoint(path)
    missing = [label for label in labels if label not in spec.labels]
    if missing:
        raise ModelLoadError(
            f"The teacher {str(path)!r} does not know {', '.join(map(repr, missing))}: it must "
            "have learnt every label that its student is to learn."
        )
    order = tuple(spec.labels.index(label) for label in labels)
    return Teacher(model=model.requires_grad_(False), spec=spec, column_order=order)


def _translated(pictures: Tensor, student: Preprocess, teacher: Preprocess) -> Tensor:
    """Bring normalised pictures (N, 3, H, W) from one preprocessing to another."""

    def column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device=pictures.device).view(1, 3, 1, 1)

    if student.channels == teacher.channels and (student.mean, student.std) == (
        teacher.mean,
        teacher.std,
    ):
        prepared = pictures
    else:
        raw = pictures * column(student.std) + column(student.mean)
        if student.channels != teacher.channels:
            raw = raw.flip(1)
        prepared = (raw - column(teacher.mean)) / column(teacher.std)
    if tuple(prepared.shape[2:]) == teacher.size:
        return prepared
    return functional.interpolate(prepared, teacher.size, mode="bilinear", antialias=True)
