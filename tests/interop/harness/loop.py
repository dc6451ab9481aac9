"""The event loop of the harness."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Selector(selectors.EpollSelector):
    """Tells the kernel of every registration.

    Python's own leaves the kernel alone when it believes that a descriptor is registered already. Under resets a
    transport is now and then collected as garbage (3.13.0) while the selector still lists its descriptor; the next socket
    gets the same number, and whoever waits for it waits for ever. Seen once in some hundred thousand connections.
    """

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.unregister(fileobj)
        return self.register(fileobj, events, data)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop that loses no descriptor."""
    return asyncio.SelectorEventLoop(_Selector())
