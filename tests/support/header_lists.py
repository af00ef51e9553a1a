"""Images with header lists, and late edits of them."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path
from typing import Any

import clients
import pytest
import zstandard
from previous_images import built, config_of, layers_of, put, rewrite

RECIPE = "io.build-oci.recipe"
HEADERS = "io.build-oci.headers"
LARGE = 1 << 20
NO_LIST = "decoded, because no header list of it is here"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What becomes four layers, one of them small."""
    root, rng = tmp_path / "root", random.Random(7)
    for letter, size in (("a", LARGE), ("b", LARGE), ("c", 3 * LARGE), ("d", 10)):
        (root / letter / "deep").mkdir(parents=True)
        (root / letter / "large").write_bytes(rng.randbytes(size))
        (root / letter / "deep" / ("n" * 150)).write_bytes(rng.randbytes(300))
        os.link(root / letter / "large", root / letter / "linked")
        (root / letter / "symlink").symlink_to("large")
        os.mkfifo(root / letter / "fifo")
        (root / letter / "empty").touch()
    os.setxattr(root / "a" / "empty", "user.note", bytes(range(256)) * 8)
    return root


@pytest.fixture
def layout(root: Path, tmp_path: Path) -> Path:
    built(config_of(root, compression="zstd"), tmp_path / "layout")
    return tmp_path / "layout"


def headers_of(tar: bytes) -> bytes:
    """The twin: the archive without contents and padding, as tarfile sees it."""
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as opened:
        return b"".join(tar[one.offset : one.offset_data] for one in opened.getmembers())


def essence(layout: Path) -> tuple[Any, list[str]]:
    """What an image is but for what its descriptors tell of the archives."""
    return clients.manifest_of(layout)["config"], layers_of(layout)


def lists_of(layout: Path) -> list[bytes | None]:
    """The header list of each layer, decompressed."""
    found: list[bytes | None] = []
    for layer in clients.manifest_of(layout)["layers"]:
        named = layer.get("annotations", {}).get(HEADERS)
        found.append(
            zstandard.ZstdDecompressor().decompressobj().decompress(clients.blob(layout, named))
            if named
            else None
        )
    return found


def edited(
    parent: Path | str,
    tmp_path: Path,
    *,
    trust: bool = True,
    name: str = "edited",
    removes: bool = True,
    **more: Any,
) -> tuple[Path, list[str]]:
    """PARENT with one file changed, and what `-v` says."""
    overlay = tmp_path / "overlay"
    (overlay / "a").mkdir(parents=True, exist_ok=True)
    (overlay / "a" / "large").write_bytes(b"changed")
    image = {
        "os": "linux",
        "architecture": "amd64",
        "parent": {"image": str(parent), "trust": trust, "config": "inherit"},
        "layers": [{"add": str(overlay)} | ({"remove": ["/d/empty"]} if removes else {})],
    }
    said: list[str] = []
    output = tmp_path / name
    built({"compression": "zstd", "images": [image], **more}, output, explained=said)
    return output, said


def relisted(layout: Path, number: int, data: bytes) -> Path:
    """Let DATA be the header list of layer NUMBER; where it is."""
    digest: str = put(layout, data)["digest"]

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][number]["annotations"][HEADERS] = digest

    rewrite(layout, change)
    return layout / "blobs" / digest.replace(":", "/")


def list_path(layout: Path, number: int) -> Path:
    digest: str = clients.manifest_of(layout)["layers"][number]["annotations"][HEADERS]
    return layout / "blobs" / digest.replace(":", "/")


def compressed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.fixture
def never_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers that are decoded nevertheless, by the first bytes of what is read."""
    import build_oci.parent.layers as module
    from build_oci.parent.archive import read_archive

    read: list[str] = []

    def watched(codec: str, blob: Any, path: Path, *args: Any, **more: Any) -> None:
        read.append(path.name)
        read_archive(codec, blob, path, *args, **more)

    monkeypatch.setattr(module, "read_archive", watched)
    return read
