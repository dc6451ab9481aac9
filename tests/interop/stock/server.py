"""A stock SniTun server, visitors and tunnels on one port as we do it. stdin: {"port", "fernet_keys", "sabotage"}."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import hooks
from control import emit, serve_commands, settings
from snitun.server.peer import Peer
from snitun.server.peer_manager import PeerManager
from snitun.server.run import SniTunServerSingle


def report_peers() -> None:
    """Tell the harness when a tunnel comes up."""
    add_peer = PeerManager.add_peer

    def reporting_add(self: PeerManager, peer: Peer) -> None:
        add_peer(self, peer)
        emit("connected", name=peer.hostname)

    PeerManager.add_peer = reporting_add  # type: ignore[method-assign]


async def main() -> None:
    """Serve until the harness closes stdin."""
    wanted = settings()
    if wanted.get("sabotage"):
        import sabotage

        sabotage.install(wanted["sabotage"])
    counts = hooks.install()
    report_peers()
    server = SniTunServerSingle(wanted["fernet_keys"], host=wanted["hosts"], port=wanted["port"])
    await server.start()
    assert server._server is not None
    for listener in server._server.sockets:
        hooks.bound_buffers(listener)

    async def command(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "reset":
            counts.reset()
        return counts.as_dict()

    emit("ready")
    await serve_commands(command)
    sys.stdout.flush()
    os._exit(0)


logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
asyncio.run(main())
