"""The example of docs/pipeline.md, as it stands there: a tree, night after night, by a shim into a
registry, and from there to a client."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import clients
import oracles
import pytest
import trees
from places import REPOSITORY
from test_registry import registry

__all__ = ["registry"]
pytestmark = [pytest.mark.clients, pytest.mark.once]

EXAMPLE = REPOSITORY / "docs" / "examples" / "pipeline"
ELEMENTS = {
    "core/os-release": {"usr/lib/os-release": 'ID=example\nVERSION_ID="0"\n'},
    "core/linux": {"usr/lib/modules/6.1/vmlinuz": "k" * 5000},
    "apps/clock": {"usr/bin/clock": "c" * 3000, "usr/share/clock": "data"},
    "apps/ping": {"usr/bin/ping": "p" * 2000},
}
# When the elements are put together; each is named by the example, the first with a glob.
MADE_LATER = ["usr/lib/modules/6.1/initramfs.img", "usr/share/mime/mime.cache", "etc/ld.so.cache"]
DIRECTORIES = ("boot", "dev", "etc", "proc", "run", "sys", "sysroot", "tmp", "var")
CAPABILITY = trees.capability(0x2000)


class Site:
    """The directory that a build system hands over, and runs of the example in it."""

    def __init__(self, path: Path, address: str) -> None:
        self.path, self.address, self.nights = path, address, 0
        self.root = path / "root"
        for name in DIRECTORIES:
            (self.root / name).mkdir(parents=True)
        (self.root / "tmp").chmod(0o1777)
        (self.root / "ostree").symlink_to("sysroot/ostree")
        listed = ""
        for element, files in ELEMENTS.items():
            listed += f"  {element}.bst:\n"
            for name, text in files.items():
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                listed += f"\t{target.parent.relative_to(self.root)}\n\t{name}\n"
        for name in MADE_LATER:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(name * 100)
        owned = clients.run(EXAMPLE / "ownership", self.root, stdin=listed)
        (path / "ownership.tsv").write_text(owned)
        (path / "capabilities").write_text(f"{CAPABILITY.hex()} usr/bin/ping\n")
        clients.run(
            *(clients.need("cc"), "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"),
            *("-o", path / "fakecap.so", EXAMPLE / "fakecap.c", "-ldl"),
        )
        # `build-oci` of the script: this interpreter's, with the package that is tested
        command = path / "bin" / "build-oci"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m build_oci "$@"\n')
        command.chmod(0o755)

    def night(self) -> tuple[str, str]:
        """One run: the digest that was pushed, and what was said."""
        self.nights += 1
        done = subprocess.run(
            [
                EXAMPLE / "build",
                f"42.{self.nights}",
                f"docker://{self.address}/os:night{self.nights}",
                "--dest-tls-verify=false",
            ],
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "FAKECAP": str(self.path / "fakecap.so"),
                "PATH": f"{self.path}/bin:{os.environ['PATH']}",
            },
        )
        assert done.returncode == 0, done.stderr
        return (self.path / "digest").read_text().strip(), done.stderr

    def pulled(self, digest: str) -> Path:
        target = self.path / f"pulled-{self.nights}"
        clients.run(
            *(clients.need("skopeo"), "copy", "--preserve-digests", "--src-tls-verify=false"),
            *(f"docker://{self.address}/os@{digest}", f"oci:{target}"),
        )
        return target


@pytest.fixture
def site(tmp_path: Path, registry: str) -> Site:
    clients.need_root()  # the tree belongs to root in the image
    clients.need("skopeo")
    if not EXAMPLE.exists():
        pytest.skip("the examples of the checkout are not here")
    return Site(tmp_path, registry)


def differences(layout: Path, site: Site, release: bytes) -> list[str]:
    """Of what LAYOUT unpacks to, from the tree with what the shim says and the edited file."""
    model: oracles.Model = {}
    for tar in clients.layer_tars(layout):
        model = oracles.apply_layer(io.BytesIO(tar), model)
    expected = oracles.tree_model(site.root)
    expected[b"usr/bin/ping"].xattrs["security.capability"] = CAPABILITY
    edited = expected[b"usr/lib/os-release"]
    edited.size, edited.sha256 = len(release), hashlib.sha256(release).hexdigest()
    return oracles.compare(model, expected, ignore=["mtime"])


def layers(layout: Path) -> dict[str, str]:
    """Digest of each layer of LAYOUT, by its components; that of the late edits has none."""
    found = {}
    for layer in clients.manifest_of(layout)["layers"]:
        plan = json.loads(layer.get("annotations", {}).get("io.build-oci.components", "{}"))
        names = ", ".join(component[0] for component in plan.get("components", ()))
        found[names] = layer["digest"]
    return found


def test_a_night_and_the_next(site: Site) -> None:
    digest, _ = site.night()
    first = site.pulled(digest)
    assert clients.index_of(first)["manifests"][0]["digest"] == digest
    config = json.loads(clients.blob(first, clients.manifest_of(first)["config"]["digest"]))
    assert config["config"]["Labels"] == {
        "containers.bootc": "1",
        "org.opencontainers.image.version": "42.1",
    }
    assert differences(first, site, b'ID=example\nVERSION_ID="42.1"\n') == []
    said = clients.run(site.path / "bin" / "build-oci", "verify", "--bootc", first)
    assert "error" not in said

    # The next night an application has changed: its layer and the edited one are new.
    (site.root / "usr/bin/clock").write_text("C" * 3000)
    digest, said = site.night()
    second = site.pulled(digest)
    former, latter = layers(first), layers(second)
    assert list(former) == list(latter)
    assert len(former) == len(ELEMENTS) + 4  # initramfs, caches, the rest, late edits
    assert [name for name in former if former[name] != latter[name]] == ["apps/clock", ""]
    assert f"{len(former) - 2} layers of {len(former) - 1} reused" in said
    assert differences(second, site, b'ID=example\nVERSION_ID="42.2"\n') == []


def test_the_page_shows_the_script() -> None:
    if not EXAMPLE.exists():
        pytest.skip("the examples of the checkout are not here")
    script = (EXAMPLE / "build").read_text()
    page = (REPOSITORY / "docs" / "pipeline.md").read_text()
    assert f"```sh\n{script[script.index('set -euo') :]}```" in page


def test_the_later_element_owns(tmp_path: Path) -> None:
    """As BuildStream stages them; directories, and paths that the tree lacks, have no owner."""
    if not EXAMPLE.exists():
        pytest.skip("the examples of the checkout are not here")
    (tmp_path / "usr").mkdir()
    (tmp_path / "usr/file").write_text("")
    (tmp_path / "lib").symlink_to("usr")
    said = "  a.bst:\n\t/usr\n\t/usr/file\n\t/lib\n\t/gone\n  b/c.bst:\n\t/usr/file\n"
    assert clients.run(EXAMPLE / "ownership", tmp_path, stdin=said) == "usr/file\tb/c\nlib\ta\n"
