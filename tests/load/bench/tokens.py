"""SniTun tokens and session files made with nothing but the standard library and openssl.

The keys are made for one run on loopback and die with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import struct
import subprocess
import time
from typing import Any


def make_fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def fernet_encrypt(key: str, payload: bytes) -> str:
    """One Fernet token (AES-128-CBC, HMAC-SHA256)."""
    raw = base64.urlsafe_b64decode(key)
    iv = secrets.token_bytes(16)
    sealed = subprocess.run(
        ["openssl", "enc", "-aes-128-cbc", "-K", raw[16:].hex(), "-iv", iv.hex()],
        input=payload, capture_output=True, check=True,
    ).stdout  # fmt: skip
    signed = b"\x80" + struct.pack(">Q", int(time.time())) + iv + sealed
    return base64.urlsafe_b64encode(signed + hmac.digest(raw[:16], signed, hashlib.sha256)).decode()


def session(fernet_key: str, hostname: str, version: int, cipher: str, claims: dict[str, Any] | None = None) -> str:
    """The text of a session file, as a stock issuer hands one out."""
    aes_key, aes_iv = secrets.token_bytes(32).hex(), secrets.token_bytes(16).hex()
    token: dict[str, Any] = {
        "valid": time.time() + 86_400.0,
        "hostname": hostname,
        "aes_key": aes_key,
        "aes_iv": aes_iv,
        "protocol_version": version,
        "alias": [],
    }
    if cipher != "aes-cbc":
        token["cipher"] = cipher
    if claims:
        token["latchkey"] = claims
    return json.dumps({
        "token": fernet_encrypt(fernet_key, json.dumps(token).encode()),
        "aes_key": aes_key,
        "aes_iv": aes_iv,
        "protocol_version": version,
        "cipher": cipher,
    })
