"""Arguments of a network's constructor; light, since the command line reads them."""

from __future__ import annotations

ModelArg = str | int | float | bool
