"""A visitor: TLS with SNI through the server's port, and a few HTTP requests."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Self

from . import websocket
from .origin import CHUNK, pattern, pattern_hash, reset_on_close

SMALL_BUFFER = 64 * 1024
TIME_LIMIT = 20.0
# Every visitor comes from its own loopback address, as visitors do; limits per client address stay out of the way.
_sources = itertools.cycle(f"127.{a}.{b}.{c}" for a in range(1, 100) for b in range(4) for c in range(1, 255))


class VisitorError(Exception):
    """The answer was not what the origin sends."""


@dataclass(frozen=True)
class Site:
    """Where visitors go: one hostname at one server."""

    hostname: str
    port: int
    context: ssl.SSLContext


class Visitor:
    """One connection. Use `async with await Visitor.open(site)`."""

    def __init__(self, site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.site = site
        self.reader = reader
        self.writer = writer
        self.sent = 0

    @classmethod
    async def open(cls, site: Site, source: str | None = None, *, small_buffer: bool = False) -> Self:
        """Connect from `source` (next loopback address by default) and shake hands."""
        source = source or next(_sources)
        family, target = (socket.AF_INET6, "::1") if ":" in source else (socket.AF_INET, "127.0.0.1")
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if small_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
            sock.setblocking(False)
            sock.bind((source, 0))
            async with asyncio.timeout(TIME_LIMIT):
                await asyncio.get_running_loop().sock_connect(sock, (target, site.port))
                reader, writer = await asyncio.open_connection(
                    sock=sock, ssl=site.context, server_hostname=site.hostname
                )
        except BaseException:
            sock.close()
            raise
        return cls(site, reader, writer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 2)

    def reset(self) -> None:
        """Go away with RST, as a phone that loses its network does."""
        reset_on_close(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()

    async def ask(self, target: str, *, method: str = "GET", size: int = 0, keep: bool = True) -> None:
        """Send a request's head."""
        connection = "keep-alive" if keep else "close"
        self.writer.write(
            f"{method} {target} HTTP/1.1\r\nHost: {self.site.hostname}\r\n"
            f"Content-Length: {size}\r\nConnection: {connection}\r\n\r\n".encode()
        )
        await self.writer.drain()

    async def head(self) -> int:
        """Read an answer's head; the size of its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        if not head.startswith("HTTP/1.1 200 "):
            raise VisitorError(f"answered {head.splitlines()[0]}")
        return next(int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:"))

    async def get_json(self, target: str, *, keep: bool = True) -> dict[str, Any]:
        """A small request."""
        await self.ask(target, keep=keep)
        return dict(json.loads(await self.reader.readexactly(await self.head())))

    async def body_hash(self, size: int) -> str:
        """Read a body as fast as it comes."""
        digest = hashlib.sha256()
        while size:
            data = await self.reader.read(min(size, CHUNK))
            if not data:
                raise VisitorError(f"the answer ended {size} bytes early")
            digest.update(data)
            size -= len(data)
        return digest.hexdigest()

    async def send_pattern(self, size: int) -> None:
        """Send a body."""
        for chunk in pattern(size):
            self.writer.write(chunk)
            await self.writer.drain()
            self.sent += len(chunk)

    async def finish_upload(self, size: int) -> None:
        """Read the origin's hash of what was sent and compare."""
        answer = json.loads(await self.reader.readexactly(await self.head()))
        if answer["sha256"] != pattern_hash(size):
            raise VisitorError(f"the origin received other bytes than were sent: {answer}")


async def small(site: Site, word: str, source: str | None = None) -> dict[str, Any]:
    """A new connection, one small request, and its answer checked."""
    async with asyncio.timeout(TIME_LIMIT), await Visitor.open(site, source) as visitor:
        answer = await visitor.get_json(f"/echo/{word}", keep=False)
        if answer["echo"] != word:
            raise VisitorError(f"asked for {word}, got {answer}")
        return answer


async def download(site: Site, size: int, limit: float = TIME_LIMIT) -> None:
    """A new connection that downloads and compares."""
    async with asyncio.timeout(limit), await Visitor.open(site) as visitor:
        await visitor.ask(f"/bytes/{size}", keep=False)
        if await visitor.body_hash(await visitor.head()) != pattern_hash(size):
            raise VisitorError("downloaded other bytes than the origin sends")


async def upload(site: Site, size: int, limit: float = TIME_LIMIT) -> None:
    """A new connection that uploads and compares."""
    async with asyncio.timeout(limit), await Visitor.open(site) as visitor:
        await visitor.ask("/upload", method="POST", size=size, keep=False)
        await visitor.send_pattern(size)
        await visitor.finish_upload(size)


async def echo_messages(site: Site, sizes: list[int], pause: float) -> int:
    """A websocket that sends messages of these sizes, `pause` seconds apart, and compares what returns."""
    async with await Visitor.open(site) as visitor:
        async with asyncio.timeout(TIME_LIMIT):
            await websocket.connect(visitor.reader, visitor.writer, site.hostname, "/ws")
        for size in sizes:
            data = b"".join(pattern(size))
            async with asyncio.timeout(TIME_LIMIT):
                visitor.writer.write(websocket.frame(websocket.BINARY, data, masked=True))
                await visitor.writer.drain()
                opcode, returned = await websocket.read_frame(visitor.reader)
            if (opcode, returned) != (websocket.BINARY, data):
                raise VisitorError(f"a message of {size} bytes came back as opcode {opcode}, {len(returned)} bytes")
            await asyncio.sleep(pause)
        async with asyncio.timeout(TIME_LIMIT):
            visitor.writer.write(websocket.frame(websocket.CLOSE, b"", masked=True))
            opcode, _ = await websocket.read_frame(visitor.reader)
        if opcode != websocket.CLOSE:
            raise VisitorError(f"close was answered by opcode {opcode}")
    return len(sizes)
