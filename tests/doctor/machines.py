"""Machines built from fakes, for the doctor to examine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, util
from types import SimpleNamespace
from typing import Any

import pytest

from edgeml.doctor import gpu, probes
from edgeml.doctor.checks import examine
from edgeml.doctor.probes import Finding

Libraries = Mapping[tuple[str, str], str]


def examined(
    monkeypatch: pytest.MonkeyPatch,
    versions: Mapping[str, str],
    *,
    files: Mapping[str, str] | None = None,
    answers: Mapping[str, Any] | None = None,
    requires: Mapping[str, list[str]] | None = None,
    libraries: Libraries | None = None,
) -> dict[str, Finding]:
    """Examine a machine, check properties of every finding, and return them by name.

    Args:
        monkeypatch: Replaces this machine.
        versions: Installed packages.
        files: Texts by path; a module's name means that it is installed; `driver` is its path.
        answers: The result of a child process whose code imports this module.
        requires: Requirements of packages.
        libraries: The result of `gpu.find_libraries`.
    """
    texts = files or {}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    def run_python(code: str) -> tuple[Any, str | None]:
        for module, answer in (answers or {}).items():
            if f"import {module}" in code:
                return answer
        return ["1.0", "CPUExecutionProvider"], None

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: (requires or {}).get(name))
    monkeypatch.setattr(
        util,
        "find_spec",
        lambda name: SimpleNamespace(origin=f"/{name}/__init__.py") if name in texts else None,
    )
    monkeypatch.setattr(probes, "run_python", run_python)
    monkeypatch.setattr(probes, "read", lambda path: texts.get(path.as_posix(), ""))
    monkeypatch.setattr(probes, "driver_file", lambda: texts.get("driver"))
    monkeypatch.setattr(gpu, "find_libraries", lambda: libraries or {})
    found = examine()
    for finding in found:
        assert "\n" not in finding.detail
        assert finding.detail
        if finding.ok is False:
            assert finding.fix, f"{finding.name} does not say how to fix it"
    assert len({finding.name for finding in found}) == len(found)
    return {finding.name: finding for finding in found}
