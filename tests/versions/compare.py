"""Holds our order of versions against awesomeversion's, over real names and generated ones.

Over names that Home Assistant was or could be released under, both agree about every pair. `LIBERTIES` are the rows of
the table above `ProductVersion` (libs/policy/src/version.rs): spellings that never were released, in which each side says
exactly what the table claims.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from awesomeversion import AwesomeVersion
from awesomeversion.exceptions import AwesomeVersionException

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

Pair = tuple[str, str]
NEITHER, REFUSED = "neither", "refused"


def theirs(pair: Pair) -> str:
    """-1, 0 or 1; or that they call the two unequal and neither newer; or that they refuse."""
    left, right = (AwesomeVersion(text) for text in pair)
    try:
        if left == right:
            return "0"
        if left < right:
            return "-1"
        return "1" if left > right else NEITHER
    except AwesomeVersionException:
        return REFUSED


def ours(binary: Path, pairs: list[Pair]) -> list[str]:
    """One process for all pairs."""
    lines = "".join(f"{left}\t{right}\n" for left, right in pairs)
    ended = subprocess.run(
        [binary, "version", "compare", "--stdin"], input=lines, capture_output=True, text=True, timeout=120, check=False
    )
    answers = ended.stdout.split()
    if len(answers) != len(pairs):
        sys.exit(f"{len(pairs)} pairs had {len(answers)} answers: {ended.stderr[-500:]}")
    return answers


@dataclass(frozen=True)
class Liberty:
    """A way in which we differ: pairs that show it, and what either side says of them. `R` is a year and a month."""

    name: str
    pairs: list[Pair]
    ours: str
    theirs: str

    def about(self, release: str) -> list[Pair]:
        """Its pairs, of a release."""
        year = release.split(".")[0]
        return [tuple(text.replace("R", release).replace("Y", year) for text in pair) for pair in self.pairs]


LIBERTIES = [
    Liberty("no number", [("R.0.dev", "R.0"), ("R.0b", "R.0"), ("R.0rc", "R.1")], "-1", REFUSED),
    Liberty("a dot before the number", [("R.0b.1", "R.0"), ("R.0.beta.1", "R.0rc1")], "-1", REFUSED),
    Liberty("post releases", [("R.0.post1", "R.0")], "1", "-1"),
    Liberty("two spellings of a stage", [("R.beta2", "R.b0")], "1", NEITHER),
    Liberty("two digits before the stage", [("R.10b0", "R.10"), ("R.12b3", "R.12")], "-1", NEITHER),
    Liberty("a stage behind one number", [("Yb1", "Y")], "-1", NEITHER),
    Liberty("a dev build of a beta", [("R.0b1.dev1", "R.0.dev1")], "1", NEITHER),
    Liberty("a dash", [("R.1-dev.2", "R.1dev2")], "0", "-1"),
    Liberty("one version in two spellings", [("R", "R.0"), ("R.0", "R.0+x1"), ("R", "R.0+x1")], "0", NEITHER),
]


def released() -> list[str]:
    """Names of real releases."""
    lines = (HERE / "releases.txt").read_text(encoding="utf-8").splitlines()
    return " ".join(line for line in lines if not line.startswith("#")).split()


def real_looking() -> list[str]:
    """How the releases would go on, and the nightly builds of all years, in both of their forms."""
    later = []
    for year, month in itertools.product(range(2020, 2028), range(1, 13)):
        base = f"{year}.{month}.0"
        later += [f"{base}.dev{year}{month:02}01", f"{base}.dev{year}{month:02}150213", f"{base}.dev0"]
        if (year, month) > (2025, 4) and year < 2027:
            later += [f"{base}b{number}" for number in (0, 1, 9, 10)]
            later += [f"{base}rc1", base, f"{year}.{month}.1", f"{year}.{month}.10"]
    return later


def generated(rng: random.Random, count: int) -> list[str]:
    """Versions by the rules that releases follow."""
    made: set[str] = set()
    while len(made) < count:
        release = f"{rng.randint(2020, 2027)}.{rng.randint(1, 12)}"
        stage = rng.choice(["", "", "b", "b", "rc", ".dev"])
        if stage == "":
            made.add(f"{release}.{rng.randint(0, 12)}")
        elif stage == ".dev":
            day = f"{rng.randint(2020, 2027)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
            made.add(f"{release}.0.dev" + rng.choice(["0", day, f"{day}{rng.randint(0, 23):02}{rng.randint(0, 59):02}"]))
        else:
            made.add(f"{release}.{rng.randint(0, 9)}{stage}{rng.randint(0, 24)}")
    return sorted(made)


def near_and_far(rng: random.Random, versions: list[str]) -> Iterator[Pair]:
    """Every pair of one month, where the fine differences are, and as many of any months."""
    month = lambda text: text.split(".")[:2]  # noqa: E731
    near = 0
    for _, group in itertools.groupby(sorted(versions, key=month), key=month):
        for pair in itertools.combinations(group, 2):
            near += 1
            yield pair if rng.random() < 0.5 else pair[::-1]
    for _ in range(near):
        yield rng.choice(versions), rng.choice(versions)


def check(name: str, binary: Path, pairs: list[Pair], expected: Pair | None = None) -> bool:
    """Both say the same of all pairs; or, where `expected` is given, exactly these two things."""
    began = time.monotonic()
    answers = ours(binary, pairs)
    took = time.monotonic() - began
    said = ((pair, we, theirs(pair)) for pair, we in zip(pairs, answers, strict=True))
    wrong = [each for each in said if (each[1:] != expected if expected else each[1] != each[2])]
    print(f"{name}: {len(pairs)} pairs (ours in {took:.1f} s), {len(wrong)} not as expected")
    for (left, right), we, they in wrong[:20]:
        print(f"  {left}  {right}: we say {we}, they say {they}")
    return not wrong


def binary_in(folder: str | None) -> Path:
    """The binary asked for, or the newest one built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    places = [Path(folder)] if folder else [target / name for name in ("release", "fast", "debug")]
    found = [place / "latchkey" for place in places if (place / "latchkey").exists()]
    if not found:
        sys.exit("no `latchkey` to compare with: cargo build -p latchkey, or --bin-dir DIR")
    return max(found, key=lambda path: path.stat().st_mtime)


def main() -> int:
    """The whole comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin-dir")
    parser.add_argument("--seed", type=int, default=20261121)
    arguments = parser.parse_args()
    binary, rng = binary_in(arguments.bin_dir), random.Random(arguments.seed)
    print(f"seed {arguments.seed}")

    real = released() + real_looking()
    every = list(itertools.combinations(real, 2))
    passed = [check(f"{len(real)} real and real-looking versions, every pair", binary, every)]
    passed.append(check("5000 generated versions", binary, list(near_and_far(rng, generated(rng, 5000)))))
    releases = [f"{year}.{month}" for year in range(2020, 2028) for month in range(1, 13)]
    for liberty in LIBERTIES:
        pairs = [pair for release in releases for pair in liberty.about(release)]
        said = (liberty.ours, liberty.theirs)
        name = f"{liberty.name}: we say {said[0]}, they say {said[1]}"
        passed.append(check(name, binary, pairs, said))
    print(f"versions: {sum(passed)} passed, {len(passed) - sum(passed)} failed")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
