"""What two images have in common and what not: plain values, which text, HTML and JSON are made
of.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from heapq import heappush, heapreplace
from typing import Any, TypeAlias

from build_oci.config.components import UNCLAIMED
from build_oci.records import NamedTuple

MOST_ENTRIES = 100_000  # named one by one; all of them are counted
MOST_DIRECTORIES = 1000
MOST_COMPONENTS = 1000


class What(IntEnum):
    """What became of an entry. The last two are said of a layer alone."""

    SAME = 0
    ADDED = 1
    REMOVED = 2
    CHANGED = 3
    MOVED_IN = 4
    MOVED_OUT = 5


class Differs(IntFlag):
    """In what two entries of one name differ."""

    TYPE = 1
    CONTENT = 2
    TARGET = 4
    DEVICE = 8
    MODE = 16
    OWNER = 32
    TIME = 64
    XATTRS = 128
    LINK = 256


# Any of these is more than metadata.
CONTENTS = Differs.TYPE | Differs.CONTENT | Differs.TARGET | Differs.DEVICE
WORDS = {
    Differs.TYPE: "type",
    Differs.CONTENT: "content",
    Differs.TARGET: "link target",
    Differs.DEVICE: "device number",
    Differs.MODE: "mode",
    Differs.OWNER: "owner",
    Differs.TIME: "time",
    Differs.XATTRS: "xattr",
    Differs.LINK: "hard link",
}


RawEntry: TypeAlias = tuple[int, int, int, int, int, int, bytes | None, int, bool]


class Entry(NamedTuple):
    """A name as one image has it.

    Sizes in bytes, time in nanoseconds; `mode` with the type bits.
    """

    layer: int
    mode: int
    size: int
    uid: int
    gid: int
    mtime_ns: int
    target: bytes | None
    rdev: int
    hard_link: bool


class Difference(NamedTuple):
    """A name that differs. An entry is None where that image has none, or none that has been read.

    cost: about the bytes that a client downloads for it, as its layer compresses; 0 where it is
    removed.
    """

    path: bytes
    what: What
    differs: Differs
    old: Entry | None
    new: Entry | None
    cost: int = 0

    @property
    def words(self) -> list[str]:
        return [WORDS[flag] for flag in Differs if flag in self.differs]

    @property
    def only_metadata(self) -> bool:
        return self.what == What.CHANGED and not self.differs & CONTENTS


class Costliest:
    """The MOST differences that cost most, of all that are added."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._added = 0
        # A heap. The number breaks ties, so that differences are never compared.
        self._kept: list[tuple[int, int, Difference]] = []

    def add(self, difference: Difference) -> None:
        item = (difference.cost, -self._added, difference)
        self._added += 1
        if len(self._kept) < self._most:
            heappush(self._kept, item)
        elif item > self._kept[0]:
            heapreplace(self._kept, item)

    def sorted(self) -> list[Difference]:
        """The dearest first."""
        return sorted(
            (difference for _, _, difference in self._kept), key=lambda one: (-one.cost, one.path)
        )


class Tally:
    """Entries added, removed and changed, with the bytes of their files: of the new image, or of
    the old one where they are removed.
    """

    __slots__ = ("counts", "metadata_only", "sizes")

    def __init__(self) -> None:
        self.counts = [0, 0, 0, 0]
        self.sizes = [0, 0, 0, 0]
        self.metadata_only = 0  # of those that are changed

    def add(self, difference: Difference) -> None:
        entry = difference.new or difference.old
        self.counts[difference.what] += 1
        if difference.only_metadata:
            self.metadata_only += 1
        elif entry is not None:
            self.sizes[difference.what] += entry.size

    @property
    def total(self) -> int:
        """Entries."""
        return sum(self.counts)

    @property
    def size(self) -> int:
        """Bytes of contents that were added, removed or changed."""
        return sum(self.sizes)


class Why(NamedTuple):
    """What makes a layer new.

    kind: "recompressed" (an old layer holds the same archive), "order" (the same entries, in
    another order), "headers" (the same entries, written otherwise), "entries", "added" (the old
    image has nothing like it), "unread" (it is none that build-oci can read).
    counterpart: number of the old layer that it is held against.
    counts: how many entries, by what became of them and in what they differ.
    entries: those that cost most, first.
    metadata_only: nothing but metadata differs.
    paths: all that differ, where they are few, else empty.
    cost: about the bytes that a client downloads for all that differ.
    """

    kind: str
    counterpart: int | None = None
    counts: dict[tuple[What, Differs], int] = {}  # noqa: RUF012
    entries: tuple[Difference, ...] = ()
    metadata_only: bool = False
    paths: tuple[tuple[bytes, Differs], ...] = ()
    cost: int = 0


class LayerView(NamedTuple):
    """A layer of one of the images, and what is known of it.

    `archive_size` is None where it was not read.
    """

    number: int
    digest: str
    diff_id: str
    media_type: str
    size: int
    components: tuple[str, ...]
    shared: bool
    archive_size: int | None = None
    codec: str = ""
    entries: int | None = None
    why: Why | None = None

    @property
    def label(self) -> str:
        """Its components, in a few words."""
        return components_label(self.components)

    @property
    def unchanged(self) -> int | None:
        """About the bytes of its blob that are what the old image has, and are downloaded because
        they lie beside what differs; None where that is not known, or says nothing.
        """
        if self.why is None or self.why.kind != "entries":
            return None
        return max(0, self.size - self.why.cost)

    @property
    def unclaimed(self) -> bool:
        """Has it nothing but files that no source of components claimed?"""
        return bool(self.components) and all(name.startswith(UNCLAIMED) for name in self.components)


def components_label(components: tuple[str, ...]) -> str:
    if len(components) <= 2:
        return ", ".join(components)
    return f"{components[0]}, {components[1]} + {len(components) - 2}"


class Cause(NamedTuple):
    """An entry whose metadata alone made layers new. size: bytes of the blobs of those layers."""

    path: bytes
    differs: Differs
    layers: int
    size: int


class Download(NamedTuple):
    """Bytes that a client which has the old image downloads for the new one: blobs as a registry
    serves them.

    partial: bytes of the layers by partial pulls, where both images have zstd:chunked layers; else
    None.
    """

    layers: int
    config: int
    manifest: int
    partial: int | None = None

    @property
    def size(self) -> int:
        return self.layers + self.config + self.manifest

    @property
    def partial_size(self) -> int | None:
        return None if self.partial is None else self.partial + self.config + self.manifest


class Field(NamedTuple):
    """A value of the config or of the annotations that differs; None where it is missing."""

    where: str
    key: str
    old: Any
    new: Any


class Side(NamedTuple):
    """One of the images that are compared."""

    name: str
    digest: str
    platform: str
    ref_name: str
    layers: list[LayerView]
    size: int


class Comparison(NamedTuple):
    """Two images compared.

    complete: all layers of both were read, so that nothing is in doubt.
    entries: at most MOST_ENTRIES, those that cost most first; `tally` counts all.
    components: those of the layers that hold the entries.
    changed_components: (added, removed, changed) names, by what the layers' annotations say of
    their content; None where one of the images says nothing.
    """

    old: Side
    new: Side
    equal: bool
    complete: bool
    download: Download
    tally: Tally
    entries: list[Difference]
    components: list[tuple[str, Tally]]
    changed_components: tuple[list[str], list[str], list[str]] | None
    directories: list[tuple[bytes, Tally]]
    causes: list[Cause]
    config: list[Field]
    annotations: list[Field]
    map: Any = None


class Report(NamedTuple):
    """All that OLD and NEW have, image by image."""

    comparisons: list[Comparison]
    only_old: list[Side]
    only_new: list[Side]

    @property
    def equal(self) -> bool:
        return (
            not self.only_old and not self.only_new and all(one.equal for one in self.comparisons)
        )

    @property
    def download(self) -> int:
        """Of the image that costs most, in bytes; one that the old layout lacks costs all of it."""
        whole = [side.size for side in self.only_new]
        return max([*whole, *(one.download.size for one in self.comparisons)], default=0)
