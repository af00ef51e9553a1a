"""Everything that an image layout says of itself, recomputed: for the layouts of any builder."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_oci.compression import decode
from build_oci.errors import BuildOciError, Cancelled, ParentError, UsageError, printable
from build_oci.oci import MEDIA_TYPE_CONFIG, MEDIA_TYPE_INDEX
from build_oci.parent import CODECS, INDEXES, MANIFESTS
from build_oci.source import ReadDescriptor, Source, opened, parse_descriptor, parse_document

if TYPE_CHECKING:
    from build_oci._native.lower import Scan

_CONFIGS = (MEDIA_TYPE_CONFIG, "application/vnd.docker.container.image.v1+json")
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_NESTING = 8
_MEMBERS_AT_ONCE = 4096
# For the names in the layers of one image, which a hostile one may have without end; some 5 million of them.
_MEMORY_LIMIT = 1 << 30
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"


class Verifier:
    """Looks through one layout. `problems` are what is wrong, `notes` what is odd but allowed, each as `WHERE: WHAT`; the rest counts."""

    def __init__(self, path: str, *, workers: int) -> None:
        """PATH: the layout's directory. WORKERS: layers that are read at once."""
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.images = self.layers = self.entries = self.size = 0
        self._source = Source(Path(path))
        self._workers = workers
        self._stopped = False
        # By digest: whether the blob is what its name says, and what was found in a layer.
        self._blobs: dict[str, bool] = {}
        self._archives: dict[str, Future[_Archive]] = {}

    def run(self) -> None:
        """Look at everything. UsageError where there is no directory."""
        path = self._source.path
        if not path.is_dir():
            raise UsageError("is no directory", where=str(path), hint="name the directory that holds index.json")
        self._layout_file()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="verify") as pool:
            self._pool = pool
            try:
                with self._caught():
                    index = self._source.index()
                    self._index(index, str(path / "index.json"), {"index.json"}, 0)
            except BaseException:
                self._stopped = True  # what the pool still reads
                raise
        self._unreferenced()

    def _check(self) -> None:
        if self._stopped:
            raise Cancelled("stopped")

    # ---- documents

    def _layout_file(self) -> None:
        where = self._source.path / "oci-layout"
        with self._caught(), opened(where) as fd:
            document = parse_document(os.read(fd, 1 << 16), str(where))
            if document.get("imageLayoutVersion") != "1.0.0":
                self._problem(where, f"imageLayoutVersion is {_shown(document.get('imageLayoutVersion'))}, not “1.0.0”")

    def _index(self, document: dict[str, Any], where: str, above: set[str], depth: int) -> None:
        if document.get("schemaVersion") != 2:
            self._problem(where, f"schemaVersion is {_shown(document.get('schemaVersion'))}, not 2")
        if (media_type := document.get("mediaType", MEDIA_TYPE_INDEX)) not in INDEXES:
            self._problem(where, f"mediaType is {_shown(media_type)}, which is none of an index")
        manifests = document.get("manifests")
        if not isinstance(manifests, list):
            self._problem(where, "has no list “manifests”")
            return
        for number, item in enumerate(manifests):
            with self._caught():
                descriptor = parse_descriptor(item, f"{where}: manifests[{number}]")
                self._manifest_or_index(descriptor, above, depth)

    def _manifest_or_index(self, descriptor: ReadDescriptor, above: set[str], depth: int) -> None:
        where = str(self._source.blob_path(descriptor.digest))
        if descriptor.digest in above or depth == _NESTING:
            self._problem(where, f"is an index within an index, {_NESTING} deep or within itself")
            return
        document = self._document(descriptor)
        if document is None:
            return
        media_type = document.get("mediaType", descriptor.media_type)
        if media_type != descriptor.media_type:
            self._problem(where, f"mediaType is {_shown(media_type)}, but its descriptor says {_shown(descriptor.media_type)}")
        if media_type in INDEXES:
            self._index(document, where, above | {descriptor.digest}, depth + 1)
        elif media_type in MANIFESTS:
            self._manifest(descriptor, document, where)
        else:
            self._problem(where, f"{_shown(media_type)} is neither an image manifest nor an index")

    def _manifest(self, descriptor: ReadDescriptor, document: dict[str, Any], where: str) -> None:
        if document.get("schemaVersion") != 2:
            self._problem(where, f"schemaVersion is {_shown(document.get('schemaVersion'))}, not 2")
        config = parse_descriptor(document.get("config"), f"{where}: config")
        items = document.get("layers")
        if not isinstance(items, list):
            self._problem(where, "has no list “layers”")
            items = []
        layers: list[ReadDescriptor] = []
        for number, item in enumerate(items):
            with self._caught():
                layers.append(parse_descriptor(item, f"{where}: layers[{number}]"))
        if config.media_type not in _CONFIGS:
            self._note(where, f"is no image but an artifact with a config of the type {_shown(config.media_type)}")
            for blob in (config, *layers):
                self._blob(blob)
            return
        self.images += 1
        content = self._document(config)
        if content is not None and len(layers) == len(items):
            self._image(descriptor, content, str(self._source.blob_path(config.digest)), layers)

    def _image(self, descriptor: ReadDescriptor, config: dict[str, Any], where: str, layers: list[ReadDescriptor]) -> None:
        for key in ("architecture", "os"):
            if not isinstance(config.get(key), str) or not config[key]:
                self._problem(where, f"has no “{key}”")
        for key in ("architecture", "os", "variant", "os.version"):
            said = descriptor.platform.get(key)
            if said is not None and said != config.get(key) and not (key == "variant" and key not in config):
                self._problem(where, f"{key} is {_shown(config.get(key))}, but the descriptor of its manifest says {_shown(said)}")
        rootfs = config.get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
            self._problem(where, "rootfs.type is not “layers”")
        diff_ids = [] if diff_ids is None and not layers else diff_ids
        if not isinstance(diff_ids, list) or len(diff_ids) != len(layers):
            count = len(diff_ids) if isinstance(diff_ids, list) else "no"
            self._problem(where, f"names {count} diff_ids, but the manifest has {len(layers)} layers")
            diff_ids = None
        history = config.get("history")
        if isinstance(history, list) and history:
            made = sum(1 for entry in history if not (isinstance(entry, dict) and entry.get("empty_layer") is True))
            if made != len(layers):
                self._problem(where, f"history tells of {made} layers, but the manifest has {len(layers)}")
        elif history:
            self._problem(where, "history is no list")
        self._layers(layers, diff_ids, where)

    # ---- layers

    def _layers(self, layers: list[ReadDescriptor], diff_ids: list[Any] | None, where: str) -> None:
        for layer in layers:
            if layer.digest not in self._archives:
                self._archives[layer.digest] = self._pool.submit(self._read_layer, layer)
                self.layers += 1
        tree = _Tree()
        for number, layer in enumerate(layers):
            first = layer.digest not in self._blobs
            path = str(self._source.blob_path(layer.digest))
            try:
                archive = self._archives[layer.digest].result()
            except BuildOciError as error:
                self._blobs[layer.digest] = False
                if first:
                    self.problems.append(str(error))
                continue
            self._blobs[layer.digest] = True
            if diff_ids is not None:
                self._diff_id(diff_ids[number], archive, f"{where}: rootfs.diff_ids[{number}]", path)
            if first:
                self.size += archive.size
                self.entries += len(archive.scan)
                for note in archive.notes:
                    self._note(path, note)
            for problem in tree.apply(archive.scan, self._check):
                if first:
                    self._problem(path, problem)
            if first:
                for note in tree.notes:
                    self._note(path, note)

    def _diff_id(self, diff_id: Any, archive: _Archive, where: str, path: str) -> None:
        algorithm, _, expected = diff_id.partition(":") if isinstance(diff_id, str) else ("", "", "")
        if algorithm not in archive.digests or not expected:
            self._problem(where, f"{_shown(diff_id)} is no digest (sha256 or sha512)")
        elif archive.digests[algorithm] != expected:
            self._problem(path, f"its archive has the digest {algorithm}:{archive.digests[algorithm]}, but {where} says {diff_id}")

    def _read_layer(self, layer: ReadDescriptor) -> _Archive:
        """In a thread of the pool. Raises ParentError."""
        path = self._source.blob_path(layer.digest)
        codec = CODECS.get(layer.media_type)
        if codec is None:
            raise ParentError(f"{_shown(layer.media_type)} is no media type of a layer", where=str(path))
        with self._source.blob(layer) as blob:
            magic = os.pread(blob.fd, 4, 0)
            looks = next((name for name, start in _MAGIC.items() if magic.startswith(start)), "disabled")
            if looks != codec:
                content = "is not compressed" if looks == "disabled" else f"is compressed with {looks}"
                raise ParentError(f"{content}, but its media type is {layer.media_type}", where=str(path))
            archive = _Archive()
            try:
                for piece in decode(codec, blob):
                    self._check()
                    archive.feed(piece)
                archive.finish()
            except ValueError as error:
                raise ParentError(str(error), where=str(path)) from None
        return archive

    # ---- blobs

    def _blob(self, descriptor: ReadDescriptor) -> bool:
        """Is the blob what DESCRIPTOR says? Looked at once."""
        if descriptor.digest not in self._blobs:
            self._blobs[descriptor.digest] = False
            with self._caught(), self._source.blob(descriptor) as blob:
                for piece in blob:
                    self._check()
                    self.size += len(piece)
                self._blobs[descriptor.digest] = True
        return self._blobs[descriptor.digest]

    def _document(self, descriptor: ReadDescriptor) -> dict[str, Any] | None:
        self._blobs.setdefault(descriptor.digest, False)
        with self._caught():
            document = self._source.document(descriptor)
            self._blobs[descriptor.digest] = True
            return document
        return None

    def _unreferenced(self) -> None:
        folder = self._source.path / "blobs"
        for algorithm in ("sha256", "sha512"):
            if (folder / algorithm).is_dir():
                for name in sorted(os.listdir(folder / algorithm)):
                    if f"{algorithm}:{name}" not in self._blobs:
                        self._note(folder / algorithm / name, "is referred to by nothing")

    @contextmanager
    def _caught(self) -> Iterator[None]:
        """What is refused here is a problem, and the rest is looked at all the same."""
        try:
            yield
        except ParentError as error:
            self.problems.append(str(error))

    def _problem(self, where: str | Path, what: str) -> None:
        self.problems.append(printable(f"{where}: {what}"))

    def _note(self, where: str | Path, what: str) -> None:
        self.notes.append(printable(f"{where}: {what}"))


class _Archive:
    """What came of reading one layer: its digests, bytes and members."""

    def __init__(self) -> None:
        from build_oci._native.lower import Scan

        self.scan: Scan = Scan(memory_limit=_MEMORY_LIMIT)
        self.size = 0
        self.notes: list[str] = []
        self.digests: dict[str, str] = {}
        self._hashes = {"sha256": hashlib.sha256(), "sha512": hashlib.sha512()}
        self._tail = b""

    def feed(self, piece: bytes | memoryview) -> None:
        self.scan.feed(piece)
        for content in self._hashes.values():
            content.update(piece)
        self.size += len(piece)
        self._tail = (self._tail + bytes(piece[-1024:]))[-1024:]

    def finish(self) -> None:
        self.scan.finish()
        self.digests = {algorithm: content.hexdigest() for algorithm, content in self._hashes.items()}
        self._hashes.clear()
        if self._tail.strip(b"\0") or len(self._tail) < 1024:
            self.notes.append("has no end-of-archive blocks")


class _Tree:
    """The names that the layers so far leave, by directory, with their types; `notes` are on the last layer."""

    def __init__(self) -> None:
        self._folders: dict[bytes, dict[bytes, int]] = {}
        self.notes: list[str] = []

    def apply(self, scan: Scan, check: Callable[[], None]) -> Iterator[str]:
        """Put a layer on top; what is wrong with it."""
        self.notes = []
        added: dict[bytes, int] = {}
        hidden: list[bytes] = []
        for start in range(0, len(scan), _MEMBERS_AT_ONCE):
            check()
            for member in scan.members(start, start + _MEMBERS_AT_ONCE):
                name, mode = member["name"], member["mode"]
                folder, _, last = name.rpartition(b"/")
                if name in added:
                    yield f"“{os.fsdecode(name)}” is in it more than once"
                if last.startswith(_WHITEOUT):
                    yield from self._whiteout(name, folder, last, mode, member["size"], hidden)
                    added[name] = 0
                    continue
                if member["hard_link"]:
                    target = member["target"] or b""
                    mode = self._target(target, added)
                    if not mode:
                        yield f"“{os.fsdecode(name)}” is a hard link to “{os.fsdecode(target)}”, which is no file before it"
                added[name] = mode or stat.S_IFREG
        # Whiteouts hide what is below, never what stands beside them.
        for name in hidden:
            self._remove(name)
        for name, mode in added.items():
            if mode:
                self._add(name, mode)

    def _whiteout(self, name: bytes, folder: bytes, last: bytes, mode: int, size: int, hidden: list[bytes]) -> Iterator[str]:
        if not stat.S_ISREG(mode) or size:
            yield f"“{os.fsdecode(name)}” is a whiteout, and should be an empty file"
        if last == _OPAQUE:
            hidden += [_join(folder, child) for child in self._folders.get(folder, {})]
            return
        gone = last[len(_WHITEOUT) :]
        if gone in (b"", b".", b".."):
            yield f"“{os.fsdecode(name)}” is a whiteout of nothing that has a name"
        elif gone.startswith(_WHITEOUT):
            self.notes.append(f"“{os.fsdecode(name)}” is a whiteout of its own kind, which clients ignore")
        elif gone not in self._folders.get(folder, {}):
            self.notes.append(f"“{os.fsdecode(name)}” hides nothing: no layer below has that name")
        else:
            hidden.append(_join(folder, gone))

    def _target(self, target: bytes, added: dict[bytes, int]) -> int:
        """The type of what a hard link leads to; 0 if there is nothing that can have a second name."""
        folder, _, last = target.rpartition(b"/")
        mode = added.get(target) or self._folders.get(folder, {}).get(last, 0)
        return 0 if stat.S_ISDIR(mode) else mode

    def _add(self, name: bytes, mode: int) -> None:
        folder, _, last = name.rpartition(b"/")
        if not stat.S_ISDIR(mode):
            self._remove(name)
        if name:
            self._folders.setdefault(folder, {})[last] = mode
        if stat.S_ISDIR(mode):
            self._folders.setdefault(name, {})

    def _remove(self, name: bytes) -> None:
        folder, _, last = name.rpartition(b"/")
        self._folders.get(folder, {}).pop(last, None)
        gone = [name]
        while gone:
            path = gone.pop()
            gone += [_join(path, child) for child in self._folders.pop(path, {})]


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _shown(value: object) -> str:
    return f"“{str(value)[:100]}”" if isinstance(value, str) else str(value)[:100]
