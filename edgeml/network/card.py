"""How weights were trained, as their file states it in the keys of timm and its converters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import SpecError

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
ModelArg = str | int | float | bool
"""An argument of a network's constructor."""
CONFIG_FILE = "config.json"
"""The file next to the weights in a folder with the layout of timm on the Hugging Face hub."""
_PERMISSIVE = frozenset(
    {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "isc"}
)
_NO_COMMERCE = ("-nc", "noncommercial", "non-commercial", "research", "amlr")


@dataclass(frozen=True, kw_only=True)
class Card:
    """How weights were trained; None or empty where the file does not say. Nothing is guessed.

    The crop share for evaluation (`crop_pct`) is not read: edgeml squashes the full image into the
    input, because a crop may remove a labelled object.

    Attributes:
        architecture: timm's name of the network.
        args: Arguments of its constructor. `pad_type` matters most: with the padding of another
            framework the same weights give outputs of the right shape and wrong values.
        size: (height, width) of the input in pixels.
        mean, std: The normalisation, on a scale of 0 to 1, RGB.
        interpolation: timm's name of the filter.
        licence: The licence of the weights, as their publisher names it.
    """

    architecture: str | None = None
    args: Mapping[str, ModelArg] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    interpolation: str | None = None
    licence: str | None = None


def read_card(file: Path, metadata: Mapping[str, str]) -> Card:
    """Read the metadata of a .safetensors file; keys it lacks come from the config.json next to it.

    Raises:
        SpecError: A value does not have the type of its key; names file and key.
    """
    values = _Values(file.name, {**_timm_config(file.with_name(CONFIG_FILE)), **metadata})
    args = {**values.read("model_args", _args, {}), **values.read("create_kwargs", _args, {})}
    if "pad_type" in values.by_key:
        args["pad_type"] = str(values.by_key["pad_type"])
    inner_size = args.pop("img_size", None)  # the input size has a field of its own
    return Card(
        architecture=values.read("architecture", str, values.read("timm_model", str, None)),
        args=args,
        size=values.read("input_size", _size, None if inner_size is None else _size(inner_size)),
        mean=values.read("mean", _triple, None),
        std=values.read("std", _triple, None),
        interpolation=values.read("interpolation", str, None),
        licence=values.read("license", str, None),
    )


def card_of_config(config: PretrainedCfg) -> Card:
    """Return the card of weights that timm publishes, from timm's own entry."""
    return Card(
        architecture=config.architecture,
        size=config.input_size[1:],
        mean=_triple(config.mean),
        std=_triple(config.std),
        interpolation=config.interpolation,
        licence=config.license,
    )


def licence_note(licence: str | None) -> str:
    """Return one line on what the licence of weights means for shipping a model based on them."""
    if licence is None:
        return "note: the weights do not state their licence; find it before you ship this model"
    name = licence.lower()
    if name in _PERMISSIVE:
        return f"licence of the weights: {licence}"
    if any(word in name for word in _NO_COMMERCE):
        return f"warning: the weights are under {licence}, which forbids commercial use"
    return f"warning: the weights are under {licence}; read it before you ship this model"


@dataclass(frozen=True)
class _Values:
    """Values by key, from metadata (text) or JSON (any type), and the name of their file."""

    file: str
    by_key: Mapping[str, Any]

    def read(self, key: str, parse: Callable[[Any], Any], default: Any) -> Any:
        value = self.by_key.get(key)
        try:
            return default if value is None else parse(value)
        except (ValueError, TypeError) as err:
            raise SpecError(f"The {key!r} of {self.file!r} is {value!r}: {err}.") from err


def _timm_config(path: Path) -> dict[str, Any]:
    """Read a config.json of timm; return nothing for that of another tool."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as err:
        raise SpecError(
            f"{str(path)!r} next to the weights cannot be read as JSON: {err}."
        ) from err
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
    """Return a list from a list, a number, or text such as `0.5,0.5,0.5` or `[0.5, 0.5, 0.5]`."""
    if isinstance(value, str):
        return [part for part in value.strip("[]() ").split(",") if part]
    return list(value) if isinstance(value, (list, tuple)) else [value]
