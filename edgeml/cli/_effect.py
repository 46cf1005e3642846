"""No option is without effect: an option that cannot change anything is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import InputError

if TYPE_CHECKING:
    from edgeml.data import Dataset
    from edgeml.training.config import TrainConfig

# What a setting of training depends on, and the values of that with which it has an effect.
_NEEDS: Mapping[str, tuple[str, Sequence[object]]] = {
    "gamma_neg": ("loss", ("asl",)),
    "gamma_pos": ("loss", ("asl",)),
    "asl_clip": ("loss", ("asl",)),
    "pos_weight_cap": ("pos_weight", ("sqrt", "balanced")),
}


def check_split_options(dataset: Dataset, entered: Mapping[str, object]) -> None:
    """Refuse options of a split where the data have one; None: not entered.

    Without a validation part, one is taken from the training part: this takes all but `test`.
    """
    if dataset.split is None:
        return
    counts = {side: dataset.split.count(side) for side in ("train", "val", "test")}
    for name, value in entered.items():
        agrees = name == "test" and not value and not counts["test"]
        used = name != "test" and not counts["val"]
        if value is None or agrees or used:
            continue
        flag = _flag(name, value)
        parts = ", ".join(f"{count} {side}" for side, count in counts.items())
        raise InputError(
            f"{flag} would have no effect: the data have a split ({parts}). Omit the option, or "
            "the split of the data."
        )


def check_settings(config: TrainConfig, entered: Mapping[str, object]) -> None:
    """Refuse settings of training that depend on another setting, which does not need them."""
    if entered.get("pretrained") is False and config.weights is not None:
        raise InputError("--from-scratch would have no effect with --weights: omit one of them.")
    for name, value in entered.items():
        if name in ("distill", "distill_temperature") and config.teacher is None:
            raise InputError(f"{_flag(name, value)} would have no effect without --teacher.")
        if name in _NEEDS:
            needed, values = _NEEDS[name]
            if (now := getattr(config, needed)) not in values:
                raise InputError(
                    f"{_flag(name, value)} would have no effect: {_dashed(needed)} is {now}, not "
                    f"{' or '.join(map(str, values))}."
                )


def check_exclusive(present: Mapping[str, bool], *pairs: tuple[str, str]) -> None:
    """Refuse two options of which the first makes the second useless."""
    for first, second in pairs:
        if present[first] and present[second]:
            raise InputError(f"{second} would have no effect with {first}: omit one of them.")


def reading_options(source: Path, options: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    """Return the options of reading that apply to a data set at a path.

    The words of folders' names need a delimiter; cells and paths of tables a separator and a root.

    Raises:
        InputError: `strict`, and an option would have no effect.
    """
    from edgeml.data.readers.find import reader_options

    defaults = {"delimiter": "_"}
    entered = any(value != defaults.get(name) for name, value in options.items())
    useful = reader_options(source) if entered and os.path.exists(source) else set(options)
    kept = {}
    for name, value in options.items():
        if name in useful or value == defaults.get(name):
            kept[name] = value
        elif strict:
            kind = "folders named after labels" if name == "delimiter" else "tables"
            raise InputError(
                f"{_flag(name, value)} would have no effect: it is for {kind}, and {str(source)!r} "
                "is something else."
            )
    return kept


def _flag(name: str, value: object) -> str:
    if isinstance(value, bool):
        return _dashed(name if value else f"no_{name}")
    return f"{_dashed(name)} {value}"


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")
