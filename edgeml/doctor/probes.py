"""How a machine is examined: by metadata, by files, and by libraries in another process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

TIMEOUT_S = 60.0

_DRIVERS = (
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/tegra/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
    "/usr/lib/libcuda.so.1",
    "/usr/lib/wsl/lib/libcuda.so.1",
    "/usr/local/nvidia/lib64/libcuda.so.1",
    "C:/Windows/System32/nvcuda.dll",
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The state of one part of a machine.

    Attributes:
        name: The part.
        ok: True: it works. False: it is broken, or in the way. None: absent, and not always needed.
        detail: What was found, and what follows from it.
        code: What is wrong, in a word that stays; empty if nothing is.
        fix: The command that fixes or installs it; None if there is nothing to do.
        see: A link to where it is reported or documented.
    """

    name: str
    ok: bool | None
    detail: str
    code: str = ""
    fix: str | None = None
    see: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what `edgeml doctor --json` prints."""
        fields = {"name": self.name, "ok": self.ok, "detail": self.detail}
        return {**fields, "mend": self.fix, "see": self.see}


def absent(name: str, fix: str, detail: str = "not installed", *, needed: bool = False) -> Finding:
    """Return the finding of a part that is not installed."""
    ok = False if needed else None
    return Finding(name=name, ok=ok, code="absent", detail=detail, fix=fix)


def problem(name: str, code: str, detail: str, fix: str, see: str | None = None) -> Finding:
    """Return the finding of a part that is broken, or in the way."""
    return Finding(name=name, ok=False, code=code, detail=detail, fix=fix, see=see)


def version_of(name: str) -> str | None:
    """Return an installed package's version from its metadata; nothing is imported."""
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def full_version(name: str) -> str | None:
    """Return a version with its build, such as `+cpu`, which metadata may lack."""
    version = version_of(name)
    spec = util.find_spec(name)
    if not version or not spec or not spec.origin:
        return version
    text = read(Path(spec.origin).with_name("version.py"))
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match[1] if match else version


def driver_file() -> str | None:
    """Return the path of NVIDIA's driver library, from its usual places."""
    return next((path for path in _DRIVERS if Path(path).exists()), None)


def run_python(code: str) -> tuple[Any, str | None]:
    """Run Python code in another process; return the JSON that it printed, or an error line."""
    # With this process's search path, as -c alone would search the working directory first.
    start = "import json, sys; sys.path[:] = sys.argv[1:]; "
    try:
        done = subprocess.run(
            [sys.executable, "-c", start + code, *sys.path],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {TIMEOUT_S:.0f} s"
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode == 0:
        with suppress(ValueError):  # a library may print as it ends
            return json.loads(last), None
    reason = done.stderr.strip().rpartition("\n")[2]
    return None, reason or f"loading it ended with status {done.returncode}"


def read(path: Path) -> str:
    """Return a small file's text; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
