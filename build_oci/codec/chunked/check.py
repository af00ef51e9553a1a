"""The metadata of a zstd:chunked layer, held against each other and against its archive: for the
layers of any builder.

A client that pulls parts of a layer never sees the archive: it makes files from the TOC, and later
writes the archive again from files and tar-split. So this does the same. It goes through tar-split
and TOC side by side, decodes every chunk from where the TOC says it is, and compares the digest of
what that gives with the archive's. Both documents are read as they come; one entry is held at a
time.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from build_oci._native.chunked import crc64
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
from build_oci.codec.chunked.headers import HEADER_KEYS, decoded, read_headers, toc_header
from build_oci.records import NamedTuple
from build_oci.work.hashes import new_hash

if TYPE_CHECKING:
    from build_oci.work.budget import Budget

ANY_SIZE = 1 << 62  # of an archive, where it is not known
_PIECE = 1 << 20
_LONGEST_LINE = 8 << 20  # of a tar-split: extended headers of 4 MiB in base64
_LONGEST_ENTRY = 1 << 20  # characters, of the TOC
_LONGEST_DOCUMENT = 64 << 10  # of a line of the tar-split that is no run of bytes
_BYTES_LINE = re.compile(rb'\{"type":2,"payload":"([A-Za-z0-9+/]*={0,2})","position":[0-9]{1,18}\}')
# Chunks up to here are decoded by one call: there is one for most files.
_SMALL_PACKED, _SMALL = 256 << 10, 1 << 20
_SHOWN = 200
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
        entries = self.entries()
        following = next(entries, None)
        tar_split_digest: list[str] = []
        headers = b""
        padding = 0  # that the last content has yet to get
        for line in _lines(
            self._document("tar-split", self._metadata.tar_split, tar_split_digest.append)
        ):
            if is_bytes := _BYTES_LINE.fullmatch(line):
                piece = decoded(is_bytes[1], "line of bytes")
                headers += piece
                if len(headers) > _LONGEST_LINE + padding:
                    headers = headers[-_LONGEST_LINE:]  # padding behind the end of the archive
                yield piece
                continue
            name, size, checksum = _content_line(line)
            header = read_headers(headers[padding:])
            headers = b""
            if name != header["name"]:
                raise ValueError(
                    f"the tar-split names {_shown(name)} where the archive has"
                    f" {_shown(header['name'])}"
                )
            if following is None:
                raise ValueError(f"its table of contents lacks {_shown(name)}")
            entry, following = following, next(entries, None)
            chunks = [entry]
            while following is not None and following.get("type") == "chunk":
                chunks.append(following)
                following = next(entries, None)
            self._compare_entry(entry, header)
            if size != (header["size"] if header["type"] == "reg" else 0):
                raise ValueError(
                    f"the tar-split says another size of {_shown(name)} than the archive"
                )
            padding = -size % 512
            if size:
                yield from self._file(name, size, checksum, chunks)
        for _ in entries if following is None else (following,):
            raise ValueError("its table of contents has entries that the archive lacks")
        if not self._tar_split_digest:
            raise ValueError("its table of contents has no digest of the tar-split")
        if tar_split_digest != [self._tar_split_digest]:
            raise ValueError("its tar-split is not what its digest says")

    def _compare_entry(self, entry: dict[str, Any], header: dict[str, Any]) -> None:
        said = toc_header(entry)
        for key in HEADER_KEYS:
            if said[key] != header[key]:
                what = f"the {key} of {_shown(header['name'])}" if key != "name" else "the name"
                raise ValueError(
                    f"its table of contents says {what} is {_shown(said[key])}, the archive"
                    f" {_shown(header[key])}"
                )

    def _file(
        self, name: bytes, size: int, checksum: int, entries: list[dict[str, Any]]
    ) -> Iterator[bytes]:
        """The content of a file, chunk by chunk from the blob."""
        where = _shown(name)
        first = entries[0]
        if any(other.get("name") != first.get("name") for other in entries):
            raise ValueError(f"a chunk behind {where} is of another file")
        expected, end = first.get("digest"), _number(first, "endOffset", where)
        if not isinstance(expected, str) or not _DIGEST.fullmatch(expected):
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
        if crc != checksum:
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

    def entries(self) -> Iterator[dict[str, Any]]:
        """The entries of the TOC, one by one."""

        def sealed(digest: str) -> None:
            if digest != self._metadata.checksum:
                raise ValueError("its table of contents is not what its digest says")

        reader = _Json(self._document("table of contents", self._metadata.toc, sealed))
        reader.expect("{")
        while not reader.accept("}"):
            key = reader.value()
            reader.expect(":")
            # As the reader does, which takes no notice of upper and lower case.
            folded = key.lower() if isinstance(key, str) else ""
            if folded == "entries":
                reader.expect("[")
                while not reader.accept("]"):
                    entry = reader.value()
                    if not isinstance(entry, dict):
                        raise ValueError("an entry of its table of contents is no object")
                    yield entry
                    reader.accept(",")
            else:
                value = reader.value()
                if folded == "version" and value != 1:
                    raise ValueError(
                        f"its table of contents has the version {_shown(value)}; only 1 is known"
                    )
                if folded == "tarsplitdigest" and isinstance(value, str):
                    self._tar_split_digest = value
            reader.accept(",")
        reader.end()


class _Json:
    """A JSON document whose values are read one by one, each of them short."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._ended = False

    def _more(self) -> bool:
        if self._ended:
            return False
        piece = next(self._pieces, None)
        self._ended = piece is None
        try:
            text = self._utf8.decode(piece or b"", self._ended)
        except UnicodeDecodeError:
            raise ValueError("its table of contents is not UTF-8") from None
        self._text = self._text[self._at :] + text
        self._at = 0
        return not self._ended

    def _skip_space(self) -> None:
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return

    def accept(self, character: str) -> bool:
        """Is it what comes next? Then it is read."""
        self._skip_space()
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def expect(self, character: str) -> None:
        if not self.accept(character):
            raise ValueError("its table of contents is no JSON document")

    def value(self) -> Any:
        """The next value."""
        self._skip_space()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > _LONGEST_ENTRY or not self._more():
                    raise ValueError(
                        "its table of contents is no JSON document, or has an entry without end"
                    ) from None
                continue
            # A number at the end of what is there may go on.
            if end < len(self._text) or not self._more():
                self._at = min(end, len(self._text))
                return value

    def end(self) -> None:
        self._skip_space()
        if self._at < len(self._text) or self._more():
            raise ValueError("something follows its table of contents")


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, last = piece.split(b"\n")
        if whole:
            whole[0] = rest + whole[0]
            rest = last
            yield from whole
        else:
            rest += last
        if len(rest) > _LONGEST_LINE:
            raise ValueError("its tar-split has a line without end")
    if rest:
        yield rest


def _content_line(line: bytes) -> tuple[bytes, int, int]:
    """Name, size and checksum in a line of the tar-split that stands for a content."""
    if len(line) > _LONGEST_DOCUMENT:
        raise ValueError("its tar-split has a line that is too long")
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("type") != 1:
        raise ValueError("its tar-split has a line that stands for neither bytes nor a content")
    raw, name = document.get("name_raw"), document.get("name")
    encoded = name.encode("utf-8", "replace") if isinstance(name, str) else b""
    if isinstance(raw, str):
        encoded = decoded(raw, "name")
    size, payload = document.get("size", 0), document.get("payload")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"its tar-split has no size of {_shown(encoded)}")
    checksum = decoded(payload, "checksum") if isinstance(payload, str) else b""
    return encoded, size, int.from_bytes(checksum, "big")


def _chunk(entry: dict[str, Any], where: str, whole: int | None) -> _Chunk:
    """ENTRY as a chunk; WHOLE is the size of a file that is one."""
    digest, kind = entry.get("chunkDigest", ""), entry.get("chunkType", "")
    if (
        kind not in ("", "zeros")
        or not isinstance(digest, str)
        or (digest and not _DIGEST.fullmatch(digest))
    ):
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
    value = entry.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"its table of contents has no proper {key} of {where}")
    return value


def _shown(value: object) -> str:
    text = os.fsdecode(value[:_SHOWN]) if isinstance(value, bytes) else str(value)[:_SHOWN]
    return f"“{text}”"
