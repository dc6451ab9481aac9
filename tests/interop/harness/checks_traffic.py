"""Checks of ordinary traffic: small, parallel, bulk, websocket, and whose address arrives."""

from __future__ import annotations

import asyncio
from collections import Counter

from .stage import Stage
from .visitor import Visitor, VisitorError, download, echo_messages, small, upload

MIB = 1024 * 1024
SMALL_REQUESTS = 50
PARALLEL = 200
ADDRESS_VISITORS = 10
# Around every boundary of a websocket frame's length field, and one that spans many tunnel frames.
MESSAGE_SIZES = [0, 1, 125, 126, 127, 4096, 65535, 65536, 300_000]


async def small_requests(stage: Stage) -> str:
    """50 connections one after another, every fifth with a second request on the same connection."""
    for number in range(SMALL_REQUESTS):
        if number % 5:
            await small(stage.site(), f"small{number}")
            continue
        async with asyncio.timeout(10), await Visitor.open(stage.site()) as visitor:
            for word in (f"kept{number}a", f"kept{number}b"):
                answer = await visitor.get_json(f"/echo/{word}")
                if answer["echo"] != word:
                    raise VisitorError(f"asked for {word}, got {answer}")
    return ""


async def parallel(stage: Stage) -> str:
    """200 visitors connected at the same time; all ask when all are there."""
    everyone = asyncio.Barrier(PARALLEL)

    async def one(number: int) -> None:
        try:
            visitor = await Visitor.open(stage.site())
        except BaseException:
            await everyone.abort()
            raise
        async with visitor:
            await everyone.wait()
            answer = await visitor.get_json(f"/echo/parallel{number}")
            if answer["echo"] != f"parallel{number}":
                raise VisitorError(f"visitor {number} got {answer}")

    async with asyncio.timeout(30):
        results = await asyncio.gather(*(one(number) for number in range(PARALLEL)), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    causes = [failure for failure in failures if not isinstance(failure, asyncio.BrokenBarrierError)]
    if failures:
        raise VisitorError(f"{len(causes)} of {PARALLEL} failed, the first with {(causes or failures)[0]!r}")
    return ""


async def bulk(stage: Stage) -> str:
    """16 MiB down and 16 MiB up at the same time, by hash."""
    await asyncio.gather(download(stage.site(), 16 * MIB), upload(stage.site(), 16 * MIB))
    return ""


async def websocket(stage: Stage) -> str:
    """Messages of awkward sizes, echoed."""
    await echo_messages(stage.site(), MESSAGE_SIZES * 2, 0.01)
    return ""


async def _seen(stage: Stage, sources: list[str]) -> list[str]:
    """The far end's idea of these visitors' addresses, in any order."""
    if stage.clients:
        before = len(stage.clients.addresses)
        await asyncio.gather(*(small(stage.site(), "address", source) for source in sources))
        # The events precede the answers on the wire, but come through another pipe.
        async with asyncio.timeout(5):
            while len(stage.clients.addresses) < before + len(sources):
                await asyncio.sleep(0.01)
        return stage.clients.addresses[before:]
    answers = await asyncio.gather(*(small(stage.site(), "address", source) for source in sources))
    return [answer["address"] for answer in answers]


async def address_v4(stage: Stage) -> str:
    """Ten visitors from ten addresses at once: the far end sees exactly those."""
    sources = [f"127.201.{number}.{number + 7}" for number in range(1, ADDRESS_VISITORS + 1)]
    seen = await _seen(stage, sources)
    if Counter(seen) != Counter(sources):
        raise VisitorError(f"visitors came from {sorted(sources)}, the far end saw {sorted(seen)}")
    return ""


async def address_v6(stage: Stage) -> str:
    """A visitor over IPv6: version 2 carries the address, older versions carry 0.0.0.0."""
    seen = (await _seen(stage, ["::1"]))[0]
    wanted = {"::1"} if stage.cell.carries_v6 else {"0.0.0.0", "LOCAL", "UNSPEC"}
    if seen not in wanted:
        raise VisitorError(f"the visitor came from ::1, the far end saw {seen}")
    return "" if stage.cell.carries_v6 else seen


async def gibibyte(stage: Stage) -> str:
    """1 GiB each way, at the same time, by hash."""
    begun = asyncio.get_running_loop().time()
    await asyncio.gather(download(stage.site(), 1024 * MIB, 300), upload(stage.site(), 1024 * MIB, 300))
    return f"{asyncio.get_running_loop().time() - begun:.0f} s"


async def websocket_minute(stage: Stage) -> str:
    """A websocket that lives for a minute, quiet for up to 5 s at a time."""
    begun = asyncio.get_running_loop().time()
    messages = 0
    async with asyncio.timeout(120):
        messages += await echo_messages(stage.site(), [100] * 150 + [65536] * 50, 0.2)
        messages += await echo_messages(stage.site(), [32] * 5, 5.0)
    return f"{messages} messages in {asyncio.get_running_loop().time() - begun:.0f} s"
