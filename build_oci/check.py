"""What can be known of a build before it begins: for `--check`, and for the build itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from build_oci.errors import UsageError

if TYPE_CHECKING:
    from build_oci.config.model import BuildConfig


def check_parents(config: BuildConfig) -> None:
    """Look whether every parent that CONFIG names could be one, without reading its layers. Raises
    ParentError.
    """
    from build_oci.parent.manifest import check_parent

    for image in config.images:
        for source in image.images:
            check_parent(source.image, source.number, image.platform)


def check_output(config: BuildConfig, output: str | os.PathLike[str]) -> None:
    """A layout inside a tree would become part of the very layer that is being written to it."""
    path = os.path.realpath(output)
    for image in config.images:
        for directory, where in image.directories:
            if os.path.commonpath((path, root := os.path.realpath(directory))) == root:
                what = f"the output {os.fspath(output)} lies inside this directory"
                raise UsageError(what, where=where, hint="write elsewhere with --output")


def check_plans(config: BuildConfig) -> None:
    """A plan that cannot be written is better known before an hour's work than after it. Raises
    OutputError.
    """
    for image in config.images:
        if image.split and image.split.plan:
            from build_oci.oci.output_files import check_writable

            check_writable(image.split.plan, "`split.plan`")
