"""One end of the Python reference, run by an interpreter that has the `snitun` package.

    snitun_end.py server --port P --keys FILE
    snitun_end.py client --server-port P --session FILE --target-port P [--reconnect]
"""

import argparse
import asyncio
import json
import random
from pathlib import Path

from snitun.client.client_peer import ClientPeer
from snitun.client.connector import EndpointConnector
from snitun.exceptions import SniTunError
from snitun.server.run import SniTunServerSingle


async def serve(port: int, keys: list[str]) -> None:
    server = SniTunServerSingle(keys, host="127.0.0.1", port=port)
    await server.start()
    await asyncio.Event().wait()


async def keep_tunnel(server_port: int, session: dict, target_port: int, reconnect: bool) -> None:
    """With `reconnect`, as Home Assistant does it: 1-15 s of waiting, no backoff."""
    connector = EndpointConnector("127.0.0.1", target_port)
    while True:
        peer = ClientPeer("127.0.0.1", server_port)
        try:
            await peer.start(
                connector,
                session["token"].encode(),
                bytes.fromhex(session["aes_key"]),
                bytes.fromhex(session["aes_iv"]),
                protocol_version=session["protocol_version"],
                cipher=session["cipher"],
            )
            print("tunnel up", flush=True)
            await peer.wait()
        except (SniTunError, OSError) as err:
            print("no tunnel:", err, flush=True)
        print("tunnel down", flush=True)
        if not reconnect:
            return
        await asyncio.sleep(random.uniform(1, 15))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("end", choices=["server", "client"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--server-port", type=int)
    parser.add_argument("--session", type=Path)
    parser.add_argument("--target-port", type=int)
    parser.add_argument("--reconnect", action="store_true")
    args = parser.parse_args()
    if args.end == "server":
        asyncio.run(serve(args.port, args.keys.read_text().split()))
    else:
        session = json.loads(args.session.read_text())
        asyncio.run(keep_tunnel(args.server_port, session, args.target_port, args.reconnect))


main()
