"""The relays that are compared: each is the processes between a visitor and the origin."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import tokens
from .loads import page_comes
from .origin import HOSTNAME
from .procs import BenchError, Process, Workplace, free_port, wait_for_port
from .snitun_python import snitun_python


@dataclass
class Setup:
    """What peers need to know to start."""

    place: Workplace
    origin_port: int
    bin_dir: Path
    rathole: str = "rathole"
    snitun: Path | None = None
    proxy_args: list[str] = field(default_factory=list)
    agent_args: list[str] = field(default_factory=list)


# HAProxy writes no line a connection here, so neither do ours.
QUIET = {"RUST_LOG": "warn", "LATCHKEY_LOG": "warn"}


class Peer:
    """One relay; `port` is where visitors connect."""

    name = ""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.port = free_port()
        self.processes: list[Process] = []

    def start(self) -> None:
        """Start all processes and return when a page comes through."""
        self.launch()
        wait_for_port(self.port, self.processes[0])
        deadline = time.monotonic() + 15
        while not page_comes(self.port):
            for process in self.processes:
                if not process.running():
                    raise BenchError(f"{process.name} ended with {process.exit_code()}\n{process.tail()}")
            if time.monotonic() > deadline:
                logs = "\n".join(process.tail() for process in self.processes)
                raise BenchError(f"{self.name}: no page comes through after 15 s\n{logs}")
            time.sleep(0.1)

    def launch(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self.setup.place.stop_all(self.processes)
        self.processes = []

    def pids(self) -> list[int]:
        return [process.pid for process in self.processes]

    def run(self, name: str, *args: str | Path) -> Process:
        process = self.setup.place.start(name, args, QUIET)
        self.processes.append(process)
        return process


HAPROXY_COMMON = """\
global
  nbthread 1
  maxconn 200
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 1h
  timeout server 1h
"""

HAPROXY_SNI = """\
frontend visitors
  bind 127.0.0.1:{port} backlog 4096
  tcp-request inspect-delay 5s
  tcp-request content accept if {{ req.ssl_hello_type 1 }}
  tcp-request content reject if WAIT_END
  use_backend instance if {{ req.ssl_sni -i {hostname} }}
backend instance
  server instance 127.0.0.1:{target}
"""

HAPROXY_PLAIN = """\
listen second
  bind 127.0.0.1:{port} backlog 4096
  server instance 127.0.0.1:{target}
"""


class HaproxyOne(Peer):
    """One hop that routes by SNI: the cheapest a proxy alone can be expected to be."""

    name = "haproxy-1"

    def launch(self) -> None:
        self.hop(f"{self.name}-sni", HAPROXY_SNI, self.port, self.setup.origin_port)

    def hop(self, name: str, config: str, port: int, target: int) -> None:
        text = HAPROXY_COMMON + config.format(port=port, target=target, hostname=HOSTNAME)
        path = self.setup.place.write(f"{name}.cfg", text)
        self.run(name, "haproxy", "-db", "-f", path)


class HaproxyTwo(HaproxyOne):
    """Two hops in series, the first by SNI: what a proxy and an agent cost at the least."""

    name = "haproxy-2"

    def launch(self) -> None:
        middle = free_port()
        self.hop(f"{self.name}-sni", HAPROXY_SNI, self.port, middle)
        self.hop(f"{self.name}-plain", HAPROXY_PLAIN, middle, self.setup.origin_port)


class Rathole(Peer):
    """rathole with its TCP transport; it has no SNI, each instance is a port."""

    name = "rathole"

    def launch(self) -> None:
        control = free_port()
        place = self.setup.place
        service = f'[{{end}}.services.page]\ntype = "tcp"\ntoken = "bench"\n{{which}} = "127.0.0.1:{{port}}"\n'
        server = place.write(
            "rathole-server.toml",
            f'[server]\nbind_addr = "127.0.0.1:{control}"\n' + service.format(end="server", which="bind_addr", port=self.port),
        )
        client = place.write(
            "rathole-client.toml",
            f'[client]\nremote_addr = "127.0.0.1:{control}"\n'
            + service.format(end="client", which="local_addr", port=self.setup.origin_port),
        )
        found = shutil.which(self.setup.rathole)
        if not found:
            raise BenchError(f"{self.setup.rathole} not found: cargo install rathole@0.5.0, or --rathole PATH")
        listener = self.run("rathole-server", found, "--server", server)
        wait_for_port(control, listener)
        self.run("rathole-client", found, "--client", client)


class Snitun(Peer):
    """The Python reference: its one-process server and a client, protocol version 1, aes-cbc."""

    name = "snitun"

    def launch(self) -> None:
        place = self.setup.place
        python = snitun_python(self.setup.snitun)
        end = Path(__file__).with_name("snitun_end.py")
        key = tokens.make_fernet_key()
        keys = place.write("snitun-keys", key + "\n")
        session = place.write("snitun-session.json", tokens.session(key, HOSTNAME, 1, "aes-cbc"))
        server = self.run("snitun-server", python, end, "server", "--port", str(self.port), "--keys", keys)
        wait_for_port(self.port, server)
        self.run(
            "snitun-client", python, end, "client", "--server-port", str(self.port),
            "--session", session, "--target-port", str(self.setup.origin_port),
        )  # fmt: skip


class Latchkey(Peer):
    """Our proxy and agent, protocol version 2 and aes-gcm-siv unless told otherwise."""

    name = "latchkey"
    version = 2
    cipher = "aes-gcm-siv"

    def launch(self) -> None:
        place = self.setup.place
        key = tokens.make_fernet_key()
        self.keys = place.write("latchkey-keys", key + "\n")
        self.session = place.write("latchkey-session.json", tokens.session(key, HOSTNAME, self.version, self.cipher))
        proxy = self.start_proxy("latchkey-proxy")
        wait_for_port(self.port, proxy)
        self.start_agent("latchkey-agent")

    def start_proxy(self, name: str, *more: str | Path) -> Process:
        return self.run(
            name, self.setup.bin_dir / "latchkey-proxy", "--listen", f"127.0.0.1:{self.port}",
            "--fernet-keys", self.keys, *self.setup.proxy_args, *more,
        )  # fmt: skip

    def start_agent(self, name: str) -> Process:
        return self.run(
            name, self.setup.bin_dir / "latchkey-agent", "--server", f"127.0.0.1:{self.port}",
            "--session", self.session, "--mode", "passthrough", "--state", self.setup.place.path("agent-state"),
            "--target", f"127.0.0.1:{self.setup.origin_port}", *self.setup.agent_args,
        )  # fmt: skip


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (HaproxyOne, HaproxyTwo, Rathole, Snitun, Latchkey)}
