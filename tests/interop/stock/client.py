"""A stock SniTun client as Home Assistant runs one: ClientPeer and the connector that dials an endpoint.

Runs under both reference versions. stdin's first line: {"tunnels": [{name, server_port, target_port, token,
aes_key, aes_iv, protocol_version, cipher}], "sabotage": null}.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import hooks
from control import emit, serve_commands, settings
from snitun.client import connector as connector_module
from snitun.client.client_peer import ClientPeer
from snitun.exceptions import SniTunConnectionError

OLD = not hasattr(connector_module, "EndpointConnector")
Endpoint: Any = connector_module.Connector if OLD else connector_module.EndpointConnector
RECONNECT_AFTER = 0.2


class WatchedConnector(Endpoint):  # type: ignore[misc]
    """Forwards to the instance, and tells the harness whose address every channel carries."""

    async def handler(self, multiplexer: Any, channel: Any) -> None:
        emit("visitor", address=str(channel.ip_address))
        await super().handler(multiplexer, channel)


async def keep_tunnel(tunnel: dict[str, Any]) -> None:
    """Connect, wait for the end, connect again. The reference leaves the reconnecting to its user."""
    key, iv = bytes.fromhex(tunnel["aes_key"]), bytes.fromhex(tunnel["aes_iv"])
    newer = {} if OLD else {"protocol_version": tunnel["protocol_version"], "cipher": tunnel["cipher"]}
    while True:
        peer = ClientPeer("127.0.0.1", tunnel["server_port"])
        connector = WatchedConnector("127.0.0.1", tunnel["target_port"])
        try:
            await peer.start(connector, tunnel["token"].encode(), key, iv, **newer)
        except (SniTunConnectionError, OSError) as error:
            emit("refused", name=tunnel["name"], error=str(error))
        else:
            emit("connected", name=tunnel["name"])
            waiting = peer.wait()
            try:
                await waiting
            except asyncio.CancelledError:
                # 0.40.0 hands out its own task, which it cancels when the tunnel ends.
                if not waiting.cancelled():
                    raise
            emit("disconnected", name=tunnel["name"])
        await asyncio.sleep(RECONNECT_AFTER)


async def main() -> None:
    """Keep all tunnels until the harness closes stdin."""
    wanted = settings()
    if wanted.get("sabotage"):
        import sabotage

        sabotage.install(wanted["sabotage"])
    counts = hooks.install()
    tasks = {}

    async def command(request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "reset":
            counts.reset()
        elif request["do"] == "tunnel":
            tunnel = request["tunnel"]
            tasks[tunnel["name"]] = asyncio.create_task(keep_tunnel(tunnel))
        return counts.as_dict()

    emit("ready")
    await serve_commands(command)
    sys.stdout.flush()
    # Open channels would only be torn down one by one; the harness has already judged them.
    os._exit(0)


logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
asyncio.run(main())
