"""Runs the matrix and prints it."""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from . import certificate, checks_hostile, checks_traffic, matrix, report
from .loop import new_event_loop
from .matrix import Cell
from .report import Result, Row, State
from .stage import Stage, Tools

Check = Callable[[Stage], Awaitable[str]]
BASIC: dict[str, Check] = {
    "small": checks_traffic.small_requests,
    "200 par.": checks_traffic.parallel,
    "16 MiB": checks_traffic.bulk,
    "websock": checks_traffic.websocket,
    "addr v4": checks_traffic.address_v4,
    "addr v6": checks_traffic.address_v6,
    "slow visitor": checks_hostile.slow_visitor,
    "slow inst.": checks_hostile.slow_instance,
    "pause": checks_hostile.flow_control,
    "rst visitor": checks_hostile.reset_by_visitor,
    "rst inst.": checks_hostile.reset_by_instance,
    "reconnect": checks_hostile.reconnect,
    "replaced": checks_hostile.replaced,
}
LONG: dict[str, Check] = {
    "1 GiB": checks_traffic.gibibyte,
    "ws 60 s": checks_traffic.websocket_minute,
}
CHECK_LIMIT = 60.0
LONG_LIMIT = 320.0
REPOSITORY = Path(__file__).resolve().parents[3]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests/interop/run", description="Stock SniTun against our proxy and agent.")
    parser.add_argument("--quick", action="store_true", help="nine rows that touch every direction, version and cipher")
    parser.add_argument(
        "--long", action="store_true", help="also 1 GiB each way and a minute of websocket, on four rows"
    )
    parser.add_argument("--only", metavar="PATTERN", help="only rows whose 'client -> server vN cipher' matches (glob)")
    parser.add_argument("--reference-only", action="store_true", help="stock against stock: proves the harness itself")
    parser.add_argument("--prove", action="store_true", help="break the reference on purpose: every check must notice")
    parser.add_argument("--bin-dir", type=Path, help="where latchkey-proxy and latchkey-agent are")
    parser.add_argument("--keep-logs", metavar="DIR", type=Path, help="keep every process's log here")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="rows at a time (default %(default)s)"
    )
    parser.add_argument("--old-python", required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def find_binaries(asked: Path | None) -> Path | None:
    """The folder that has both binaries; the newest build where there are two."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    folders = [asked] if asked else [target / name for name in ("release", "fast", "debug")]
    complete = [
        folder for folder in folders if all((folder / f"latchkey-{name}").exists() for name in ("proxy", "agent"))
    ]
    return max(complete, key=lambda folder: (folder / "latchkey-proxy").stat().st_mtime, default=None)


async def run_check(check: Check, stage: Stage, limit: float) -> Result:
    """One check; whatever it raises becomes its result."""
    try:
        async with asyncio.timeout(limit):
            detail = await check(stage)
        for child in stage.children():
            child.check_alive()
        if stage.first.complaints:
            return Result(State.FAIL, f"at the instance: {stage.first.complaints.pop()}")
        return Result(State.OK, detail)
    except checks_hostile.NotApplicable as reason:
        return Result(State.NOT_APPLICABLE, str(reason))
    except Exception as error:  # whatever a check raises is its result
        tails = "; ".join(f"{child.log.stem}: {child.tail(2)}" for child in stage.children())
        return Result(State.FAIL, f"{type(error).__name__}: {error} [{tails}]")


async def run_cell(cell: Cell, tools: Tools, logs: Path, *, long: bool) -> Row:
    """All checks of one row, in order, on one stage."""
    row = Row(cell)
    begun = time.monotonic()
    checks = {**BASIC, **LONG} if long and cell in matrix.long([cell]) else BASIC
    if cell.ours and tools.bin_dir is None:
        row.results = {name: Result(State.SKIP, "no latchkey-proxy and latchkey-agent built") for name in checks}
        return row
    folder = logs / "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in cell.name)
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage(cell, tools, folder)
    try:
        started = await run_check(_start, stage, 40)
        if started.state is not State.OK:
            row.results = {name: Result(State.FAIL, started.detail) for name in checks}
        else:
            for name, check in checks.items():
                row.results[name] = await run_check(check, stage, LONG_LIMIT if name in LONG else CHECK_LIMIT)
    finally:
        await stage.stop()
    row.seconds = time.monotonic() - begun
    return row


async def _start(stage: Stage) -> str:
    await stage.start()
    return ""


def chosen(options: argparse.Namespace) -> list[Cell]:
    """The rows this run is about."""
    cells = matrix.reference() if options.reference_only else matrix.quick() if options.quick else matrix.whole()
    if options.only:
        cells = [cell for cell in cells if fnmatch.fnmatch(cell.name, f"*{options.only}*")]
    return cells


async def run(options: argparse.Namespace, logs: Path) -> int:
    """The whole run; its exit status."""
    server_tls, visitor_tls = certificate.contexts(logs)
    bin_dir = find_binaries(options.bin_dir)
    tools = Tools(sys.executable, options.old_python, bin_dir, server_tls, visitor_tls)
    if options.prove:
        from . import prove

        return await prove.run(tools, logs)
    print(f"interop: binaries from {bin_dir or 'nowhere: build them first, or give --bin-dir'}", flush=True)
    slots = asyncio.Semaphore(options.jobs)

    async def one(cell: Cell) -> Row:
        async with slots:
            row = await run_cell(cell, tools, logs, long=options.long)
        passed, failed, skipped = report.tally([row])
        print(f"  {cell.name}: {passed} ok, {failed} failed, {skipped} skipped, {row.seconds:.0f} s", flush=True)
        return row

    rows = await asyncio.gather(*(one(cell) for cell in chosen(options)))
    print("\n" + report.table(rows, [*BASIC, *LONG] if options.long else [*BASIC]))
    for note in report.notes(rows):
        print(note)
    passed, failed, skipped = report.tally(rows)
    print(f"interop: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not rows or (skipped and os.environ.get("CI")) else 0


def main() -> int:
    """Keep the logs when asked to, or when something failed."""
    options = arguments()
    logs = options.keep_logs or Path(tempfile.mkdtemp(prefix="latchkey-interop-"))
    logs.mkdir(parents=True, exist_ok=True)
    # asyncio tells of every write after a reset, and 3.13.0 of every second abort; resets are what is tested here.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    os.environ["NO_COLOR"] = "1"
    status = asyncio.run(run(options, logs), loop_factory=new_event_loop)
    if status and not options.keep_logs:
        print(f"interop: logs are in {logs}")
    elif not options.keep_logs:
        shutil.rmtree(logs, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
