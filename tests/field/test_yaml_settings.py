"""Settings in YAML mean what they look like, whatever YAML 1.1 makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import InputError
from edgeml.training.config import TrainConfig, read_settings

READ: dict[str, Any] = {
    "amp: off": "off",
    "amp: Off": "off",
    "amp: no": "off",
    "amp: false": "off",
    "amp: !!bool off": "off",
    "amp: 'off'": "off",
    "augment: off": "none",
    "augment: None": "none",
    "pos_weight: no": "none",
    "lr: 1e-3": 0.001,
    "lr: 1E-3": 0.001,
    "lr: .5": 0.5,
    "size: 224.0": 224,
    "size: null": None,
    "size:": None,
    "threads: ~": None,
    "skip_bad: yes": True,
    "skip_bad: off": False,
    "skip_bad: 'no'": False,
    "cache: on": True,
    "near: n": False,
    "model: no": "no",
    "delimiter: _": "_",
    "labels: [yes, no]": ("yes", "no"),
    "labels: [0, 1, 010, 1e3]": ("0", "1", "010", "1e3"),
    "ignore_labels: [on]": ("on",),
    "hold_out: [yes, 'null']": ("yes", "null"),
    "groups: {answer: [yes, no]}": {"answer": ("yes", "no")},
    "mean: [0.4, 1e-1, .3]": (0.4, 0.1, 0.3),
    "model_args: {drop_rate: 1e-1, act: off, n: 3, b: true}": {
        "drop_rate": 0.1, "act": "off", "n": 3, "b": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("text", READ)
def test_a_setting_is_read_as_its_type(text: str, tmp_path: Path) -> None:
    path, name = tmp_path / "settings.yaml", text.partition(":")[0]
    path.write_text(f"epochs: 3\n{text}\n")
    values = read_settings(path)
    assert values == {"epochs": 3, name: READ[text]}
    assert getattr(TrainConfig(**values), name) == READ[text]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "amp: on",
            "amp: yes",
            "amp: [off]",
            "amp: null",
            "lr: 1,5",
            "lr: 5%",
            "size: 3.5",
            "epochs: yes",
        ),
        *("epochs: 1:30", "skip_bad: maybe", "labels: yes", "loss: off", "loss: {a: 1}"),
        *("resize: no", "patience: true", "seed: 0x10"),
    ],
)
def test_another_value_is_refused_with_its_line_and_its_text(text: str, tmp_path: Path) -> None:
    path, name = tmp_path / "settings.yaml", text.partition(":")[0]
    path.write_text(f"epochs: 3\n{text}\n")
    with pytest.raises(InputError) as caught:
        TrainConfig(**read_settings(path))
    message = str(caught.value)
    assert "line 2" in message
    assert name in message
