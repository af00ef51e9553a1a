"""What a tree changes on top of its parent image: everything else is left out of the layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from build_oci._native.diff import Digests
from build_oci.layer.walk import problem_error
from build_oci.work.cpus import sha256_kernel

if TYPE_CHECKING:
    from build_oci._native.unpack import AnyTree
    from build_oci.work.crew import Crew


def digest_files(
    tree: AnyTree,
    root: str,
    workers: Crew,
    hashed: Callable[[int, int], None],
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Hash every file of TREE, the directory ROOT, on all workers; HASHED is told how many
    entries of how many are done. MEANWHILE is called here while they work.

    Each digest is needed whatever the parent holds: to find the file unchanged, or for its header.
    So this need not wait for the parent.

    Raises TreeError when a file cannot be read or has changed since the walk, Cancelled when the
    build is stopped.
    """
    digests = Digests(tree, kernel=sha256_kernel(), threads=workers.count)
    with workers.stoppable(digests.cancel):
        batches = [workers.pool.submit(digests.hash, batch) for batch in range(len(digests))]
        try:
            meanwhile()
            for number, batch in enumerate(batches, 1):
                if problem := batch.result():
                    raise problem_error(root, problem)
                hashed(len(tree) * number // len(batches), len(tree))
        except BaseException:
            digests.cancel()
            raise
    digests.finish()
