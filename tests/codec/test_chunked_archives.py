"""Archives of other builders as zstd:chunked (contract: codec-chunked-parents): the tar-split gives
every byte of them back, and the table of contents says what their headers say."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clients
import pytest
import trees
from archives import END, GNU, V7, extended, header, padded, pax
from chunked_layers import (
    EPOCH,
    KEY,
    Layer,
    assert_sound,
    built,
    check_layer,
    encoded,
    large_tree,
    layer_of,
    plain,
    rebuilt,
)
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from build_oci._native.chunked import Splitter
from build_oci.codec.chunked.encoder import CannotBeChunkedError
from build_oci.config.load import load_config
from build_oci.pipeline import build

# These tests hardly depend on the version of Python.
pytestmark = pytest.mark.once

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def archived(root: Path, kind: int, *, padding: int = 0) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind, errors="surrogateescape") as archive:
        archive.add(root, "rootfs")
    return file.getvalue() + bytes(padding)


@examples(max_examples=25, deadline=None)
@given(
    items=trees.trees(),
    kind=st.sampled_from(["pax", "gnu"]),
    step=st.sampled_from([100_000, 511, 77]),
    padding=st.sampled_from([0, 512, 3000]),
)
def test_odd_trees(items: list[trees.Item], kind: str, step: int, padding: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trees.materialise(items, directory)
        archive = archived(Path(directory), FORMATS[kind], padding=padding)
    try:
        layer = encoded(archive, step)
    except CannotBeChunkedError as reason:
        # tarfile writes times below 0.0001 s with an exponent, which Go does not take either.
        expected = ("UTF-8", "years", "number", "whiteout")
        assert any(word in str(reason) for word in expected)  # noqa: PT017
        return
    assert layer.tar == archive
    assert_sound(layer)
    assert check_layer(layer) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_large_files(tmp_path: Path, kind: str) -> None:
    """Files of several blocks, and padding that goes on for megabytes: whatever the workers and the
    pieces, the same bytes; and chunks where packing cuts them.
    """
    large_tree(tmp_path / "root")
    archive = archived(tmp_path / "root", FORMATS[kind], padding=5 << 20)
    layer = encoded(archive)
    assert_sound(layer)
    assert check_layer(layer) == []
    others = [encoded(archive, step, workers) for step, workers in ((1 << 20, 1), (99_991, 3))]
    assert [other.blob for other in others] == [layer.blob] * 2
    keys = ("size", "digest", "chunkSize", "chunkOffset", "chunkDigest", "chunkType")
    chunks = [
        [
            (entry["name"].rpartition("/")[2], *(entry.get(key) for key in keys))
            for entry in one.toc["entries"]
            if entry["type"] in ("reg", "chunk")
        ]
        for one in (layer, built(tmp_path / "root"))
    ]
    assert chunks[0] == chunks[1]


GNU_NAME = header(b"././@LongLink", b"L", magic=GNU, size=6) + padded(b"./\xc3\xbc1\0")
TELLABLE: dict[str, tuple[bytes, dict[str, object]]] = {
    "gnu name": (GNU_NAME + header(b"x", magic=GNU), {"name": "./ü1"}),
    "gnu name before pax path": (
        GNU_NAME + pax((b"path", b"other")) + header(b"x", magic=GNU),
        {"name": "./ü1"},
    ),
    "gnu name up to a NUL": (
        extended(b"./a\0behind\0", b"L") + header(b"x", magic=GNU),
        {"name": "./a"},
    ),
    "a record without a value takes an earlier one back": (
        pax((b"path", b"p"), (b"uid", b"7"), (b"path", b""), (b"uid", b"")) + header(uid=3),
        {"uid": 3},
    ),
    "Go's zero time": (pax((b"mtime", b"-62135596800")) + header(), {
        "modtime": "0001-01-01T00:00:00Z",
    }),
    "prefix": (header(b"b", prefix=b"a"), {"name": "a/b"}),
    "gnu times": (header(magic=GNU, prefix=b"00000000005\0" + b"00000000006\0"), {
        "accesstime": "1970-01-01T00:00:05Z", "changetime": "1970-01-01T00:00:06Z",
    }),
    "pax times": (pax((b"atime", b"5.25"), (b"ctime", b"-1.5")) + header(), {
        "accesstime": "1970-01-01T00:00:05.25Z", "changetime": "1969-12-31T23:59:58.5Z",
    }),
    "negative times": (pax((b"mtime", b"-0.12345678901")) + header(), {
        "modtime": "1969-12-31T23:59:59.876543211Z",
    }),
    "mode with a type": (header(mode=0o100644), {"mode": 0o100644}),
    "base 256": (header(uid=b"\x80\0\0\0\0\x20\0\0"), {"uid": 0x200000}),
    "devices of a file": (header(major=3), {"devMajor": 3}),
    "no devices in v7": (header(magic=V7, major=3), {}),
    "target of a file": (header(link=b"t"), {"linkName": "t"}),
    "an empty record takes nothing back": (
        pax((b"uid", b""), (b"mtime", b""), (b"SCHILY.xattr.user.e", b"")) + header(uid=7),
        {"uid": 7, "xattrs": {"user.e": ""}},
    ),
    "attributes of the host": (
        pax((b"SCHILY.xattr.security.selinux", b"\xff\0="), (b"LIBARCHIVE.xattr.a", b"eA"))
        + header(),
        {"xattrs": {"security.selinux": "/wA9"}},
    ),
    "a checksum of signed bytes": (header("ü".encode(), signed=True), {"name": "ü"}),
    "nul and a slash": (header(b"d/", b"\0"), {"type": "dir", "name": "d/"}),
    "a large record": (pax((b"comment", b"c" * 900_000)) + header(), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", TELLABLE)
def test_headers(case: str) -> None:
    """Of headers that others write, the table of contents says what Go reads in them; and our check
    of layers reads the same.
    """
    headers, expected = TELLABLE[case]
    archive = headers + END
    layer = encoded(archive, 700)
    assert layer.tar == archive == rebuilt(layer)
    (entry,) = layer.toc["entries"]
    assert {"type": "reg", "name": "f", "mode": 0o644} | expected == entry | (
        {} if "name" in expected else {"name": "f"}
    )
    assert check_layer(layer) == []


@pytest.mark.parametrize(
    "end", [b"", bytes(512), bytes(1024), bytes(1024) + b"anything behind the end"]
)
def test_ends(end: bytes) -> None:
    """What stands behind the last member is kept to the byte; its padding may be missing, or no
    zeros.
    """
    file = header(size=5) + b"five!"
    for padding in (b"", bytes(507), b"\1" * 507):
        if end and not padding:
            continue
        archive = file + padding + end
        layer = encoded(archive)
        assert layer.tar == archive == rebuilt(layer)
        assert check_layer(layer) == []


@pytest.mark.parametrize(
    ("size", "is_told"),
    [(507, False), (512, True), (513, False), (1500, True), (1 << 20, True), (1048653, False)],
)
def test_a_long_end(size: int, is_told: bool) -> None:
    """Clients read each line of the tar-split like the start of an archive. So behind the first,
    of 1 MiB, each begins where a block does, and holds one or two of them at the least.
    """
    archive = header(size=5) + padded(b"five!") + bytes((1 << 20) + size)
    if not is_told:
        with pytest.raises(CannotBeChunkedError, match="truncated"):
            encoded(archive)
        return
    layer = encoded(archive)
    assert layer.tar == archive == rebuilt(layer)
    assert check_layer(layer) == []


def odd_extension(**fields: Any) -> bytes:
    """An extended header whose own block has odd fields."""
    return header(b"x", b"x", size=8, **fields) + padded(b"8 a=bcd\n") + header()


REFUSED = {
    "a number in a header is none": odd_extension(uid=b"x"),
    "a header is in the format": odd_extension(trailer=b"tar\0"),
    "an extended attribute has no name": pax((b"SCHILY.xattr.", b"v")) + header(),
    "a whiteout has a content": header(b"d/.wh.x", size=1) + padded(b"1"),
    "is that of a directory": header(b"d/", size=1) + padded(b"1"),
    "with a content is that of a directory": header(b"d/.", size=1) + padded(b"1"),
    "archive is truncated": header(size=1) + b"1" + bytes(300),
    "something stands far behind": header() + bytes((1 << 20) + 512) + b"1",
    "a name is not UTF-8": header(b"\xff"),
    "a number in a header": header(size=b"12x"),
    "a time is outside": pax((b"mtime", b"999999999999")) + header(),
    "a pax record is malformed": extended(b"7 a=b\n") + header(),
    "a header is malformed": header()[:100] + b"x" + header()[101:],
    "larger than every reader takes": pax((b"comment", b"c" * (1 << 20))) + header(),
    "two extended headers of one kind": pax((b"a", b"b")) * 2 + header(),
    "is a sparse file": pax((b"GNU.sparse.major", b"1")) + header(),
    "no regular file has a size": header(b"d/", b"5", size=9),
    "a link has no target": header(kind=b"2"),
    "of a type that no writer": header(kind=b"7"),
    "in the format of star": header(trailer=b"tar\0"),
    'a component ".."': header(b"a/../b"),
    "a name stands twice": header(b"./a") + header(b"a//"),
    "goes on behind a block of zeros": header() + bytes(512) + header(b"g"),
    "the archive is truncated": header(size=9) + b"x",
    "wants its member": pax((b"a", b"b")) + bytes(1024),
    "the archive is empty": b"",
}


@pytest.mark.parametrize("expected", REFUSED)
def test_what_cannot_be_said(expected: str) -> None:
    for step in (1 << 20, 100):
        with pytest.raises(CannotBeChunkedError, match=expected.replace('"', ".")):
            encoded(REFUSED[expected], step)


def blocks(archive: bytes, limit: int, step: int) -> Iterator[tuple[bytes, list[object], bytes]]:
    """Each block of ARCHIVE, the files that it has a part of, its lines of the tar-split."""
    splitter, taken, at = Splitter(limit), b"", 0
    ended = False
    while not ended:
        size = splitter.feed(archive[at : at + step])
        taken += archive[at : at + size]
        at += size
        if at == len(archive) and not splitter.full:
            splitter.finish()
            ended = True
        if splitter.full:
            cut = splitter.take(taken)
            block, taken = taken[: cut.size], taken[cut.size :]
            parts = cut.parts_of(block)
            yield block, [list(parts.pieces()), parts.opened], parts.tar_split


@examples(max_examples=25, deadline=None)
@given(
    sizes=st.lists(
        st.sampled_from([0, 0, 1, 511, 512, 1000, 5000, 8191, 8192, 20_000]), min_size=1, max_size=9
    ),
    limit=st.sampled_from([1, 600, 4096, 8192]),
    steps=st.lists(st.integers(1, 9000), min_size=2, max_size=2),
)
def test_blocks(sizes: list[int], limit: int, steps: list[int]) -> None:
    """They hold the archive, whatever the pieces that it comes in; only contents are cut."""
    rng = random.Random(1)
    archive = b"".join(
        header(b"%d" % number, size=size) + padded(rng.randbytes(size))
        for number, size in enumerate(sizes)
    )
    found = [list(blocks(archive + END, limit, step)) for step in steps]
    assert found[0] == found[1]
    assert b"".join(block for block, _, _ in found[0]) == archive + END
    ends = list(found[0])
    assert all(len(block) <= limit + 2048 or limit == 1 for block, _, _ in ends)


# Parents


@pytest.mark.parametrize("compression", ["gzip", "zstd", "disabled"])
def test_a_parent_of_another_codec(tmp_path: Path, compression: str) -> None:
    """Its layer becomes zstd:chunked, below one that is packed."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    build(
        load_config(json.dumps(clients.layer_config(tmp_path / "tree", compression=compression))),
        output=tmp_path / "parent",
        workers=2,
    )
    (tmp_path / "tree" / "new").write_bytes(b"more")
    document = clients.layer_config(tmp_path / "tree", compression="zstd:chunked")
    document["images"][0]["parent"] = {"image": str(tmp_path / "parent")}
    warnings: list[str] = []
    build(
        load_config(json.dumps(document)), output=tmp_path / "out", workers=2, warn=warnings.append
    )
    manifest = clients.manifest_of(tmp_path / "out")
    diff_ids = json.loads(clients.blob(tmp_path / "out", manifest["config"]["digest"]))["rootfs"]
    assert len(manifest["layers"]) == 2
    for descriptor, diff_id in zip(manifest["layers"], diff_ids["diff_ids"], strict=True):
        blob = clients.blob(tmp_path / "out", descriptor["digest"])
        assert_sound(Layer(blob, descriptor["annotations"], diff_id, descriptor["digest"]))
    assert warnings == []


@pytest.mark.parametrize("compression", ["gzip", "zstd", ["gzip", "zstd"]])
@pytest.mark.parametrize("target", ["zstd:chunked", ["gzip", "zstd:chunked"]])
def test_a_parent_that_cannot_be_chunked(
    tmp_path: Path, compression: str | list[str], target: str | list[str]
) -> None:
    """Plain zstd instead, and a warning that names the layer and the reason."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "caf\udce9").write_bytes(b"content")
    settings = clients.layer_config(tmp_path / "tree", compression=compression)
    build(load_config(json.dumps(settings)), output=tmp_path / "parent", workers=2)
    (below,) = clients.manifest_of(tmp_path / "parent")["layers"]
    image = {"architecture": "amd64", "os": "linux", "parent": {"image": str(tmp_path / "parent")}}
    warnings: list[str] = []
    build(
        load_config(json.dumps({"compression": target, "images": [image]})),
        output=tmp_path / "out",
        workers=2,
        warn=warnings.append,
    )
    (warning,) = warnings
    assert below["digest"].partition(":")[2] in warning
    assert "becomes plain zstd, because it cannot be zstd:chunked: a name is not UTF-8" in warning
    index = clients.index_of(tmp_path / "out")
    assert len(index["manifests"]) == (1 if isinstance(target, str) else 2)
    last = json.loads(clients.blob(tmp_path / "out", index["manifests"][-1]["digest"]))
    (descriptor,) = last["layers"]
    assert "annotations" not in descriptor
    blob = clients.blob(tmp_path / "out", descriptor["digest"])
    tar = clients.layer_tars(tmp_path / "parent")[0]
    assert plain(blob) == tar
    frame = blob[:4] == b"\x28\xb5\x2f\xfd"
    assert frame


def with_layer(layer: Layer, root: Path, annotations: dict[str, str]) -> Path:
    """The layout that `build` made, with other annotations of its layer."""
    layout = root / "parent"
    document = clients.layer_config(root / "tree", compression="zstd:chunked")
    build(load_config(json.dumps(document)), output=layout, workers=2, epoch=EPOCH)
    manifest = clients.manifest_of(layout)
    manifest["layers"][0]["annotations"] = annotations
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    index = clients.index_of(layout)
    index["manifests"][0].update(digest=f"sha256:{digest}", size=len(data))
    (layout / "index.json").write_text(json.dumps(index))
    return layout


@pytest.mark.parametrize("holds", [True, False])
def test_annotations_of_a_parent(tmp_path: Path, holds: bool) -> None:
    """Clients pull by the metadata, which the build never sees otherwise: so what does not hold is
    not carried, but made anew.
    """
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    layer = built(tmp_path / "tree")
    annotations = dict(layer.annotations, other="kept")
    if not holds:
        annotations[KEY + "manifest-checksum"] = "sha256:" + "0" * 64
    parent = with_layer(layer, tmp_path, annotations)
    warnings: list[str] = []
    image = {"architecture": "amd64", "os": "linux", "parent": {"image": str(parent)}}
    build(
        load_config(json.dumps({"compression": "zstd:chunked", "images": [image]})),
        output=tmp_path / "out",
        workers=2,
        warn=warnings.append,
    )
    (carried,) = clients.manifest_of(tmp_path / "out")["layers"]
    assert len(warnings) == (not holds)
    if holds:
        assert carried["digest"] == layer.digest
        assert carried["annotations"] == annotations
    else:
        assert_sound(layer_of(tmp_path / "out"))
