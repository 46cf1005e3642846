"""How a TensorRT engine is built: batches, memory, and the GPUs that it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeml.errors import InputError
from edgeml.runtimes.tensorrt.passport import Library, Portable

PORTABLE_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0")
"""The GPUs that TensorRT-RTX compiles for unless others are named: Ampere, Ada and Blackwell.
NVIDIA advises to build for Turing (7.5) alone, since a common engine is slower (CPU-Only AOT and
TensorRT-RTX Engines)."""

RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""All compute capabilities in TensorRT-RTX 1.7.1's enum ComputeCapability, which has none for
Hopper (9.0). A GPU without one is for `current`, which TensorRT-RTX itself accepts or refuses."""


@dataclass(frozen=True)
class Profile:
    """The batches that an engine takes, and the one that it is fastest with.

    Raises:
        InputError: They are not in order.
    """

    min: int = 1
    opt: int = 1
    max: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise InputError(
                f"The batches {self.min}, {self.opt}, {self.max} are not in order: "
                "expected 1 <= smallest <= usual <= largest."
            )


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        profile: Batches; a file with a fixed batch has that one.
        workspace_mb: The most device memory for a layer's workspace, in MiB; None allows all.
        portable: The other machines that a TensorRT engine runs on, see `Passport`; the more, the
            slower. `version` puts NVIDIA's runtime into the engine, code that runs wherever it is
            loaded: for files that are trusted like programs.
        capability: The GPUs that TensorRT-RTX compiles for, as `8.6`; `current`: the one here.

    Raises:
        InputError: The workspace is empty.
    """

    profile: Profile = Profile()
    workspace_mb: int | None = None
    portable: Portable = "exact"
    capability: tuple[str, ...] | Literal["current"] | None = None

    def __post_init__(self) -> None:
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise InputError(f"The workspace is {self.workspace_mb} MiB; it must be 1 or more.")


def capabilities(
    library: Library,
    portable: Portable,
    capability: Sequence[str] | Literal["current"] | None,
) -> tuple[str, ...]:
    """Return the GPUs that TensorRT-RTX compiles for; nothing for TensorRT.

    Raises:
        InputError: There is no such choice.
    """
    if library == "tensorrt":
        if capability is not None:
            raise InputError(
                "TensorRT builds for the GPU that it runs on: a compute capability can be chosen "
                "for TensorRT-RTX only (--fmt trt-rtx)."
            )
        return ()
    if portable != "exact":
        raise InputError(
            "An engine of TensorRT-RTX runs on all GPUs that it was compiled for: "
            f"choose these by their capability, and not {portable!r}."
        )
    if capability == "current":
        return ("current",)
    requested = PORTABLE_CAPABILITIES if capability is None else tuple(capability)
    for one in requested:
        if one not in RTX_CAPABILITIES:
            raise InputError(
                f"TensorRT-RTX compiles for no compute capability {one!r} by name; known are "
                f"{', '.join(RTX_CAPABILITIES)}, and, on a machine with the GPU, current."
            )
    if not requested:
        raise InputError("At least one compute capability must be named.")
    return requested
