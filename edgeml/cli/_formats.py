"""The text formats of option values: pairs, triples, sizes, batches.

A text of another format is an InputError that shows the expected one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from edgeml.errors import InputError, needs

if TYPE_CHECKING:
    from edgeml.network.card import ModelArg
    from edgeml.runtimes.tensorrt.engine_options import Profile


def pairs(flag: str, texts: list[str]) -> list[tuple[str, str]]:
    """Read `key=value` texts."""
    for text in texts:
        if not text.partition("=")[0].strip() or "=" not in text:
            raise InputError(f"{flag} needs key=value, not {text!r}.")
    return [(key.strip(), value) for key, _, value in (text.partition("=") for text in texts)]


def model_args(texts: list[str]) -> dict[str, ModelArg]:
    """Read `--model-args`: numbers and true/false where a value looks like one."""
    arguments = pairs("--model-args", texts)
    for key, _ in arguments:
        if not key.isidentifier():
            raise InputError(f"--model-args needs key=value, not {key!r} as a key.")
    from edgeml.training.config import scalar

    return {key: scalar(text) for key, text in arguments}


def names(text: str, separator: str) -> tuple[str, ...]:
    """Read names between separators; empty ones are dropped."""
    return tuple(name.strip() for name in text.split(separator) if name.strip())


def label_pair(text: str | None) -> tuple[str, ...]:
    """Read two labels joined by `+`; return nothing for None."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split("+")]
    if len(parts) != 2 or not all(parts):
        raise InputError(f"{text!r} does not name two labels; expected for example black+dress.")
    return tuple(parts)


def triple(flag: str, text: str | None) -> tuple[float, float, float] | None:
    """Read three numbers such as `0.485,0.456,0.406`."""
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as err:
        raise InputError(f"{flag} is {text!r}; expected such as 0.485,0.456,0.406.") from err
    return red, green, blue


def image_size(flag: str, text: str | None) -> tuple[int, int] | None:
    """Read `224x224`, or one number for a square, as (height, width)."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        raise InputError(f"{flag} is {text!r}; expected height x width, such as 224x224.")
    return int(sides[0]), int(sides[-1])


def batch_profile(text: str) -> Profile:
    """Read `--batch`: three numbers, or one for a fixed batch."""
    from edgeml.runtimes.tensorrt.engine_options import Profile

    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(parts) not in (1, 3):
        raise InputError(f"--batch is {text!r}; expected for example 1,1,8, or 4.")
    smallest, usual, largest = (int(part) for part in (parts if len(parts) == 3 else 3 * parts))
    return Profile(smallest, usual, largest)


def gpu_capability(text: str | None) -> tuple[str, ...] | Literal["current"] | None:
    """Read `--capability`: compute capabilities between commas, or `current`."""
    if text is None:
        return None
    return "current" if text == "current" else tuple(part.strip() for part in text.split(","))


def torchvision_weights(name: str) -> object:
    """Look up a member of torchvision's weight enums; nothing is downloaded."""
    with needs("torchvision", extra="train", to="read torchvision's transforms"):
        from torchvision.models import get_weight
    try:
        return get_weight(name)
    except (ValueError, AttributeError, KeyError) as err:
        raise InputError(
            f"torchvision has no {name!r}; expected such as ResNet50_Weights.IMAGENET1K_V2."
        ) from err
