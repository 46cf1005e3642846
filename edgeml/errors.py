"""Every error that edgeml raises on purpose.

EdgemlError                    except this to catch all of them
├── MissingDependencyError     (ImportError)  an extra is not installed; names it
├── SpecError                  (ValueError)   a bad field, or a newer format
│   └── MissingSpecError                      no spec, neither inside the file nor next to it
├── ImageError                 (ValueError)   cannot be decoded, too large, and why
├── InputError                 (ValueError)   an argument or an array that cannot be used
├── DataError                  (ValueError)   a data set that cannot be used; names file and line
├── ModelLoadError                            a model cannot be found, read or built
│   └── EngineMismatchError                   built for another GPU or TensorRT; names both
├── InferenceError                            the runtime failed while running, or is closed
├── ExportError                               a step of an export failed
│   ├── CalibrationError                      too few images for INT8, or unusable ones
│   └── FidelityError                         it disagrees with its source (in measure/compare.py)
└── NotComparableError                        two reports of unlike machines or plans

A message states what happened, with the values; then what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal


class EdgemlError(Exception):
    """Base class: `except EdgemlError` catches everything edgeml raises on purpose.

    Attributes:
        exit_status: What the command line exits with: 2, bad input; 1, a check failed.
    """

    exit_status: ClassVar[int] = 2


class MissingDependencyError(EdgemlError, ImportError):
    """An optional library is absent. The message names the extra that brings it."""


class SpecError(EdgemlError, ValueError):
    """A model's spec is missing, malformed, or of a newer format."""


class MissingSpecError(SpecError):
    """A model has no spec, neither inside its file nor next to it."""


ImageReason = Literal[
    "missing",  # there is no such file
    "unreadable",  # the file cannot be opened: a folder, no permission
    "empty",  # no bytes at all
    "not_an_image",  # an object of another type
    "unknown_format",  # not one of the supported formats
    "unsupported",  # a format, or a variant of one, that OpenCV does not read correctly
    "damaged",  # cut short, or against the rules of its format
    "too_large",  # too many pixels, or too much memory to decode
    "too_many_bytes",  # the file itself is too large
]
"""Why an image is refused, for programs: these words stay."""


class ImageError(EdgemlError, ValueError):
    """An image cannot be decoded, or is larger than is safe.

    Attributes:
        reason: Why, in one word that a program can rely on.
        source: The path as passed in; None if the image is not a file.
    """

    def __init__(
        self, message: str, *, reason: ImageReason = "damaged", source: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason: ImageReason = reason
        self.source = source


class InputError(EdgemlError, ValueError):
    """An argument or an array cannot be used."""


class DataError(EdgemlError, ValueError):
    """A data set cannot be used as it is."""


class ModelLoadError(EdgemlError):
    """A model cannot be found, read or built."""


EngineReason = Literal[
    "no-passport",  # it is not next to the engine
    "passport",  # it cannot be read or understood
    "empty",  # the engine has no bytes
    "other-passport",  # the passport of another engine
    "truncated",  # fewer bytes than the passport states
    "longer",  # more bytes than the passport states
    "changed",  # other bytes than the passport states
    "other-network",  # other tensors than the passport states
    "library",  # built by the other of NVIDIA's two libraries
    "version",  # built by another version of the library
    "driver",  # needs a newer driver
    "gpu",  # built for another GPU
]
"""Why an engine is refused, for programs: these words stay."""


class EngineMismatchError(ModelLoadError):
    """A TensorRT engine does not match its passport, this GPU or this TensorRT.

    Attributes:
        reason: Why, in one word that a program can rely on.
    """

    def __init__(self, message: str, *, reason: EngineReason = "changed") -> None:
        super().__init__(message)
        self.reason: EngineReason = reason


class InferenceError(EdgemlError):
    """A runtime failed while running, or was used after it was closed."""


class ExportError(EdgemlError):
    """A step of an export failed."""


class CalibrationError(ExportError):
    """The images for INT8 calibration are too few or unusable."""


class NotComparableError(EdgemlError):
    """Two results cannot be compared: other machines, plans or labels."""


@contextmanager
def needs(module: str, *, extra: str, to: str) -> Iterator[None]:
    """Guard an import: if `module` is absent, state what it is for and how to install it.

    Only the absence of `module` itself is explained. A *broken* installation raises another error,
    which passes through unchanged.

    Raises:
        MissingDependencyError: `module` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as err:
        if err.name != module:
            raise
        raise MissingDependencyError(
            f"To {to}, edgeml needs {module!r}: pip install 'edgeml[{extra}]'", name=module
        ) from err
