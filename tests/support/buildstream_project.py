"""A BuildStream project that builds images, and workers of remote execution on this machine.

`make test-buildstream` installs BuildStream with the plugins; BUILD_OCI_BST is the path of its
`bst`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trees

EPOCH = "1700000000"
CAPABILITY = trees.capability(0x2000)  # of usr/bin/hi, by the shim
CONFIG = {
    "Env": ["A=$HOME `id` 'EOF' \"quoted\""],
    "Cmd": ["hi"],
    "StopTimeout": 3,
    "Tty": False,
    "Labels": {"containers.bootc": "1", "date": "2026-01-01"},
}
# Elements of the project, by name.
IMAGES = {
    "runtime": f"""
kind: oci_image
build-depends:
- base.bst
- filename: one.bst
  config: {{layer: runtime}}
config:
  compression-level: 4
  images:
  - os: linux
    architecture: amd64
    layer: runtime
    config: {json.dumps(CONFIG)}
""",
    "sdk": """
kind: oci_image
build-depends:
- base.bst
- filename: two.bst
  config: {layer: sdk}
- filename: runtime.bst
  config: {parent: runtime}
variables:
  compression: gzip
config:
  compression: "%{compression}"
  images:
  - os: linux
    architecture: amd64
    layer: sdk
    parent: {image: runtime}
""",
    "extras": """
kind: oci_image
build-depends:
- base.bst
- filename: three.bst
  config: {layer: extras}
config:
  images:
  - {os: linux, architecture: amd64, layer: extras}
""",
    # A layer an element, and one that puts them together.
    "composed": """
kind: oci_image
build-depends:
- base.bst
- filename: runtime.bst
  config: {part: runtime}
- filename: extras.bst
  config: {part: extras}
config:
  images:
  - os: linux
    architecture: amd64
    layers: [{image: runtime}, {image: extras}]
    config: {Labels: {version: "2"}}
""",
    # File capabilities, which no sandbox can set, by a shim.
    "capable": """
kind: oci_image
build-depends:
- base.bst
- fakecap.bst
- filename: one.bst
  config: {layer: capable}
environment:
  LD_PRELOAD: /usr/libexec/fakecap/fakecap.so
  FAKECAP_DB: /fakecap
  FAKECAP_ROOT: /oci/layers/capable
config:
  images:
  - {os: linux, architecture: amd64, layer: capable}
""",
    "divided": """
kind: oci_image
build-depends:
- base.bst
- filename: two.bst
  config: {layer: sdk}
config:
  images:
  - os: linux
    architecture: amd64
    layer: sdk
    split:
      components: [{paths: {commands: [usr/bin], extras: ["opt/**"]}}]
      max-layers: 4
      plan: layers.json
""",
    "changed": """
kind: oci_image
build-depends:
- base.bst
- filename: one.bst
  config: {layer: changed}
config:
  commands:
  - |
    cat() { while read -r line; do echo "$line"; done; }
    cat > /oci/layers/changed/greeting <<EOF
    $0 says hello
    EOF
  images:
  - {os: linux, architecture: amd64, layer: changed}
""",
}
SECONDS = 600  # for one run of bst
IMPORTED = "kind: import\nsources:\n- kind: local\n  path: files/{}\n"


def contents(layout: Path) -> dict[str, bytes]:
    """Every file of LAYOUT, by its path."""
    return {
        str(file.relative_to(layout)): file.read_bytes()
        for file in layout.rglob("*")
        if file.is_file()
    }


class Project:
    """A project with a cache of its own, and what it builds."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._scratch = scratch
        self._caches = 0

    def cache(self, **more: Any) -> Path:
        """A user's configuration with an empty cache."""
        self._caches += 1
        cache = self._scratch / f"cache-{self._caches}"
        config = cache.with_suffix(".conf")
        places = {
            "cachedir": f"{cache}",
            "sourcedir": f"{cache}/sources",
            "logdir": f"{cache}/logs",
        }
        config.write_text(json.dumps({**places, "scheduler": {"builders": 1}, **more}))
        return config

    def bst(self, config: Path, *arguments: str, check: bool = True) -> str:
        """What bst says, on both of its streams."""
        done = subprocess.run(
            [
                os.environ["BUILD_OCI_BST"],
                "-c",
                config,
                "--no-colors",
                "--no-interactive",
                *arguments,
            ],
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode == 0) == check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def key(self, config: Path, element: str, *options: str) -> str:
        said = self.bst(
            config,
            *options,
            "show",
            "--deps",
            "none",
            "--format",
            "key=%{full-key}",
            f"{element}.bst",
        )
        (found,) = re.findall(r"key=([0-9a-f]{64})", said)
        return str(found)

    def layout(self, config: Path, element: str, name: str) -> Path:
        """ELEMENT, built and checked out."""
        self.bst(config, "build", f"{element}.bst")
        target = self._scratch / name
        shutil.rmtree(target, ignore_errors=True)
        self.bst(config, "artifact", "checkout", "--directory", str(target), f"{element}.bst")
        return target


@contextlib.contextmanager
def worker(storage: Path, *arguments: str) -> Iterator[str]:
    """The URL of a server with storage, action cache and execution, on this machine alone."""
    bst = Path(os.environ["BUILD_OCI_BST"])
    (programs,) = bst.parents[1].glob("lib/python3*/site-packages/buildstream/subprojects/buildbox")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [
        programs / "buildbox-casd",
        f"--bind=127.0.0.1:{port}",
        f"--buildbox-run={programs / 'buildbox-run'}",
        *arguments,
        storage,
    ]
    log = storage.with_suffix(".log")
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        )
    try:
        for _ in range(1000):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=1),
            ):
                break
            assert server.poll() is None, log.read_text(errors="replace")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
