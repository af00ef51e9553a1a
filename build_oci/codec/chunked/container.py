"""What stands around the metadata of a zstd:chunked layer: skippable frames, the footer, the
annotations of the descriptor.

    frames of the archive | skippable: TOC | skippable: tar-split | skippable: footer

Positions are those of a skippable frame's content, 8 bytes behind its start.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from build_oci.records import NamedTuple

CHECKSUM = "io.github.containers.zstd-chunked.manifest-checksum"
POSITION = "io.github.containers.zstd-chunked.manifest-position"
TAR_SPLIT_POSITION = "io.github.containers.zstd-chunked.tarsplit-position"
_ESTARGZ = "containerd.io/snapshot/stargz/toc.digest"
# The dead key of layers from before 2024, which goes with the others.
_PREFIX = "io.github.containers.zstd-chunked."
TOC_LIMIT = 150 << 20  # bytes; clients pull a layer with a larger one as a whole
# Half of a plain layer's block: frames are small here, so longer blocks gain nothing, and short
# ones keep more threads busy.
BLOCK = 4 << 20
# What an encoder holds of each in blocks: itself, its frames twice while they are joined, loose
# chunks, its lines of the tar-split.
BLOCKS_HELD = 5
SKIPPABLE_HEADER = 8
FOOTER_SIZE = 64
_SKIPPABLE_MAGIC = b"\x50\x2a\x4d\x18"
_FOOTER = struct.Struct("<7Q8s")
_FOOTER_MAGIC = b"GNUlInUx"
_TOC_TYPE = 1


class Span(NamedTuple):
    """Compressed bytes at OFFSET of a blob, and how many they are when they are not compressed."""

    offset: int
    size: int
    plain_size: int


class Metadata(NamedTuple):
    """Where the metadata of a layer lie. `checksum`: "sha256:…" of the compressed TOC."""

    checksum: str
    toc: Span
    tar_split: Span

    def annotations(self) -> dict[str, str]:
        """Those of the layer's descriptor."""
        return {
            CHECKSUM: self.checksum,
            POSITION: f"{self.toc.offset}:{self.toc.size}:{self.toc.plain_size}:{_TOC_TYPE}",
            TAR_SPLIT_POSITION: (
                f"{self.tar_split.offset}:{self.tar_split.size}:{self.tar_split.plain_size}"
            ),
        }

    def footer(self) -> bytes:
        """The content of the last skippable frame."""
        return _FOOTER.pack(*self.toc, _TOC_TYPE, *self.tar_split, _FOOTER_MAGIC)


def skippable(size: int) -> bytes:
    """What stands before SIZE bytes that decoders are to skip."""
    return _SKIPPABLE_MAGIC + size.to_bytes(4, "little")


def chunked_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """Those of zstd:chunked. A layer that has any claims to be one."""
    return {key: value for key, value in annotations.items() if key.startswith(_PREFIX)}


def without_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """ANNOTATIONS without those of zstd:chunked."""
    return {key: value for key, value in annotations.items() if not key.startswith(_PREFIX)}


def read_annotations(annotations: Mapping[str, str]) -> Metadata:
    """What the annotations of a layer say. ValueError where they are incomplete or malformed, or
    clients take them for those of two formats.
    """
    if _ESTARGZ in annotations:
        raise ValueError(f"its descriptor has annotations of zstd:chunked, and {_ESTARGZ} as well")
    for key in (CHECKSUM, POSITION, TAR_SPLIT_POSITION):
        if key not in annotations:
            raise ValueError(f"its descriptor has annotations of zstd:chunked, but no {key}")
    if not re.fullmatch("sha256:[0-9a-f]{64}", annotations[CHECKSUM]):
        raise ValueError(f"{CHECKSUM} is no SHA-256 digest")
    toc, tar_split = (
        _numbers(annotations, POSITION, 4),
        _numbers(annotations, TAR_SPLIT_POSITION, 3),
    )
    if toc[3] != _TOC_TYPE:
        raise ValueError(f"{POSITION} names the type {toc[3]}; only {_TOC_TYPE} is known")
    return Metadata(annotations[CHECKSUM], Span(*toc[:3]), Span(*tar_split))


def _numbers(annotations: Mapping[str, str], key: str, count: int) -> list[int]:
    parts = annotations[key].split(":")
    if len(parts) != count or not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):
        raise ValueError(f"{key} is not {count} numbers between colons")
    return [int(part) for part in parts]
