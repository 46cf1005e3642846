"""What a file of weights says of how it was trained, in the keys of timm and its converters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import SpecError
from edgeml.network.args import ModelArg

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

CONFIG_FILE = "config.json"
"""Beside the weights in a folder laid out as timm's on the Hugging Face hub."""

_PERMISSIVE = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "isc"}
)
_NO_COMMERCE = ("-nc", "noncommercial", "non-commercial", "research", "amlr")


@dataclass(frozen=True, kw_only=True)
class Card:
    """How weights were trained; None or empty where nothing is said. Nothing is guessed.

    The share that was cropped for evaluation (`crop_pct`) is not read: edgeml squashes whole
    pictures into the input, because a crop may cut a labelled thing away.

    Attributes:
        architecture: timm's name of the network.
        args: Arguments of its constructor. `pad_type` matters most: the same weights with the
            padding of another framework give a tensor of the right shape and a wrong answer.
        size: (height, width) of the input in pixels.
        mean, std: Of the normalisation, on a scale of 0 to 1, RGB.
        interpolation: timm's name of the filter.
        licence: Of the weights, as their publisher names it.
    """

    architecture: str | None = None
    args: Mapping[str, ModelArg] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None
    licence: str | None = None


def read_card(file: Path, metadata: Mapping[str, str]) -> Card:
    """Read the metadata of a .safetensors file, and where these are silent the config.json beside.

    Raises:
        SpecError: A value is not what its key promises; names file and key.
    """
    told = _Told(file.name, {**_timm_config(file.with_name(CONFIG_FILE)), **metadata})
    args = {**told.read("model_args", _args, {}), **told.read("create_kwargs", _args, {})}
    if "pad_type" in told.values:
        args["pad_type"] = str(told.values["pad_type"])
    inner_size = args.pop("img_size", None)  # the size is chosen anew, and said in one place
    return Card(
        architecture=told.read("architecture", str, told.read("timm_model", str, None)),
        args=args,
        size=told.read("input_size", _size, None if inner_size is None else _size(inner_size)),
        mean=told.read("mean", _triple, None),
        std=told.read("std", _triple, None),
        interpolation=told.read("interpolation", str, None),
        licence=told.read("license", str, None),
    )


def card_of_config(config: PretrainedCfg) -> Card:
    """Read timm's own entry of weights that it publishes."""
    return Card(
        architecture=config.architecture,
        size=config.input_size[1:],
        mean=_triple(config.mean),
        std=_triple(config.std),
        interpolation=config.interpolation,
        licence=config.license,
    )


def licence_note(licence: str | None) -> str:
    """Say what a licence of weights means for who ships a model made of them; one line."""
    if licence is None:
        return "note: the weights do not say their licence; find it before you ship this model"
    name = licence.lower()
    if name in _PERMISSIVE:
        return f"licence of the weights: {licence}"
    if any(word in name for word in _NO_COMMERCE):
        return f"warning: the weights are under {licence}, which forbids commercial use"
    return f"warning: the weights are under {licence}; read it before you ship this model"


@dataclass(frozen=True)
class _Told:
    """Values by key, from metadata (text) or JSON (anything), and the file they stand in."""

    file: str
    values: Mapping[str, Any]

    def read(self, key: str, parse: Callable[[Any], Any], default: Any) -> Any:
        value = self.values.get(key)
        try:
            return default if value is None else parse(value)
        except (ValueError, TypeError) as err:
            raise SpecError(f"The {key!r} of {self.file!r} is {value!r}: {err}.") from err


def _timm_config(path: Path) -> dict[str, Any]:
    """Read a config.json of timm; one of another tool says nothing to us."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as err:
        raise SpecError(f"{str(path)!r} beside the weights cannot be read as JSON: {err}.") from err
    if not isinstance(config, dict) or "architecture" not in config:
        return {}
    pretrained = config.get("pretrained_cfg", {})  # older files have its keys on the outer level
    inner = pretrained if isinstance(pretrained, dict) else {}
    return {key: value for key, value in {**config, **inner}.items() if value is not None}


def _args(value: Any) -> dict[str, ModelArg]:
    args = json.loads(value) if isinstance(value, str) else value
    if not isinstance(args, dict):
        raise ValueError("not an object of arguments")
    return dict(args)


def _size(value: Any) -> tuple[int, int]:
    numbers = [int(number) for number in _list(value)]
    if not 1 <= len(numbers) <= 3 or min(numbers) < 1:
        raise ValueError("not a size in pixels")
    return numbers[-2:][0], numbers[-1]


def _triple(value: Any) -> tuple[float, float, float]:
    numbers = [float(number) for number in _list(value)]
    if len(numbers) != 3:
        raise ValueError("not three numbers")
    return numbers[0], numbers[1], numbers[2]


def _list(value: Any) -> list[Any]:
    """Take `0.5,0.5,0.5`, `[0.5, 0.5, 0.5]` as text, and lists."""
    if isinstance(value, str):
        return [part for part in value.strip("[]() ").split(",") if part]
    return list(value) if isinstance(value, (list, tuple)) else [value]
