"""The machine and the versions as readable lines."""

from __future__ import annotations

from collections.abc import Mapping

from edgeml.benchmark.environment import Host

Facts = list[tuple[str, str]]


def facts_of(host: Host, software: Mapping[str, str | None]) -> Facts:
    """Describe the machine and the versions; omit what is unknown."""
    cores = f"{host.affinity or host.cores} of {host.cores} logical processors"
    if host.cpu_quota is not None:
        cores += f", limited to the time of {host.cpu_quota:g} processors"
    clock = [f"governor {host.governor}"] if host.governor else []
    if host.max_mhz is not None:
        clock.append(f"at most {host.max_mhz:.0f} MHz")
    facts = [
        ("Processor", f"{host.cpu or 'unknown'} ({host.machine}), {cores}"),
        ("Clock", ", ".join(clock)),
        ("Memory", f"{host.memory_mb / 1e3:.1f} GB" if host.memory_mb else ""),
        ("System", host.os),
        ("Load before", f"{host.load_1m:g}" if host.load_1m is not None else ""),
        ("Versions", ", ".join(f"{name} {v}" for name, v in software.items() if v)),
    ]
    return [(name, text) for name, text in facts if text]
