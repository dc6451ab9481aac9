"""Finds, or makes once, a Python that has the SniTun reference."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .procs import BenchError

VERSION = "0.47.0"
CHECK = f"import importlib.metadata as m, sys; sys.exit(m.version('snitun') != '{VERSION}')"


def has_snitun(python: Path) -> bool:
    try:
        return subprocess.run([python, "-c", CHECK], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def new_enough_pythons() -> list[Path]:
    """Python 3.13 or newer on PATH or under pyenv, newest first."""
    found = [Path(path) for name in ("python3.14", "python3.13", "python3") if (path := shutil.which(name))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += sorted(pyenv.glob("3.1[3-9]*/bin/python3"), reverse=True)
    newer = "import sys; sys.exit(sys.version_info < (3, 13))"
    return [path for path in found if subprocess.run([path, "-c", newer], capture_output=True, check=False).returncode == 0]


def snitun_python(given: Path | None) -> Path:
    """The interpreter named by --snitun-python, or a cached virtual environment of our own."""
    if given:
        if not has_snitun(given):
            raise BenchError(f"{given} has no snitun {VERSION}: {given} -m pip install snitun=={VERSION}")
        return given
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    venv = cache / "latchkey-load" / f"snitun-{VERSION}"
    python = venv / "bin" / "python"
    if has_snitun(python):
        return python
    bases = new_enough_pythons()
    if not bases:
        raise BenchError(f"snitun {VERSION} needs Python 3.13 or newer, found none on PATH or under pyenv")
    venv.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([bases[0], "-m", "venv", "--clear", venv], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"snitun=={VERSION}"], check=True)
    return python
