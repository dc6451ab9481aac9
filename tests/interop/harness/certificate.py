"""The origin's self-signed certificate, made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The origin's and the visitors' TLS settings; visitors trust this one certificate and check the name."""
    key, certificate = folder / "origin.key", folder / "origin.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=interop.test"]
        + ["-addext", "subjectAltName=DNS:*.interop.test"],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    visitor = ssl.create_default_context(cafile=str(certificate))
    return server, visitor
