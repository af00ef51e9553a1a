"""An image as the tree of a layer: what it unpacks to, its contents read from the archives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_oci.errors import TreeError
from build_oci.oci.archive_source import open_source
from build_oci.oci.manifest import ReadManifest, read_manifest
from build_oci.parent.lower import TarReaders

if TYPE_CHECKING:
    from collections.abc import Callable

    from build_oci._native.unpack import ImageTree
    from build_oci.config.model import ParentConfig
    from build_oci.oci.documents import Platform
    from build_oci.parent.layers import Parents


def read_image_tree(
    parents: Parents,
    image: ParentConfig,
    platform: Platform,
    read: Callable[[int, int], None],
    *,
    owner: tuple[int, int] | None = None,
    take_instructions: bool = False,
) -> tuple[ImageTree, ReadManifest]:
    """What IMAGE unpacks to, and its documents.

    Its compressed layers are decoded once, several at a time, into spools in the output's hidden
    directory. Every blob is verified, every content hashed on the way. READ is told how many bytes
    of how many are done. OWNER: user and group of every entry, not their own. TAKE_INSTRUCTIONS:
    as of layer.walk.read_tree.

    Raises ParentError, OutputError, Cancelled; TreeError for what clients do not agree about.
    """
    from build_oci._native.unpack import ImageTree

    source = open_source(image.image, parents.check)
    manifest = read_manifest(source, image.number, platform)
    readers = TarReaders(manifest.diff_ids, trust=False, share=parents.in_use, whole=True)
    archives = parents.read_archives(source, manifest, readers, read)
    lower = readers.merge(
        [source.blob_path(layer.digest) for layer in manifest.layers], parents.check
    )
    try:
        sources = [
            (readers[number], archive, archive.start, archive.is_ours)
            for number, archive in enumerate(archives)
        ]
        tree = ImageTree(
            lower,
            sources,
            owner=owner,
            take_instructions=take_instructions,
            memory_limit=readers.limit(),
            check=parents.check,
        )
    except ValueError as error:
        raise TreeError(
            str(error),
            where=image.image,
            hint="unpack it with the client that is to count, and name the directory as `layer`",
        ) from None
    return tree, manifest
