"""The library of podman, buildah and CRI-O takes zstd:chunked layers, in parts and whole (contract:
codec-chunked), and what it writes passes our check (codec-chunked-checked)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import clients
import fuzz_chunked
import odd_members
import pytest
import trees
from chunked_layers import TYPES, Layer, built, check_layer, encoded, large_tree

from build_oci.codec.chunked.encoder import CannotBeChunkedError
from build_oci.codec.chunked.headers import read_headers

GO_ZERO = -62135596800 * 10**9
"""Nanoseconds of Go's zero time, which counts as none."""
GO_PROGRAM = Path(__file__).parent.parent / "support" / "chunked_go"


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """support/chunked_go, built without a network."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("Go is not installed")
    program = tmp_path_factory.mktemp("go") / "chunked"
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
    }
    done = subprocess.run(
        [
            go,
            "build",
            "-tags",
            "exclude_graphdriver_btrfs,containers_image_openpgp",
            "-o",
            program,
            ".",
        ],
        cwd=GO_PROGRAM,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the Go modules are not in the cache: {done.stderr[-300:]}")
    return program


def stored(layer: Layer, folder: Path, name: str) -> tuple[Path, Path]:
    blob, annotations = folder / f"{name}.zst", folder / f"{name}.json"
    blob.write_bytes(layer.blob)
    annotations.write_text(json.dumps(layer.annotations))
    return blob, annotations


def odd_root(root: Path) -> None:
    large_tree(root)
    for number in range(60):
        (root / f"many-{number}").write_bytes(random.Random(number).randbytes(number * 997))
    folder = root / "d"
    for _ in range(20):
        folder /= "a-rather-long-name-of-a-directory"
    folder.mkdir(parents=True)
    (folder / 'quote"back\\slash\nü').write_bytes(b"")
    (folder / "link").symlink_to("../" * 30 + "x" * 120)
    os.utime(folder / "link", ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    (folder / ("n" * 255)).write_bytes(b"long")
    (root / "d" / "device").mkdir()
    if trees.succeeds(lambda: os.mknod(root / "d" / "device" / "c", 0o20600, os.makedev(5, 300))):
        os.mknod(root / "d" / "device" / "b", 0o60640, os.makedev(259, 70_000))
    os.mkfifo(root / "d" / "device" / "fifo")
    if trees.succeeds(lambda: os.setxattr(root / "a-short", "user.odd", b"\0\xff=\n")):
        os.setxattr(root / "d", "user.folder", b"value")


@pytest.mark.clients
@pytest.mark.once
def test_the_reader_of_podman(tmp_path: Path, go_program: Path) -> None:
    """It takes the layer, whole and with an old one at hand, and rebuilds an archive of the right
    digest.
    """
    clients.need_root()
    odd_root(tmp_path / "root")
    old = built(tmp_path / "root", epoch=None)
    (tmp_path / "root" / "many-7").write_bytes(b"changed")
    new = built(tmp_path / "root", epoch=None)
    (tmp_path / "whole").mkdir()
    done = json.loads(
        clients.run(go_program, "apply", *stored(old, tmp_path, "old"), tmp_path / "whole")
    )
    assert done["diff_id"] == old.diff_id
    assert done["size"] == len(old.tar)
    (tmp_path / "part").mkdir()
    (tmp_path / "base").mkdir()
    arguments = [
        *stored(new, tmp_path, "new"),
        tmp_path / "part",
        *stored(old, tmp_path, "old"),
        tmp_path / "base",
    ]
    done = json.loads(clients.run(go_program, "apply", *arguments))
    assert done["diff_id"] == new.diff_id
    assert done["fetched"] < len(new.blob) // 20
    for path in (tmp_path / "root").rglob("*"):
        if path.parent.name == "device":
            continue  # a pull in parts leaves devices and FIFOs out
        copy = tmp_path / "part" / path.relative_to(tmp_path / "root")
        assert os.lstat(copy).st_mode == os.lstat(path).st_mode
        if path.is_file() and not path.is_symlink():
            assert copy.read_bytes() == path.read_bytes()


ROUNDS = int(os.environ.get("BUILD_OCI_ARCHIVES", "1500"))


def random_source() -> random.Random:
    return random.Random(int(os.environ.get("BUILD_OCI_SEED", "1")))


def as_check(found: dict[str, Any]) -> dict[str, Any]:
    """A member as Go reads it, in the terms of read_headers()."""
    times = [one["Seconds"] * 10**9 + one["Nanoseconds"] for one in found["Times"]]
    modified, accessed, changed = (0 if time == GO_ZERO else time for time in times)
    return {
        "type": TYPES.get(found["Type"].encode()),
        "name": base64.b64decode(found["Name"]),
        "linkName": base64.b64decode(found["Target"]),
        "mode": found["Mode"],
        "size": found["Size"],
        "uid": found["UID"],
        "gid": found["GID"],
        "modtime": modified,
        "accesstime": accessed,
        "changetime": changed,
        "devMajor": found["Major"],
        "devMinor": found["Minor"],
        "xattrs": {base64.b64decode(name): value for name, value in found["Xattrs"].items()},
    }


@pytest.mark.clients
@pytest.mark.once
def test_headers_as_podman_reads_them(go_program: Path) -> None:
    """contract: codec-chunked-checked. What our check reads in odd headers is what the reader finds
    there; what that refuses, the check refuses.
    """
    rng = random_source()
    found = [odd_members.random_headers(rng) for _ in range(4 * ROUNDS)]
    lines = subprocess.run(
        [go_program, "headers"],
        input=b"".join(base64.b64encode(one) + b"\n" for one in found),
        capture_output=True,
        check=True,
    ).stdout.splitlines()
    counts: Counter[str] = Counter()
    for data, line in zip(found, lines, strict=True):
        theirs = json.loads(line)
        try:
            ours = read_headers(data)
        except ValueError:
            counts["refused"] += 1
            continue
        if ours is None:
            assert theirs["IsEnd"], data
        else:
            assert not theirs["Error"], (data, theirs)
            assert ours == as_check(theirs), data
            counts["taken"] += 1
    assert min(counts["refused"], counts["taken"]) > ROUNDS, counts


def judged(go_program: Path, layers: list[Layer], folder: Path) -> list[dict[str, str]]:
    """What the reader says of each of LAYERS: a diff_id, or an error."""
    lines = []
    for number, layer in enumerate(layers):
        target = folder / f"{number}"
        target.mkdir()
        lines.append("\t".join(map(str, (*stored(layer, folder, f"layer-{number}"), target))))
    done = subprocess.run(
        [go_program, "judge"],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(layers)
    return found


@pytest.mark.clients
@pytest.mark.once
def test_odd_archives(tmp_path: Path, go_program: Path) -> None:
    """contract: codec-chunked-parents. Of any archive the encoder makes a layer that the reader
    takes, and so does our check; or it says why not.
    """
    clients.need_root()
    rng = random_source()
    layers = []
    for _ in range(ROUNDS):
        archive = odd_members.random_archive(rng)
        with contextlib.suppress(CannotBeChunkedError):
            layers.append(encoded(archive, rng.choice([1 << 20, 700]), 1))
            assert check_layer(layers[-1], len(archive)) == []
    assert len(layers) > ROUNDS // 10
    for layer, verdict in zip(layers, judged(go_program, layers, tmp_path), strict=True):
        # A hard link to a directory or to a file that is not there: nobody unpacks that.
        error = verdict.get("pull_error", "")
        if "under the rootfs" not in error and not error.startswith("linkat "):
            assert verdict == {"diff_id": layer.diff_id}, layer.toc


@pytest.mark.clients
@pytest.mark.once
def test_changed_layers(tmp_path: Path, go_program: Path) -> None:
    """contract: codec-chunked-checked. What passes our check the reader takes, and it gives the
    archive.
    """
    clients.need_root()
    rng = random_source()
    layers: list[Layer] = []
    while len(layers) < ROUNDS // 10:
        root = tmp_path / "root"
        root.mkdir()
        trees.materialise(trees.random_tree(rng, 6), root)
        (root / "holes").write_bytes(rng.randbytes(rng.randrange(3000)) + bytes(5000) + b"end")
        layer = built(root, workers=1)
        shutil.rmtree(root)
        if not layer.annotations:
            continue
        changed = [fuzz_chunked.changed(rng, layer) for _ in range(40)]
        layers += [one for one in changed if not check_layer(one, len(layer.tar))]
    for layer, verdict in zip(layers, judged(go_program, layers, tmp_path), strict=True):
        assert verdict == {"diff_id": layer.diff_id}, (layer.annotations, layer.toc)


def applied(go_program: Path, layer: Layer, folder: Path) -> dict[str, Any]:
    """What the reader says of LAYER, which it applies to the new directory FOLDER/tree."""
    (folder / "tree").mkdir()
    done: dict[str, Any] = json.loads(
        clients.run(go_program, "apply", *stored(layer, folder, "layer"), folder / "tree")
    )
    return done


@pytest.mark.clients
@pytest.mark.once
@pytest.mark.parametrize("kind", ["gnu", "pax", "ustar", "posix-times"])
def test_archives_of_gnu_tar(tmp_path: Path, go_program: Path, kind: str) -> None:
    """contract: codec-chunked-parents. An archive that another program wrote becomes a layer that
    the reader takes: so the table of contents says what Go reads in its headers.
    """
    clients.need_root()
    tar = clients.need("tar")
    odd_root(tmp_path / "root")
    options = {
        "gnu": ["--format=gnu"],
        "pax": ["--format=pax", "--xattrs"],
        "ustar": ["--format=ustar", "--exclude=./d"],
        "posix-times": ["--format=posix", "--pax-option=delete=nothing"],
    }[kind]
    archive = tmp_path / "layer.tar"
    clients.run(tar, *options, "-cf", archive, "-C", tmp_path / "root", ".")
    layer = encoded(archive.read_bytes())
    assert check_layer(layer) == []
    done = applied(go_program, layer, tmp_path)
    assert done["diff_id"] == layer.diff_id
    assert done["size"] == archive.stat().st_size


@pytest.mark.clients
@pytest.mark.once
@pytest.mark.skipif("BUILD_OCI_HUGE" not in os.environ, reason="BUILD_OCI_HUGE is not set")
def test_a_hole_of_five_gigabytes(tmp_path: Path, go_program: Path) -> None:
    """It costs a client nothing, in parts; and the digest of the archive is right."""
    clients.need_root()
    (tmp_path / "root").mkdir()
    with open(tmp_path / "root" / "sparse", "wb") as file:
        file.write(b"start" * 1000)
        file.seek((5 << 30) - 9)
        file.write(b"nine byte")
    layer = built(tmp_path / "root")
    holes = [one for one in layer.toc["entries"] if one.get("chunkType") == "zeros"]
    assert [one["chunkSize"] for one in holes] == [(5 << 30) - 9 - 5000]
    done = applied(go_program, layer, tmp_path)
    assert done["diff_id"] == layer.diff_id
    assert done["fetched"] < 50_000
    copy = (tmp_path / "tree" / "sparse").stat()
    assert copy.st_size == 5 << 30
    assert copy.st_blocks * 512 < 1 << 20


@pytest.mark.clients
@pytest.mark.once
def test_the_writer_of_podman(tmp_path: Path, go_program: Path) -> None:
    """Its layer of our archive has our table of contents, chunk by chunk, and passes our check."""
    odd_root(tmp_path / "root")
    ours = built(tmp_path / "root")
    (tmp_path / "layer.tar").write_bytes(ours.tar)
    blob, annotations = tmp_path / "theirs.zst", tmp_path / "theirs.json"
    clients.run(go_program, "write", tmp_path / "layer.tar", blob, annotations)
    theirs = ours._replace(blob=blob.read_bytes(), annotations=json.loads(annotations.read_text()))
    assert check_layer(theirs) == []
    without = [
        [
            {k: v for k, v in one.items() if k not in ("offset", "endOffset")}
            for one in layer.toc["entries"]
        ]
        for layer in (ours, theirs)
    ]
    assert without[0] == without[1]
