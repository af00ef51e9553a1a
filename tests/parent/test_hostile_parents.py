"""Hostile parents are refused in one line, with nothing left behind
(contract: promise-hostile-input).
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import archives
import clients
import pytest
import zstandard
from parents import (
    LAYER,
    TAR,
    built,
    diff_id,
    hand_made,
    image_of,
    put,
    put_index,
    put_manifest,
    top_layer,
    tree,
)
from test_layer_tar import REG, tar_of

from build_oci.errors import BuildOciError, ParentError

__all__ = ["tree"]
pytestmark = pytest.mark.once


# Hostile parents


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """refused(parent, settings...): what the error says of PARENT, after seeing that nothing was
    left behind.
    """
    layer = tmp_path / "empty"
    layer.mkdir()

    def build_on(parent: Path, **settings: object) -> str:
        for one, compression in ((layer, "zstd"), (None, "gzip"), (layer, "disabled")):
            with pytest.raises(ParentError) as caught:
                built(
                    tmp_path / "made" / "output",
                    image_of(one, parent, **settings),
                    compression=compression,
                )
            assert not (tmp_path / "made").exists()
            assert caught.value.exit_status == 1
            assert len(str(caught.value)) < 1000
            assert "\n" not in str(caught.value)
        return str(caught.value)

    return build_on


def broken_documents() -> Iterator[Any]:
    """(what the error says, a change of the manifest)"""
    good = "sha256:" + "a" * 64
    for digest in (
        "sha256:../../etc/passwd",
        good[:-1],
        good[:-1] + "A",
        good + "\n",
        "md5:" + "a" * 32,
        "",
    ):
        yield pytest.param(
            "is no digest",
            lambda document, digest=digest: document["layers"][0].update(digest=digest),
            id=digest[:15] or "no",
        )
    yield pytest.param(
        "is missing",
        lambda document: document["layers"][0].update(digest="sha256:" + "0" * 64),
        id="missing",
    )
    for size in (-1, 0, 7, 2**70, 1.5, True, "4"):
        yield pytest.param(
            "size|has .* bytes",
            lambda document, size=size: document["layers"][0].update(size=size),
            id=f"size {size!r}",
        )
    yield pytest.param(
        "1 diff_id, but .* 2",
        lambda document: document["layers"].append(document["layers"][0]),
        id="two layers",
    )
    yield pytest.param(
        "1 diff_id, but .* 0", lambda document: document["layers"].clear(), id="no layer"
    )
    yield pytest.param(
        "of the type",
        lambda document: document["layers"][0].update(mediaType="text/plain"),
        id="media type",
    )
    yield pytest.param(
        "no image manifest",
        lambda document: document.update(mediaType="application/x"),
        id="no manifest",
    )
    yield pytest.param(
        "too large", lambda document: document["config"].update(size=1 << 40), id="huge config"
    )


@pytest.mark.parametrize(("says", "change"), list(broken_documents()))
def test_broken_manifest(
    refused: Callable[..., str],
    tmp_path: Path,
    says: str,
    change: Callable[[clients.Document], None],
) -> None:
    """contract: parent-verified. "A digest is checked for its form before it becomes a path", every
    blob "is verified"; contract: promise-hostile-input, "one clear error"."""
    parent = hand_made(tmp_path / "parent", TAR)
    document = clients.manifest_of(parent)
    change(document)
    put_index(
        parent,
        put(parent, json.dumps(document).encode(), "application/vnd.oci.image.manifest.v1+json"),
    )
    message = refused(parent)
    assert re.search(says, message)
    assert str(parent / "blobs" / "sha256") in message


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def tamper(path: Path) -> None:
    """Other content of the same size that could be meant."""
    data = path.read_bytes()
    content = data.rindex(b"./c") if data.endswith(archives.END) else data.rindex(b"2")
    path.write_bytes(data[:content] + b"1" + data[content + 1 :])


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        make_fifo,
        make_loop,
        make_directory,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        tamper,
    ],
    ids=["missing", "FIFO", "loop", "directory", "shorter", "longer", "other"],
)
@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_spoilt_blob(
    refused: Callable[..., str], tmp_path: Path, which: str, spoil: Callable[[Path], None]
) -> None:
    """contract: parent-verified.
    "Every blob that is read is verified (size and sha256/sha512)", and one that is no file is never
    waited for."""
    parent = hand_made(tmp_path / "parent", TAR)
    manifest = clients.manifest_of(parent)
    digest = {
        "manifest": clients.index_of(parent)["manifests"][0]["digest"],
        "config": manifest["config"]["digest"],
        "layer": manifest["layers"][0]["digest"],
    }[which]
    path = parent / "blobs" / digest.replace(":", "/")
    spoil(path)
    assert str(path) in refused(parent)


FILE = archives.header(b"f", size=4) + archives.padded(b"text")


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        pytest.param(gzip.compress(TAR, mtime=0)[:-9], "+gzip", id="truncated gzip"),
        pytest.param(gzip.compress(TAR, mtime=0) + b"more", "+gzip", id="gzip and more"),
        pytest.param(zstandard.compress(TAR)[:-3], "+zstd", id="truncated zstd"),
        pytest.param(zstandard.compress(TAR) + b"more", "+zstd", id="zstd and more"),
        pytest.param(b"no zstd" * 100, "+zstd", id="no zstd at all"),
        pytest.param(b"", "+gzip", id="empty gzip"),
    ],
)
def test_broken_stream(tmp_path: Path, stream: bytes, kind: str) -> None:
    """contract: promise-hostile-input. "Truncated or corrupt archives", whether they are carried or
    recompressed.
    """
    parent, empty = tmp_path / "parent", tmp_path / "empty"
    empty.mkdir()
    put_index(parent, put_manifest(parent, [put(parent, stream, LAYER + kind)], [diff_id(TAR)]))
    for compression in ("zstd", "gzip", "disabled"):
        with pytest.raises(ParentError, match=hashlib.sha256(stream).hexdigest()):
            built(tmp_path / "output", image_of(empty, parent), compression=compression)
        assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("says", "tar"),
    [
        ("truncated", FILE[:514]),
        ("after the end", FILE + archives.END + b"more"),
        ("bytes; at most", archives.header(b"@", b"x", size=2 << 30) + FILE),
        ("checksum", FILE[:10] + b"!" + FILE[11:] + archives.END),
        (r"zero bytes at the end", FILE + bytes(2 << 20)),
        ("not in the image", archives.header(b"l", b"1", link=b"f") + archives.END),
        ("not in the image", archives.header(b"l", b"1", link=b"l") + archives.END),
        (
            "not in the image",
            archives.header(b"a", b"1", link=b"b") + archives.header(b"b", b"1", link=b"a"),
        ),
        (r"\.\.", archives.header(b"../f")),
        (r"\.\.", archives.header(b"d/../../f")),
        (r"\.\.", archives.header(b"l", b"1", link=b"../../f")),
        ("no file system takes more", archives.pax((b"path", b"n" * 300)) + archives.header(b"n")),
    ],
)
def test_broken_archive(tmp_path: Path, says: str, tar: bytes) -> None:
    """contract: promise-hostile-input.
    "absurd pax records, link loops: one clear error, nothing written outside the output"; links
    through links are harmless."""
    (tmp_path / "empty").mkdir()
    parent = hand_made(tmp_path / "parent", TAR, tar)
    with pytest.raises(ParentError, match=says) as caught:
        built(tmp_path / "made" / "output", image_of(tmp_path / "empty", parent))
    assert hashlib.sha256(tar).hexdigest() in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "parent"]


def test_wrong_diff_id(tmp_path: Path) -> None:
    """contract: parent-verified. "the diff_id is verified on the way"."""
    (tmp_path / "empty").mkdir()
    parent = tmp_path / "parent"
    put_index(parent, put_manifest(parent, [put(parent, TAR, LAYER)], [diff_id(b"")]))
    for layer, compression in (
        (tmp_path / "empty", "disabled"),
        (tmp_path / "empty", "zstd"),
        (None, "zstd"),
    ):
        with pytest.raises(ParentError, match="its archive has the digest"):
            built(tmp_path / "output", image_of(layer, parent), compression=compression)


def test_symlink_loop_is_an_entry_like_others(tmp_path: Path) -> None:
    """contract: promise-hostile-input. "link loops": symbolic links are held against the tree,
    never followed.
    """
    (tmp_path / "empty").mkdir()
    parent = hand_made(
        tmp_path / "parent",
        tar_of(
            ("a", tarfile.SYMTYPE, "b"), ("b", tarfile.SYMTYPE, "a"), ("a/x", REG, "")
        ).getvalue(),
    )
    assert top_layer(built(tmp_path / "layout", image_of(tmp_path / "empty", parent))) == [
        ".",
        "./.wh.a",
        "./.wh.b",
    ]


@pytest.mark.parametrize(("number", "status"), [(1, 1), (10**9, 1), (-1, 2)])
def test_index_out_of_range(tmp_path: Path, number: int, status: int) -> None:
    """contract: cli-exit-status.
    Exit status 1 for a parent that has no such image, 2 for a number that none can have; an error
    is one line and a hint."""
    parent = hand_made(tmp_path / "parent", TAR)
    document = {"images": [image_of(None, parent, index=number)]}
    result = clients.run_build(document, tmp_path / "output", cwd=tmp_path, check=False)
    assert (result.returncode, result.stdout, result.output.exists()) == (status, "", False)
    assert re.fullmatch(r"build-oci: error: [^\n]+\n(hint: [^\n]+\n)?", result.stderr)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"a":' * 100_000,
        b"[" * 900,
        b'{"manifests":[' + b"[" * 5000,
        b"9" * 5000,
    ],
)
def test_index_that_is_no_document(
    refused: Callable[..., str], tmp_path: Path, text: bytes
) -> None:
    parent = hand_made(tmp_path / "parent", TAR)
    (parent / "index.json").write_bytes(text)
    assert str(parent / "index.json") in refused(parent)


def mutations(document: Any) -> Iterator[Any]:
    """DOCUMENT with one value, anywhere in it, replaced by something of another type, by something
    odd, or taken out.
    """
    places = list(document.items() if isinstance(document, dict) else enumerate(document))
    for key, value in places:
        odd: Any
        for odd in (None, -1, 1e999, float("nan"), 2**200, "\ud800", [], {"a": {}}, True):
            changed = copy.copy(document)
            changed[key] = odd
            yield changed
        if isinstance(document, dict):
            yield {name: other for name, other in places if name != key}
        if isinstance(value, dict | list):
            for inner in mutations(value):
                changed = copy.copy(document)
                changed[key] = inner
                yield changed


def test_documents_of_wrong_types(tmp_path: Path) -> None:
    """contract: promise-hostile-input.
    A parent is untrusted: whatever its documents hold is accepted or refused in words, and what is
    accepted gives an image."""
    parent, layer = tmp_path / "parent", tmp_path / "empty"
    layer.mkdir()
    rich: clients.Document = {
        "annotations": {"a": "b"},
        "platform": {"os": "linux", "architecture": "amd64", "variant": "v8"},
    }
    config = {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id(TAR)]},
        "history": [{"created": "x", "empty_layer": False}],
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "annotations": {}, "config": {},
        "layers": [put(parent, TAR, LAYER, **rich)],
    }  # fmt: skip

    def write(config: Any, manifest: Any, index: Callable[[clients.Document], Any]) -> None:
        put_index(parent)
        document = {
            "config": put(
                parent, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"
            )
        }
        document = {**manifest, **document} if manifest.get("config") == {} else manifest
        inner = put(
            parent,
            json.dumps(document).encode(),
            "application/vnd.oci.image.manifest.v1+json",
            **rich,
        )
        (parent / "index.json").write_text(
            json.dumps(index({"schemaVersion": 2, "manifests": [inner]}))
        )

    def outcome() -> bool:
        output = tmp_path / "output"
        try:
            built(output, image_of(layer, parent), compression="disabled")
        except BuildOciError:
            assert not output.exists()
            return False
        clients.layer_tars(output)
        shutil.rmtree(output)
        return True

    write(config, manifest, dict)
    assert outcome()
    accepted = refused = 0
    plans = [(one, manifest, None) for one in mutations(config)]
    plans += [(config, one, None) for one in mutations(manifest)]
    write(config, manifest, dict)
    whole_index, whole_manifest = clients.index_of(parent), clients.manifest_of(parent)
    plans += [
        (config, one, None)
        for one in mutations(
            {"config": whole_manifest["config"], "layers": whole_manifest["layers"]}
        )
    ]
    plans += [(config, manifest, one) for one in mutations(whole_index)]
    for changed_config, changed_manifest, changed_index in plans:
        write(
            changed_config,
            changed_manifest,
            dict if changed_index is None else lambda _, one=changed_index: one,
        )
        fine = outcome()
        accepted, refused = accepted + fine, refused + (not fine)
    assert accepted > 100
    assert refused > 100


def test_deeply_nested_history(tmp_path: Path) -> None:
    """What can be read can be written: the history is taken over, however deep Python's own limit
    lets it be.
    """
    parent = tmp_path / "parent"
    for depth in (100, *range(900, 1000, 3), 5000, 100_000):
        history: clients.Document = {"rootfs": {"diff_ids": []}, "history": [{"a": "DEEP"}]}
        text = json.dumps(history).replace('"DEEP"', "[" * depth + "]" * depth).encode()
        config = put(parent, text, "")
        document = {"config": config, "layers": []}
        put_index(
            parent,
            put(
                parent, json.dumps(document).encode(), "application/vnd.oci.image.manifest.v1+json"
            ),
        )
        try:
            built(tmp_path / "output", image_of(None, parent))
        except ParentError:
            assert depth > 100
