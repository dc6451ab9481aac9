"""What a newcomer sees in the first minute, checked: see `run`."""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from browser import Browser, BrowserError, chromium

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "examples" / "first-minute"
INSTANCE = "default/hello"
WORDS = "It works"
LIMIT = 60


class Up:
    """`latchkey up` with a state folder of its own, on a free port."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.state = tempfile.TemporaryDirectory(prefix="latchkey-first-minute-")
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.place = f"{self.state.name}/state"
        command = [binary, "up", folder, "--state", self.place, "--listen", "127.0.0.1:0", "-o", "json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.gather, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=10)
        self.state.cleanup()

    def gather(self) -> None:
        """Lines as they come."""
        for line in self.process.stdout or []:
            self.lines.put(line)
        self.lines.put(None)

    def ready(self) -> dict[str, Any]:
        """The instance as it is told once it is connected and its certificate known."""
        deadline = time.monotonic() + LIMIT
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise SystemExit(f"{INSTANCE} was not ready in {LIMIT} s") from None
            if line is None:
                raise SystemExit("`latchkey up` has ended")
            told = json.loads(line)
            status = told.get("status", {})
            connected = status.get("tunnel", {}).get("connected")
            if told.get("instance") == INSTANCE and connected and status.get("certificate"):
                return status


def curl(url: str, *more: str) -> str:
    """The page as curl gets it. Our name is resolved here, so that no resolver takes part."""
    place = urlsplit(url)
    command = ["curl", "-sS", "--max-time", "10", "--resolve", f"{place.hostname}:{place.port}:127.0.0.1", *more, url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def shown_to(binary: Path, url: str, expected: str) -> str:
    """What `latchkey fingerprint` sees; it fails where that is not what is expected."""
    command = [binary, "fingerprint", url, "--expect", expected]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    found = re.search(r"SHA-256 fingerprint +([0-9A-F:]{95})", told)
    return found.group(1).replace(":", "").lower() if found else ""


def doctor(binary: Path, state: str) -> bool:
    """Everything around it is well, and the things only a running system shows were really looked at."""
    command = [binary, "doctor", EXAMPLE, "--state", state, "-o", "json"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    verdicts = {check["name"]: check["verdict"] for check in json.loads(told)["checks"]}
    looked_at = ("manifests", "session API", "API certificate", "API pin", "clock", "state folder")
    return all(verdicts.get(name) == "ok" for name in looked_at)


class Checks:
    """What was looked at."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, what: str, look: Callable[[], object]) -> None:
        """Anything but an exception or something false is fine."""
        try:
            right = bool(look())
            why = ""
        except (BrowserError, OSError, subprocess.SubprocessError) as error:
            right, why = False, f": {error} {getattr(error, 'stderr', None) or ''}"
        print(f"  {'ok  ' if right else 'FAIL'}  {what}{why}")
        self.passed += right
        self.failed += not right


def look_in_browser(checks: Checks, program: str, url: str, printed: str, screenshot: Path) -> None:
    """The page, and the certificate, as a browser has them."""
    try:
        with Browser(program) as browser:
            browser.open(url)
            checks.check("the browser shows the page", lambda: WORDS in browser.text())
            checks.check(
                "the browser saw the certificate that was printed", lambda: browser.certificate(url.rstrip("/")) == printed
            )
            browser.screenshot(screenshot)
            size = screenshot.stat().st_size
            checks.check(f"a screenshot of it: {screenshot} ({size} bytes)", lambda: size > 4000)
    except BrowserError as error:
        message = str(error)
        checks.check(f"the browser opens {url}: {message}", lambda: False)


def binary_of(asked: str | None) -> Path:
    """The one asked for, else the newest one built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    places = [Path(asked)] if asked else [target / profile / "latchkey" for profile in ("fast", "release", "debug")]
    found = [place for place in places if place.exists()]
    if not found:
        raise SystemExit("there is no `latchkey` to try: cargo build -p latchkey, or --binary FILE")
    return max(found, key=lambda path: path.stat().st_mtime).resolve()


def main() -> int:
    """The whole minute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary")
    parser.add_argument("--without-browser", action="store_true")
    parser.add_argument("--screenshot", type=Path)
    arguments = parser.parse_args()
    binary = binary_of(arguments.binary)
    logs = os.environ.get("LATCHKEY_TEST_LOGS") or tempfile.gettempdir()
    screenshot = arguments.screenshot or Path(logs) / "first-minute.png"

    checks, began = Checks(), time.monotonic()
    with Up(binary, EXAMPLE) as up:
        status = up.ready()
        url, printed = status["url"].rstrip("/") + "/", status["certificate"]["fingerprintSha256"]
        print(f"{url} after {time.monotonic() - began:.1f} s, fingerprint {printed}")
        checks.check("curl gets the page through proxy and tunnel", lambda: WORDS in curl(url, "--insecure"))
        checks.check("a visitor is shown the fingerprint that is printed", lambda: shown_to(binary, url, printed) == printed)
        checks.check("the doctor finds nothing that failed", lambda: doctor(binary, up.place))
        if not arguments.without_browser:
            program = chromium()
            if program is None:
                raise SystemExit("there is no chromium (Debian package `chromium`); --without-browser does without")
            look_in_browser(checks, program, url, printed, screenshot)
    print(f"first-minute: {checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
