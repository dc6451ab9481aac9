"""Reads one PROXY protocol v2 header off a raw socket, and not a byte more: TLS follows."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class ProxyHeaderError(Exception):
    """The agent did not begin with a PROXY v2 header."""


async def _exactly(sock: socket.socket, size: int, *, first: bool = False) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more and first and not data:
            # A tunnel that ends while its agent connects leaves a connection on which nothing was said.
            raise ConnectionAbortedError("nothing was said")
        if not more:
            raise ProxyHeaderError(f"connection ended after {data!r}")
        data += more
    return data


async def read(sock: socket.socket) -> str:
    """The visitor's address that the header carries; "LOCAL" or "UNSPEC" where it carries none."""
    head = await _exactly(sock, 16, first=True)
    if head[:12] != SIGNATURE or head[12] >> 4 != 2:
        raise ProxyHeaderError(f"no PROXY v2 header but {head!r}")
    body = await _exactly(sock, int.from_bytes(head[14:16], "big"))
    if head[12] & 0x0F == 0:
        return "LOCAL"
    family = head[13] >> 4
    if family == 1:
        return str(ipaddress.IPv4Address(body[:4]))
    if family == 2:
        return str(ipaddress.IPv6Address(body[:16]))
    return "UNSPEC"
