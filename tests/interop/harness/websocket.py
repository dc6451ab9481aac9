"""Just enough of RFC 6455 for an echo: handshake, text and binary frames, ping, close. No fragments, no extensions."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocketError(Exception):
    """The other end did not speak RFC 6455."""


def accept_value(key: str) -> str:
    """What the server answers to a client's key."""
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def _mask(data: bytes, mask: bytes) -> bytes:
    if not data:
        return data
    repeated = (mask * (len(data) // 4 + 1))[: len(data)]
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return mixed.to_bytes(len(data), "big")


def frame(opcode: int, data: bytes, *, masked: bool) -> bytes:
    """One whole frame; clients must mask, servers must not."""
    flag = 0x80 if masked else 0
    if len(data) < 126:
        head = bytes([0x80 | opcode, flag | len(data)])
    elif len(data) < 65536:
        head = bytes([0x80 | opcode, flag | 126]) + len(data).to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, flag | 127]) + len(data).to_bytes(8, "big")
    if not masked:
        return head + data
    mask = os.urandom(4)
    return head + mask + _mask(data, mask)


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame's opcode and unmasked payload."""
    first, second = await reader.readexactly(2)
    if not first & 0x80:
        raise WebSocketError("a fragmented frame; this echo does not send any")
    size = second & 0x7F
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    mask = await reader.readexactly(4) if second & 0x80 else b""
    data = await reader.readexactly(size)
    return first & 0x0F, _mask(data, mask) if mask else data


async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, path: str) -> None:
    """The client's half of the handshake."""
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    if " 101 " not in head.splitlines()[0] or accept_value(key) not in head:
        raise WebSocketError(f"no upgrade: {head.splitlines()[0]}")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str]) -> None:
    """The server: upgrade, then send every message back until the visitor closes."""
    answer = accept_value(headers["sec-websocket-key"])
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {answer}\r\n\r\n".encode()
    )
    while True:
        opcode, data = await read_frame(reader)
        if opcode == CLOSE:
            writer.write(frame(CLOSE, data, masked=False))
            await writer.drain()
            return
        writer.write(frame(PONG if opcode == PING else opcode, data, masked=False))
        await writer.drain()
