"""contract: compare-reports. Images of five builders, in any pairing: what the trees differ in is
named, and nothing else.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import clients
import pytest
import zstandard
from comparisons import compared, document
from conftest import Build
from stacks import Member, packed, told

from build_oci.compare.document import report_document
from build_oci.compare.report import compare_layouts

EPOCH = 1_700_000_000
CHANGES = {
    "etc/changed": ["changed", "content"],
    "etc/mode": ["changed", "mode"],
    "etc/new": ["added"],
    "etc/gone": ["removed"],
    "usr/link": ["changed", "link target"],
}

Maker = Callable[[Path, Path], str]


def tree(root: Path, *, updated: bool) -> Path:
    """A small root, before or after an update."""
    (root / "etc").mkdir(parents=True)
    (root / "usr").mkdir()
    contents = {"etc/same": "same", "etc/changed": "new" if updated else "old", "etc/mode": "mode"}
    contents["etc/new" if updated else "etc/gone"] = "x"
    for name, content in contents.items():
        (root / name).write_text(content * 1000)
        (root / name).chmod(0o644)
    (root / "etc/mode").chmod(0o755 if updated else 0o644)
    os.setxattr(root / "etc/same", "user.component", b"same")  # without any, chunkah builds nothing
    os.link(root / "etc/same", root / "usr/hard")
    (root / "usr/link").symlink_to("hard" if updated else "../etc/same")
    for path in [*root.rglob("*"), root]:
        os.utime(path, (EPOCH - 1000, EPOCH - 1000), follow_symlinks=False)
    return root


def buildah(root: Path, output: Path) -> str:
    program = (
        clients.need("buildah"),
        f"--root={output}-storage",
        f"--runroot={output}-run",
        "--storage-driver=vfs",
    )
    env = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(output.parent)}
    container = clients.run(*program, "from", "scratch", env=env).strip()
    try:
        clients.run(*program, "copy", container, f"{root}/.", "/", env=env)
        clients.run(*program, "commit", container, f"oci:{output}:latest", env=env)
    finally:
        clients.run(*program, "rm", container, env=env)
    return str(output)


def umoci(root: Path, output: Path) -> str:
    program, bundle = clients.need("umoci"), Path(f"{output}-bundle")
    clients.run(program, "init", "--layout", output)
    clients.run(program, "new", "--image", f"{output}:latest")
    clients.run(program, "unpack", "--image", f"{output}:latest", bundle)
    clients.run("cp", "-a", f"{root}/.", bundle / "rootfs")
    clients.run(program, "repack", "--image", f"{output}:latest", bundle)
    return f"{output}:latest"


def chunkah(root: Path, output: Path) -> str:
    clients.run(
        clients.need("chunkah"),
        "build",
        f"--rootfs={root}",
        "--config-str={}",
        f"--output=oci:{output}",
        env={"SOURCE_DATE_EPOCH": str(EPOCH)},
    )
    return str(output)


@pytest.fixture
def makers(build: Build) -> dict[str, Maker]:
    def ours(root: Path, output: Path) -> str:
        return str(build(clients.layer_config(root, compression="zstd")).output)

    def ours_split(root: Path, output: Path) -> str:
        split = {
            "max-layers": 3,
            "components": [{"paths": {"usr": ["usr"]}}],
            "unclaimed": "ignore",
        }
        config = clients.layer_config(root, compression="gzip")
        config["images"][0]["split"] = split
        return str(build(config).output)

    def skopeo(root: Path, output: Path) -> str:
        plain = ours(root, output)
        clients.run(
            clients.need("skopeo"),
            "--insecure-policy",
            "copy",
            "--dest-compress-format=gzip",
            "--dest-compress",
            f"oci:{plain}:latest",
            f"oci-archive:{output}:latest",
            env={"TMPDIR": str(output.parent)},  # not one that all tests of the machine share
        )
        return str(output)

    return {
        "ours": ours,
        "ours, split": ours_split,
        "skopeo": skopeo,
        "buildah": buildah,
        "umoci": umoci,
        "chunkah": chunkah,
    }


@pytest.mark.clients
def test_any_pairing(makers: dict[str, Maker], tmp_path: Path) -> None:
    clients.need_root()
    before, after = (
        tree(tmp_path / "before", updated=False),
        tree(tmp_path / "after", updated=True),
    )
    made = {}
    for name, make in makers.items():
        program = name.partition(",")[0]
        if program == "ours" or shutil.which(program):
            made[name] = (
                make(before, tmp_path / f"{program}-1"),
                make(after, tmp_path / f"{program}-2"),
            )
    for (first, (old, _)), (second, (again, new)) in product(made.items(), repeat=2):
        assert told_of(old, again) == {}, (first, second)
        assert told_of(old, new) == CHANGES, (first, second)
    if left := sorted(makers.keys() - made.keys()):
        pytest.skip(f"not installed: {', '.join(left)}; the others passed")


def told_of(old: str, new: str) -> dict[str, list[str]]:
    (found,) = report_document(compare_layouts(old, new, workers=2, deep=True))["images"]
    return told(found)


@pytest.mark.platform
def test_a_real_build_and_its_update(build: Build, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/share").mkdir(parents=True)
    (root / "usr/share/text").write_text("one\n" * 1000)
    (root / "usr/share/other").write_text("other")
    old = build(clients.layer_config(root), env={"SOURCE_DATE_EPOCH": "1"}).output
    assert document(old, old)["equal"]
    (root / "usr/share/text").write_text("two\n" * 1000)
    (root / "usr/new").write_text("new")
    new = build(clients.layer_config(root), env={"SOURCE_DATE_EPOCH": "1"}).output
    assert told(compared(old, new)) == {
        "usr/share/text": ["changed", "content"],
        "usr/new": ["added"],
    }
    # The reference by name, and the same layout as an archive.
    assert told(compared(f"{old}:latest", f"oci:{new}:latest")) == told(compared(old, new))


def toc_of(layout: Path) -> list[Any]:
    """The entries of the table of contents of the one layer, and the bytes that its metadata
    take.
    """
    (layer,) = clients.manifest_of(layout)["layers"]
    position = layer["annotations"]["io.github.containers.zstd-chunked.manifest-position"].split(
        ":"
    )
    offset, size = map(int, position[:2])
    packed_toc = clients.blob(layout, layer["digest"])[offset : offset + size]
    metadata = size + int(
        layer["annotations"]["io.github.containers.zstd-chunked.tarsplit-position"].split(":")[1]
    )
    return [
        json.loads(zstandard.ZstdDecompressor().stream_reader(packed_toc).read())["entries"],
        metadata,
    ]


@pytest.mark.platform
def test_partial_pulls_of_chunked_layers(build: Build, tmp_path: Path) -> None:
    """What changed is downloaded, with the metadata; from a layout and from an archive of it."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / name).write_bytes(random.Random(name).randbytes(20_000))
    config = clients.layer_config(root, compression="zstd:chunked")
    old = build(config, env={"SOURCE_DATE_EPOCH": "1"}).output
    (root / "b").write_bytes(random.Random("other").randbytes(30_000))
    new = build(config, env={"SOURCE_DATE_EPOCH": "1"}).output
    found = compared(old, new)["download"]
    entries, metadata = toc_of(new)
    start = next(entry["offset"] for entry in entries if entry["name"].endswith("b"))
    end = next(
        entry["endOffset"]
        for entry in entries
        if entry["name"].endswith("b") and entry.get("endOffset")
    )
    assert found["partialSize"] == metadata + end - start + found["config"] + found["manifest"]
    assert 30_000 < found["partialSize"] < found["size"]
    files = sorted(path for path in new.rglob("*") if path.is_file())
    archive = tmp_path / "new.tar"
    archive.write_bytes(
        packed([Member(str(path.relative_to(new)), content=path.read_bytes()) for path in files])
    )
    assert compared(old, archive)["download"] == found
    plain = build(clients.layer_config(root)).output
    assert compared(plain, new)["download"]["partialSize"] is None


@pytest.mark.clients
def test_archives_and_layouts_of_other_builders(build: Build, tmp_path: Path) -> None:
    """skopeo's archive equals the layout; umoci's repacked image has the new file; both in any
    pairing.
    """
    skopeo, umoci = clients.need("skopeo"), clients.need("umoci")
    clients.need_root()
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "a").write_text("a")
    (root / "etc" / "b").write_text("b")
    ours = build(clients.layer_config(root, compression="gzip")).output
    archive = tmp_path / "image.tar"
    clients.run(
        skopeo, "--insecure-policy", "copy", f"oci:{ours}:latest", f"oci-archive:{archive}:latest"
    )
    assert document(ours, archive)["equal"]
    theirs = shutil.copytree(ours, tmp_path / "theirs")
    clients.run(umoci, "unpack", "--image", f"{theirs}:latest", str(tmp_path / "bundle"))
    (tmp_path / "bundle/rootfs/etc/new").write_text("new")
    (tmp_path / "bundle/rootfs/etc/a").unlink()
    clients.run(umoci, "repack", "--image", f"{theirs}:latest", str(tmp_path / "bundle"))
    found = compared(archive, f"{theirs}:latest", deep=True)
    assert {path: words for path, words in told(found).items() if path != "etc"} == {
        "etc/new": ["added"],
        "etc/a": ["removed"],
    }
    assert told(compared(f"{theirs}:latest", archive, deep=True))["etc/new"] == ["removed"]
