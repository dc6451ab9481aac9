"""tests/load/slow-visitor: 50 downloads with and without a visitor that reads 1 byte a second.

Per protocol version the two runs alternate (A without, B with it), all in one tunnel. Under versions 1 and 2 the
slow download must wait and be whole in the end; under version 0, which has no pause, its channel must be reset.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import sockets
from .compare import add_binary_options, ensure_binaries
from .cpu import peak_rss_kib, reset_peak, rss_kib
from .loads import Loads
from .origin import Origin
from .peers import Latchkey, Setup
from .procs import BenchError, need, raise_fd_limit, workplace
from .visitor import SlowVisitor


@dataclass
class Outcome:
    """What one protocol version showed."""

    version: int
    without_mib_s: list[float] = field(default_factory=list)
    with_mib_s: list[float] = field(default_factory=list)
    proxy_peak_mib: list[float] = field(default_factory=list)
    agent_peak_mib: list[float] = field(default_factory=list)
    proxy_idle_mib: float = 0
    slow: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def ratio(self) -> float:
        return statistics.median(self.with_mib_s) / statistics.median(self.without_mib_s)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/load/slow-visitor", description=__doc__)
    parser.add_argument("--versions", default="0,1,2")
    parser.add_argument("--downloads", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pairs", type=int, default=3, help="how often A and B alternate")
    parser.add_argument("--big-mib", type=int, default=512, help="size of the slow visitor's download")
    parser.add_argument("--least-ratio", type=float, default=0.9, help="B over A below this is a failure")
    parser.add_argument("--cap-mib", type=int, default=64, help="the proxy's --process-buffer; memory may grow by this and --allow-mib")
    parser.add_argument("--allow-mib", type=int, default=16, help="growth that is not bytes waiting: sockets, scratch, allocator")
    parser.add_argument("--json", type=Path)
    add_binary_options(parser)
    args = parser.parse_args(argv)
    args.versions = [int(word) for word in args.versions.split(",")]
    return args


def check_slow(visitor: SlowVisitor, version: int, origin: Origin, digest: str, outcome: Outcome) -> None:
    """After a run B: version 0 reset, else waiting and whole."""
    deadline = time.monotonic() + 5
    # The load's own connections close when it ends; what then remains is the slow visitor's.
    while (left := sockets.count(origin.port, sockets.ESTABLISHED)) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    if version == 0:
        while (left := sockets.count(origin.port, sockets.ESTABLISHED)) > 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        # A channel also ends when the relay has swallowed the whole download: that is no reset.
        reset = left == 0 and visitor.finish()[0] < origin.big_bytes
        outcome.slow.append("reset" if reset else "still open" if left else "swallowed whole")
        if not reset:
            outcome.wrong.append(f"version 0: the slow channel was not reset but {outcome.slow[-1]}")
        return
    if visitor.error or left == 0:
        outcome.slow.append("cut")
        outcome.wrong.append(f"the slow download was cut after {visitor.bytes_read} bytes: {visitor.error or 'closed at the origin'}")
        return
    length, got = visitor.finish()
    whole = length == origin.big_bytes and got == digest
    outcome.slow.append("whole" if whole else f"{length} of {origin.big_bytes} bytes")
    if not whole:
        outcome.wrong.append(f"the slow download ended with {outcome.slow[-1]}, {visitor.error or 'digest differs'}")


def one_version(version: int, args: argparse.Namespace, setup: Setup, loads: Loads, origin: Origin, digest: str) -> Outcome:
    outcome = Outcome(version)
    peer = Latchkey(setup)
    peer.version = version
    try:
        peer.start()
        proxy, agent = peer.processes[0].pid, peer.processes[1].pid
        outcome.proxy_idle_mib = rss_kib(proxy) / 1024
        for _ in range(args.pairs):
            for slow in (False, True):
                for pid in (proxy, agent):
                    reset_peak(pid)
                visitor = SlowVisitor(peer.port, "/big") if slow else None
                if visitor:
                    time.sleep(1)
                result = loads.downloads(peer.port, args.downloads)
                (outcome.with_mib_s if slow else outcome.without_mib_s).append(result.rate)
                outcome.wrong += [f"{'with' if slow else 'without'} slow visitor: {text}" for text in result.bad]
                outcome.proxy_peak_mib.append(peak_rss_kib(proxy) / 1024)
                outcome.agent_peak_mib.append(peak_rss_kib(agent) / 1024)
                if visitor:
                    check_slow(visitor, version, origin, digest, outcome)
                    visitor.close()
                print(f"version {version} {'B slow visitor' if slow else 'A alone':<15}{result.rate:>8.0f} MiB/s  proxy peak {outcome.proxy_peak_mib[-1]:.0f} MiB", file=sys.stderr, flush=True)
    except (BenchError, OSError) as err:
        outcome.wrong.append(str(err))
    finally:
        peer.stop()
    return outcome


def judge(outcome: Outcome, args: argparse.Namespace) -> None:
    if not outcome.with_mib_s or not outcome.without_mib_s:
        return
    if outcome.ratio() < args.least_ratio:
        outcome.wrong.append(f"throughput beside the slow visitor is {outcome.ratio():.2f} of that without (at least {args.least_ratio})")
    grown = max(outcome.proxy_peak_mib) - outcome.proxy_idle_mib
    if grown > args.cap_mib + args.allow_mib:
        outcome.wrong.append(f"the proxy grew by {grown:.0f} MiB, its setting is {args.cap_mib} MiB")


def text(outcomes: list[Outcome], args: argparse.Namespace) -> str:
    lines = [f"{args.downloads} downloads at once, medians of {args.pairs} pairs; peaks over all runs",
             f"  {'version':<9}{'alone':>12}{'with slow':>12}{'ratio':>7}{'proxy idle':>12}{'proxy peak':>12}{'cap':>6}{'agent peak':>12}  slow download"]  # fmt: skip
    for one in outcomes:
        if not one.with_mib_s or not one.without_mib_s:
            continue
        lines.append(
            f"  {one.version:<9}{statistics.median(one.without_mib_s):>6.0f} MiB/s{statistics.median(one.with_mib_s):>6.0f} MiB/s{one.ratio():>7.2f}"
            f"{one.proxy_idle_mib:>8.0f} MiB{max(one.proxy_peak_mib):>8.0f} MiB{args.cap_mib:>6}{max(one.agent_peak_mib):>8.0f} MiB  {', '.join(one.slow)}"
        )
    wrong = [f"  version {one.version}: {line}" for one in outcomes for line in one.wrong]
    return "\n".join([*lines, *([f"{len(wrong)} WRONG:", *wrong] if wrong else ["All as it should be."])])


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    try:
        need("wrk", "curl")
        ensure_binaries(args.bin_dir, "latchkey-proxy", "latchkey-agent")
        raise_fd_limit()
        with workplace(room_mib=args.big_mib + 16) as place:
            origin = Origin(place, args.big_mib)
            with (place.folder / "files" / "big").open("rb") as big:
                digest = hashlib.file_digest(big, "sha256").hexdigest()
            limit = ["--process-buffer", str(args.cap_mib << 20)]
            loads = Loads(place, origin, args.seconds)
            setup = Setup(place, origin.port, args.bin_dir, proxy_args=[*limit, *args.proxy_arg], agent_args=args.agent_arg)
            outcomes = [one_version(version, args, setup, loads, origin, digest) for version in args.versions]
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    for outcome in outcomes:
        judge(outcome, args)
    print(text(outcomes, args))
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    return 1 if any(one.wrong for one in outcomes) else 0
