"""The type of a network's constructor arguments; light, because the command line imports it."""

from __future__ import annotations

ModelArg = str | int | float | bool
