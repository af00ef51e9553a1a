"""The metadata of a zstd:chunked layer, held against each other and against its archive: for the
layers of any builder.

A client that pulls parts of a layer never sees the archive: it makes files from the TOC, and later
writes the archive again from files and tar-split. So this does the same. It goes through tar-split
and TOC side by side, decodes every chunk from where the TOC says it is, and compares the digest of
what that gives with the archive's. Both documents are read as they come; one entry is held at a
time, and of each name a hash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from build_oci._native.chunked import PathSet, crc64
from build_oci.codec import zstd
from build_oci.codec.chunked.container import (
    FOOTER_SIZE,
    SKIPPABLE_HEADER,
    TOC_LIMIT,
    Metadata,
    Span,
    read_annotations,
    skippable,
)
from build_oci.codec.chunked.headers import HEADER_KEYS, read_headers, toc_header
from build_oci.codec.chunked.tar_split import Content, tar_split_lines
from build_oci.codec.chunked.toc import shown, toc_objects
from build_oci.records import NamedTuple
from build_oci.work.hashes import new_hash

if TYPE_CHECKING:
    from build_oci.work.budget import Budget

ANY_SIZE = 1 << 62  # of an archive, where it is not known
_PIECE = 1 << 20
# Chunks up to here are decoded by one call: there is one for most files.
_SMALL_PACKED, _SMALL = 256 << 10, 1 << 20
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


class _Chunk(NamedTuple):
    offset: int
    place: int
    size: int
    digest: str  # empty: it is that of the file
    is_hole: bool


class Blob(Protocol):
    """A blob of `size` bytes, open for reading."""

    @property
    def size(self) -> int: ...

    def read(self, size: int, offset: int = 0) -> bytes:
        """Up to SIZE bytes from OFFSET on. Raises OSError."""


def chunked_problems(
    layer: Blob,
    annotations: dict[str, str],
    archive: tuple[str, int],
    check: Callable[[], None],
    windows: Budget | None = None,
) -> list[str]:
    """What is wrong with the metadata of the blob LAYER; at most one problem, the first.

    archive: the digest of its archive and the bytes in it.
    check: called often; may raise to stop this.
    windows: see codec.zstd.decode.
    """
    try:
        metadata = read_annotations(annotations)
        _Layer(layer, metadata, check, windows).compare(*archive)
    except ValueError as error:
        return [f"zstd:chunked: {error}"]
    except RecursionError:
        return ["zstd:chunked: its metadata are nested too deeply"]
    return []


def toc_entries(
    layer: Blob, annotations: dict[str, str], check: Callable[[], None]
) -> Iterator[dict[str, Any]]:
    """The entries of the table of contents of the blob LAYER, in their order and unchecked.

    CHECK is called often and may raise to stop this. ValueError where the table is damaged, at the
    latest behind its last entry.
    """
    metadata = read_annotations(annotations)
    if max(metadata.toc.size, metadata.toc.plain_size) > TOC_LIMIT:
        raise ValueError(
            f"its table of contents is larger than the {TOC_LIMIT >> 20} MiB that clients read"
        )
    return _Layer(layer, metadata, check, None).entries()


class _Layer:
    """The layer BLOB and what its annotations say. All methods raise
    ValueError.
    """

    def __init__(
        self,
        blob: Blob,
        metadata: Metadata,
        check: Callable[[], None],
        windows: Budget | None,
    ) -> None:
        import zstandard

        self._blob = blob
        self._size = blob.size
        self._metadata = metadata
        self._check = check
        self._windows = windows
        self._small: Any = zstandard.ZstdDecompressor(max_window_size=zstd.SMALL_WINDOW)
        self._error: Any = zstandard.ZstdError
        self._tar_split_digest = ""  # as the TOC says
        self._open_end = 0  # of the last file, if its last chunk does not say where it ends

    def compare(self, archive_digest: str, archive_size: int) -> None:
        """Everything against everything."""
        toc, tar_split = self._metadata.toc, self._metadata.tar_split
        if max(toc.size, toc.plain_size) > TOC_LIMIT:
            raise ValueError(
                f"its table of contents is larger than the {TOC_LIMIT >> 20} MiB that clients read"
            )
        for what, span in (("table of contents", toc), ("tar-split", tar_split)):
            self._check_frame(what, span)
        self._check_footer()
        algorithm = archive_digest.partition(":")[0]
        content = new_hash(algorithm)
        total = 0
        for piece in self._rebuilt():
            content.update(piece)
            total += len(piece)
            if total > archive_size:
                raise ValueError(
                    "tar-split and table of contents give a longer archive than the one in it"
                )
        if f"{algorithm}:{content.digest().hex()}" != archive_digest:
            raise ValueError(
                "tar-split and table of contents give another archive than the one in it"
            )

    def _check_frame(self, what: str, span: Span) -> None:
        if span.offset < SKIPPABLE_HEADER or span.offset + span.size > self._size:
            raise ValueError(f"its {what} is said to lie outside of the blob")
        if span.size >= 1 << 32 or self._read(
            span.offset - SKIPPABLE_HEADER, SKIPPABLE_HEADER
        ) != skippable(span.size):
            raise ValueError(f"its {what} is not in a skippable frame of its size")

    def _check_footer(self) -> None:
        """Clients never read it; but where there is one, it says the same as the annotations."""
        end = self._read(
            max(0, self._size - FOOTER_SIZE - SKIPPABLE_HEADER), FOOTER_SIZE + SKIPPABLE_HEADER
        )
        footer = self._metadata.footer()
        if (
            end.startswith(skippable(FOOTER_SIZE))
            and end.endswith(footer[-8:])
            and end[SKIPPABLE_HEADER:] != footer
        ):
            raise ValueError("its footer and its annotations disagree")

    def _read(self, offset: int, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self._blob.read(size - len(data), offset + len(data))):
            data += piece
        return data

    def _packed(self, offset: int, end: int) -> Iterator[bytes]:
        while offset < end and (piece := self._blob.read(min(_PIECE, end - offset), offset)):
            self._check()
            yield piece
            offset += len(piece)

    def _document(self, what: str, span: Span, sealed: Callable[[str], object]) -> Iterator[bytes]:
        """The plain bytes of a document; when all have come, SEALED is called with the digest of
        what they were packed in.
        """
        digest = new_hash()

        def packed() -> Iterator[bytes]:
            for piece in self._packed(span.offset, span.offset + span.size):
                digest.update(piece)
                yield piece

        size = 0
        for piece in zstd.decode(packed(), self._windows):
            self._check()
            size += len(piece)
            if size > span.plain_size:
                break
            yield bytes(piece)
        if size != span.plain_size:
            raise ValueError(f"its {what} is not of the size that its annotation says")
        sealed(f"sha256:{digest.digest().hex()}")

    # ---- the two documents side by side

    def _rebuilt(self) -> Iterator[bytes]:
        """The archive as tar-split and files give it."""
        files = self._entries_with_chunks()
        tar_split_digest: list[str] = []
        header: dict[str, Any] | None = None
        padding = 0  # that the last content has yet to get
        paths = PathSet()
        for line in tar_split_lines(
            self._document("tar-split", self._metadata.tar_split, tar_split_digest.append)
        ):
            if isinstance(line, bytes):
                # Readers take each line by itself, behind the padding.
                if header is not None:
                    raise ValueError(
                        "its tar-split has bytes between the headers of a member and its content"
                    )
                if len(line) < padding:
                    raise ValueError("its tar-split lacks some of the padding of a content")
                header = read_headers(line[padding:])
                padding = 0
                yield line
                continue
            name = line.name
            if header is None:
                raise ValueError("its tar-split has a content without headers")
            if name != header["name"]:
                raise ValueError(
                    f"the tar-split names {shown(name)} where the archive has"
                    f" {shown(header['name'])}"
                )
            if not paths.add(name):
                raise ValueError(f"the name {shown(name)} stands twice in the archive")
            chunks = next(files, None)
            if chunks is None:
                raise ValueError(f"its table of contents lacks {shown(name)}")
            self._compare_entry(chunks[0], header)
            self._check_offset(chunks[0], name)
            is_file = header["type"] == "reg"
            if line.size != (header["size"] if is_file else 0):
                raise ValueError(
                    f"the tar-split says another size of {shown(name)} than the archive"
                )
            if len(chunks) > 1 and not is_file:
                raise ValueError(f"its table of contents has chunks of {shown(name)}, no file")
            header = None
            padding = -line.size % 512
            if line.size:
                _check_file_name(name)
                yield from self._file(line, chunks)
        if header is not None:
            raise ValueError("its tar-split has headers of a member without its content")
        for _ in files:
            raise ValueError("its table of contents has entries that the archive lacks")
        if not self._tar_split_digest:
            raise ValueError("its table of contents has no digest of the tar-split")
        if tar_split_digest != [self._tar_split_digest]:
            raise ValueError("its tar-split is not what its digest says")

    def _compare_entry(self, entry: dict[str, Any], header: dict[str, Any]) -> None:
        said = toc_header(entry)
        for key in HEADER_KEYS:
            if said[key] != header[key]:
                what = f"the {key} of {shown(header['name'])}" if key != "name" else "the name"
                raise ValueError(
                    f"its table of contents says {what} is {shown(said[key])}, the archive"
                    f" {shown(header[key])}"
                )

    def _check_offset(self, entry: dict[str, Any], name: bytes) -> None:
        """Readers take for the end of a chunk that does not say it the next offset of an entry."""
        offset = _number(entry, "offset", shown(name))
        if offset and offset < self._open_end:
            raise ValueError(f"the content before {shown(name)} ends behind that one's offset")
        if offset:
            self._open_end = 0

    def _file(self, line: Content, entries: list[dict[str, Any]]) -> Iterator[bytes]:
        """The content of a file, chunk by chunk from the blob."""
        size, where = line.size, shown(line.name)
        first = entries[0]
        if any(other.get("name") != first.get("name") for other in entries):
            raise ValueError(f"a chunk behind {where} is of another file")
        expected = first.get("digest", "")
        # Readers take the end from the last chunk, if it says one.
        end = _number(entries[-1], "endOffset", where)
        if not end:
            end = self._open_end = _number(first, "endOffset", where)
        if not _DIGEST.fullmatch(expected):
            raise ValueError(f"its table of contents has no digest of {where}")
        chunks = [_chunk(one, where, size if len(entries) == 1 else None) for one in entries]
        ends = [chunk.offset for chunk in chunks[1:]] + [end]
        content = new_hash()
        crc = place = 0
        for chunk, chunk_end in zip(chunks, ends, strict=True):
            if (
                chunk.place != place
                or not 0 < chunk.offset < chunk_end <= self._metadata.toc.offset
            ):
                raise ValueError(f"the chunks of {where} do not follow each other")
            digest = new_hash()
            for piece in self._chunk_content(chunk, chunk_end, where):
                digest.update(piece)
                content.update(piece)
                crc = crc64(piece, crc)
                if chunk.is_hole and any(piece):
                    raise ValueError(f"a hole of {where} is not empty")
                yield piece
            if chunk.digest and f"sha256:{digest.digest().hex()}" != chunk.digest:
                raise ValueError(f"the chunk at {place} of {where} is not what its digest says")
            place += chunk.size
        if place != size:
            raise ValueError(f"the chunks of {where} are not as long as the file")
        if f"sha256:{content.digest().hex()}" != expected:
            raise ValueError(f"{where} is not what its digest says")
        if crc.to_bytes(8, "big") != line.checksum:
            raise ValueError(f"the tar-split has another checksum of {where}")

    def _chunk_content(self, chunk: _Chunk, end: int, where: str) -> Iterator[bytes]:
        if end - chunk.offset <= _SMALL_PACKED and chunk.size <= _SMALL:
            self._check()
            with self._small.stream_reader(
                self._read(chunk.offset, end - chunk.offset), read_across_frames=True
            ) as reader:
                try:
                    content: bytes = reader.read(chunk.size + 1)
                except self._error:  # corrupt, or a window that is to be counted
                    content = b""
            if len(content) == chunk.size:
                yield content
                return
        size = 0
        for piece in zstd.decode(self._packed(chunk.offset, end), self._windows):
            size += len(piece)
            if size > chunk.size:
                break
            yield bytes(piece)
        if size != chunk.size:
            raise ValueError(f"the chunk at {chunk.place} of {where} is not of its size")

    # ---- the TOC

    def _entries_with_chunks(self) -> Iterator[list[dict[str, Any]]]:
        """Each entry of the TOC with those of its further chunks."""
        found: list[dict[str, Any]] = []
        for entry in self.entries():
            if found and entry.get("type") != "chunk":
                yield found
                found = []
            found.append(entry)
        if found:
            yield found

    def entries(self) -> Iterator[dict[str, Any]]:
        """The entries of the TOC, one by one."""

        def sealed(digest: str) -> None:
            if digest != self._metadata.checksum:
                raise ValueError("its table of contents is not what its digest says")

        for kind, value in toc_objects(
            self._document("table of contents", self._metadata.toc, sealed)
        ):
            if kind == "entry":
                yield value
            else:
                self._tar_split_digest = value


def _check_file_name(name: bytes) -> None:
    """Does a client that rebuilds the archive find the file NAME, which has a content?"""
    last = name.rpartition(b"/")[2]
    if last in (b"", b"."):
        raise ValueError(f"the name of the file {shown(name)} is that of a directory")
    if last.startswith(b".wh."):
        raise ValueError(f"the whiteout {shown(name)} has a content")


def _chunk(entry: dict[str, Any], where: str, whole: int | None) -> _Chunk:
    """ENTRY as a chunk; WHOLE is the size of a file that is one."""
    digest, kind = entry.get("chunkDigest", ""), entry.get("chunkType", "")
    if kind not in ("", "zeros") or (digest and not _DIGEST.fullmatch(digest)):
        raise ValueError(
            f"its table of contents has a chunk of {where} without a digest or of an unknown type"
        )
    if not digest and whole is None and not kind:
        raise ValueError(f"its table of contents has a chunk of {where} without a digest")
    size = _number(entry, "chunkSize", where) or (whole or 0)
    return _Chunk(
        _number(entry, "offset", where),
        _number(entry, "chunkOffset", where),
        size,
        digest,
        kind == "zeros",
    )


def _number(entry: dict[str, Any], key: str, where: str) -> int:
    value: int = entry.get(key, 0)
    if value < 0:
        raise ValueError(f"its table of contents has no proper {key} of {where}")
    return value
