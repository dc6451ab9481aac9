"""Chromium without a window, spoken to over two pipes (DevTools protocol): no port, no driver, nothing to install."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# Everything here is on loopback: no look-ups, no updates, no profile of anybody. The certificate is the instance's own, which
# a person accepts once; comparing fingerprints is what this test is about.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
    "--window-size=1000,700",
    "--remote-debugging-pipe",
]
TOO_MUCH = 64 * 1024 * 1024


class BrowserError(Exception):
    """The browser did not do what was asked."""


def chromium() -> str | None:
    """Where the browser is."""
    asked = os.environ.get("LATCHKEY_CHROMIUM")
    return asked or shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One browser with one page."""

    def __init__(self, program: str, limit: float = 60) -> None:
        self.profile = tempfile.TemporaryDirectory(prefix="latchkey-browser-", ignore_cleanup_errors=True)
        self.deadline = time.monotonic() + limit
        self.number = 0
        self.gathered = b""
        self.events: list[dict[str, Any]] = []
        theirs_in, self.out = os.pipe()
        self.incoming, theirs_out = os.pipe()
        self.process = self.start(program, theirs_in, theirs_out)
        os.close(theirs_in)
        os.close(theirs_out)
        self.session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.ask(f"{domain}.enable")

    def start(self, program: str, incoming: int, outgoing: int) -> subprocess.Popen[bytes]:
        """The protocol's pipes are descriptors 3 and 4 of the browser."""
        # Moved out of the way first: one of them may be 3 or 4 already.
        high = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (incoming, outgoing)]
        wired = f'exec "$@" 3<&{high[0]} 4>&{high[1]} {high[0]}<&- {high[1]}>&-'
        command = ["bash", "-c", wired, "bash", program, *FLAGS]
        command += [f"--user-data-dir={self.profile.name}", "about:blank"]
        log = open(Path(self.profile.name) / "log", "wb")  # noqa: SIM115
        try:
            return subprocess.Popen(
                command, pass_fds=high, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        finally:
            log.close()
            for each in high:
                os.close(each)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and what it has started."""
        with contextlib.suppress(OSError, BrowserError):
            os.write(self.out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        os.close(self.out)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            # The group that was made for it alone.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)
        os.close(self.incoming)
        self.profile.cleanup()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method and waits for its answer; events that come in between are kept."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            told = self.read()
            if told.get("id") != self.number:
                self.events.append(told)
            elif "error" in told:
                raise BrowserError(f"{method}: {told['error'].get('message')}")
            else:
                return told["result"]

    def event(self, method: str) -> dict[str, Any]:
        """Waits for an event, or takes one that came before."""
        while True:
            for place, told in enumerate(self.events):
                if told.get("method") == method:
                    return self.events.pop(place)["params"]
            self.events.append(self.read())

    def read(self) -> dict[str, Any]:
        """One message, which ends with a zero."""
        while b"\0" not in self.gathered:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.incoming], [], [], left)[0]:
                raise BrowserError("the browser took too long")
            part = os.read(self.incoming, 1 << 16)
            if not part or len(self.gathered) > TOO_MUCH:
                log = (Path(self.profile.name) / "log").read_text(encoding="utf-8", errors="replace")
                raise BrowserError(f"the browser has ended. Its last words:\n{log[-2000:]}")
            self.gathered += part
        message, _, self.gathered = self.gathered.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        """Goes there and waits until the page has loaded."""
        told = self.ask("Page.navigate", url=url)
        if told.get("errorText"):
            raise BrowserError(f"{url}: {told['errorText']}")
        self.event("Page.loadEventFired")

    def text(self) -> str:
        """What the page says."""
        return self.ask("Runtime.evaluate", expression="document.body.innerText")["result"]["value"]

    def certificate(self, origin: str) -> str:
        """SHA-256 of the certificate it was shown there, in lower-case hex."""
        chain = self.ask("Network.getCertificate", origin=origin)["tableNames"]
        if not chain:
            raise BrowserError(f"the browser has no certificate of {origin}")
        return hashlib.sha256(base64.b64decode(chain[0])).hexdigest()

    def screenshot(self, path: Path) -> None:
        """Writes what it shows as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
