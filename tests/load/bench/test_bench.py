"""What of the bench can be wrong without anybody noticing: python3 -m unittest discover -s tests/load -t tests/load"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
import unittest

from . import tokens
from .cpu import process_cpu_ns, with_children
from .loads import Loads, Result
from .report import Record


def open_fernet(key: str, token: str) -> bytes:
    raw, sealed = base64.urlsafe_b64decode(key), base64.urlsafe_b64decode(token)
    signed, tag = sealed[:-32], sealed[-32:]
    assert hmac.compare_digest(hmac.digest(raw[:16], signed, hashlib.sha256), tag)
    return subprocess.run(
        ["openssl", "enc", "-d", "-aes-128-cbc", "-K", raw[16:].hex(), "-iv", signed[9:25].hex()],
        input=signed[25:], capture_output=True, check=True,
    ).stdout  # fmt: skip


class Tokens(unittest.TestCase):
    def test_session_file_and_token_agree(self) -> None:
        key = tokens.make_fernet_key()
        session = json.loads(tokens.session(key, "inst0.ui.test", 1, "aes-cbc"))
        token = json.loads(open_fernet(key, session["token"]))
        self.assertTrue(session["token"].startswith("gA"))
        self.assertNotIn("cipher", token)
        for member in ("aes_key", "aes_iv", "protocol_version"):
            self.assertEqual(token[member], session[member])


class Answers(unittest.TestCase):
    def test_the_weight_of_answers_tells_of_a_short_one(self) -> None:
        self.assertEqual(Loads._check_bytes(10, 1000, 100, 4), [])
        self.assertEqual(Loads._check_bytes(10, 1399, 100, 4), [])
        self.assertTrue(Loads._check_bytes(10, 999, 100, 4))
        self.assertTrue(Loads._check_bytes(10, 1401, 100, 4))
        self.assertTrue(Loads._check_bytes(0, 0, 100, 4))


class Cpu(unittest.TestCase):
    def test_a_busy_child_is_counted_with_its_parent(self) -> None:
        busy = [sys.executable, "-c", "while True: pass"]
        parent = subprocess.Popen([sys.executable, "-c", f"import subprocess; p = subprocess.Popen({busy!r}); p.wait()"])
        try:
            deadline = time.monotonic() + 10
            while len(pids := with_children([parent.pid])) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(len(pids), 2)
            while process_cpu_ns(pids[1]) < 200_000_000 and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertGreaterEqual(process_cpu_ns(pids[1]), 200_000_000)
        finally:
            for pid in with_children([parent.pid])[1:]:
                subprocess.run(["kill", "-9", str(pid)], check=True)
            parent.wait()


class Ratios(unittest.TestCase):
    def test_the_ratio_is_the_median_of_the_rounds_own_ratios(self) -> None:
        record = Record()
        for base, own in ((10, 20), (100, 110), (10, 30)):
            record.rounds.append({
                "haproxy-1": {"small": Result("small", 1, "/s", 1, 1, 1, cost=base)},
                "latchkey": {"small": Result("small", 1, "/s", 1, 1, 1, cost=own)},
            })
        ours = next(row for row in record.rows("small") if row.peer == "latchkey")
        self.assertEqual(ours.ratios, {"haproxy-1": 2.0})
        self.assertEqual((ours.cost, ours.cost_spread), (30, (20, 110)))
        self.assertEqual(record.bad(), [])


if __name__ == "__main__":
    unittest.main()
