"""Counts what a stock peer sends and receives, without changing what it does.

Works with snitun 0.47.0 and 0.40.0 (which knows neither PAUSE nor RESUME).
"""

from __future__ import annotations

import socket
from dataclasses import asdict, dataclass, field
from typing import Any

from snitun.multiplexer import core
from snitun.multiplexer.channel import MultiplexerChannel

PAUSE = 0x16
RESUME = 0x32
# The kernel may grow a socket's buffers to tens of MiB, which would count as data that came after PAUSE.
SOCKET_BUFFER = 1024 * 1024


def bound_buffers(sock: Any) -> None:
    """Keep what a socket holds small, and so what is under way when PAUSE is sent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)


@dataclass
class FlowCounts:
    """PAUSE and RESUME as one stock process saw them, over all of its channels."""

    sent_pause: int = 0
    sent_resume: int = 0
    got_pause: int = 0
    got_resume: int = 0
    # The most DATA a channel still received between our PAUSE and our RESUME: a peer that obeys stops soon.
    most_after_pause: int = 0
    after_pause: dict[bytes, int] = field(default_factory=dict, repr=False)

    def reset(self) -> None:
        """Begin a new count."""
        self.__init__()  # type: ignore[misc]

    def as_dict(self) -> dict[str, int]:
        """For the harness."""
        counts = asdict(self)
        del counts["after_pause"]
        return counts


def install() -> FlowCounts:
    """Put the counters in; call before the first connection."""
    counts = FlowCounts()
    init = core.Multiplexer.__init__

    def bounded_init(self: core.Multiplexer, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        bound_buffers(self._writer.get_extra_info("socket"))

    core.Multiplexer.__init__ = bounded_init
    write_message = core.Multiplexer._write_message

    def counting_write(self: core.Multiplexer, message: Any) -> Any:
        flow = int(message.flow_type)
        if flow == PAUSE:
            counts.sent_pause += 1
            counts.after_pause[bytes(message.id.bytes)] = 0
        elif flow == RESUME:
            counts.sent_resume += 1
            counts.after_pause.pop(bytes(message.id.bytes), None)
        return write_message(self, message)

    core.Multiplexer._write_message = counting_write
    message_transport = MultiplexerChannel.message_transport

    def counting_transport(self: MultiplexerChannel, message: Any) -> None:
        key = bytes(self.id.bytes)
        if key in counts.after_pause:
            counts.after_pause[key] += len(message.data)
            counts.most_after_pause = max(counts.most_after_pause, counts.after_pause[key])
        message_transport(self, message)

    MultiplexerChannel.message_transport = counting_transport
    if hasattr(MultiplexerChannel, "on_remote_input_under_water"):
        under_water = MultiplexerChannel.on_remote_input_under_water

        def counting_under_water(self: MultiplexerChannel, low: bool) -> None:
            if low:
                counts.got_pause += 1
            else:
                counts.got_resume += 1
            under_water(self, low)

        MultiplexerChannel.on_remote_input_under_water = counting_under_water
    return counts
