"""From a build to a registry and back to another client, and into a running container."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import clients
import oracles
import pytest
from conftest import Build

pytestmark = [pytest.mark.clients, pytest.mark.once]

CONFIGURATION = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {storage}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
PROGRAM = """
#include <stdio.h>
int main(void)
{
    char line[80];
    FILE *f = fopen("/etc/motd", "r");
    return f && fgets(line, 80, f) ? (fputs(line, stdout), 0) : 1;
}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry of our own on the loopback interface."""
    program = clients.need("docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    configuration = folder / "config.yml"
    configuration.write_text(
        CONFIGURATION.format(storage=folder / "storage", port=address.split(":")[1])
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "serve", str(configuration)], stdout=log, stderr=log)
    try:
        for _ in range(1000):
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://{address}/v2/", timeout=10).close()
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        else:
            pytest.fail("the registry does not answer")
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("compression", ["zstd", "gzip"])  # buildah compresses what is not
def test_round_trip_of_a_multi_platform_image(
    compression: str, build: Build, tmp_path: Path, registry: str
) -> None:
    """buildah pushes every platform; what skopeo brings back has the same bytes, and buildah pulls
    it by platform.
    """
    clients.need_root()
    skopeo, store = clients.need("skopeo"), clients.buildah(tmp_path)
    trees = {}
    for architecture in ("amd64", "arm64"):
        trees[architecture] = tmp_path / architecture
        (trees[architecture] / "etc").mkdir(parents=True)
        (trees[architecture] / "etc" / "arch").write_text(architecture * 1000)
    images = [
        {
            "architecture": name,
            "os": "linux",
            "layer": str(tree),
            "index-annotations": {"org.opencontainers.image.ref.name": name},
        }
        for name, tree in trees.items()
    ]
    output = build({"compression": compression, "images": images}).output
    name = f"{registry}/test/{compression}:latest"
    clients.run(*store, "manifest", "create", "all")
    for architecture in trees:
        clients.run(*store, "manifest", "add", "all", f"oci:{output}:{architecture}")
    clients.run(
        *store, "manifest", "push", "--all", "--tls-verify=false", "all", f"docker://{name}"
    )
    clients.run(
        skopeo,
        "copy",
        "--all",
        "--src-tls-verify=false",
        f"docker://{name}",
        f"oci:{tmp_path / 'back'}",
    )
    ours = json.loads((output / "index.json").read_text())["manifests"]
    pushed = json.loads(
        clients.run(skopeo, "inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    )["manifests"]
    assert {(one["digest"], one["platform"]["architecture"]) for one in pushed} == {
        (one["digest"], one["platform"]["architecture"]) for one in ours
    }
    for one in ours:
        manifest = Path("blobs", *one["digest"].split(":"))
        assert (tmp_path / "back" / manifest).read_bytes() == (output / manifest).read_bytes()
        layer = Path(
            "blobs", *json.loads((output / manifest).read_text())["layers"][0]["digest"].split(":")
        )
        assert (tmp_path / "back" / layer).read_bytes() == (output / layer).read_bytes()
    for architecture, tree in trees.items():
        container = clients.run(
            *store, "from", "--tls-verify=false", "--arch", architecture, f"docker://{name}"
        ).strip()
        mounted = Path(clients.run(*store, "mount", container).strip())
        assert (
            oracles.compare(oracles.tree_model(mounted / "etc"), oracles.tree_model(tree / "etc"))
            == []
        )
        clients.run(*store, "rm", container)


def test_a_container_runs(build: Build, tmp_path: Path) -> None:
    """The program in the image runs, and reads the image's file."""
    clients.need_root()
    store, compiler = clients.buildah(tmp_path), clients.need("cc")
    root = tmp_path / "root"
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "run", "root"):
        (root / folder).mkdir(parents=True)
    (tmp_path / "show.c").write_text(PROGRAM)
    done = subprocess.run(
        [compiler, "-static", "-o", str(root / "bin" / "show"), str(tmp_path / "show.c")],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("cc cannot link statically here")
    (root / "etc" / "motd").write_text("it runs\n")
    output = build(
        {
            "images": [
                {
                    "architecture": _go_architecture(),
                    "os": "linux",
                    "layer": str(root),
                    "config": {"Cmd": ["/bin/show"]},
                }
            ]
        }
    ).output
    container = clients.run(*store, "from", f"oci:{output}").strip()
    try:
        assert (
            clients.run(*store, "run", "--isolation", "chroot", container, "--", "/bin/show")
            == "it runs\n"
        )
    finally:
        shutil.rmtree(tmp_path / "store", ignore_errors=True)


def _go_architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
