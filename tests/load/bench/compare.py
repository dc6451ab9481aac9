"""tests/load/compare: the same loads through every peer, several rounds, one table."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from .cpu import rss_kib, with_children
from .loads import KINDS, Loads
from .origin import Origin
from .peers import PEERS, Peer, Setup
from .procs import BenchError, need, raise_fd_limit, workplace
from .report import Record
from .snitun_python import snitun_python

ROOT = Path(__file__).resolve().parents[3]
RELEASE = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release"


def add_binary_options(parser: argparse.ArgumentParser) -> None:
    """Options every bench command shares."""
    parser.add_argument("--bin-dir", type=Path, default=RELEASE, help="where latchkey-proxy and latchkey-agent are (default: cargo's release folder, built there when absent)")
    parser.add_argument("--snitun-python", type=Path, help="a Python with snitun 0.47.0 (default: a cached virtual environment, made once)")
    parser.add_argument("--proxy-arg", action="append", default=[], help="one more argument for latchkey-proxy (repeatable)")
    parser.add_argument("--agent-arg", action="append", default=[], help="one more argument for latchkey-agent (repeatable)")


def ensure_binaries(bin_dir: Path, *names: str) -> None:
    """Build the release binaries unless they are there."""
    missing = [name for name in names if not (bin_dir / name).is_file()]
    if not missing:
        return
    if bin_dir != RELEASE:
        raise BenchError(f"{bin_dir} has no {', '.join(missing)}")
    packages = [word for name in missing for word in ("-p", name)]
    print(f"building {', '.join(missing)}", file=sys.stderr)
    subprocess.run(["cargo", "build", "--release", "--locked", *packages], cwd=ROOT, check=True)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/load/compare", description=__doc__)
    parser.add_argument("--peers", default=",".join(PEERS), help=f"comma separated, of {', '.join(PEERS)}")
    parser.add_argument("--loads", default=",".join(KINDS), help=f"comma separated, of {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="per load that has no natural end (default 6)")
    parser.add_argument("--big-mib", type=int, default=512, help="size of the one big download")
    parser.add_argument("--rathole", default="rathole", help="the rathole program (cargo install rathole@0.5.0)")
    parser.add_argument("--json", type=Path, help="write every figure there too")
    add_binary_options(parser)
    args = parser.parse_args(argv)
    args.peers = args.peers.split(",")
    args.loads = args.loads.split(",")
    for word in [name for name in args.peers if name not in PEERS] + [name for name in args.loads if name not in KINDS]:
        parser.error(f"unknown peer or load: {word}")
    return args


def run_peer(peer: Peer, loads: Loads, args: argparse.Namespace, record: Record, number: int) -> None:
    measured = record.rounds[-1].setdefault(peer.name, {})
    try:
        peer.start()
        for load in args.loads:
            result = measured[load] = loads.run(load, peer.port, peer.pids())
            bad = f"  BAD: {', '.join(result.bad)}" if result.bad else ""
            print(f"round {number} {peer.name:<10} {load:<12} {result.rate:>9.0f} {result.rate_unit:<6} cost {result.cost:.3g}{bad}", file=sys.stderr, flush=True)
        rss = sum(rss_kib(pid) for pid in with_children(peer.pids())) / 1024
        record.rss_mib.setdefault(peer.name, []).append(rss)
    except (BenchError, OSError, subprocess.SubprocessError) as err:
        record.failed.append(f"round {number}, {peer.name}: {err}")
        print(record.failed[-1], file=sys.stderr)
    finally:
        peer.stop()


def compare(args: argparse.Namespace) -> Record:
    need("wrk", "curl")
    if "latchkey" in args.peers:
        ensure_binaries(args.bin_dir, "latchkey-proxy", "latchkey-agent")
    python = snitun_python(args.snitun_python) if "snitun" in args.peers else None
    raise_fd_limit()
    record = Record()
    with workplace(room_mib=args.big_mib + 16) as place:
        origin = Origin(place, args.big_mib)
        loads = Loads(place, origin, args.seconds)
        setup = Setup(place, origin.port, args.bin_dir, args.rathole, python, args.proxy_arg, args.agent_arg)
        for number in range(args.rounds):
            record.rounds.append({})
            # Each round begins with another peer, so that none always runs on a warm or a tired machine.
            turn = number % len(args.peers)
            for name in args.peers[turn:] + args.peers[:turn]:
                run_peer(PEERS[name](setup), loads, args, record, number + 1)
    return record


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    try:
        record = compare(args)
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    print(record.text(args.big_mib))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        record.write_json(args.json, {"peers": args.peers, "loads": args.loads, "rounds": args.rounds,
                                      "seconds": args.seconds, "bigMib": args.big_mib})  # fmt: skip
    return 1 if record.bad() else 0
