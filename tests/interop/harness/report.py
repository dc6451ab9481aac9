"""Results and the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from .matrix import Cell


class State(StrEnum):
    """How a check of a cell ended."""

    OK = "ok"
    FAIL = "FAIL"
    SKIP = "skip"
    NOT_APPLICABLE = "n/a"


@dataclass
class Result:
    """One check of one cell."""

    state: State
    detail: str = ""

    def shown(self) -> str:
        """In the table; the detail of a failure stands below it."""
        if self.state is State.OK and self.detail:
            return f"ok ({self.detail})"
        return str(self.state)


@dataclass
class Row:
    """One cell's results by check."""

    cell: Cell
    results: dict[str, Result] = field(default_factory=dict)
    seconds: float = 0.0


def table(rows: list[Row], columns: list[str]) -> str:
    """Rows in the matrix' order, columns as wide as they need."""
    lines = [["client -> server", "ver", "cipher", *columns, "s"]]
    for row in rows:
        shown = [row.results[column].shown() if column in row.results else "" for column in columns]
        lines.append([row.cell.direction, row.cell.version, row.cell.cipher, *shown, f"{row.seconds:.0f}"])
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def notes(rows: list[Row]) -> list[str]:
    """What a reader must know beyond the table: failures with their evidence, and reasons."""
    lines = []
    for row in rows:
        for check, result in row.results.items():
            if result.state is State.FAIL:
                lines.append(f"FAIL {row.cell.name}: {check}: {result.detail}")
    reasons: dict[str, int] = {}
    for row in rows:
        for check, result in row.results.items():
            if result.state in (State.SKIP, State.NOT_APPLICABLE):
                reason = f"{result.state} {check}: {result.detail}"
                reasons[reason] = reasons.get(reason, 0) + 1
    return lines + [f"{reason} ({count} cells)" for reason, count in reasons.items()]


def tally(rows: list[Row]) -> tuple[int, int, int]:
    """Passed, failed, skipped. Not applicable is none of the three."""
    states = [result.state for row in rows for result in row.results.values()]
    return states.count(State.OK), states.count(State.FAIL), states.count(State.SKIP)
