"""A visitor that reads its download one byte a second, straight from the socket."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time

from .origin import HOSTNAME


def visitor_context() -> ssl.SSLContext:
    """The origin's certificate is its own: the bench is about bytes, not about trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class SlowVisitor:
    """TLS over memory, so that the socket itself is read at the pace we choose.

    The receive buffer is small: what the visitor does not read has to wait in the relay, not in our kernel.
    """

    def __init__(self, port: int, path: str) -> None:
        self._incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = visitor_context().wrap_bio(self._incoming, outgoing, server_hostname=HOSTNAME)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
        self._socket.settimeout(30)
        self._socket.connect(("127.0.0.1", port))
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._socket.sendall(outgoing.read())
                self._take(16 << 10)
        self._tls.write(f"GET {path} HTTP/1.1\r\nHost: {HOSTNAME}\r\nConnection: close\r\n\r\n".encode())
        self._socket.sendall(outgoing.read())
        self.bytes_read = 0
        self.error = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._crawl, daemon=True)
        self._thread.start()

    def _take(self, most: int) -> int:
        data = self._socket.recv(most)
        if not data:
            raise ConnectionError("the relay closed the connection")
        self._incoming.write(data)
        return len(data)

    def _crawl(self) -> None:
        while not self._stop.wait(1):
            try:
                self.bytes_read += self._take(1)
            except OSError as err:
                self.error = str(err)
                return

    def finish(self, seconds: float = 60.0) -> tuple[int, str]:
        """Stop crawling, read the rest at full speed: length and SHA-256 of the body."""
        self._stop.set()
        self._thread.join()
        deadline = time.monotonic() + seconds
        head, length, digest = b"", 0, hashlib.sha256()
        while time.monotonic() < deadline:
            try:
                chunk = self._tls.read(256 << 10)
            except ssl.SSLWantReadError:
                try:
                    self._take(256 << 10)
                except OSError as err:
                    self.error = self.error or str(err)
                    break
                continue
            except ssl.SSLError:
                break
            if not chunk:
                break
            if not length:
                head += chunk
                _, found, chunk = head.partition(b"\r\n\r\n")
                if not found:
                    continue
            length += len(chunk)
            digest.update(chunk)
        return length, digest.hexdigest()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()
