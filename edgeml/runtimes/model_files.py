"""Write a model that consists of two files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeml.files import staged
from edgeml.spec.storage import sidecar_path


@contextmanager
def staged_model(target: Path) -> Iterator[Path]:
    """Do what `staged` does, and move an .xml with its .bin, an .engine with its passport.

    Raises:
        InputError: The folder of `target` cannot be written to.
    """
    with staged(target) as temporary:
        yield temporary
        partners = {".xml": lambda path: path.with_suffix(".bin"), ".engine": sidecar_path}
        if partner := partners.get(target.suffix):
            # In this order, an .xml is at no time next to the weights of another model.
            target.unlink(missing_ok=True)
            with staged(partner(target)) as second:
                os.replace(partner(temporary), second)
