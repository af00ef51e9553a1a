"""What can be known of a build before it begins: for `--check`, and for the build itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from build_oci.errors import UsageError

if TYPE_CHECKING:
    from build_oci.config.model import BuildConfig
    from build_oci.oci.documents import Platform


def check_parents(config: BuildConfig) -> None:
    """Look whether every parent that CONFIG names could be one, without reading its layers.

    Raises ParentError.
    """
    for image in config.images:
        for source in image.images:
            check_parent(source.image, source.number, image.platform)


def check_parent(image: str, number: int, platform: Platform) -> None:
    """Look whether image NUMBER of the layout IMAGE could be a parent: all of its documents, and
    that its layers are there. ParentError.
    """
    from build_oci.oci.archive_source import open_source
    from build_oci.oci.manifest import read_manifest

    source = open_source(image)
    for layer in read_manifest(source, number, platform).layers:
        with source.blob(layer):
            pass


def check_output(config: BuildConfig, output: str | os.PathLike[str]) -> None:
    """A layout inside a tree would become part of the very layer that is being written to it."""
    path = os.path.realpath(output)
    for image in config.images:
        for directory, where in image.directories:
            if os.path.commonpath((path, root := os.path.realpath(directory))) == root:
                what = f"the output {os.fspath(output)} lies inside this directory"
                raise UsageError(what, where=where, hint="write elsewhere with --output")


def check_plans(config: BuildConfig) -> None:
    """A plan that cannot be written is better known before an hour's work than after it.

    Raises OutputError.
    """
    for image in config.images:
        if image.split and image.split.plan:
            from build_oci.oci.output_files import check_writable

            check_writable(image.split.plan, "`split.plan`")
