"""Flags generated from `TrainConfig`: one per setting, with its help, choices and default."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from edgeml.cli import _formats
from edgeml.training.config import Setting, TrainConfig, settings

# Flags whose negative form is not --no-NAME.
_NEGATIVES = {"pretrained": "from-scratch"}

_DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add one flag per setting to a command that ends in `**settings`.

    The command receives only the settings that the user entered.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags = [_flag(name, kind, setting) for name, kind, setting in settings()]

    def run(**values: Any) -> None:
        entered = {name: values.pop(name) for name, _, _ in settings()}
        entered = {name: value for name, value in entered.items() if value not in (None, [])}
        command(**values, **{name: _read(name, value) for name, value in entered.items()})

    run.__doc__, run.__name__ = command.__doc__, command.__name__
    run.__signature__ = signature.replace(parameters=[*parameters, *flags])  # type: ignore[attr-defined]
    return run


def _flag(name: str, kind: Any, setting: Setting) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    parsed = _parsed_type(kind)
    if parsed is bool:
        flag += "/--" + _NEGATIVES.get(name, "no-" + name.replace("_", "-"))
    option = typer.Option(
        flag,
        help=setting.help + _default_text(_DEFAULTS[name]),
        show_default=False,
        metavar=_metavar(parsed),
        rich_help_panel=setting.panel,
    )
    accepted = list[str] if parsed is Mapping else str if parsed is tuple else parsed
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[accepted | None, option],
    )


def _parsed_type(kind: Any) -> Any:
    """Return the type that a flag is parsed as: without None, containers without their items."""
    if get_origin(kind) in (Union, types.UnionType):
        return _parsed_type(next(part for part in get_args(kind) if part is not type(None)))
    if get_origin(kind) is Literal:
        return kind
    if get_origin(kind) is tuple:
        return tuple
    return Mapping if get_origin(kind) is not None else kind


def _metavar(parsed: Any) -> str | None:
    if parsed is Mapping:
        return "K=V"
    return "A,B,C" if parsed is tuple else "FILE" if parsed is Path else None


def _default_text(default: Any) -> str:
    """Return the default as help text, if the user could enter it as a value."""
    if isinstance(default, bool):
        return "; default: yes" if default else ""
    return f"; default: {default}" if isinstance(default, (str, int, float)) else ""


def _read(name: str, value: Any) -> Any:
    match name:
        case "model_args":
            return _formats.model_args(value)
        case "groups" if value == ["none"]:
            return None
        case "groups":
            groups = _formats.pairs("--groups", value)
            return {name: _formats.names(labels, ",") for name, labels in groups}
        case "hold_out":
            return _formats.names(value, "+")
        case "labels" | "ignore_labels":
            return _formats.names(value, ",")
        case "mean" | "std":
            return _formats.triple(f"--{name}", value)
        case _:
            return value
