from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgeml.benchmark import environment
from edgeml.benchmark.environment import (
    capture_host,
    capture_software,
    peak_rss_mb,
    read_counters,
)


def test_the_host_agrees_with_psutil() -> None:
    host = capture_host()
    assert host.cores == psutil.cpu_count()
    if host.memory_mb is not None:
        assert host.memory_mb == pytest.approx(psutil.virtual_memory().total / 1e6, rel=0.01)
    if host.affinity is not None:
        assert host.affinity == len(psutil.Process().cpu_affinity() or [])
    assert host.machine == platform.machine()
    json.dumps(asdict(host), allow_nan=False)


def test_software_has_installed_versions_and_none_for_the_rest() -> None:
    software = capture_software()
    assert software["python"] == platform.python_version()
    assert software["numpy"] == metadata.version("numpy")
    for name, version in software.items():
        if version is None:
            with pytest.raises(metadata.PackageNotFoundError):
                metadata.version(name)


def test_unreadable_properties_are_none(monkeypatch: Any) -> None:
    monkeypatch.setattr(environment, "_read", lambda path: "")
    monkeypatch.setattr(platform, "processor", lambda: "")
    host = capture_host()
    for name in ("cpu", "cpu_quota", "memory_mb", "cpu_pressure", "governor", "max_mhz"):
        assert getattr(host, name) is None
    counters = read_counters()
    assert (counters.pressure_us, counters.stolen, counters.ticks) == (None, None, None)
    if sys.platform == "linux":
        assert peak_rss_mb() is None


FILES = {
    "/proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: avx2\n",
    "/proc/meminfo": "MemTotal:        1000000 kB\nMemFree: 5 kB",
    "/proc/pressure/cpu": "some avg10=12.50 avg60=0.65 avg300=0.18 total=5189243\nfull avg10=0.00",
    "/proc/stat": "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3",
    "/sys/fs/cgroup/cpu.max": "150000 100000",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3400000",
}


def test_the_files_of_linux_are_read_as_documented(monkeypatch: Any) -> None:
    monkeypatch.setattr(environment, "_read", lambda path: FILES.get(path.as_posix(), ""))
    host = capture_host()
    assert host.cpu == "Some CPU @ 2 GHz"
    assert host.memory_mb == 1024
    assert host.cpu_pressure == 0.125
    assert host.cpu_quota == 1.5
    assert (host.governor, host.max_mhz) == ("powersave", 3400)
    counters = read_counters()
    assert counters.pressure_us == 5189243
    assert (counters.stolen, counters.ticks) == (80, 360)  # guest time is in user time already


def test_a_board_without_a_processor_name_has_its_own_name(monkeypatch: Any) -> None:
    board = {"/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}
    monkeypatch.setattr(environment, "_read", lambda path: board.get(path.as_posix(), ""))
    assert capture_host().cpu == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_container_without_a_quota_has_none(monkeypatch: Any) -> None:
    monkeypatch.setattr(environment, "_read", lambda path: "max 100000")
    assert capture_host().cpu_quota is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_counters_count() -> None:
    before = read_counters()
    for _ in range(3):
        sum(range(1_000_000))
        os.sched_yield()
    after = read_counters()
    assert before.ticks is not None
    assert after.ticks is not None
    assert after.ticks >= before.ticks


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss survives exec on Linux only")
def test_the_peak_of_a_child_is_not_that_of_its_parent() -> None:
    ballast = b"x" * 300_000_000
    code = "from edgeml.benchmark.environment import peak_rss_mb; print(peak_rss_mb())"
    root = str(Path(environment.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 5 < float(done.stdout) < 200
    assert len(ballast) == 300_000_000
