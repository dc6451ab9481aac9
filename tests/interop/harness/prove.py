"""Shows that every check can fail: the reference is broken on purpose, and the named checks must notice."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

from .matrix import Cell, Who
from .report import State
from .stage import Stage, Tools

V2 = Cell(Who.STOCK, Who.STOCK, 2, 2, "aes-gcm-siv")
V0 = Cell(Who.STOCK, Who.STOCK, 0, 0, "aes-cbc")
# What is broken (../stock/sabotage.py), where, and which checks must fail for it.
EXPECTED: list[tuple[str, Cell, tuple[str, ...]]] = [
    ("lose-visitors", V2, ("small", "200 par.")),
    ("lose-data", V2, ("16 MiB", "websock")),
    ("wrong-address", V2, ("addr v4", "addr v6")),
    ("wrong-address", V0, ("addr v6",)),
    ("ignore-pause", V2, ("pause",)),
    ("never-pause", V2, ("pause",)),
    ("pause-always", V0, ("pause",)),
    ("stall", V2, ("slow visitor", "slow inst.")),
    ("cut-when-full", V2, ("slow visitor", "slow inst.")),
    ("forget-close", V2, ("rst visitor", "rst inst.")),
    ("cut-all", V2, ("rst visitor", "rst inst.")),
    ("never-return", V2, ("reconnect",)),
    ("keep-first", V2, ("replaced",)),
    ("leave-open", V2, ("replaced",)),
]
# "pause" judges what was counted while these ran.
BEFORE = {"pause": ("slow visitor", "slow inst.")}


async def run(tools: Tools, logs: Path) -> int:
    """One stage for every way to break; the exit status."""
    from .__main__ import BASIC, CHECK_LIMIT, run_check

    slots = asyncio.Semaphore(2)

    async def one(sabotage: str, cell: Cell, check: str) -> bool:
        folder = logs / f"{sabotage}-v{cell.version}-{check.replace(' ', '-')}"
        folder.mkdir(parents=True, exist_ok=True)
        async with slots:
            stage = Stage(cell, dataclasses.replace(tools, sabotage=sabotage), folder)
            try:
                await stage.start()
                for earlier in BEFORE.get(check, ()):
                    await run_check(BASIC[earlier], stage, CHECK_LIMIT)
                result = await run_check(BASIC[check], stage, CHECK_LIMIT)
            finally:
                await stage.stop()
        noticed = result.state is State.FAIL
        evidence = result.detail.split(" [", maxsplit=1)[0]
        print(
            f"  {'noticed' if noticed else 'MISSED':8} {sabotage} (v{cell.version}) by {check}: {evidence}", flush=True
        )
        return noticed

    noticed = await asyncio.gather(
        *(one(sabotage, cell, check) for sabotage, cell, checks in EXPECTED for check in checks)
    )
    print(f"interop: {sum(noticed)} of {len(noticed)} breakages noticed")
    return 0 if all(noticed) else 1
