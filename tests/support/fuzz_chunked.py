"""Random zstd:chunked layers that lie (contract: promise-hostile-input): metadata, footer,
annotations and frames with something changed, and archives that no writer writes.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
import time
from pathlib import Path

import trees
import zstandard
from archives import BLOCK, sealed
from chunked_layers import KEY, Layer, built, check_layer, encoded, rebuilt, resealed
from odd_members import random_archive

from build_oci.codec.chunked.encoder import CannotBeChunkedError
from build_oci.errors import printable

ESTARGZ = "containerd.io/snapshot/stargz/toc.digest"
"""With it, a client does not know which format a layer has."""
MOST_SECONDS = 10.0
"""Of processor time that one layer may take."""
ODD: list[object] = [
    None,
    -1,
    0,
    1,
    511,
    2**31,
    2**63,
    2**200,
    1.5,
    "",
    "x",
    "../x",
    "\ud800",
    [],
    {},
    [[]],
    True,
]
BYTES = [b"", b"\0", b"\xff", b"{", b'"', b"9" * 30, b"null", b"\n", b"\\u0000", bytes(512)]


def damaged(rng: random.Random, text: bytes) -> bytes:
    """TEXT with a few bytes of it exchanged."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        data[at : at + rng.randint(0, 3)] = rng.choice(BYTES)
    return bytes(data)


def odd_value(rng: random.Random, owner: dict[str, object]) -> None:
    """Change, add or remove something in OWNER."""
    key = rng.choice([*owner, "offset", "endOffset", "chunkOffset", "chunkType", "digest", "size"])
    what = rng.random()
    if what < 0.2:
        owner.pop(key, None)
    elif what < 0.3:
        owner[key.swapcase()] = rng.choice([*ODD, *owner.values(), owner.get(key)])
    else:
        owner[key] = rng.choice([*ODD, *owner.values()])


def with_odd_metadata(rng: random.Random, layer: Layer) -> Layer:
    """LAYER with another table of contents or another tar-split, all digests made right again."""

    def toc(document: dict[str, object]) -> None:
        entries = document["entries"]
        assert isinstance(entries, list)
        match rng.randrange(5):
            case 0:
                odd_value(rng, document)
            case 1:
                rng.shuffle(entries)
            case 2:
                entries.insert(rng.randrange(len(entries)), rng.choice([*entries, 1, None]))
            case _:
                odd_value(rng, rng.choice(entries))

    def lines(tar_split: list[object]) -> None:
        if rng.random() < 0.5:
            odd_value(rng, rng.choice(tar_split))  # type: ignore[arg-type]
        else:
            tar_split.insert(rng.randrange(len(tar_split)), tar_split.pop())

    if rng.random() < 0.5:
        return resealed(layer, toc=toc)
    return resealed(layer, lines=lines)


def with_odd_frames(rng: random.Random, layer: Layer) -> Layer:
    """LAYER with other bytes: anywhere, or in the text of its metadata."""
    match rng.randrange(3):
        case 0:
            return layer._replace(blob=damaged(rng, layer.blob))
        case 1:
            return layer._replace(blob=layer.blob[:-72] + damaged(rng, layer.blob[-72:]))
        case _:
            position = rng.choice(["manifest-position", "tarsplit-position"])
            offset, size, *_ = map(int, layer.annotations[KEY + position].split(":"))
            packed = zstandard.compress(damaged(rng, layer.span(position)))
            start, end = layer.blob[: offset - 4], layer.blob[offset + size :]
            return layer._replace(blob=start + struct.pack("<I", len(packed)) + packed + end)


def with_odd_annotations(rng: random.Random, layer: Layer) -> Layer:
    annotations = dict(layer.annotations)
    key = rng.choice([*annotations])
    parts = annotations[key].split(":")
    parts[rng.randrange(len(parts))] = rng.choice(
        ["", "0", "-1", "x", "9" * 18, "9" * 40, "8", "72"]
    )
    annotations[key] = rng.choice([":".join(parts), "", annotations[rng.choice([*annotations])]])
    if rng.random() < 0.1:
        del annotations[key]
    if rng.random() < 0.05:
        annotations[ESTARGZ] = "sha256:" + "0" * 64
    return layer._replace(annotations=annotations)


def changed(rng: random.Random, layer: Layer) -> Layer:
    """LAYER with something changed."""
    change = rng.choice([with_odd_metadata, with_odd_frames, with_odd_annotations])
    return change(rng, layer)


def odd_archive(rng: random.Random, tar: bytes) -> bytes:
    """TAR with some fields of its headers changed, most checksums made right again."""
    data = bytearray(tar)
    odd = [b"\0", b"\xff", b"7", b"/", b" ", b"x", b"L", b"g", b"."]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) // BLOCK) * BLOCK
        place = at + rng.choice([0, 99, 100, 108, 124, 130, 136, 156, 157, 257, 263, 329, 345, 508])
        data[place : place + 1] = rng.choice(odd)
        if rng.random() < 0.9:
            data[at : at + BLOCK] = sealed(bytes(data[at : at + BLOCK]))
    return bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])


def chunked(seed: int, keep: Path) -> None:
    """The check of a layer finds at most one problem, in words; where it finds none, a client gets
    the archive. And an archive becomes a layer that passes it, or the reason why not is told.
    """
    rng = random.Random(seed)
    root = keep / "root"
    root.mkdir()
    trees.materialise(trees.random_tree(rng, 6), root)
    (root / "holes").write_bytes(rng.randbytes(rng.randrange(3000)) + bytes(5000) + b"end")
    layer = built(root)
    began = time.process_time()
    if not layer.annotations:
        return  # a name that is not UTF-8
    is_ours = rng.random() < 0.25
    if is_ours:
        archive = odd_archive(rng, layer.tar) if rng.random() < 0.5 else random_archive(rng)
        (keep / "archive.tar").write_bytes(archive)
        try:
            found = encoded(archive, rng.choice([1 << 20, 700]))
        except CannotBeChunkedError as reason:
            assert str(reason).isprintable()  # noqa: PT017
            return
        assert found.tar == archive
    else:
        found = changed(rng, layer)
    (keep / "layer.zst").write_bytes(found.blob)
    (keep / "annotations.json").write_text(json.dumps(found.annotations))
    expected = archive if is_ours else layer.tar
    problems = check_layer(found, len(expected))
    assert len(problems) <= 1
    assert all("\n" not in printable(problem) for problem in problems)  # as they are told
    assert not (is_ours and problems)
    if not problems:
        assert rebuilt(found, is_ours=is_ours) == expected
    assert time.process_time() - began < MOST_SECONDS


def seeds(rng: random.Random) -> bytes:
    """An input of tests/c/fuzz_chunked.c: two bytes of a limit, an archive."""
    if rng.random() < 0.5:
        return rng.randbytes(2) + random_archive(rng)
    with tempfile.TemporaryDirectory() as directory:
        trees.materialise(trees.random_tree(rng, 6), directory)
        return rng.randbytes(2) + built(Path(directory), epoch=None).tar
