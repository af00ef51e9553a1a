"""What partial pulls of zstd:chunked layers download: the files and chunks that no layer of the old
image has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from build_oci.codec.chunked.check import toc_entries
from build_oci.codec.chunked.container import chunked_annotations, read_annotations
from build_oci.compare.read import Image
from build_oci.errors import ParentError
from build_oci.oci.untrusted import ReadDescriptor
from build_oci.records import NamedTuple

_MOST_DIGESTS = 1_000_000  # that are held, some 130 bytes each
_MOST_CHUNKS = 1 << 18  # of one file
_JOINED_GAP = 1024  # bytes: clients ask for ranges with a smaller gap as one


class _File(NamedTuple):
    """A file of a layer: digest of its content, and (digest, start, end) of its chunks in the blob;
    a hole has no digest.
    """

    digest: bytes
    chunks: list[tuple[bytes, int, int]]


def partial_bytes(old: Image, new: Image, check: Callable[[], None]) -> int | None:
    """Bytes of layers that a client with OLD downloads for NEW, with partial pulls where layers are
    zstd:chunked.

    None where one of the images has no such layer, or where there are too many digests to hold.
    Raises ParentError, and what CHECK raises.
    """
    there = {layer.digest for layer in old.read.layers}
    lacking = list(
        {layer.digest: layer for layer in new.read.layers if layer.digest not in there}.values()
    )
    if not any(map(_is_chunked, lacking)) or not any(map(_is_chunked, old.read.layers)):
        return None
    known: set[bytes] = set()
    for layer in filter(_is_chunked, old.read.layers):
        for file in _files(old, layer, check):
            known.add(file.digest)
            known.update(digest for digest, _, _ in file.chunks)
            if len(known) > _MOST_DIGESTS:
                return None
    return sum(
        _needed(new, layer, known, check) if _is_chunked(layer) else layer.size for layer in lacking
    )


def _is_chunked(layer: ReadDescriptor) -> bool:
    return bool(chunked_annotations(layer.annotations))


def _needed(
    image: Image, layer: ReadDescriptor, known: set[bytes], check: Callable[[], None]
) -> int:
    """Bytes of LAYER: its metadata, and the ranges of what is not KNOWN."""
    metadata = read_annotations(layer.annotations)
    size = metadata.toc.size + metadata.tar_split.size
    end_of_last = -_JOINED_GAP - 1
    for file in _files(image, layer, check):
        if file.digest in known:
            continue
        for digest, start, end in file.chunks:
            if not digest or digest in known:
                continue
            size += end - start
            if 0 < start - end_of_last <= _JOINED_GAP:
                size += start - end_of_last
            end_of_last = end
    return size


def _files(image: Image, layer: ReadDescriptor, check: Callable[[], None]) -> Iterator[_File]:
    """The files of LAYER that have content. ParentError where its table of contents is damaged."""
    where = str(image.source.blob_path(layer.digest))
    with image.source.blob(layer) as blob:
        try:
            entries: list[dict[str, Any]] = []
            for entry in toc_entries(blob.part, layer.annotations, check):
                if entry.get("type") != "chunk" and entries:
                    yield _file(entries)
                    entries = []
                if entry.get("type") == "chunk" or (
                    entry.get("type") == "reg" and entry.get("digest")
                ):
                    if len(entries) == _MOST_CHUNKS:
                        raise ValueError(f"a file has more chunks than {_MOST_CHUNKS}")
                    entries.append(entry)
            if entries:
                yield _file(entries)
        except (ValueError, RecursionError) as error:
            raise ParentError(str(error), where=where) from None


def _file(entries: list[dict[str, Any]]) -> _File:
    """The file that the first of ENTRIES begins and the others go on with."""
    first = entries[0]
    starts = [_number(entry, "offset") for entry in entries]
    ends = [*starts[1:], _number(first, "endOffset")]
    digests = [_digest(entry.get("chunkDigest") or first.get("digest")) for entry in entries]
    chunks = []
    for entry, digest, start, end in zip(entries, digests, starts, ends, strict=True):
        if end < start:
            raise ValueError("its table of contents has a chunk that ends before it starts")
        chunks.append((b"" if entry.get("chunkType") == "zeros" else digest, start, end))
    return _File(_digest(first.get("digest")), chunks)


def _digest(text: object) -> bytes:
    if not isinstance(text, str) or not re.fullmatch("sha256:[0-9a-f]{64}", text):
        raise ValueError("its table of contents has a digest that is none")
    return bytes.fromhex(text[7:])


def _number(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key, 0)
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError(f"its table of contents has no proper {key}")
    return value
