"""tests/load/replace: a new proxy process on the same port, SIGTERM to the old one, visitors all the while.

New TLS connections come at a steady rate, and downloads that are slowed down by their client run across the change.
No request may fail, and no download may be cut that could have ended within the grace.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import sockets, tokens
from .compare import add_binary_options, ensure_binaries
from .origin import HOSTNAME, SMALL_BODY, Origin
from .peers import Latchkey, Setup
from .procs import BenchError, Process, need, raise_fd_limit, workplace
from .snitun_python import snitun_python
from .visitor import visitor_context

REQUEST = f"GET /small HTTP/1.1\r\nHost: {HOSTNAME}\r\nConnection: close\r\n\r\n".encode()
ROUTES = {
    "revision": 1,
    "routes": [{
        "id": "bench/inst0", "generation": 1, "hostnames": [HOSTNAME],
        "limits": {"maxConnections": 100_000, "newConnectionsPerMinutePerClient": 10_000_000},
    }],
}  # fmt: skip


@dataclass
class Outcome:
    """What visitors saw."""

    agent: str
    requests: int = 0
    failed: collections.Counter[str] = field(default_factory=collections.Counter)
    failed_at: list[float] = field(default_factory=list)
    terminated_at: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    downloads: int = 0
    cut: list[str] = field(default_factory=list)
    old_ended_after: float | None = None


class ReplacedLatchkey(Latchkey):
    """Our proxy, and an agent that is ours or the stock client."""

    def __init__(self, setup: Setup, agent: str, grace: float, routes: bool) -> None:
        super().__init__(setup)
        self.agent = agent
        self.more: list[str | Path] = ["--grace", f"{grace:g}"]
        self.routes = routes

    def launch(self) -> None:
        place = self.setup.place
        key = tokens.make_fernet_key()
        self.keys = place.write("latchkey-keys", key + "\n")
        version, cipher = (1, "aes-cbc") if self.agent == "snitun" else (self.version, self.cipher)
        claims = None
        if self.routes:
            self.more += ["--routes", place.write("routes.json", json.dumps(ROUTES))]
            claims = {"instance": "bench/inst0", "generation": 1}
        self.session = place.write("latchkey-session.json", tokens.session(key, HOSTNAME, version, cipher, claims))
        self.new_proxy(0)
        while sockets.count(self.port, sockets.LISTEN) == 0 and self.processes[0].running():
            time.sleep(0.05)
        if self.agent == "snitun":
            python = snitun_python(self.setup.snitun)
            end = Path(__file__).with_name("snitun_end.py")
            self.run("snitun-client", python, end, "client", "--reconnect", "--server-port", str(self.port),
                     "--session", self.session, "--target-port", str(self.setup.origin_port))  # fmt: skip
        else:
            self.start_agent("latchkey-agent")

    def new_proxy(self, number: int) -> Process:
        return self.start_proxy(f"latchkey-proxy-{number}", *self.more)


async def one_request(port: int, context: object, outcome: Outcome) -> None:
    begin = time.monotonic()
    writer = None
    outcome.requests += 1
    try:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=HOSTNAME)
            writer.write(REQUEST)
            answer = await reader.read()
        problem = "" if answer.startswith(b"HTTP/1.1 200") and answer.endswith(SMALL_BODY.encode()) else "wrong answer"
    except TimeoutError:
        problem = "no answer in 30 s"
    except (OSError, EOFError) as err:
        problem = f"{type(err).__name__}: {err}"
    if writer:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    outcome.seconds.append(time.monotonic() - begin)
    if problem:
        outcome.failed[problem] += 1
        outcome.failed_at.append(begin)


async def visitors(port: int, rate: float, outcome: Outcome, stop: asyncio.Event) -> None:
    context, under_way, number, begin = visitor_context(), set(), 0, time.monotonic()
    while not stop.is_set():
        task = asyncio.create_task(one_request(port, context, outcome))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        number += 1
        # By the clock, not by the pause: a late start is made good at once.
        await asyncio.sleep(max(0, begin + number / rate - time.monotonic()))
    await asyncio.gather(*under_way)


async def download(port: int, size: int, bytes_per_second: int, outcome: Outcome) -> None:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sSk", "--http1.1", "--limit-rate", str(bytes_per_second), "--resolve", f"{HOSTNAME}:{port}:127.0.0.1",
        "-o", "/dev/null", "-w", "%{http_code} %{size_download} %{time_total}", f"https://{HOSTNAME}:{port}/big",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    said = out.decode().split()
    if process.returncode or said[:2] != ["200", str(size)]:
        outcome.cut.append(f"{' '.join(said)}: {err.decode().strip()}")


async def replace(peer: ReplacedLatchkey, origin: Origin, args: argparse.Namespace, outcome: Outcome) -> None:
    stop = asyncio.Event()
    old, agent = peer.processes[0], peer.processes[1]
    stream = asyncio.create_task(visitors(peer.port, args.rate, outcome, stop))
    try:
        for number in range(1, args.times + 1):
            await asyncio.sleep(args.before)
            # Ends a quarter of the grace before it is over.
            pace = int(origin.big_bytes / (args.grace * 0.75))
            downloads = [asyncio.create_task(download(peer.port, origin.big_bytes, pace, outcome)) for _ in range(args.downloads)]
            outcome.downloads += args.downloads
            await asyncio.sleep(1)
            new = peer.new_proxy(number)
            while sockets.count(peer.port, sockets.LISTEN) < 2 and new.running() and old.running():
                await asyncio.sleep(0.02)
            await asyncio.sleep(args.beside)
            terminated = time.monotonic()
            outcome.terminated_at.append(terminated)
            old.terminate()
            while old.running() and time.monotonic() < terminated + args.grace + 10:
                await asyncio.sleep(0.05)
            outcome.old_ended_after = None if old.running() else time.monotonic() - terminated
            print(f"{outcome.agent}: old process {number} ended after {outcome.old_ended_after}", file=sys.stderr)
            await asyncio.gather(*downloads)
            for process in (new, agent):
                if not process.running():
                    raise BenchError(f"{process.name} ended with {process.exit_code()}\n{process.tail()}")
            old = new
        await asyncio.sleep(2)
    finally:
        stop.set()
        await stream


def text(outcome: Outcome, grace: float) -> str:
    failed = sum(outcome.failed.values())
    took = sorted(outcome.seconds) or [0.0]
    lines = [
        f"agent {outcome.agent}:",
        f"  requests {outcome.requests}, failed {failed}; median {statistics.median(took) * 1e3:.1f} ms, "
        f"p99 {took[int(len(took) * 0.99)] * 1e3:.0f} ms, longest {took[-1] * 1e3:.0f} ms, above 1 s {sum(t > 1 for t in took)}",
        f"  downloads {outcome.downloads}, cut within grace {len(outcome.cut)}",
        f"  the old process ended {outcome.old_ended_after:.1f} s after SIGTERM (grace {grace:g} s)"
        if outcome.old_ended_after is not None
        else f"  THE OLD PROCESS DID NOT END within grace + 10 s ({grace:g} s)",
    ]
    if failed:
        after = [min((at - term for term in outcome.terminated_at), key=abs, default=0.0) for at in outcome.failed_at]
        lines.append(f"  failed: visitors who came between {min(after):+.1f} and {max(after):+.1f} s from SIGTERM")
        lines += [f"    {count} x {why}" for why, count in outcome.failed.most_common()]
    lines += [f"    cut: {why}" for why in outcome.cut]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests/load/replace", description=__doc__)
    parser.add_argument("--agents", default="latchkey,snitun", help="whose agent holds the tunnel; only latchkey's figures can fail the run")
    parser.add_argument("--rate", type=float, default=200, help="new connections a second")
    parser.add_argument("--downloads", type=int, default=8)
    parser.add_argument("--big-mib", type=int, default=64, help="size of a download; its rate follows from the grace")
    parser.add_argument("--grace", type=float, default=20)
    parser.add_argument("--before", type=float, default=12, help="seconds of visitors before each change")
    parser.add_argument("--beside", type=float, default=1, help="seconds both processes listen before the SIGTERM")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--no-routes", action="store_true", help="proxies without a route table, as plain SniTun servers (nobody is parked)")
    parser.add_argument("--json", type=Path)
    add_binary_options(parser)
    args = parser.parse_args(argv)
    outcomes: list[Outcome] = []
    try:
        need("curl")
        ensure_binaries(args.bin_dir, "latchkey-proxy", "latchkey-agent")
        raise_fd_limit()
        for agent in args.agents.split(","):
            with workplace(room_mib=args.big_mib + 16) as place:
                origin = Origin(place, args.big_mib)
                setup = Setup(place, origin.port, args.bin_dir, snitun=args.snitun_python, proxy_args=args.proxy_arg, agent_args=args.agent_arg)
                peer = ReplacedLatchkey(setup, agent, args.grace, not args.no_routes)
                peer.start()
                outcomes.append(Outcome(agent))
                asyncio.run(replace(peer, origin, args, outcomes[-1]))
                print(text(outcomes[-1], args.grace))
    except BenchError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    ours = [one for one in outcomes if one.agent == "latchkey"]
    return 1 if any(one.failed or one.cut or one.old_ended_after is None for one in ours) else 0
