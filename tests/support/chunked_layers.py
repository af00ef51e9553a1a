"""Layers as zstd:chunked, read by plain Python: what stands in them, what a client makes of it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any, NamedTuple

import clients
import zstandard

from build_oci._native.chunked import crc64
from build_oci.codec.chunked import check, container
from build_oci.codec.chunked.archive import ArchiveEncoder
from build_oci.codec.chunked.encoder import CannotBeChunkedError
from build_oci.config.load import load_config
from build_oci.oci.untrusted import FilePart
from build_oci.pipeline import build
from build_oci.work.budget import Budget
from build_oci.work.digests import Digests
from build_oci.work.pool import Pool

EPOCH = 1_700_000_000
KEY = "io.github.containers.zstd-chunked."


class Layer(NamedTuple):
    """A layer as its blob and its descriptor have it."""

    blob: bytes
    annotations: dict[str, str]
    diff_id: str
    digest: str

    @property
    def tar(self) -> bytes:
        return plain(self.blob)

    def span(self, key: str) -> bytes:
        offset, size, plain_size, *_ = (
            int(number) for number in self.annotations[KEY + key].split(":")
        )
        assert self.blob[offset - 8 : offset] == b"\x50\x2a\x4d\x18" + struct.pack("<I", size)
        content = plain(self.blob[offset : offset + size])
        assert len(content) == plain_size
        return content

    @property
    def toc(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.span("manifest-position"))
        return document

    @property
    def tar_split(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.span("tarsplit-position").splitlines()]


def plain(data: bytes, size: int = -1) -> bytes:
    """What DATA decompress to, or the first SIZE bytes of it."""
    with zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO(data), read_across_frames=True
    ) as reader:
        return reader.read(size)


def built(
    root: Path,
    *,
    workers: int = 2,
    epoch: int | None = EPOCH,
    warnings: list[str] | None = None,
    **options: object,
) -> Layer:
    """The layer that the product makes of ROOT."""
    settings = {name.replace("_", "-"): value for name, value in options.items()}
    document = clients.layer_config(root, compression="zstd:chunked", **settings)
    heard: list[str] = [] if warnings is None else warnings
    with tempfile.TemporaryDirectory() as output:
        build(
            load_config(json.dumps(document)),
            output=Path(output),
            workers=workers,
            epoch=epoch,
            warn=heard.append,
            sync=False,
        )
        return layer_of(Path(output))


def layer_of(layout: Path) -> Layer:
    manifest = clients.manifest_of(layout)
    (descriptor,) = manifest["layers"]
    (diff_id,) = json.loads(clients.blob(layout, manifest["config"]["digest"]))["rootfs"][
        "diff_ids"
    ]
    assert descriptor["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
    return Layer(
        clients.blob(layout, descriptor["digest"]),
        descriptor.get("annotations", {}),
        diff_id,
        descriptor["digest"],
    )


def folded(document: dict[str, Any]) -> dict[str, Any]:
    """DOCUMENT by its keys in lower case, of which clients read any; the last one counts."""
    return {key.lower(): value for key, value in document.items()}


def merged_entries(layer: Layer) -> Iterator[tuple[dict[str, Any], list[tuple[Any, int]]]]:
    """Each entry of the TOC, with its chunks if it is a file: a chunk, and where in the blob a
    client thinks that it ends.
    """
    # Where there are two arrays, in upper and in lower case, clients take both.
    entries = [
        folded(entry)
        for key, array in layer.toc.items()
        if key.lower() == "entries"
        for entry in array
    ]
    merged: list[list[dict[str, Any]]] = []
    for entry in entries:
        if entry["type"] == "chunk":
            assert merged[-1][0]["type"] == "reg"
            merged[-1].append(entry)
        else:
            merged.append([entry])
    following = int(layer.annotations[KEY + "manifest-position"].split(":")[0])
    found: list[tuple[dict[str, Any], list[tuple[Any, int]]]] = []
    for chunks in reversed(merged):
        # Where the last chunk does not say its end, it is that the next content begins.
        end = chunks[-1].get("endoffset") or following
        following = chunks[0].get("offset") or following
        starts = [int(chunk.get("offset") or 0) for chunk in chunks]
        found.append((chunks[0], list(zip(chunks, [*starts[1:], end], strict=True))))
    yield from reversed(found)


def file_content(layer: Layer, entry: dict[str, Any], chunks: list[tuple[Any, int]]) -> bytes:
    """What a client makes of a file: it looks at the digest of the whole."""
    content = bytearray()
    left = entry["size"]
    for chunk, end in chunks:
        size = chunk.get("chunksize") or left
        left -= size
        if chunk.get("chunktype") == "zeros":
            content += bytes(size)
        else:
            content += plain(layer.blob[chunk["offset"] : end], size)
    assert len(content) == entry["size"]
    assert "sha256:" + hashlib.sha256(content).hexdigest() == entry["digest"]
    return bytes(content)


def assert_reference_chunks(
    layer: Layer, entry: dict[str, Any], chunks: list[tuple[Any, int]]
) -> None:
    """The chunks of a file as the reference writes them, of which clients do not need all."""
    place = 0
    assert len(chunks) == 1 or all("endoffset" not in chunk for chunk, _ in chunks[1:])
    ends = [chunk["offset"] for chunk, _ in chunks[1:]] + [entry["endoffset"]]
    for (chunk, _), end in zip(chunks, ends, strict=True):
        piece = plain(layer.blob[chunk["offset"] : end])
        assert chunk["name"] == entry["name"]
        assert chunk.get("chunkoffset", 0) == place
        place += len(piece)
        if len(chunks) > 1:
            assert chunk["chunksize"] == len(piece)
            assert "sha256:" + hashlib.sha256(piece).hexdigest() == chunk["chunkdigest"]
            assert (chunk.get("chunktype") == "zeros") == (len(piece) >= 1024 and not any(piece))
    assert place == entry["size"]


def rebuilt(layer: Layer, *, is_ours: bool = True) -> bytes:
    """The archive that a client which has pulled the layer in parts makes of files and tar-split.
    Clients take the lines of tar-split in the order in which they stand; only ours have to be
    numbered so, and only ours have to be cut as the reference cuts.
    """
    files: dict[str, bytes] = {}
    for entry, chunks in merged_entries(layer):
        if entry["type"] != "reg" or not entry.get("size"):
            continue
        if is_ours:
            assert_reference_chunks(layer, entry, chunks)
        files[entry["name"]] = file_content(layer, entry, chunks)
    archive = bytearray()
    for position, line in enumerate(map(folded, layer.tar_split)):
        assert not is_ours or line["position"] == position
        if line["type"] == 2:
            archive += base64.b64decode(line.get("payload") or "")
        elif line.get("size"):
            raw = base64.b64decode(line.get("name_raw") or "").decode()
            content = files[raw or line["name"]]
            assert crc64(content).to_bytes(8, "big") == base64.b64decode(line["payload"])
            archive += content
    return bytes(archive)


TYPES = {
    b"0": "reg",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
}


def expected_entries(tar: bytes) -> list[dict[str, Any]]:
    """The TOC's entries as the archive's headers have them, without places and chunks."""
    found = []
    with tarfile.open(
        fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in archive:
            time = Decimal(member.pax_headers.get("mtime", str(int(member.mtime))))
            # Digits behind the ninth are cut off.
            nanoseconds = int((time * 10**9).to_integral_value(rounding=ROUND_DOWN))
            fraction = f"{nanoseconds % 10**9:09}".rstrip("0")
            moment = datetime(1970, 1, 1) + timedelta(seconds=nanoseconds // 10**9)
            modified = moment.isoformat() + (f".{fraction}" if fraction else "") + "Z"
            values: dict[str, Any] = {
                "type": TYPES[member.type],
                "name": member.name + "/" * member.isdir() if member.name != "." else "./",
                "linkName": member.linkname,
                "mode": member.mode,
                "size": member.size if member.isreg() else 0,
                "uid": member.uid,
                "gid": member.gid,
                "modtime": modified if nanoseconds else None,
                "devMajor": member.devmajor,
                "devMinor": member.devminor,
                "xattrs": {
                    name.removeprefix("SCHILY.xattr."): base64.b64encode(
                        value.encode("utf-8", "surrogateescape")
                    ).decode()
                    for name, value in member.pax_headers.items()
                    if name.startswith("SCHILY.xattr.")
                },
                "digest": "",
            }
            if member.isreg() and member.size:
                content = archive.extractfile(member)
                assert content is not None
                values["digest"] = "sha256:" + hashlib.sha256(content.read()).hexdigest()
            found.append({key: value for key, value in values.items() if value})
    return found


PLACES = ("offset", "endOffset", "chunkSize", "chunkOffset", "chunkDigest", "chunkType")


def assert_sound(layer: Layer) -> None:
    """Everything in the layer says the same."""
    tar = layer.tar
    assert "sha256:" + hashlib.sha256(tar).hexdigest() == layer.diff_id
    assert rebuilt(layer) == tar
    entries = [
        {key: value for key, value in one.items() if key not in PLACES}
        for one in layer.toc["entries"]
        if one["type"] != "chunk"
    ]
    assert entries == expected_entries(tar)
    toc = [int(number) for number in layer.annotations[KEY + "manifest-position"].split(":")]
    tar_split = [int(number) for number in layer.annotations[KEY + "tarsplit-position"].split(":")]
    packed_toc, packed_tar_split = (
        layer.blob[offset : offset + size] for offset, size, *_ in (toc, tar_split)
    )
    assert (
        layer.annotations[KEY + "manifest-checksum"]
        == "sha256:" + hashlib.sha256(packed_toc).hexdigest()
    )
    assert layer.toc["tarSplitDigest"] == "sha256:" + hashlib.sha256(packed_tar_split).hexdigest()
    assert layer.toc["version"] == toc[3] == 1
    assert layer.blob[-72:-64] == b"\x50\x2a\x4d\x18" + struct.pack("<I", 64)
    assert layer.blob[-64:] == struct.pack("<7Q", *toc, *tar_split) + b"GNUlInUx"
    assert layer.blob.startswith(b"\x28\xb5\x2f\xfd")


def large_tree(root: Path) -> None:
    """Files that several blocks hold, and holes over the edges of blocks."""
    rng = random.Random(5)
    root.mkdir()
    block = 4 << 20
    (root / "a-short").write_bytes(b"short")
    (root / "b-two").write_bytes(rng.randbytes(block + 1))
    holes = bytearray(rng.randbytes(3 * block))
    for number in (1, 2):
        at = number * block
        holes[at - 2000 * number : at + 70_000] = bytes(2000 * number + 70_000)
    holes[-500:] = bytes(500)
    (root / "c-holes").write_bytes(holes)
    (root / "d-zeros").write_bytes(b"")
    os.truncate(root / "d-zeros", 2 * block + 77)
    (root / "e-text").write_bytes(b"the same line over and over\n" * 400_000)
    (root / "f-megabyte").write_bytes(rng.randbytes(1 << 20))
    os.link(root / "b-two", root / "z-link")


def check_layer(layer: Layer, size: int | None = None) -> list[str]:
    """The problems of LAYER, whose archive has SIZE bytes; by default what comes out of it."""
    with tempfile.TemporaryFile() as file:
        file.write(layer.blob)
        file.flush()
        return check.chunked_problems(
            FilePart(file.fileno(), 0, len(layer.blob), is_whole=True),
            layer.annotations,
            (layer.diff_id, len(layer.tar) if size is None else size),
            lambda: None,
        )


def resealed(
    layer: Layer,
    toc: Callable[[dict[str, Any]], object] = lambda _: None,
    lines: Callable[[list[Any]], object] = lambda _: None,
) -> Layer:
    """LAYER with its metadata changed, and every digest and position made right again."""
    document, tar_split = layer.toc, layer.tar_split
    lines(tar_split)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in tar_split).encode()
    packed = zstandard.compress(text)
    document["tarSplitDigest"] = "sha256:" + hashlib.sha256(packed).hexdigest()
    toc(document)
    toc_text = json.dumps(document).encode()
    packed_toc = zstandard.compress(toc_text)
    start = int(layer.annotations[KEY + "manifest-position"].split(":")[0])
    tar_split_at = start + len(packed_toc) + 8
    metadata = container.Metadata(
        "sha256:" + hashlib.sha256(packed_toc).hexdigest(),
        container.Span(start, len(packed_toc), len(toc_text)),
        container.Span(tar_split_at, len(packed), len(text)),
    )
    blob = layer.blob[: start - 8]
    for content in (packed_toc, packed, metadata.footer()):
        blob += container.skippable(len(content)) + content
    return layer._replace(blob=blob, annotations=metadata.annotations())


def encoded(archive: bytes, step: int = 1 << 20, workers: int = 2) -> Layer:
    """ARCHIVE, written to the encoder in pieces of STEP bytes."""
    blob = bytearray()
    with Pool(workers) as pool:
        encoder = ArchiveEncoder(
            None,
            blob.extend,
            pool=pool,
            workers=workers,
            budget=Budget(1 << 28),
            digests=Digests(pool),
            new_file=tempfile.TemporaryFile,
        )
        try:
            for at in range(0, len(archive), step):
                encoder.write(archive[at : at + step])
            encoder.finish()
        except CannotBeChunkedError:
            encoder.drop()
            raise
    digest = hashlib.sha256(archive).hexdigest()
    return Layer(bytes(blob), dict(encoder.annotations), f"sha256:{digest}", "")
