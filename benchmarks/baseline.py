"""The job in plain Python, as a careful person would write it without native code.

Walk, hash, `tarfile` into a temporary file, hash that, compress it with `gzip`, hash the result;
with a parent (of one layer), verify and carry that, and skip what it holds unchanged. One thread,
everything read and written as often as that takes.

    python benchmarks/baseline.py ROOTFS OUTPUT [--level N] [--disabled] [--parent LAYOUT]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import IO

CHECKSUM = "freedesktopsdk.checksum.sha256"
PIECE = 1 << 20


def sha256_of(file: IO[bytes] | gzip.GzipFile) -> str:
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


def member(tar: tarfile.TarFile, path: str, name: str) -> tarfile.TarInfo:
    """The entry for one file, with its checksum and extended attributes."""
    info = tar.gettarinfo(path, name)
    info.uname = info.gname = ""
    info.mtime = int(info.mtime)
    info.mode &= 0o7777
    headers: dict[str, str] = {}
    if info.isreg():
        with open(path, "rb") as file:
            headers[CHECKSUM] = sha256_of(file)
    if not info.islnk():
        for attribute in sorted(os.listxattr(path, follow_symlinks=False)):
            value = os.getxattr(path, attribute, follow_symlinks=False)
            headers[f"SCHILY.xattr.{attribute}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = headers
    return info


def same(one: tarfile.TarInfo, other: tarfile.TarInfo | None) -> bool:
    """Does the parent hold this very entry?"""
    fields = ("type", "uid", "gid", "mode", "size", "linkname")
    return (
        other is not None
        and one.mtime == int(other.mtime)
        and all(getattr(one, field) == getattr(other, field) for field in fields)
        and one.pax_headers.get(CHECKSUM) == other.pax_headers.get(CHECKSUM)
    )


def write_layer(root: str, tar: tarfile.TarFile, lower: dict[str, tarfile.TarInfo]) -> None:
    """Everything below ROOT that LOWER does not hold."""
    stack = [("", root)]
    while stack:
        relative, directory = stack.pop()
        tar.addfile(member(tar, directory, relative or "."))
        folders: list[str] = []
        files: list[str] = []
        for entry in os.scandir(directory):
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
        for name in sorted(files):
            path, inside = os.path.join(directory, name), os.path.join(relative or ".", name)
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                continue
            info = member(tar, path, inside)
            if same(info, lower.get(os.path.normpath(inside))):
                continue
            if info.isreg():
                with open(path, "rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
        stack += [
            (os.path.join(relative, name), os.path.join(directory, name))
            for name in sorted(folders, reverse=True)
        ]


def read_parent(
    layout: Path, blobs: Path
) -> tuple[list[dict[str, object]], list[str], dict[str, tarfile.TarInfo]]:
    """The descriptor, diff_id and entries of the first image's one layer, gzip or uncompressed;
    verified, and carried into BLOBS.
    """
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(
        (layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")).read_text()
    )
    config = json.loads(
        (layout / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text()
    )
    (layer,) = manifest["layers"]
    (diff_id,) = config["rootfs"]["diff_ids"]
    blob = layout / "blobs" / layer["digest"].replace(":", "/")
    with blob.open("rb") as file:
        assert layer["digest"] == "sha256:" + sha256_of(file)
    with gzip.open(blob) if layer["mediaType"].endswith("gzip") else blob.open("rb") as archive:
        assert diff_id == "sha256:" + sha256_of(archive)
    os.link(blob, blobs / blob.name)
    with tarfile.open(blob, "r:*", errors="surrogateescape") as tar:
        return [layer], [diff_id], {os.path.normpath(info.name): info for info in tar.getmembers()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rootfs")
    parser.add_argument("output", type=Path)
    parser.add_argument("--level", type=int, default=5)
    parser.add_argument("--disabled", action="store_true")
    parser.add_argument("--parent", type=Path)
    options = parser.parse_args()
    blobs = options.output / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    layers, diff_ids, lower = read_parent(options.parent, blobs) if options.parent else ([], [], {})
    with (
        tempfile.NamedTemporaryFile(dir=options.output) as archive,
        tempfile.NamedTemporaryFile(dir=blobs, delete=False) as blob,
    ):
        with tarfile.open(
            fileobj=archive, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
        ) as tar:
            write_layer(options.rootfs, tar, lower)
        archive.seek(0)
        diff_id = sha256_of(archive)
        archive.seek(0)
        if options.disabled:
            shutil.copyfileobj(archive, blob)
        else:
            with gzip.GzipFile(
                fileobj=blob, mode="wb", compresslevel=options.level, mtime=0
            ) as packed:
                shutil.copyfileobj(archive, packed)
        blob.seek(0)
        digest = sha256_of(blob)
        os.rename(blob.name, blobs / digest)
    kind = "tar" if options.disabled else "tar+gzip"
    layer = {
        "mediaType": f"application/vnd.oci.image.layer.v1.{kind}",
        "digest": f"sha256:{digest}",
        "size": (blobs / digest).stat().st_size,
    }
    config: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids, f"sha256:{diff_id}"]},
    }
    references: list[dict[str, object]] = []
    documents: list[tuple[str, dict[str, object]]] = [
        ("config", config),
        ("manifest", {"schemaVersion": 2, "layers": [*layers, layer]}),
    ]
    for kind, document in documents:
        if references:
            document["config"] = references[0]
        data = json.dumps(document).encode()
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        references.append(
            {
                "mediaType": f"application/vnd.oci.image.{kind}.v1+json",
                "digest": f"sha256:{name}",
                "size": len(data),
            }
        )
    (options.output / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": references[1:]})
    )
    (options.output / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


if __name__ == "__main__":
    main()
