"""The machine and the libraries behind a number; what cannot be read is None."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")
_DISTRIBUTIONS = (
    "edgeml",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "torch",
    "torchvision",
    "timm",
)


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine at the moment of a measurement.

    Attributes:
        os: Kernel and distribution.
        machine: Instruction set, for example `x86_64`.
        cpu: The processor's name.
        cores: Logical processors of the machine.
        affinity: How many of these this process may use.
        cpu_quota: Processor time that a container may use, in processors.
        memory_mb: Physical memory, in units of 10^6 bytes.
        load_1m: Mean number of runnable processes in the last minute, before measuring.
        cpu_pressure: Share of the last 10 s in which something waited for a processor (Linux PSI).
        governor: The frequency governor of the first processor.
        max_mhz: The highest frequency of the first processor.
    """

    os: str
    machine: str
    cpu: str | None
    cores: int | None
    affinity: int | None
    cpu_quota: float | None
    memory_mb: float | None
    load_1m: float | None
    cpu_pressure: float | None
    governor: str | None
    max_mhz: float | None


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Counters of what disturbs a measurement; None where the system does not count it."""

    pressure_us: int | None  # time in which something waited for a processor (PSI `some`)
    stolen: int | None  # ticks of processor time that the hypervisor gave to others
    ticks: int | None  # all ticks of processor time, including idle ones
    switches: int | None  # involuntary context switches of this process

    def since(self, earlier: Counters) -> Counters:
        """Return the differences to an earlier reading."""
        start, end = asdict(earlier), asdict(self)
        known = {name: None not in (start[name], end[name]) for name in end}
        return Counters(**{n: end[n] - start[n] if known[n] else None for n in end})


def capture_host() -> Host:
    """Read the properties of this machine."""
    pressure = re.search(r"some avg10=([\d.]+)", _read(Path("/proc/pressure/cpu")))
    khz = _read(_CPU / "cpu0/cpufreq/cpuinfo_max_freq")
    return Host(
        os=platform.platform(terse=False),
        machine=platform.machine(),
        cpu=_cpu_name(),
        cores=os.cpu_count(),
        affinity=len(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        cpu_quota=_cpu_quota(),
        memory_mb=_memory_mb(),
        load_1m=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        cpu_pressure=float(pressure[1]) / 100 if pressure else None,
        governor=_read(_CPU / "cpu0/cpufreq/scaling_governor") or None,
        max_mhz=int(khz) / 1000 if khz.isdigit() else None,
    )


def capture_software() -> dict[str, str | None]:
    """Return versions by name: Python, OpenCV as imported, and other installed libraries."""
    import cv2

    versions: dict[str, str | None] = {
        "python": platform.python_version(),
        "opencv": cv2.__version__,
    }
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def facts_of(host: Host, software: Mapping[str, str | None]) -> list[tuple[str, str]]:
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


def read_counters() -> Counters:
    """Read the counters; only the difference of two readings has a meaning."""
    pressure = re.search(r"some .*total=(\d+)", _read(Path("/proc/pressure/cpu")))
    # proc_stat(5): user nice system idle iowait irq softirq steal, then guest, already in user.
    first_line = _read(Path("/proc/stat")).partition("\n")[0].split()
    ticks = [int(field) for field in first_line[1:9]]
    return Counters(
        pressure_us=int(pressure[1]) if pressure else None,
        stolen=ticks[7] if len(ticks) == 8 else None,
        ticks=sum(ticks) if len(ticks) == 8 else None,
        switches=_involuntary_switches(),
    )


def peak_rss_mb() -> float | None:
    """Return the peak resident memory of this process, in units of 10^6 bytes."""
    # On Linux ru_maxrss survives exec: a child would report its parent's peak. VmHWM does not.
    high_water = re.search(r"VmHWM:\s+(\d+) kB", _read(Path("/proc/self/status")))
    if high_water:
        return int(high_water[1]) * 1024 / 1e6
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return None


def _involuntary_switches() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _cpu_name() -> str | None:
    name = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    board = _read(Path("/proc/device-tree/model")).rstrip("\0")
    return (name[1] if name else board or platform.processor()) or None


def _cpu_quota() -> float | None:
    quota, _, period = _read(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _memory_mb() -> float | None:
    total = re.search(r"MemTotal:\s+(\d+) kB", _read(Path("/proc/meminfo")))
    return round(int(total[1]) * 1024 / 1e6) if total else None


def _read(path: Path) -> str:
    """Return the text of a small file; an empty string if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
