"""The four loads, by wrk and curl, each answer checked."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .cpu import Meter
from .origin import HOSTNAME, SMALL_BODY, Origin
from .procs import BenchError, Workplace

# wrk takes the SNI from the URL; this makes it connect to loopback all the same.
# Counts go out as one line of JSON.
WRK_SCRIPT = """\
wrk.resolve = function(host, service) wrk.addrs = wrk.lookup("127.0.0.1", service) end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format('RESULT {"requests":%d,"bytes":%d,"us":%d,"p50":%d,"p99":%d,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\\n',
    s.requests, s.bytes, s.duration, l:percentile(50), l:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""

KINDS = ("small", "connections", "big", "parallel")
TITLES = {
    "small": "small requests, 64 kept connections",
    "connections": "new TLS connection per request, 32 at once",
    "big": "one download of {big} MiB",
    "parallel": "downloads of 1 MiB, 32 at once",
}
UNITS = {"small": "us/request", "connections": "us/connection", "big": "CPU-s/GiB", "parallel": "CPU-s/GiB"}


@dataclass
class Result:
    """One load through one peer."""

    load: str
    rate: float
    rate_unit: str
    p50_ms: float
    p99_ms: float
    units: float
    """What CPU is divided by: requests, connections or GiB."""
    bad: list[str] = field(default_factory=list)
    cost: float = 0.0
    """us per request or connection, CPU seconds per GiB."""
    stranger_cores: float = 0.0


def curl(port: int, path: str, *more: str) -> dict[str, float]:
    """One request; how it went, by curl's own count."""
    form = '{"status":%{http_code},"header":%{size_header},"body":%{size_download},"seconds":%{time_total}}'
    done = subprocess.run(
        ["curl", "-sk", "--http1.1", "--max-time", "120", "--resolve", f"{HOSTNAME}:{port}:127.0.0.1",
         "-o", "/dev/null", "-w", form, *more, f"https://{HOSTNAME}:{port}{path}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        answer: dict[str, float] = json.loads(done.stdout)
    except ValueError:
        answer = {"status": 0, "header": 0, "body": 0, "seconds": 0}
    answer["exit"] = done.returncode
    return answer


def page_comes(port: int) -> bool:
    answer = curl(port, "/small", "--connect-timeout", "2", "--max-time", "5")
    return answer["exit"] == 0 and answer["status"] == 200 and answer["body"] == len(SMALL_BODY)


class Loads:
    """Drives one load after another through a port."""

    def __init__(self, place: Workplace, origin: Origin, seconds: float) -> None:
        self.origin = origin
        self.seconds = seconds
        self.script = place.write("report.lua", WRK_SCRIPT)
        # What one answer weighs on the wire, read off the origin itself.
        self.answer_bytes: dict[tuple[str, bool], int] = {}
        for path, close in (("/small", False), ("/small", True), ("/mib", False)):
            more = ("-H", "Connection: close") if close else ()
            answer = curl(origin.port, path, *more)
            if answer["exit"] != 0 or answer["status"] != 200:
                raise BenchError(f"the origin does not serve {path}: {answer}")
            self.answer_bytes[path, close] = int(answer["header"] + answer["body"])

    def run(self, load: str, port: int, peer_pids: list[int]) -> Result:
        do: Callable[[int], Result] = {
            "small": lambda at: self._wrk("small", at, "/small", 64),
            "connections": lambda at: self._wrk("connections", at, "/small", 32, close=True),
            "big": self._big,
            "parallel": lambda at: self._wrk("parallel", at, "/mib", 32),
        }[load]
        if not page_comes(port):
            return Result(load, 0, "-", 0, 0, 0, ["no page before the load"])
        meter = Meter(peer_pids, [self.origin.process.pid])
        result = do(port)
        time.sleep(0.2)  # closing the connections is part of the price
        spent = meter.stop()
        result.stranger_cores = spent.stranger_cores
        if result.units:
            scale = 1e3 if load in ("small", "connections") else 1e9
            result.cost = spent.peer_ns / scale / result.units
        return result

    def downloads(self, port: int, connections: int) -> Result:
        """Downloads of 1 MiB, as many at once as told, without counting CPU."""
        return self._wrk("parallel", port, "/mib", connections)

    def _wrk(self, load: str, port: int, path: str, connections: int, *, close: bool = False) -> Result:
        more = ["-H", "Connection: close"] if close else []
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{self.seconds:g}s", "--timeout", "10s", "-s", self.script, *more,
             f"https://{HOSTNAME}:{port}{path}"],
            capture_output=True, text=True, check=False, timeout=self.seconds + 60,
        )  # fmt: skip
        line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
        if done.returncode or line is None:
            raise BenchError(f"wrk failed: {done.stderr or done.stdout}")
        said = json.loads(line.removeprefix("RESULT "))
        seconds = said["us"] / 1e6
        bad = [f"{count} {kind} errors" for kind, count in said["errors"].items() if count]
        bad += self._check_bytes(said["requests"], said["bytes"], self.answer_bytes[path, close], connections)
        p50, p99 = said["p50"] / 1e3, said["p99"] / 1e3
        if load == "parallel":
            return Result(load, said["bytes"] / seconds / (1 << 20), "MiB/s", p50, p99, said["bytes"] / (1 << 30), bad)
        return Result(load, said["requests"] / seconds, "/s", p50, p99, said["requests"], bad)

    @staticmethod
    def _check_bytes(requests: int, got: int, each: int, connections: int) -> list[str]:
        """Every answer weighs the same, so the sum tells of a short or foreign one.

        What is above are answers still under way at the end, one a connection at the most.
        """
        if requests == 0:
            return ["not one answer"]
        if not requests * each <= got <= (requests + connections) * each:
            return [f"{requests} answers of {each} bytes make {got} bytes"]
        return []

    def _big(self, port: int) -> Result:
        answer = curl(port, "/big")
        bad = []
        if answer["exit"] or answer["status"] != 200:
            bad.append(f"curl exit {answer['exit']:.0f}, status {answer['status']:.0f}")
        if answer["body"] != self.origin.big_bytes:
            bad.append(f"{answer['body']:.0f} of {self.origin.big_bytes} bytes")
        seconds = answer["seconds"] or 1e-9
        return Result("big", answer["body"] / seconds / (1 << 20), "MiB/s", seconds * 1e3, seconds * 1e3,
                      answer["body"] / (1 << 30), bad)  # fmt: skip
