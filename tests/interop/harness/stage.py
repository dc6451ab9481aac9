"""Everything one cell needs: the server, the instances, and tunnels between them."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet

from .matrix import Cell, Who
from .origin import Origin
from .processes import Child, ProcessError, StockChild, free_port, private_file
from .relay import Relay
from .visitor import Site, VisitorError, small

MAIN = "main.interop.test"


@dataclass(frozen=True)
class Tools:
    """What the harness found on this machine."""

    python: str
    old_python: str
    bin_dir: Path | None
    server_tls: ssl.SSLContext
    visitor_tls: ssl.SSLContext
    sabotage: str | None = None


class Stage:
    """One server, one main tunnel, and further tunnels as checks ask for them."""

    def __init__(self, cell: Cell, tools: Tools, logs: Path) -> None:
        self.cell = cell
        self.tools = tools
        self.logs = logs
        self.port = free_port()
        self.first = Origin("first", tools.server_tls)
        self.second = Origin("second", tools.server_tls)
        self.flow: dict[str, int] = {}
        self._fernet_key = Fernet.generate_key()
        self._secrets: dict[str, tuple[str, str]] = {}
        self._server: Child | None = None
        self._clients: StockChild | None = None
        self._agents: list[Child] = []
        self._relays: list[Relay] = []

    @property
    def stock(self) -> StockChild | None:
        """The side whose frames are counted: the stock one, the client where both are."""
        return self._clients or (self._server if isinstance(self._server, StockChild) else None)

    @property
    def clients(self) -> StockChild | None:
        """The stock clients' process, unless the client is ours."""
        return self._clients

    def site(self, hostname: str = MAIN) -> Site:
        """Where visitors of a tunnel go."""
        return Site(hostname, self.port, self.tools.visitor_tls)

    async def start(self) -> None:
        """Server, instances, and the main tunnel with a visitor through it."""
        await self.first.start()
        await self.second.start()
        await self._start_server()
        if self.cell.client is not Who.OURS:
            python = self.tools.python if self.cell.client is Who.STOCK else self.tools.old_python
            self._clients = StockChild(self.logs / "stock-client.log", python, "client.py")
            await self._clients.start({"sabotage": self.tools.sabotage})
        await self.open_tunnel(MAIN, self.first)
        await self.until_served(MAIN)

    async def stop(self) -> None:
        """End all of it."""
        for relay in self._relays:
            await relay.stop()
        children = [child for child in (self._clients, *self._agents, self._server) if child]
        await asyncio.gather(*(child.stop() for child in children))
        await self.first.stop()
        await self.second.stop()

    async def _start_server(self) -> None:
        if self.cell.server is Who.OURS:
            key_file = private_file(self.logs / "fernet-keys", self._fernet_key.decode() + "\n")
            self._server = Child(self.logs / "latchkey-proxy.log")
            await self._server.spawn(
                self._binary("latchkey-proxy"), "--listen", f"[::]:{self.port}", "--fernet-keys", str(key_file)
            )
            await self._until_listening()
            return
        server = StockChild(self.logs / "stock-server.log", self.tools.python, "server.py")
        self._server = server
        keys = [self._fernet_key.decode()]
        hosts = ["127.0.0.1", "::1"]
        await server.start({"port": self.port, "hosts": hosts, "fernet_keys": keys, "sabotage": self.tools.sabotage})

    async def _until_listening(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            assert self._server is not None
            self._server.check_alive()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                if time.monotonic() > deadline:
                    raise ProcessError(f"nothing listens on the proxy's port: {self._server.tail(3)}") from None
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    def _binary(self, name: str) -> str:
        assert self.tools.bin_dir is not None
        return str(self.tools.bin_dir / name)

    def _session(self, hostname: str) -> dict[str, Any]:
        """A token as an issuer would hand it out. The same hostname gets the same key, as after a reconnect."""
        key, iv = self._secrets.setdefault(hostname, (os.urandom(32).hex(), os.urandom(16).hex()))
        token: dict[str, Any] = {"valid": time.time() + 3600, "hostname": hostname, "aes_key": key, "aes_iv": iv}
        # Absent means 0 and aes-cbc: that is what old issuers wrote.
        if self.cell.token_version:
            token["protocol_version"] = self.cell.token_version
        if self.cell.cipher != "aes-cbc":
            token["cipher"] = self.cell.cipher
        sealed = Fernet(self._fernet_key).encrypt(json.dumps(token).encode()).decode()
        return {
            "token": sealed,
            "aes_key": key,
            "aes_iv": iv,
            "protocol_version": self.cell.told_version,
            "cipher": self.cell.cipher,
        }

    async def open_tunnel(
        self, hostname: str, origin: Origin, *, relay: Relay | None = None, send_proxy: bool = True
    ) -> None:
        """Start a client for this hostname; it connects in its own time."""
        session = self._session(hostname)
        server_port = relay.port if relay else self.port
        if self._clients:
            name = f"{hostname} {origin.name}"
            tunnel = {"name": name, "server_port": server_port, "target_port": origin.port, **session}
            await self._clients.command("tunnel", tunnel=tunnel)
            return
        label = f"latchkey-agent-{hostname.split('.', maxsplit=1)[0]}-{origin.name}"
        state = self.logs / f"{label}.state"
        state.mkdir(mode=0o700, exist_ok=True)
        file = private_file(self.logs / f"{label}.session.json", json.dumps(session))
        agent = Child(self.logs / f"{label}.log")
        self._agents.append(agent)
        target = origin.proxied_port if send_proxy else origin.port
        command = ["--server", f"127.0.0.1:{server_port}", "--session", str(file), "--mode", "passthrough"]
        command += ["--target", f"127.0.0.1:{target}", "--state", str(state)]
        await agent.spawn(self._binary("latchkey-agent"), *command, *(["--send-proxy", "v2"] if send_proxy else []))

    async def relay(self) -> Relay:
        """A relay in front of the server."""
        relay = Relay(self.port)
        await relay.start()
        self._relays.append(relay)
        return relay

    async def until_served(self, hostname: str, by: Origin | None = None, limit: float = 10.0) -> float:
        """Wait until a visitor gets an answer (from this instance); how long that took."""
        begun = time.monotonic()
        last: object = None
        while time.monotonic() < begun + limit:
            for child in self.children():
                child.check_alive()
            try:
                answer = await asyncio.wait_for(small(self.site(hostname), "served"), 3)
                if by is None or answer["origin"] == by.name:
                    return time.monotonic() - begun
                last = f"still answered by the {answer['origin']} instance"
            except (OSError, TimeoutError, EOFError, VisitorError, ssl.SSLError) as error:
                last = f"{type(error).__name__}: {error}"
            await asyncio.sleep(0.05)
        raise ProcessError(f"no visitor of {hostname} was served within {limit:.0f} s: {last}")

    def children(self) -> list[Child]:
        """All processes of the cell."""
        return [child for child in (self._server, self._clients, *self._agents) if child]
