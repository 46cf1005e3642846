"""Names of filters and resize modes; light, since the command line reads them."""

from __future__ import annotations

from typing import Literal

Interpolation = Literal["linear", "cubic", "lanczos", "nearest"]


Resize = Literal["squash", "crop", "squash_crop", "letterbox"]
