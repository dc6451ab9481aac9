"""Checks with somebody who behaves badly: slow readers, resets, lost and replaced tunnels."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable

from .origin import CHUNK, pattern_hash
from .stage import Stage
from .visitor import Visitor, VisitorError, download, small, upload

MIB = 1024 * 1024
SLOW_SIZE = 48 * MIB
# What may still arrive after PAUSE: what the sockets of the way hold. A peer that ignores PAUSE sends 30 MiB and more.
IN_FLIGHT = 12 * MIB
RESETS = 5
REACTION = 5.0
# A connection that ended. TimeoutError is an OSError too: it is caught before these wherever it means "stuck".
GONE = (OSError, EOFError, ssl.SSLError)


class NotApplicable(Exception):
    """This check says nothing about this cell."""


async def _others(stage: Stage) -> None:
    """What everybody else does meanwhile; behind a stalled tunnel this would not end."""
    async with asyncio.timeout(15):
        await asyncio.gather(
            *(download(stage.site(), MIB) for _ in range(3)),
            *(upload(stage.site(), MIB) for _ in range(2)),
            *(small(stage.site(), f"meanwhile{number}") for number in range(20)),
        )


async def _others_once_full(stage: Stage, sent: Callable[[], int]) -> None:
    """The others begin when nothing more of the slow transfer goes in: the way is full, or has swallowed all."""
    before, still = -1, 0
    async with asyncio.timeout(15):
        while still < 4:
            before, still = sent(), (still + 1 if sent() == before else 0)
            await asyncio.sleep(0.1)
    await _others(stage)


@contextlib.asynccontextmanager
async def _companion(stage: Stage) -> AsyncIterator[None]:
    """A visitor who keeps one connection busy throughout: it breaks when the tunnel does."""
    stop = asyncio.Event()
    count = 0

    async def talk() -> None:
        nonlocal count
        async with await Visitor.open(stage.site()) as visitor:
            while not stop.is_set():
                async with asyncio.timeout(REACTION):
                    await visitor.get_json(f"/echo/companion{count}")
                count += 1
                await asyncio.sleep(0.01)

    task = asyncio.create_task(talk())
    try:
        yield
    finally:
        stop.set()
        try:
            await task
        except (*GONE, TimeoutError) as error:
            raise VisitorError(f"a visitor next to it was cut after {count} requests: {error!r}") from error
    if not count:
        raise VisitorError("the visitor next to it got no answer")


async def slow_visitor(stage: Stage) -> str:
    """A visitor that hardly reads a 48 MiB answer while others go on; then all of it arrives."""
    if stage.stock:
        await stage.stock.command("reset")
    async with await Visitor.open(stage.site(), small_buffer=True) as visitor:
        await visitor.ask(f"/bytes/{SLOW_SIZE}?watch=slow-visitor", keep=False)
        size = await visitor.head()
        others = asyncio.create_task(_others_once_full(stage, lambda: stage.first.sent["slow-visitor"]))
        # One byte at a time: the rest of the answer stays in the tunnel until the others are done.
        first = b""
        while not others.done():
            byte = b""
            with contextlib.suppress(*GONE):
                byte = await asyncio.wait_for(visitor.reader.read(1), REACTION)
            if not byte:
                break
            first += byte
            await asyncio.sleep(0.02)
        await others
        return await _slow_end(stage, visitor, first, size)


async def _slow_end(stage: Stage, visitor: Visitor, first: bytes, size: int) -> str:
    digest = hashlib.sha256(first)
    got = len(first)
    try:
        async with asyncio.timeout(20):
            while got < size and (data := await visitor.reader.read(CHUNK)):
                digest.update(data)
                got += len(data)
    except TimeoutError:
        raise VisitorError(f"only {got} of {size} bytes arrived in 20 s of reading at speed") from None
    except GONE as error:
        return _cut_at_cap(stage.cell.token_version, got, repr(error))
    if got < size:
        return _cut_at_cap(stage.cell.token_version, got, "end of stream")
    if digest.hexdigest() != pattern_hash(size):
        raise VisitorError("the slow visitor received other bytes than the origin sends")
    return ""


def _cut_at_cap(version: int, got: int, how: str) -> str:
    """Without PAUSE (version 0) a channel over its cap may be reset; with it, never."""
    if version == 0:
        return f"cut at {got / MIB:.0f} MiB"
    raise VisitorError(f"cut after {got} bytes ({how}) although this version has PAUSE")


async def slow_instance(stage: Stage) -> str:
    """An instance that does not read a 48 MiB upload while others go on; then all of it arrives."""
    key = "slow-instance"
    hold = stage.first.hold(key)
    hold.clear()
    async with await Visitor.open(stage.site(), small_buffer=True) as visitor:
        await visitor.ask(f"/upload?hold={key}", method="POST", size=SLOW_SIZE, keep=False)
        sending = asyncio.create_task(visitor.send_pattern(SLOW_SIZE))
        try:
            await _others_once_full(stage, lambda: visitor.sent)
            stalled = not sending.done()
            hold.set()
            async with asyncio.timeout(20):
                await sending
                await visitor.finish_upload(SLOW_SIZE)
        except TimeoutError:
            way = "the upload after the instance read again" if hold.is_set() else "the others' traffic"
            raise VisitorError(f"{way} was stuck") from None
        except GONE as error:
            if stage.cell.told_version == 0:
                return "cut at the cap"
            raise VisitorError(f"the upload was cut although this version has PAUSE: {error!r}") from error
        finally:
            hold.set()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    if stage.cell.told_version >= 1 and not stalled:
        raise VisitorError(f"{SLOW_SIZE} bytes were taken from the visitor while the instance read nothing")
    return ""


async def flow_control(stage: Stage) -> str:
    """What the stock side counted during the two slow readers: PAUSE and RESUME sent and obeyed, or none at all."""
    if stage.stock is None:
        raise NotApplicable("no stock side that counts")
    counts = stage.flow = await stage.stock.command("stats")
    server_may = stage.cell.token_version >= 1
    client_may = stage.cell.told_version >= 1
    counting_client = stage.clients is not None
    may_get, may_send = (server_may, client_may) if counting_client else (client_may, server_may)
    for who, may, pause, resume in (
        ("the peer of the stock side", may_get, counts["got_pause"], counts["got_resume"]),
        ("the stock side", may_send, counts["sent_pause"], counts["sent_resume"]),
    ):
        if may and not (pause and resume):
            raise VisitorError(f"{who} sent {pause} PAUSE and {resume} RESUME in front of a slow reader: {counts}")
        if not may and (pause or resume):
            raise VisitorError(f"{who} sent {pause} PAUSE and {resume} RESUME to a peer of version 0: {counts}")
    if may_send and counts["most_after_pause"] > IN_FLIGHT:
        raise VisitorError(f"{counts['most_after_pause']} bytes arrived after PAUSE: it was not obeyed")
    kib = counts["most_after_pause"] // 1024
    return f"{counts['sent_pause']}/{counts['got_pause']}" + (f" +{kib}K" if may_send else "")


async def reset_by_visitor(stage: Stage) -> str:
    """Visitors that vanish with RST in the middle of a download or an upload: the instance learns it, nobody else."""
    async with _companion(stage):
        for number in range(RESETS):
            key = f"reset{number}"
            ended = stage.first.end_of(key)
            ended.clear()
            stage.first.sent.pop(key, None)
            visitor = await Visitor.open(stage.site())
            if number % 2:
                await visitor.ask(f"/upload?watch={key}", method="POST", size=8 * MIB, keep=False)
                await visitor.send_pattern(MIB)
                # A reset also discards what was not read yet: the instance must have the request first.
                async with asyncio.timeout(REACTION):
                    while key not in stage.first.sent:
                        await asyncio.sleep(0.01)
            else:
                await visitor.ask(f"/bytes/{8 * MIB}?watch={key}", keep=False)
                await visitor.reader.readexactly(65536)
            visitor.reset()
            try:
                await asyncio.wait_for(ended.wait(), REACTION)
            except TimeoutError:
                way = "upload" if number % 2 else "download"
                raise VisitorError(f"the instance still held the {way} {REACTION} s after the visitor's RST") from None
    return ""


async def reset_by_instance(stage: Stage) -> str:
    """An instance that resets in the middle of its answer: the visitor learns it, nobody else."""
    # The stock client forgets to send CLOSE when the reset finds it busy with this channel's data, so with it
    # the instance pauses before its reset.
    pause = 0.2 if stage.clients else 0
    async with _companion(stage):
        for _ in range(RESETS):
            async with await Visitor.open(stage.site()) as visitor:
                await visitor.ask(f"/abort/{pause}", keep=False)
                try:
                    async with asyncio.timeout(REACTION):
                        await visitor.body_hash(await visitor.head())
                except TimeoutError:
                    raise VisitorError(f"the visitor still waited {REACTION} s after the instance's RST") from None
                except (VisitorError, *GONE):
                    continue
                raise VisitorError("the whole body arrived although the instance never sent it")
    return ""


async def reconnect(stage: Stage) -> str:
    """The tunnel's connection is reset on the way: open visitors end, and the client comes back by itself."""
    host = "again.interop.test"
    relay = await stage.relay()
    await stage.open_tunnel(host, stage.first, relay=relay)
    await stage.until_served(host)
    async with await Visitor.open(stage.site(host)) as visitor:
        await visitor.ask("/slow/60")
        relay.cut()
        try:
            async with asyncio.timeout(REACTION):
                rest = await visitor.reader.read()
        except TimeoutError:
            raise VisitorError(f"a visitor of the lost tunnel still waited after {REACTION} s") from None
        except GONE:
            rest = b""
        if rest:
            raise VisitorError(f"a visitor of the lost tunnel received {rest[:80]!r}")
    took = await stage.until_served(host)
    if relay.accepted < 2:
        raise VisitorError("served again, but not through a new connection")
    await small(stage.site(), "main-tunnel-untouched")
    return f"{took:.1f} s"


async def replaced(stage: Stage) -> str:
    """A second tunnel for the same hostname takes over: new visitors reach it, the first tunnel ends."""
    host = "replaced.interop.test"
    relay = await stage.relay()
    await stage.open_tunnel(host, stage.first, relay=relay)
    await stage.until_served(host, by=stage.first)
    # A client that is replaced comes back and would replace the other in turn; this one may not.
    relay.refuse = True
    await stage.open_tunnel(host, stage.second, send_proxy=False)
    await stage.until_served(host, by=stage.second)
    try:
        await asyncio.wait_for(relay.idle.wait(), REACTION)
    except TimeoutError:
        raise VisitorError(f"the replaced tunnel is still open after {REACTION} s") from None
    for number in range(10):
        answer = await small(stage.site(host), f"replaced{number}")
        if answer["origin"] != "second":
            raise VisitorError(f"visitor {number} after the replacement reached the {answer['origin']} instance")
    return ""
