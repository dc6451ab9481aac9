"""Processes, ports and files of one bench run; everything it starts is ended by pid."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


class BenchError(Exception):
    """Something the person who runs the bench has to put right."""


class Process:
    """One child process with its log file."""

    def __init__(self, name: str, args: Sequence[str | Path], log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                [str(arg) for arg in args],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def running(self) -> bool:
        return self._child.poll() is None

    def exit_code(self) -> int | None:
        return self._child.poll()

    def terminate(self) -> None:
        """Ask it to end, without waiting."""
        if self.running():
            self._child.terminate()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.running():
            self._child.kill()
        self._child.wait()

    def wait(self, seconds: float) -> bool:
        """True when it ended in time."""
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, patience: float = 3.0) -> None:
        # Two SIGTERMs: a relay that drains on the first ends at once on the second.
        for pause in (0.5, patience):
            self.terminate()
            if self.wait(pause):
                return
        self.kill()

    def tail(self, lines: int = 15) -> str:
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"    {self.name}: {line}" for line in text[-lines:])


class Workplace:
    """A temporary folder and the processes that live while it does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[Process] = []

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, text: str) -> Path:
        path = self.path(name)
        path.write_text(text)
        path.chmod(0o600)
        return path

    def start(self, name: str, args: Sequence[str | Path], env: dict[str, str] | None = None) -> Process:
        try:
            process = Process(name, args, self.path(f"{name}.log"), env)
        except FileNotFoundError as missing:
            raise BenchError(f"{args[0]} is not installed, needed for {name}") from missing
        self._processes.append(process)
        return process

    def stop_all(self, processes: Sequence[Process] | None = None) -> None:
        for process in reversed(list(processes if processes is not None else self._processes)):
            process.stop()
            if process in self._processes:
                self._processes.remove(process)


@contextlib.contextmanager
def workplace(room_mib: int = 0) -> Iterator[Workplace]:
    """A folder on tmpfs where that has the room, else on disk; all gone at the end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    parent = None
    with contextlib.suppress(OSError):
        if shutil.disk_usage("/dev/shm").free > (room_mib + 64) << 20:
            parent = "/dev/shm"
    folder = Path(tempfile.mkdtemp(prefix="latchkey-load-", dir=parent))
    place = Workplace(folder)
    try:
        yield place
    finally:
        place.stop_all()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: Process, seconds: float = 15.0) -> None:
    """Until something listens there; fails early, with the log, when the process ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not process.running():
            raise BenchError(f"{process.name} ended with {process.exit_code()} at its start\n{process.tail()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise BenchError(f"{process.name} does not listen on 127.0.0.1:{port} after {seconds:.0f} s\n{process.tail()}")


def raise_fd_limit() -> int:
    """Soft limit up to the hard one (inherited by children); the limit reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)} (Debian: apt-get install {' '.join(missing)})")
