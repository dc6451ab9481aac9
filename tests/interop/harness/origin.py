"""The instance: a TLS server that answers what the checks ask for, and knows who is connected."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import struct
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from . import proxy_header, websocket

CHUNK = 64 * 1024
_FILLER = hashlib.shake_256(b"latchkey interop").digest(CHUNK - 8)
# Small, so that a reader that stops reading is felt by the tunnel and not hidden by the kernel.
RECEIVE_BUFFER = 128 * 1024
ABORT_AFTER = 256 * 1024


def pattern(size: int) -> Iterator[bytes]:
    """`size` deterministic bytes; every chunk is different, so a swap or a repetition shows in the hash."""
    for number in range(-(-size // CHUNK)):
        yield (number.to_bytes(8, "big") + _FILLER)[: size - number * CHUNK]


def pattern_hash(size: int) -> str:
    """What a download of `size` must hash to."""
    digest = hashlib.sha256()
    for chunk in pattern(size):
        digest.update(chunk)
    return digest.hexdigest()


def reset_on_close(sock: socket.socket) -> None:
    """Closing this socket sends RST, not FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Origin:
    """One instance. `port` takes TLS, `proxied_port` takes TLS behind a PROXY v2 header."""

    def __init__(self, name: str, context: ssl.SSLContext) -> None:
        self.name = name
        self.port = 0
        self.proxied_port = 0
        self.complaints: list[str] = []
        self.holds: dict[str, asyncio.Event] = {}
        self.ended: dict[str, asyncio.Event] = {}
        self.sent: dict[str, int] = {}
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on two free ports."""
        self.port = self._listen(proxied=False)
        self.proxied_port = self._listen(proxied=True)

    def _listen(self, *, proxied: bool) -> int:
        sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.setblocking(False)
        self._spawn(self._accept(sock, proxied=proxied))
        return int(sock.getsockname()[1])

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Let go of every connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self, key: str) -> asyncio.Event:
        """An upload with `?hold=key` is not read before this is set."""
        return self.holds.setdefault(key, asyncio.Event())

    def end_of(self, key: str) -> asyncio.Event:
        """Set when the connection that asked with `?watch=key` has ended here."""
        return self.ended.setdefault(key, asyncio.Event())

    async def _accept(self, listener: socket.socket, *, proxied: bool) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                sock, peer = await loop.sock_accept(listener)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._spawn(self._connection(sock, str(peer[0]), proxied=proxied))

    async def _connection(self, sock: socket.socket, address: str, *, proxied: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            if proxied:
                address = await asyncio.wait_for(proxy_header.read(sock), 10)
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._context)
        except proxy_header.ProxyHeaderError as error:
            self.complaints.append(str(error))
            sock.close()
            return
        except (OSError, TimeoutError):
            sock.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            while await self._request(reader, writer, address):
                pass
        except (OSError, asyncio.IncompleteReadError, websocket.WebSocketError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 5)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        keep = headers.get("connection", "").lower() != "close"
        self.sent[query.get("watch", "")] = 0
        try:
            match url.path.split("/")[1:]:
                case ["echo", word]:
                    body = {"origin": self.name, "echo": word, "address": address}
                    _answer(writer, json.dumps(body).encode(), keep=keep)
                case ["bytes", size]:
                    await self._download(writer, int(size), query.get("watch", ""), keep=keep)
                case ["upload"] if method == "POST":
                    await self._upload(reader, writer, int(headers["content-length"]), query, keep=keep)
                case ["slow", seconds]:
                    await asyncio.sleep(float(seconds))
                    _answer(writer, b"{}", keep=keep)
                case ["abort", pause]:
                    await _abort(writer, float(pause))
                    return False
                case ["ws"]:
                    await websocket.echo(reader, writer, headers)
                    return False
                case _:
                    raise OSError(f"the harness asked for {target}")
            await writer.drain()
        finally:
            if not keep and "watch" in query:
                self.end_of(query["watch"]).set()
        return keep

    async def _download(self, writer: asyncio.StreamWriter, size: int, watch: str, *, keep: bool) -> None:
        writer.write(_head(size, keep=keep))
        for chunk in pattern(size):
            writer.write(chunk)
            await writer.drain()
            self.sent[watch] += len(chunk)

    async def _upload(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        size: int,
        query: dict[str, str],
        *,
        keep: bool,
    ) -> None:
        if "hold" in query:
            await self.hold(query["hold"]).wait()
        digest = hashlib.sha256()
        left = size
        while left:
            data = await reader.read(min(left, CHUNK))
            if not data:
                raise asyncio.IncompleteReadError(b"", left)
            digest.update(data)
            left -= len(data)
        _answer(writer, json.dumps({"sha256": digest.hexdigest(), "size": size}).encode(), keep=keep)


def _head(size: int, *, keep: bool) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
    )


def _answer(writer: asyncio.StreamWriter, body: bytes, *, keep: bool) -> None:
    writer.write(_head(len(body), keep=keep) + body)


async def _abort(writer: asyncio.StreamWriter, pause: float) -> None:
    """Promise more than is sent, then (after a pause, if any) reset the connection in the middle of the body."""
    writer.write(_head(4 * ABORT_AFTER, keep=False))
    for chunk in pattern(ABORT_AFTER):
        writer.write(chunk)
        await writer.drain()
    await asyncio.sleep(pause)
    reset_on_close(writer.get_extra_info("socket"))
    writer.transport.abort()
