"""What the processor of this machine can do, for tests whose expectation depends on it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest


def has_vnni() -> bool:
    """Return whether products of uint8 and int8 are summed in 32 bits: not on x86 without VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni"}.isdisjoint(flags)


def skip_without_vnni() -> None:
    """Skip the rest of a test that compares OpenVINO's INT8, which saturates without VNNI."""
    if not has_vnni():
        pytest.skip("OpenVINO's INT8 saturates on x86 processors without VNNI")
