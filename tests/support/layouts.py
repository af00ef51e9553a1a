"""Image layouts made by hand, in which anything may be wrong."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients import Document

from build_oci.verify.verifier import verify

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ZEROS = "sha256:" + "0" * 64


def archive(*members: tuple[str, bytes | str | None], end: bool = True) -> bytes:
    """A tar of (name, content), (name, target of a hard link) and (name, None) for a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(what, str):
                info.type, info.linkname = tarfile.LNKTYPE, what
            else:
                info.size = len(what)
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
        size = tar.offset
    return out.getvalue() if end else out.getvalue()[:size]


class Layout:
    """An image layout made by hand, in which anything may be wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data: bytes, media_type: str, **more: Any) -> Document:
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)} | more

    def document(self, content: Document, media_type: str, **more: Any) -> Document:
        return self.blob(json.dumps(content).encode(), media_type, **more)

    def index(self, *manifests: Document, **more: Any) -> Path:
        content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)} | more
        (self.path / "index.json").write_text(json.dumps(content))
        return self.path


FIRST = archive(("etc", None), ("etc/a", b"a"), ("etc/b", "etc/a"), ("gone", b"x"))
FIRST_DIGEST = hashlib.sha256(FIRST).hexdigest()
SECOND = archive(("etc", None), ("etc/c", "etc/a"), (".wh.gone", b""))


def image(
    layout: Layout,
    archives: list[bytes],
    *,
    config: Callable[[Document], None] = lambda _: None,
    manifest: Callable[[Document], None] = lambda _: None,
    descriptor: Callable[[Document], None] = lambda _: None,
) -> Document:
    """The descriptor of an image with plain layers, its documents changed by the callables before
    they are stored.
    """
    content: Document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in archives],
        },
        "history": [{} for _ in archives],
    }
    config(content)
    wanted: Document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.document(content, CONFIG),
        "layers": [layout.blob(data, LAYER) for data in archives],
    }
    manifest(wanted)
    found = layout.document(wanted, MANIFEST, platform={"architecture": "amd64", "os": "linux"})
    descriptor(found)
    return found


def set_to(key: str, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        at = document
        *path, last = key.split(".")
        for name in path:
            at = at[int(name)] if isinstance(at, list) else at[name]
        if value is None:
            del at[last]
        else:
            at[int(last) if isinstance(at, list) else last] = value

    return change


def found(layout: Path) -> tuple[list[str], list[str]]:
    """The mismatches and the notes, without the path of LAYOUT."""
    problems: list[str] = []
    notes: list[str] = []
    verified = verify(str(layout), workers=2, problem=problems.append, note=notes.append)
    assert verified.mismatches == len(problems)
    return [line.replace(f"{layout}/", "") for line in problems], [
        line.replace(f"{layout}/", "") for line in notes
    ]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")
