"""contract: compare-reports. The bytes to download are those that a registry serves to a client
that has the old image.
"""

from __future__ import annotations

import http.client
import http.server
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import clients
import pytest
from stacks import Member, image
from test_registry import registry

from build_oci.compare.report import compare_layouts

__all__ = ["registry"]
pytestmark = [pytest.mark.clients, pytest.mark.once]


class Counter(http.server.BaseHTTPRequestHandler):
    """Passes requests on to a registry, and counts the bytes of the bodies that come back."""

    protocol_version = "HTTP/1.1"
    registry = ""
    served = 0

    def do_GET(self) -> None:
        connection = http.client.HTTPConnection(self.registry)
        connection.request(self.command, self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (
                "transfer-encoding",
                "connection",
                "date",
                "server",
                "content-length",
            ):
                self.send_header(name, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if "/v2/test/" in self.path and answer.status == 200:
            type(self).served += len(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def counted(address: str) -> Iterator[str]:
    Counter.registry, Counter.served = address, 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counter)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_bytes_are_those_of_a_registry(registry: str, tmp_path: Path) -> None:
    skopeo = clients.need("skopeo")
    base, former, latter = (
        [Member(name, content=os.urandom(size))]
        for name, size in (("base", 50_000), ("a", 30_000), ("a", 31_000))
    )
    layouts = {
        "old": image(tmp_path / "old", [base, former]),
        "new": image(tmp_path / "new", [base, latter]),
    }
    copy = [skopeo, "--insecure-policy", "copy", "-q"]
    for name, layout in layouts.items():
        clients.run(
            *copy,
            "--preserve-digests",
            "--dest-tls-verify=false",
            f"oci:{layout}",
            f"docker://{registry}/test/compare:{name}",
        )
    with counted(registry) as address:
        for name in layouts:
            Counter.served = 0
            source = f"docker://{address}/test/compare:{name}"
            clients.run(
                *copy,
                "--preserve-digests",
                "--src-tls-verify=false",
                source,
                f"oci:{tmp_path / 'client'}:{name}",
            )
    assert (
        Counter.served
        == compare_layouts(str(layouts["old"]), str(layouts["new"]), workers=1).download
    )
