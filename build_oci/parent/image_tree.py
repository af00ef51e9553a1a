"""An image as the tree of a layer: what it unpacks to, its contents read from the archives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_oci.errors import TreeError
from build_oci.oci.untrusted import Source
from build_oci.parent.lower import Scans
from build_oci.parent.manifest import read_manifest

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
) -> tuple[ImageTree, dict[str, Any] | None]:
    """What IMAGE unpacks to, and its config, as ParentImage has it.

    Its compressed layers are decoded once, several at a time, into spools in the output's hidden
    directory. Every blob is verified, every content hashed on the way. READ is told how many bytes
    of how many are done. OWNER: user and group of every entry, not their own.

    Raises ParentError, OutputError, Cancelled; TreeError for what clients do not agree about.
    """
    from build_oci._native.unpack import ImageTree

    source = Source(Path(image.image))
    manifest = read_manifest(source, image.number, platform)
    scans = Scans(manifest.diff_ids, trust=False, share=parents.in_use, whole=True)
    archives = parents.read_archives(source, manifest, scans, read)
    lower = scans.merge(
        [source.blob_path(layer.digest) for layer in manifest.layers], parents.check
    )
    try:
        sources = [
            (scans[number], archive, is_ours) for number, (archive, is_ours) in enumerate(archives)
        ]
        tree = ImageTree(
            lower, sources, owner=owner, memory_limit=scans.limit(), check=parents.check
        )
    except ValueError as error:
        raise TreeError(
            str(error),
            where=image.image,
            hint="unpack it with the client that is to count, and name the directory as `layer`",
        ) from None
    return tree, manifest.runtime_config
