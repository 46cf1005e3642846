"""A trained run that a smaller model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeml.errors import ModelLoadError
from edgeml.image.preprocess import Preprocess
from edgeml.network.checkpoint import load_checkpoint
from edgeml.spec.model_spec import ModelSpec
from edgeml.training.losses import log_odds


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A trained model that a student of no more labels learns from.

    It sees the very pictures that the student sees, augmentation included (Beyer et al.,
    Knowledge distillation: A good teacher is patient and consistent, CVPR 2022).

    Attributes:
        model: In evaluation mode, without gradients.
        spec: What it means; its labels may be more than the student's, in another order.
        column_order: For each of the student's labels, the column of the teacher's output.
    """

    model: nn.Module
    spec: ModelSpec
    column_order: tuple[int, ...]

    def logits(self, pictures: Tensor, preprocess: Preprocess) -> Tensor:
        """Give log-odds (N, student's labels) float32 for pictures as the student sees them.

        Args:
            pictures: (N, 3, H, W), normalised for the student. Wants them on the teacher's device.
            preprocess: How the student's pictures were prepared; they are brought to the
                teacher's size, colour order and normalisation.
        """
        with torch.no_grad():
            prepared = _translated(pictures.float(), preprocess, self.spec.preprocess)
            logits = log_odds(self.model(prepared).float(), self.spec.choices())
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
