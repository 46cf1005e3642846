"""A teacher answers in its student's order, and sees images as it was taught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeml import ModelSpec, Preprocess
from edgeml.errors import ModelLoadError
from edgeml.network.checkpoint import load_checkpoint, save_checkpoint
from edgeml.network.model import build_model
from edgeml.training.learner import load_teacher

pytestmark = pytest.mark.train

SPEC = ModelSpec(
    labels=("rot", "grün", "塗"),
    thresholds=(0.1, 0.5, 0.9),
    preprocess=Preprocess(size=(64, 64), interpolation="cubic"),
)


def teacher_in(folder: Path, preprocess: Preprocess) -> Path:
    torch.manual_seed(0)
    model = build_model("test_resnet", labels=3, args={}).eval()
    spec = replace(SPEC, preprocess=preprocess)
    save_checkpoint(folder / "model.safetensors", model, spec, name="test_resnet", args={})
    return folder


def test_a_teacher_answers_in_the_order_of_its_student(tmp_path: Path) -> None:
    teacher = load_teacher(teacher_in(tmp_path, SPEC.preprocess), ("塗", "rot"))
    assert teacher.column_order == (2, 0)
    assert not teacher.model.training
    images = torch.randn(2, 3, 64, 64)
    logits = teacher.logits(images, SPEC.preprocess)
    assert not logits.requires_grad
    model, _ = load_checkpoint(tmp_path)
    with torch.inference_mode():
        assert torch.equal(logits, model(images)[:, [2, 0]])


def test_a_teacher_sees_images_as_it_was_taught(tmp_path: Path) -> None:
    own = Preprocess(size=(64, 64), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channels="bgr")
    teacher = load_teacher(teacher_in(tmp_path, own), SPEC.labels)
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8))
    student = Preprocess(size=(64, 64), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    with torch.inference_mode():
        expected = teacher.model(torch.from_numpy(own.normalize(frames)))
    got = teacher.logits(torch.from_numpy(student.normalize(frames)), student)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_teacher_of_another_size_gets_its_size(tmp_path: Path) -> None:
    teacher = load_teacher(teacher_in(tmp_path, SPEC.preprocess), SPEC.labels)
    seen: list[tuple[int, ...]] = []
    teacher.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    teacher.logits(torch.randn(2, 3, 40, 48), replace(SPEC.preprocess, size=(40, 48)))
    assert seen == [(2, 3, 64, 64)]


def test_a_teacher_that_lacks_labels_is_refused_with_their_names(tmp_path: Path) -> None:
    teacher_in(tmp_path, SPEC.preprocess)
    with pytest.raises(ModelLoadError, match="does not have the labels 'blau', 'x'"):
        load_teacher(tmp_path, ("blau", "rot", "x"))
