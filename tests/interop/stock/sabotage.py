"""Ways to break the reference on purpose, one for every check of the harness to notice. Only `--prove` uses these."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from snitun.exceptions import MultiplexerTransportError
from snitun.multiplexer import channel as channels
from snitun.multiplexer import core
from snitun.multiplexer.channel import MultiplexerChannel
from snitun.multiplexer.core import Multiplexer
from snitun.server.peer_manager import PeerManager


def lose_visitors() -> None:
    """Every fortieth visitor is dropped."""
    create, count = Multiplexer.create_channel, itertools.count(1)

    async def losing(self: Multiplexer, *args: Any) -> MultiplexerChannel:
        if next(count) % 40 == 0:
            raise MultiplexerTransportError
        return await create(self, *args)

    Multiplexer.create_channel = losing  # type: ignore[method-assign]


def lose_data() -> None:
    """Every twentieth large DATA frame is dropped."""
    transport, count = MultiplexerChannel.message_transport, itertools.count(1)

    def losing(self: MultiplexerChannel, message: Any) -> None:
        if len(message.data) < 4000 or next(count) % 20:
            transport(self, message)

    MultiplexerChannel.message_transport = losing  # type: ignore[method-assign]


def wrong_address() -> None:
    """Everybody seems to come from one address."""
    core.bytes_to_ip_address = lambda _: ip_address("10.9.8.7")  # type: ignore[assignment]


def ignore_pause() -> None:
    """PAUSE has no effect."""
    MultiplexerChannel.on_remote_input_under_water = lambda self, low: None  # type: ignore[method-assign]


def never_pause() -> None:
    """PAUSE is never sent."""
    MultiplexerChannel._on_local_input_under_water = lambda self, low: None  # type: ignore[method-assign]


def pause_always() -> None:
    """PAUSE is sent to peers that do not know it."""
    channels.MIN_PROTOCOL_VERSION_FOR_PAUSE_RESUME = 0


def stall() -> None:
    """A full channel keeps the tunnel from being read."""
    read = Multiplexer._read_message

    async def stalling(self: Multiplexer) -> None:
        await read(self)
        while any(channel._input._under_water for channel in self._channels.values()):
            await asyncio.sleep(0.01)

    Multiplexer._read_message = stalling  # type: ignore[method-assign]


def cut_when_full() -> None:
    """A slow reader loses its channel in spite of PAUSE."""
    channels.INCOMING_QUEUE_MAX_BYTES_CHANNEL = 2 * 1024 * 1024


def forget_close() -> None:
    """The other side never learns that a channel ended."""

    def silent(self: Multiplexer, channel: MultiplexerChannel) -> None:
        self._delete_channel_and_queue(channel.id)

    Multiplexer.delete_channel = silent  # type: ignore[method-assign]


def cut_all() -> None:
    """The end of a large transfer ends the tunnel, as an unhandled reset would."""
    delete, carried = Multiplexer.delete_channel, {}
    transport = MultiplexerChannel.message_transport

    def counting(self: MultiplexerChannel, message: Any) -> None:
        carried[self.id] = carried.get(self.id, 0) + len(message.data)
        transport(self, message)

    def cutting(self: Multiplexer, channel: MultiplexerChannel) -> None:
        delete(self, channel)
        if carried.get(channel.id, 0) > 200_000:
            self.shutdown()

    MultiplexerChannel.message_transport = counting  # type: ignore[method-assign]
    Multiplexer.delete_channel = cutting  # type: ignore[method-assign]


def never_return() -> None:
    """A client whose tunnel was lost does not come back."""
    asyncio_sleep = asyncio.sleep

    async def forever(seconds: float) -> None:
        await asyncio_sleep(3600 if seconds == 0.2 else seconds)

    asyncio.sleep = forever  # type: ignore[assignment]


def keep_first() -> None:
    """A second tunnel does not take over."""
    add = PeerManager.add_peer

    def refusing(self: PeerManager, peer: Any) -> None:
        if not self.peer_available(peer.hostname):
            add(self, peer)

    PeerManager.add_peer = refusing  # type: ignore[method-assign]


def leave_open() -> None:
    """A second tunnel takes over, and the first is not closed."""

    def leaving(self: PeerManager, peer: Any) -> None:
        self._peers[peer.hostname] = peer

    PeerManager.add_peer = leaving  # type: ignore[method-assign]


ALL: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        lose_visitors, lose_data, wrong_address, ignore_pause, never_pause, pause_always, stall,
        cut_when_full, forget_close, cut_all, never_return, keep_first, leave_open,
    )
}  # fmt: skip


def install(name: str) -> None:
    """Break it this way."""
    ALL[name]()
