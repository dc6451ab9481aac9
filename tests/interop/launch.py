"""Finds the Pythons, makes the virtual environments once, and starts the harness in the right one."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEWEST_MINOR = 16


def cache_dir() -> Path:
    """Where environments are kept: outside of the checkout, so that `git clean` does not cost minutes."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "latchkey"


def candidates() -> list[str]:
    """Every Python worth asking, the most likely first."""
    names = ["python3", *(f"python3.{minor}" for minor in range(NEWEST_MINOR, 10, -1))]
    found = [path for name in names if (path := shutil.which(name))]
    pyenv = Path.home() / ".pyenv" / "versions"
    return found + [str(path) for path in sorted(pyenv.glob("3.1*/bin/python3"), reverse=True)]


def find_python(minimum: tuple[int, int]) -> str | None:
    """The first Python of at least this version. A pyenv shim that answers nothing is passed over."""
    probe = f"import sys; sys.exit(sys.version_info < {minimum!r})"
    for python in [sys.executable, *candidates()]:
        try:
            done = subprocess.run([python, "-c", probe], capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return python
    return None


def environment(python: str, requirements: Path) -> Path:
    """The interpreter of a virtual environment that has these requirements; made on first use."""
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=True
    ).stdout
    digest = hashlib.sha256(requirements.read_bytes() + version.encode()).hexdigest()[:12]
    place = cache_dir() / f"interop-{digest}"
    ready = place / ".complete"
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        # Two runs at once (a developer's and CI's) must not install into the same folder.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            print(f"interop: making {place} from {requirements.name}", flush=True)
            shutil.rmtree(place, ignore_errors=True)
            subprocess.run([python, "-m", "venv", str(place)], check=True)
            pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
            subprocess.run([*pip, "-r", str(requirements)], check=True)
            ready.touch()
    return place / "bin" / "python"


def missing(reason: str) -> int:
    """Nothing can run: a skip for a developer, a failure in CI, where a silent gap would look like success."""
    print(f"interop: skipped: {reason}")
    print("interop: 0 passed, 0 failed, 1 skipped")
    return 1 if os.environ.get("CI") else 0


def main() -> int:
    """Prepare, then become the harness."""
    python = find_python((3, 13))
    if python is None:
        return missing("snitun 0.47.0 needs Python 3.13 or newer; none on PATH or under ~/.pyenv/versions")
    try:
        current = environment(python, HERE / "requirements-current.txt")
        old = environment(find_python((3, 11)) or python, HERE / "requirements-old.txt")
    except subprocess.CalledProcessError as error:
        return missing(f"the reference could not be installed: {error}")
    arguments = [str(current), "-m", "harness", "--old-python", str(old), *sys.argv[1:]]
    os.environ["PYTHONPATH"] = str(HERE)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    sys.exit(main())
