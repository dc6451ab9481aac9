"""CPU time and memory of processes, as the kernel counts them."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


def process_cpu_ns(pid: int) -> int:
    """User + system time of all threads, those that ended too, in nanoseconds.

    This is the clock behind clock_getcpuclockid(3): the sum that /proc/PID/stat
    rounds to 10 ms.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0


def with_children(pids: Iterable[int]) -> list[int]:
    """The processes and everything they started."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        parents.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    queue = list(pids)
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.append(pid)
            queue.extend(parents.get(pid, []))
    return found


def rss_kib(pid: int) -> int:
    """Resident memory by the exact count (smaps_rollup), in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    return 0


def peak_rss_kib(pid: int) -> int:
    """The highest resident memory since the start or the last reset, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


def reset_peak(pid: int) -> None:
    """Let the peak start again from the present memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def machine_cpu_ns() -> int:
    """CPU time spent by everything on this machine, in nanoseconds."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    ticks = user + nice + system + irq + softirq + steal
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _ended_children_ns() -> int:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((usage.ru_utime + usage.ru_stime) * 1e9)


@dataclass
class Spent:
    """What one load cost."""

    peer_ns: int
    stranger_cores: float
    """Cores kept busy by programs that are not part of the bench: noise."""


class Meter:
    """Counts from its making until `stop`."""

    def __init__(self, peer: Iterable[int], origin: Iterable[int]) -> None:
        self._peer = with_children(peer)
        self._origin = with_children(origin)
        self._begin = self._read()

    def _read(self) -> tuple[int, int, int, int]:
        peer = sum(process_cpu_ns(pid) for pid in self._peer)
        origin = sum(process_cpu_ns(pid) for pid in self._origin)
        return peer, origin + _ended_children_ns() + time.process_time_ns(), machine_cpu_ns(), time.monotonic_ns()

    def stop(self) -> Spent:
        peer, ours, machine, wall = (after - before for after, before in zip(self._read(), self._begin, strict=True))
        strangers = max(0, machine - peer - ours)
        return Spent(peer, strangers / wall)
