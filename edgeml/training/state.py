"""The state of a run, from which it resumes as if it had never stopped.

It holds weights, their average, the optimizer and the position in the run. No random generator is
saved: everything random is a function of (seed, epoch, image) or of (seed, step).
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from edgeml.data import Dataset
from edgeml.errors import InputError
from edgeml.files import staged
from edgeml.network.checkpoint import tensor_bytes
from edgeml.training.config import TrainConfig
from edgeml.training.history import Epoch
from edgeml.training.optim import Ema

STATE_FILE = "state.safetensors"
_FORMAT = "edgeml.state/1"
# In the metadata of the file; the name dates from edgeml 0.1.0.
_FIELDS_KEY = "told"
_FILES = (
    STATE_FILE, "model.safetensors", "history.csv", "config.yaml", "split.csv",
    "report.html", "report.json", "per_label.csv",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """The contents of a state file: tensors by name, and all else as JSON values."""

    tensors: Mapping[str, Tensor]
    fields: Mapping[str, Any]


@dataclass(kw_only=True)
class RunState:
    """The progress of a run; the state file holds all of it.

    Attributes:
        identity: Digest of everything that must be equal when a run is resumed.
        epoch, batch: The finished epochs, and the finished batches of the next one.
        losses: One for each of these batches, on the device.
        history: A row for each finished epoch.
        best: The quality of the best weights so far, see `Epoch`.
        stale: Epochs since the best one.
        seconds, waited_s: Time spent on these batches, and the part of it spent waiting for them.
        scaler: State of the gradient scaler.
    """

    identity: str
    epoch: int = 0
    batch: int = 0
    losses: list[Tensor] = field(default_factory=list)
    history: list[Epoch] = field(default_factory=list)
    best: tuple[float, float] = (-math.inf, -math.inf)
    stale: int = 0
    seconds: float = 0.0
    waited_s: float = 0.0
    scaler: dict[str, float] = field(default_factory=dict)

    def end_epoch(self, row: Epoch) -> bool:
        """Record a finished epoch; return whether its weights are the best so far."""
        self.history.append(row)
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, []
        self.seconds = self.waited_s = 0.0
        better = row.quality > self.best
        if better:
            self.best = row.quality
        self.stale = 0 if better else self.stale + 1
        return better

    def to_dict(self) -> dict[str, object]:
        """Return everything but the losses as JSON values."""
        rows = [row.__dict__ for row in self.history]
        fields = {name: value for name, value in self.__dict__.items() if name != "losses"}
        return {**fields, "history": rows, "best": list(self.best)}

    def restored(self, state: SavedState) -> RunState:
        """Return the progress that a state file holds.

        Raises:
            InputError: The state belongs to other settings, another model or other data.
        """
        fields = dict(state.fields)
        if fields["identity"] != self.identity:
            raise InputError(
                "The state belongs to a run with other settings or other data; --resume needs the "
                "same. Repeat the flags and the data of the first call, or start a new run."
            )
        del fields["ema_step"]
        fields |= {
            # A run that edgeml 0.1.0 began chose its epochs by mAP alone.
            "history": [Epoch(**{"weighted_mAP": row["mAP"], **row}) for row in fields["history"]],
            "best": (fields["best"][0], fields["best"][1]),
            "losses": list(state.tensors["losses"].unbind()),
        }
        return RunState(**fields)


# Settings that may differ when a run is resumed, because they do not change the weights.
_NOT_IN_IDENTITY = ("device", "root", "workers", "threads", "cache", "save_every", "tensorboard")


def identity_of(config: TrainConfig, dataset: Dataset) -> str:
    """Return one SHA-256 of a resolved configuration, the data and their split."""
    settings = {
        key: value for key, value in config.to_dict().items() if key not in _NOT_IN_IDENTITY
    }
    rows = sorted(zip(dataset.hashes(), dataset.split or (), strict=True))
    text = json.dumps([settings, dataset.digest(), rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_state(
    path: Path,
    model: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    losses: Tensor,
    fields: Mapping[str, Any],
) -> None:
    """Write tensors bit by bit, and the other `fields` of a run as JSON, as one .safetensors file.

    Of the optimizer, moments are saved; parameter groups are built again on resuming. `losses` are
    float32, one for each step of this epoch so far.
    """
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"ema.{key}": value for key, value in ema.model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
    tensors["losses"] = losses
    stored = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    metadata = {"format": _FORMAT, _FIELDS_KEY: json.dumps({**fields, "ema_step": ema.step})}
    with staged(path) as temporary:
        temporary.write_bytes(tensor_bytes(stored, metadata))


def load_state(path: Path) -> SavedState:
    """Read a file that `save_state` wrote.

    Raises:
        InputError: There is no state file, or it is damaged.
    """
    if not path.is_file():
        raise InputError(
            f"{str(path.parent)!r} holds no state to resume from: the run is finished, or never "
            "started. Train without --resume."
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}")
        return SavedState(tensors=tensors, fields=json.loads(metadata[_FIELDS_KEY]))
    except (SafetensorError, OSError, ValueError, KeyError) as err:
        raise InputError(f"The state {str(path)!r} cannot be read: {err}. Remove it.") from err


def restore(
    state: SavedState, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer
) -> None:
    """Load the saved tensors into model, average and optimizer."""
    model.load_state_dict(_with_prefix("model.", state.tensors))
    ema.model.load_state_dict(_with_prefix("ema.", state.tensors))
    ema.step = int(state.fields["ema_step"])
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _with_prefix("optimizer.", state.tensors).items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of `files.staged` that a killed process left behind."""
    for name in _FILES:
        for path in folder.glob(f".{name}.*"):
            shutil.rmtree(path, ignore_errors=True)


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
