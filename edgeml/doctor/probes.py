"""How a machine is asked: by metadata, by files, and by libraries in a process of their own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0

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
    """One thing that was looked at.

    Attributes:
        name: What.
        ok: True: works. False: broken, or in the way. None: absent, and only some need it.
        detail: What was seen, and what follows from it.
        mend: The line that mends it, or brings it; None where there is nothing to do.
        see: A link to where it is reported or documented.
    """

    name: str
    ok: bool | None
    detail: str
    mend: str | None = None
    see: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give what `edgeml doctor --json` prints."""
        return asdict(self)


def version_of(name: str) -> str | None:
    """Give an installed package's version from its metadata; nothing is imported."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def built(name: str) -> str | None:
    """Give a version with what it was built for, such as `+cpu`, which metadata may lack."""
    version = version_of(name)
    spec = util.find_spec(name)
    if not version or not spec or not spec.origin:
        return version
    text = read(Path(spec.origin).with_name("version.py"))
    told = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return told[1] if told else version


def driver_file() -> str | None:
    """Find NVIDIA's driver library where it usually lies."""
    return next((path for path in _DRIVERS if Path(path).exists()), None)


def ask(code: str) -> tuple[Any, str | None]:
    """Run Python code in a process of its own; give what it printed as JSON, or an error line."""
    # With our own search path, as -c alone would look in the working directory first.
    start = "import json, sys; sys.path[:] = sys.argv[1:]; "
    try:
        done = subprocess.run(
            [sys.executable, "-c", start + code, *sys.path],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {PATIENCE_S:.0f} s"
    last = done.stdout.strip().rpartition("\n")[2]
    if done.returncode == 0:
        with suppress(ValueError):  # a library may print as it ends
            return json.loads(last), None
    reason = done.stderr.strip().rpartition("\n")[2]
    return None, reason or f"loading it ended with status {done.returncode}"


def read(path: Path) -> str:
    """Give a small file's text; nothing where there is none or it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
