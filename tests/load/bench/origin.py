"""The one origin every peer forwards to: nginx, TLS with an own EC certificate, HTTP/1.1."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .procs import Process, Workplace, free_port, need, wait_for_port

HOSTNAME = "inst0.ui.test"
SMALL_BODY = ("A small page, as a status endpoint of an instance would give it. " * 4)[:200]

CONFIG = """\
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile {fds};
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  default_type application/octet-stream;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  ssl_certificate {folder}/origin.crt;
  ssl_certificate_key {folder}/origin.key;
  ssl_protocols TLSv1.2 TLSv1.3;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    server_name {hostname};
    root {folder}/files;
    location = /small {{ default_type text/plain; return 200 "{small}"; }}
  }}
}}
"""


def make_certificate(folder: Path, hostname: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", folder / "origin.key", "-out", folder / "origin.crt", "-days", "2",
         "-subj", f"/CN={hostname}", "-addext", f"subjectAltName=DNS:{hostname},DNS:*.ui.test"],
        check=True, capture_output=True,
    )  # fmt: skip


def make_file(path: Path, mib: int) -> None:
    """Real bytes, not a hole; nothing on the way compresses."""
    block = os.urandom(1 << 20)
    with path.open("wb") as out:
        for _ in range(mib):
            out.write(block)


class Origin:
    """nginx with `/small` (200 bytes), `/mib` (1 MiB) and `/big` (`big_mib` MiB)."""

    def __init__(self, place: Workplace, big_mib: int) -> None:
        need("nginx", "openssl")
        self.port = free_port()
        self.big_bytes = big_mib << 20
        folder = place.folder
        files = folder / "files"
        files.mkdir()
        make_certificate(folder, HOSTNAME)
        make_file(files / "mib", 1)
        make_file(files / "big", big_mib)
        config = CONFIG.format(
            user="user root;" if os.geteuid() == 0 else "",
            fds=16384, folder=folder, port=self.port, hostname=HOSTNAME, small=SMALL_BODY,
        )  # fmt: skip
        path = place.write("nginx.conf", config)
        self.process: Process = place.start("nginx", ["nginx", "-p", folder, "-e", folder / "nginx-error.log", "-c", path])
        wait_for_port(self.port, self.process)
