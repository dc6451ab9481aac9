"""Child processes of a cell: started with their own log file, ended by their own handle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

STOCK = Path(__file__).resolve().parent.parent / "stock"
START_LIMIT = 15.0


class ProcessError(Exception):
    """A process did not start, ended by itself, or does not answer."""


def free_port() -> int:
    """A TCP port that is free on both loopback addresses now."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        return int(sock.getsockname()[1])


class Child:
    """A program with its output in `log`."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process: asyncio.subprocess.Process | None = None

    async def spawn(self, *command: str, stdin: int | None = None, stdout: int | None = None) -> None:
        """Start it. Without `stdout` both streams go to the log."""
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin if stdin is not None else asyncio.subprocess.DEVNULL,
                stdout=stdout if stdout is not None else log,
                stderr=log,
                limit=1 << 20,
            )

    def check_alive(self) -> None:
        """Raise when it ended by itself."""
        if self.process is not None and self.process.returncode is not None:
            raise ProcessError(f"{self.log.stem} ended with status {self.process.returncode}: {self.tail(3)}")

    def tail(self, lines: int) -> str:
        """The end of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return " | ".join(line.strip()[:300] for line in text.strip().splitlines()[-lines:])

    async def stop(self) -> None:
        """Ask twice (a second SIGTERM means at once), then insist."""
        if self.process is None or self.process.returncode is not None:
            return
        for ask in (self.process.terminate, self.process.terminate, self.process.kill):
            with contextlib.suppress(ProcessLookupError):
                ask()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 1)
                return


class StockChild(Child):
    """A script of ../stock under one of the reference's interpreters."""

    def __init__(self, log: Path, python: str, script: str) -> None:
        super().__init__(log)
        self._python = python
        self._script = script
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self.connects: defaultdict[str, int] = defaultdict(int)
        self.addresses: list[str] = []
        self._asked = 0

    async def start(self, settings: dict[str, Any]) -> None:
        """Start and wait until it says that it is ready."""
        pipe = asyncio.subprocess.PIPE
        await self.spawn(self._python, str(STOCK / self._script), stdin=pipe, stdout=pipe)
        self._send(settings)
        self._reading = asyncio.create_task(self._read())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), START_LIMIT)
        if not self._ready.is_set():
            raise ProcessError(f"{self._script} did not start: {self.tail(3)}")

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        while line := await self.process.stdout.readline():
            event = json.loads(line)
            with self.log.open("ab") as log:
                log.write(line)
            match event.pop("event"):
                case "ready":
                    self._ready.set()
                case "connected":
                    self.connects[event["name"]] += 1
                case "visitor":
                    self.addresses.append(event["address"])
                case "answer":
                    self._answers.pop(event.pop("id")).set_result(event)
        self._ready.set()

    async def command(self, do: str, **more: Any) -> dict[str, Any]:
        """Ask it something."""
        self.check_alive()
        self._asked += 1
        number = self._asked
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        self._send({"id": number, "do": do, **more})
        return await asyncio.wait_for(future, 10)

    async def stop(self) -> None:
        """Closing its stdin ends it."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), 2)
        await super().stop()
        if self._reading:
            self._reading.cancel()


def private_file(path: Path, text: str) -> Path:
    """A file only we can read, as keys and sessions are kept."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return path
