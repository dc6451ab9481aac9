"""The event loop of the harness."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class _Selector(selectors.EpollSelector):
    """Tells the kernel of every registration.

    Python's own leaves the kernel alone when it believes that a descriptor is registered already. Seen about once in
    some hundred thousand connections that come and go under resets: a connected socket that Python believed registered,
    for writing, while the kernel knew nothing of it. Whoever waited for it waited for ever.
    """

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.unregister(fileobj)
        return self.register(fileobj, events, data)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop that loses no descriptor."""
    return asyncio.SelectorEventLoop(_Selector())
