"""tests/load/idle: memory of idle tunnels in the proxy, and how soon all are back after it was killed."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from . import sockets, tokens
from .compare import RELEASE, ROOT, add_binary_options, ensure_binaries
from .cpu import process_cpu_ns, rss_kib
from .peers import QUIET
from .procs import BenchError, Process, Workplace, free_port, raise_fd_limit, workplace


class Fleet:
    """The process that holds the tunnels; it reports on its standard output."""

    def __init__(self, place: Workplace, tool: Path, port: int, keys: Path, args: argparse.Namespace) -> None:
        # All of 127.0.0.0/8 is ours; 127.0.0.1 itself stays free.
        sources = ",".join(f"127.1.{number // 250}.{number % 250 + 1}" for number in range(args.sources))
        self.process = place.start("latchkey-load", [
            tool, "idle-tunnels", "--server", f"127.0.0.1:{port}", "--fernet-keys", keys,
            "--count", str(args.tunnels), "--sources", sources, "--per-second", str(args.per_second),
        ])  # fmt: skip

    def said(self) -> dict[str, object]:
        """The last whole line."""
        with self.process.log.open("rb") as log:
            log.seek(max(0, os.path.getsize(self.process.log) - 4096))
            lines = log.read().split(b"\n")[:-1]
        for line in reversed(lines):
            if line.startswith(b"{"):
                whole: dict[str, object] = json.loads(line)
                return whole
        return {"up": 0}

    def wait_up(self, count: int, seconds: float, proxy: Process) -> float:
        """Seconds until as many tunnels are up."""
        begin = time.monotonic()
        while self.said()["up"] != count:
            for process in (self.process, proxy):
                if not process.running():
                    raise BenchError(f"{process.name} ended with {process.exit_code()}\n{process.tail()}")
            if time.monotonic() > begin + seconds:
                raise BenchError(f"not {count} tunnels up after {seconds:.0f} s, last report: {self.said()}\n{proxy.tail()}")
            time.sleep(0.02)
        return time.monotonic() - begin


def build_tool() -> Path:
    subprocess.run(["cargo", "build", "--release", "--locked", "-p", "latchkey-load"], cwd=ROOT, check=True)
    return RELEASE / "latchkey-load"


def measure(place: Workplace, tool: Path, args: argparse.Namespace) -> dict[str, object]:
    port = free_port()
    keys = place.write("keys", tokens.make_fernet_key() + "\n")
    command = [args.bin_dir / "latchkey-proxy", "--listen", f"127.0.0.1:{port}", "--fernet-keys", keys, *args.proxy_arg]

    def start(number: int) -> Process:
        proxy = place.start(f"latchkey-proxy-{number}", command, QUIET)
        while sockets.count(port, sockets.LISTEN) == 0:
            if not proxy.running():
                raise BenchError(f"{proxy.name} ended with {proxy.exit_code()}\n{proxy.tail()}")
            time.sleep(0.005)
        return proxy

    proxy = start(0)
    time.sleep(1)
    empty = rss_kib(proxy.pid)
    fleet = Fleet(place, tool, port, keys, args)
    opened = fleet.wait_up(args.tunnels, args.tunnels / args.per_second + 60, proxy)
    # Long enough that a heartbeat came by and the agent's policy counts the tunnels as good ones.
    time.sleep(args.settle)
    full, cpu = rss_kib(proxy.pid), process_cpu_ns(proxy.pid)
    time.sleep(10)
    idle_cores = (process_cpu_ns(proxy.pid) - cpu) / 10e9
    full_later = rss_kib(proxy.pid)

    proxy.kill()
    time.sleep(args.away)
    begin = time.monotonic()
    proxy = start(1)
    fleet.wait_up(args.tunnels, 120, proxy)
    back = time.monotonic() - begin
    time.sleep(2)
    again = rss_kib(proxy.pid)
    return {
        "tunnels": args.tunnels,
        "openedInSeconds": opened,
        "rssEmptyKib": empty,
        "rssFullKib": max(full, full_later),
        "rssAfterReturnKib": again,
        "kibPerTunnel": (max(full, full_later) - empty) / args.tunnels,
        "kibPerTunnelAfterReturn": (again - empty) / args.tunnels,
        "idleCores": idle_cores,
        "awaySeconds": args.away,
        "allBackAfterSeconds": back,
        "fleet": fleet.said(),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests/load/idle", description=__doc__)
    parser.add_argument("--tunnels", type=int, default=10_000)
    parser.add_argument("--sources", type=int, default=1000, help="loopback addresses to connect from, as agents have each their own")
    parser.add_argument("--per-second", type=int, default=1000, help="tunnels a second in the beginning")
    parser.add_argument("--settle", type=float, default=15, help="seconds of idling before memory is read")
    parser.add_argument("--away", type=float, default=5, help="seconds the proxy is away")
    parser.add_argument("--load-tool", type=Path, help="the latchkey-load program (default: built with cargo)")
    parser.add_argument("--most-kib", type=float, default=8, help="KiB a tunnel above this is a failure")
    parser.add_argument("--most-seconds", type=float, default=10, help="all back later than this is a failure")
    parser.add_argument("--json", type=Path)
    add_binary_options(parser)
    args = parser.parse_args(argv)
    try:
        ensure_binaries(args.bin_dir, "latchkey-proxy")
        tool = args.load_tool or build_tool()
        limit = raise_fd_limit()
        if limit < args.tunnels + 200:
            raise BenchError(f"{args.tunnels} tunnels need as many open files; the hard limit is {limit} (ulimit -Hn)")
        with workplace() as place:
            found = measure(place, tool, args)
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    print(f"{found['tunnels']} idle tunnels (opened in {found['openedInSeconds']:.1f} s)")
    print(f"  proxy RSS {found['rssEmptyKib']} KiB without, {found['rssFullKib']} KiB with them: {found['kibPerTunnel']:.2f} KiB a tunnel (at most {args.most_kib:g})")
    print(f"  proxy CPU while they idle: {found['idleCores']:.4f} cores")
    print(f"  killed, {args.away:g} s away, started: all back {found['allBackAfterSeconds']:.1f} s later (at most {args.most_seconds:g}); then {found['kibPerTunnelAfterReturn']:.2f} KiB a tunnel")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    good = found["kibPerTunnel"] <= args.most_kib and found["allBackAfterSeconds"] <= args.most_seconds
    return 0 if good else 1
