"""Tables and JSON out of the rounds."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from .loads import KINDS, TITLES, UNITS, Result

BASES = ("haproxy-1", "haproxy-2")


@dataclass
class Row:
    """The median of a peer's rounds for one load."""

    peer: str
    load: str
    rate: float
    rate_unit: str
    p50_ms: float
    p99_ms: float
    cost: float
    cost_spread: tuple[float, float]
    ratios: dict[str, float]
    """Own CPU over a base peer's CPU in the same round, median over rounds."""
    stranger_cores: float
    bad: list[str]


class Record:
    """Everything measured: by round, then peer, then load."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, dict[str, Result]]] = []
        self.rss_mib: dict[str, list[float]] = {}
        self.failed: list[str] = []

    def rows(self, load: str) -> list[Row]:
        peers = list(dict.fromkeys(peer for one in self.rounds for peer in sorted(one)))
        order = ["haproxy-1", "haproxy-2", "latchkey", "rathole", "snitun"]
        peers.sort(key=lambda peer: order.index(peer) if peer in order else len(order))
        return [row for peer in peers if (row := self._row(peer, load))]

    def _row(self, peer: str, load: str) -> Row | None:
        results = [one[peer][load] for one in self.rounds if load in one.get(peer, {})]
        if not results:
            return None
        ratios = {}
        for base in BASES:
            pairs = [
                one[peer][load].cost / one[base][load].cost
                for one in self.rounds
                if load in one.get(peer, {}) and load in one.get(base, {}) and one[base][load].cost
            ]
            if pairs:
                ratios[base] = statistics.median(pairs)
        costs = [result.cost for result in results]
        return Row(
            peer, load,
            statistics.median(result.rate for result in results), results[0].rate_unit,
            statistics.median(result.p50_ms for result in results),
            statistics.median(result.p99_ms for result in results),
            statistics.median(costs), (min(costs), max(costs)), ratios,
            statistics.median(result.stranger_cores for result in results),
            [text for result in results for text in result.bad],
        )  # fmt: skip

    def bad(self) -> list[str]:
        """Wrong answers and errors, one line each."""
        lines = list(self.failed)
        for number, one in enumerate(self.rounds, 1):
            for peer, loads in one.items():
                lines += [f"round {number}, {peer}, {load}: {', '.join(r.bad)}" for load, r in loads.items() if r.bad]
        return lines

    def text(self, big_mib: int) -> str:
        lines: list[str] = []
        for load in KINDS:
            rows = self.rows(load)
            if not rows:
                continue
            lines.append("")
            lines.append(TITLES[load].format(big=big_mib))
            lines.append(
                f"  {'peer':<11}{'rate':>14}{'p50 ms':>9}{'p99 ms':>9}{UNITS[load]:>15}{'min - max':>17}"
                f"{'/1 hop':>8}{'/2 hops':>9}{'noise':>7}"
            )
            for row in rows:
                ratio = [f"{row.ratios[base]:.2f}" if base in row.ratios else "-" for base in BASES]
                lines.append(
                    f"  {row.peer:<11}{row.rate:>8.0f} {row.rate_unit:<5}{row.p50_ms:>9.2f}{row.p99_ms:>9.2f}"
                    f"{row.cost:>15.3g}{'{:.3g} - {:.3g}'.format(*row.cost_spread):>17}{ratio[0]:>8}{ratio[1]:>9}"
                    f"{row.stranger_cores:>7.2f}{'  BAD' if row.bad else ''}"
                )
        lines.append("")
        if self.rss_mib:
            rss = ", ".join(f"{peer} {statistics.median(each):.0f}" for peer, each in self.rss_mib.items())
            lines.append(f"RSS of all processes after the loads, MiB: {rss}")
        lines.append("CPU is user + system time of all processes of a peer. p50 and p99 count from the request that was sent")
        lines.append("(handshakes not included). noise: cores that programs outside the bench kept busy meanwhile.")
        bad = self.bad()
        lines += ["", f"{len(bad)} BAD:", *(f"  {line}" for line in bad)] if bad else ["All answers were right."]
        return "\n".join(lines)

    def write_json(self, path: Path, settings: dict[str, object]) -> None:
        medians = [asdict(row) for load in KINDS for row in self.rows(load)]
        rounds = [
            {peer: {load: asdict(result) for load, result in loads.items()} for peer, loads in one.items()}
            for one in self.rounds
        ]
        machine = {"cores": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()}
        whole = {"settings": settings, "machine": machine, "medians": medians, "rounds": rounds,
                 "rssMib": self.rss_mib, "bad": self.bad()}  # fmt: skip
        path.write_text(json.dumps(whole, indent=1) + "\n")
