"""Distillation: a trained run that a smaller model learns from."""

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
    """A trained model from which a student learns; it has all labels of the student.

    It sees exactly the same images as the student, augmentation included (Beyer et al.,
    Knowledge distillation: A good teacher is patient and consistent, CVPR 2022).

    Attributes:
        model: In evaluation mode, without gradients.
        spec: The teacher's spec; it may have more labels than the student, in another order.
        column_order: For each label of the student, the column of the teacher's output.
    """

    model: nn.Module
    spec: ModelSpec
    column_order: tuple[int, ...]

    def logits(self, images: Tensor, preprocess: Preprocess) -> Tensor:
        """Return log-odds (N, student's labels) float32 for the images that the student sees.

        Args:
            images: (N, 3, H, W), normalised for the student, on the teacher's device.
            preprocess: The student's preprocessing; the images are converted to the size, colour
                order and normalisation of the teacher.
        """
        with torch.no_grad():
            prepared = _converted(images.float(), preprocess, self.spec.preprocess)
            logits = log_odds(self.model(prepared).float(), self.spec.softmax_groups())
        return logits[:, list(self.column_order)]


def load_teacher(path: Path, labels: Sequence[str]) -> Teacher:
    """Load a run as a teacher.

    Args:
        path: A run folder, or its .safetensors file.
        labels: The labels of the student, in its order.

    Raises:
        ModelLoadError: The file cannot be used, or the teacher lacks labels; names them.
        SpecError: The file is not an edgeml checkpoint.
    """
    model, spec = load_checkpoint(path)
    missing = [label for label in labels if label not in spec.labels]
    if missing:
        raise ModelLoadError(
            f"The teacher {str(path)!r} does not have the labels {', '.join(map(repr, missing))}. "
            "A teacher needs every label that its student learns."
        )
    order = tuple(spec.labels.index(label) for label in labels)
    return Teacher(model=model.requires_grad_(False), spec=spec, column_order=order)


def _converted(images: Tensor, student: Preprocess, teacher: Preprocess) -> Tensor:
    """Convert normalised images (N, 3, H, W) from one preprocessing to another."""

    def column(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, device=images.device).view(1, 3, 1, 1)

    if student.channels == teacher.channels and (student.mean, student.std) == (
        teacher.mean,
        teacher.std,
    ):
        prepared = images
    else:
        raw = images * column(student.std) + column(student.mean)
        if student.channels != teacher.channels:
            raw = raw.flip(1)
        prepared = (raw - column(teacher.mean)) / column(teacher.std)
    if tuple(prepared.shape[2:]) == teacher.size:
        return prepared
    return functional.interpolate(prepared, teacher.size, mode="bilinear", antialias=True)
