"""Flags made of `TrainConfig`: one for each setting, with its help, its choices and its default."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from edgeml.errors import InputError
from edgeml.network.args import ModelArg
from edgeml.training.config import Setting, TrainConfig, settings

# Where the negative has a name of its own.
_NEGATIVES = {"pretrained": "from-scratch"}

_DEFAULTS = {one.name: one.default for one in fields(TrainConfig)}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each setting; it gets them as `settings`, a dict of those given.

    The command ends in `**settings`; what the user left out is not in it.
    """
    own = inspect.signature(command, eval_str=True)
    kept = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
    flags = [_flag(name, kind, setting) for name, kind, setting in settings()]

    def run(**values: Any) -> None:
        given = {name: values.pop(name) for name, _, _ in settings()}
        told = {
            name: _read(name, value) for name, value in given.items() if value not in (None, [])
        }
        command(**values, **told)

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__signature__ = own.replace(parameters=[*kept, *flags])  # type: ignore[attr-defined]
    return run


def _flag(name: str, kind: Any, setting: Setting) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    inner = _inner(kind)
    names = flag
    if inner is bool:
        names += "/--" + _NEGATIVES.get(name, "no-" + name.replace("_", "-"))
    option = typer.Option(
        names,
        help=setting.help + _shown(_DEFAULTS[name]),
        show_default=False,
        metavar=_metavar(inner),
        rich_help_panel=setting.panel,
    )
    taken = list[str] if inner is Mapping else str if inner is tuple else inner
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[taken | None, option],
    )


def _inner(kind: Any) -> Any:
    """Give what a flag is parsed as: the type without None, the bare kind of a container."""
    if get_origin(kind) in (Union, types.UnionType):
        return _inner(next(part for part in get_args(kind) if part is not type(None)))
    if get_origin(kind) is Literal:
        return kind
    if get_origin(kind) is tuple:
        return tuple
    return Mapping if get_origin(kind) is not None else kind


def _metavar(inner: Any) -> str | None:
    if inner is Mapping:
        return "K=V"
    return "A,B,C" if inner is tuple else "FILE" if inner is Path else None


def _shown(default: Any) -> str:
    """Say the default, where it is a value that can be given."""
    match default:
        case bool():
            return "" if not default else "; default: yes"
        case str() | int() | float():
            return f"; default: {default}"
        case _:
            return ""


def _read(name: str, value: Any) -> Any:
    match name:
        case "model_args":
            pairs = _pairs("--model-args", value)
            odd = [key for key, _ in pairs if not key.isidentifier()]
            if odd:
                raise InputError(f"--model-args wants key=value, not {odd[0]!r} as a key.")
            return {key: _scalar(text) for key, text in pairs}
        case "groups":
            return {key: _names(text, ",") for key, text in _pairs("--groups", value)}
        case "hold_out":
            return _names(value, "+")
        case "mean" | "std":
            return _triple(name, value)
        case _:
            return value


def _pairs(flag: str, texts: list[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for (key, equals, _), text in zip(pairs, texts, strict=True):
        if not equals or not key.strip():
            raise InputError(f"{flag} wants key=value, not {text!r}.")
    return [(key.strip(), value) for key, _, value in pairs]


def _names(text: str, separator: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(separator) if name.strip())


def _triple(name: str, text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as err:
        raise InputError(
            f"--{name} wants three numbers such as 0.5,0.5,0.5, not {text!r}."
        ) from err
    return red, green, blue


def _scalar(text: str) -> ModelArg:
    """Read what looks like a number or true/false as one."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
