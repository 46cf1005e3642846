"""The state of a run, from which it goes on as if it had never stopped.

Everything random is a function of (seed, epoch, picture) or of (seed, step), so that no generator
has to be kept: weights, their average, the optimizer, and where the run stood.
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

_FILES = (
    STATE_FILE, "model.safetensors", "history.csv", "config.yaml", "split.csv",
    "report.html", "report.json", "per_label.csv",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class State:
    """What one file holds: tensors by name, and the rest as JSON can hold it."""

    tensors: Mapping[str, Tensor]
    told: Mapping[str, Any]


@dataclass(kw_only=True)
class Course:
    """Where a run stands; all of it is in the state that is written.

    Attributes:
        identity: Digest of what must not change between a state and who goes on from it.
        epoch, batch: The epochs that are done, and the batches of the next one.
        losses: One for each of these batches, on the device.
        history: A row for each epoch that is done.
        best: mAP and negative loss on the validation side, of the weights that are kept.
        stale: Epochs since then.
        seconds, waited_s: Spent on the batches, and in waiting for them.
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

    def takes(self, row: Epoch) -> bool:
        """End an epoch; say whether its weights are the best so far."""
        self.history.append(row)
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, []
        self.seconds = self.waited_s = 0.0
        better = (row.mAP, -row.val_loss) > self.best
        if better:
            self.best = (row.mAP, -row.val_loss)
        self.stale = 0 if better else self.stale + 1
        return better

    def told(self) -> dict[str, object]:
        """Give all but the losses, as JSON can hold it."""
        rows = [row.__dict__ for row in self.history]
        kept = {name: value for name, value in self.__dict__.items() if name != "losses"}
        return {**kept, "history": rows, "best": list(self.best)}

    def at(self, state: State) -> Course:
        """Give the course that a state tells of.

        Raises:
            InputError: The state is of other settings, another model or other data.
        """
        told = dict(state.told)
        if told["identity"] != self.identity:
            raise InputError(
                "The state is of other settings or other data: --resume goes on only with the "
                "same. Give the flags and the data of the first call, or train anew."
            )
        del told["ema_step"]
        told |= {
            "history": [Epoch(**row) for row in told["history"]],
            "best": (told["best"][0], told["best"][1]),
            "losses": list(state.tensors["losses"].unbind()),
        }
        return Course(**told)


# What may differ between a state and who goes on from it: it changes no weight.
_OF_NO_WEIGHT = ("device", "workers", "threads", "cache", "save_every", "tensorboard")


def identity_of(config: TrainConfig, dataset: Dataset) -> str:
    """Give one SHA-256 of a resolved configuration, the data and their split."""
    settings = {key: value for key, value in config.to_dict().items() if key not in _OF_NO_WEIGHT}
    rows = sorted(zip(dataset.hashes(), dataset.split or (), strict=True))
    text = json.dumps([settings, dataset.digest(), rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save_state(
    path: Path,
    model: nn.Module,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    losses: Tensor,
    told: Mapping[str, Any],
) -> None:
    """Write a state as one .safetensors file, whole or not at all.

    Args:
        path: Where to.
        model: Its tensors are kept to the last bit.
        ema: As are those of the average,
        optimizer: and its moments.
        losses: (steps of this epoch so far,) float32.
        told: What else the run needs; goes into the metadata as JSON.
    """
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"ema.{key}": value for key, value in ema.model.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
    tensors["losses"] = losses
    whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    metadata = {"format": _FORMAT, "told": json.dumps({**told, "ema_step": ema.step})}
    with staged(path) as temporary:
        temporary.write_bytes(tensor_bytes(whole, metadata))


def load_state(path: Path) -> State:
    """Read what `save_state` wrote.

    Raises:
        InputError: There is no state, or it is damaged.
    """
    if not path.is_file():
        raise InputError(
            f"{str(path.parent)!r} holds no state to go on from: the run is finished, or never "
            "began. Train without --resume."
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}")
        return State(tensors=tensors, told=json.loads(metadata["told"]))
    except (SafetensorError, OSError, ValueError, KeyError) as err:
        raise InputError(f"The state {str(path)!r} cannot be read: {err}. Remove it.") from err


def restore(state: State, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> None:
    """Put a state back into what it was taken from."""
    model.load_state_dict(_below("model.", state.tensors))
    ema.model.load_state_dict(_below("ema.", state.tensors))
    ema.step = int(state.told["ema_step"])
    kept: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _below("optimizer.", state.tensors).items():
        index, key = name.split(".", 1)
        kept.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": kept, "param_groups": groups})


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process was about to write; `files.staged` names its folders so."""
    for name in _FILES:
        for path in folder.glob(f".{name}.*"):
            shutil.rmtree(path, ignore_errors=True)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
