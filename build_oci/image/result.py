"""What comes of one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from build_oci.oci.documents import Descriptor
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from build_oci.config.keys import Compression
    from build_oci.previous.difference import Difference
    from build_oci.split.plan import Plan


class BuiltLayer(NamedTuple):
    """A layer that this build made, or took from the previous image.

    size, uncompressed_size: bytes as stored and as an archive.
    components: none where nothing is split.
    reused: is it the previous image's?
    difference: where not, in what it differs from the layer of that image that it is most like;
    None where that image has no such layer, and where nobody asked.
    """

    digest: str
    size: int
    uncompressed_size: int
    components: tuple[str, ...]
    reused: bool = False
    difference: Difference | None = None


class OtherCodec(NamedTuple):
    """The same image in another codec. descriptor: of its manifest; layers: digests and sizes, in
    bytes, of those that this build made.
    """

    compression: Compression
    descriptor: Descriptor
    layers: tuple[tuple[str, int], ...]

    @property
    def layers_size(self) -> int:
        return sum(size for _, size in self.layers)


class BuiltImage(NamedTuple):
    """What came of one image.

    descriptor: of its manifest, as the index has it.
    layers_size, uncompressed_size: bytes of the layers that this build made, as stored and as
    archives.
    files: regular files written.
    unchanged, whiteouts: entries left to the parent, and names of it hidden.
    digests_believed: files of the tree that were not hashed, because their attribute was believed.
    stages: seconds by stage: `walk`, `hash`, `parent`, `diff`, `split`, `previous`, `pack`, those
    that there were; `parent` runs beside the first two.
    layers: those that this build made, the lowest first.
    plan, unclaimed_size, unclaimed_files: of `split`, and what no source claims.
    others: the image in the codecs after the first, which all the rest is about.
    """

    descriptor: Descriptor
    layers_size: int
    uncompressed_size: int
    files: int
    unchanged: int
    whiteouts: int
    seconds: float
    stages: Mapping[str, float]
    digests_believed: int = 0
    layers: tuple[BuiltLayer, ...] = ()
    plan: Plan | None = None
    unclaimed_size: int = 0
    unclaimed_files: int = 0
    others: tuple[OtherCodec, ...] = ()

    @property
    def digest(self) -> str:
        return self.descriptor.digest
