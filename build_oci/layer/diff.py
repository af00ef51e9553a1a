"""What a tree changes on top of its parent image: everything else is left out of the layer."""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING, NamedTuple

from build_oci._native.diff import Diff
from build_oci.layer.tree import problem_error, sha256_kernel

if TYPE_CHECKING:
    from build_oci._native.lower import Lower
    from build_oci._native.walk import Tree
    from build_oci.workers import Workers


class Difference(NamedTuple):
    """How many entries the parent has already, and how many of its names are hidden."""

    unchanged: int
    whiteouts: int


def mark_unchanged(tree: Tree, lower: Lower, layer: str, workers: Workers, *, epoch: int | None, preserve_hardlinks: bool) -> Difference:
    """Compare TREE, the directory `layer`, with the parent, hashing on all workers; a plan of it then holds only what differs.

    Raises TreeError when a file cannot be read or has changed since the walk, Cancelled when the build is stopped.
    """
    diff = Diff(tree, lower, epoch=epoch, kernel=sha256_kernel(), preserve_hardlinks=preserve_hardlinks)
    with workers.stoppable(diff.cancel):
        batches = [workers.pool.submit(diff.hash, batch) for batch in range(len(diff))]
        try:
            for batch in batches:
                if problem := batch.result():
                    raise problem_error(layer, problem)
        except BaseException:
            diff.cancel()
            wait(batches)
            raise
    return Difference(*diff.decide())
