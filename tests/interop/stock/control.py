"""A stock process speaks with the harness in lines of JSON: events on stdout, commands on stdin."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def emit(event: str, **fields: Any) -> None:
    """Tell the harness something."""
    print(json.dumps({"event": event, **fields}), flush=True)


def settings() -> dict[str, Any]:
    """The first line on stdin says what to do."""
    return json.loads(sys.stdin.readline())


async def serve_commands(command: Command) -> None:
    """Answer commands until stdin ends, which means the harness wants us gone (or is gone itself)."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        emit("answer", id=request["id"], **await command(request))
