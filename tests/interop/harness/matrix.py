"""The rows of the matrix: who is client, who is server, which version each is told, which cipher."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Who(StrEnum):
    """Who plays one side of a tunnel."""

    STOCK = "stock 0.47.0"
    OLD = "stock 0.40.0"
    OURS = "latchkey"


CIPHERS = ("aes-cbc", "aes-gcm", "aes-gcm-siv")


@dataclass(frozen=True)
class Cell:
    """One row. `token_version` tells the server what the client understands; the client is told `told_version`."""

    client: Who
    server: Who
    token_version: int
    told_version: int
    cipher: str

    @property
    def version(self) -> str:
        """As the table shows it; 1/0 is a token that says 1 for a client that was told 0."""
        if self.token_version == self.told_version:
            return str(self.token_version)
        return f"{self.token_version}/{self.told_version}"

    @property
    def direction(self) -> str:
        """Client to server."""
        return f"{self.client} -> {self.server}"

    @property
    def name(self) -> str:
        """For --only, for logs and for failures."""
        return f"{self.direction} v{self.version} {self.cipher}"

    @property
    def carries_v6(self) -> bool:
        """Only version 2 on both sides carries an IPv6 visitor's address."""
        return min(self.token_version, self.told_version) >= 2

    @property
    def ours(self) -> bool:
        """Whether the row needs our binaries."""
        return Who.OURS in (self.client, self.server)


def pair(client: Who, server: Who, ciphers: tuple[str, ...] = CIPHERS) -> list[Cell]:
    """Three versions in each cipher, and the two one-way versions that occur in the field."""
    cells = [Cell(client, server, version, version, cipher) for version in (0, 1, 2) for cipher in ciphers]
    return cells + [Cell(client, server, 1, 0, "aes-cbc"), Cell(client, server, 0, 1, "aes-cbc")]


def reference() -> list[Cell]:
    """The harness against itself: both sides stock."""
    return [*pair(Who.STOCK, Who.STOCK), Cell(Who.OLD, Who.STOCK, 0, 0, "aes-cbc")]


def whole() -> list[Cell]:
    """Ours against stock both ways, and against itself."""
    return [
        *pair(Who.STOCK, Who.OURS),
        Cell(Who.OLD, Who.OURS, 0, 0, "aes-cbc"),
        *pair(Who.OURS, Who.STOCK),
        *pair(Who.OURS, Who.OURS)[:9],
    ]


def quick() -> list[Cell]:
    """Every direction, version and cipher at least once."""
    return [
        Cell(Who.STOCK, Who.OURS, 0, 0, "aes-cbc"),
        Cell(Who.STOCK, Who.OURS, 1, 1, "aes-gcm"),
        Cell(Who.STOCK, Who.OURS, 2, 2, "aes-gcm-siv"),
        Cell(Who.STOCK, Who.OURS, 1, 0, "aes-cbc"),
        Cell(Who.OLD, Who.OURS, 0, 0, "aes-cbc"),
        Cell(Who.OURS, Who.STOCK, 0, 0, "aes-cbc"),
        Cell(Who.OURS, Who.STOCK, 1, 1, "aes-gcm"),
        Cell(Who.OURS, Who.STOCK, 2, 2, "aes-gcm-siv"),
        Cell(Who.OURS, Who.OURS, 2, 2, "aes-gcm-siv"),
    ]


def long(cells: list[Cell]) -> list[Cell]:
    """The four rows that also carry 1 GiB each way and a websocket for a minute."""
    chosen = {("1", "aes-cbc"), ("2", "aes-gcm-siv")}
    both = {(Who.STOCK, Who.OURS), (Who.OURS, Who.STOCK), (Who.STOCK, Who.STOCK)}
    return [cell for cell in cells if (cell.version, cell.cipher) in chosen and (cell.client, cell.server) in both]
