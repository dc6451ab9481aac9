"""A TCP relay between a client and its server, so that a check can cut a tunnel as a network does."""

from __future__ import annotations

import asyncio
import contextlib

from .origin import reset_on_close


class Relay:
    """Listens on `port`, forwards to `target`. `cut` resets what is open; `refuse` takes nothing new."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.refuse = False
        self.accepted = 0
        self.open = 0
        self.idle = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Cut and stop listening."""
        self.cut()
        if self._server:
            self._server.close()

    def cut(self) -> None:
        """Reset every connection, at both ends."""
        for writer in self._writers:
            with contextlib.suppress(OSError):
                reset_on_close(writer.get_extra_info("socket"))
            writer.transport.abort()

    async def _connection(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        if self.refuse:
            near.transport.abort()
            return
        self.accepted += 1
        self.open += 1
        self.idle.clear()
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            near.transport.abort()
        else:
            self._writers |= {near, far}
            ways = [asyncio.create_task(_forward(near_reader, far)), asyncio.create_task(_forward(far_reader, near))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            # A tunnel whose one half ended is over; SniTun has no half-open tunnels.
            for way in ways:
                way.cancel()
            self._writers -= {near, far}
            near.close()
            far.close()
        self.open -= 1
        if not self.open:
            self.idle.set()


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(256 * 1024):
            writer.write(data)
            await writer.drain()
