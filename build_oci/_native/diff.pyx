"""A tree held against what its parent image has: a thin face of kernel/pack/digest.c and
kernel/parent/diff.c.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from build_oci._native.tree cimport problem, problem_tuple
from build_oci._native.tree cimport tree as _tree


cdef extern from "sha256.h" nogil:
    ctypedef struct sha256_kernel:
        pass

    const sha256_kernel *sha256_kernel_at(int id)


cdef extern from "digest.h" nogil:
    ctypedef struct digests:
        size_t batches_count
        int cancelled

    digests *digests_new(_tree *, const sha256_kernel *, size_t threads)
    int digests_hash(digests *, size_t batch, problem *out)
    void digests_finish(digests *)
    void digests_free(digests *)


cdef extern from "diff.h" nogil:
    ctypedef struct header_options:
        int has_epoch
        int64_t epoch

    ctypedef struct lower:
        pass

    int diff_add(
        _tree *, const lower *, const header_options *, int preserve_links,
        const char *const *removed, size_t removed_count, size_t *unchanged, size_t *whiteouts,
        size_t *missing, problem *out,
    )
    int diff_mark(
        _tree *, const lower *, const header_options *, int preserve_links, size_t *unchanged,
        size_t *whiteouts,
    )


cdef class Digests:
    """See diff.pyi."""

    cdef digests *digests
    cdef object tree

    def __cinit__(self, tree, *, int kernel, size_t threads):
        self.tree = tree
        cdef const sha256_kernel *chosen = sha256_kernel_at(kernel)
        if chosen == NULL:
            raise ValueError(f"this CPU has no SHA-256 kernel {kernel}")
        if not threads:
            raise ValueError("there are no threads to hash anything")
        cdef void *native = PyCapsule_GetPointer(tree.capsule(), "build_oci.tree")
        with nogil:
            self.digests = digests_new(<_tree *>native, chosen, threads)
        if self.digests == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.digests != NULL:
            digests_free(self.digests)

    def __len__(self):
        return self.digests.batches_count

    def hash(self, size_t batch):
        if batch >= self.digests.batches_count:
            raise IndexError(batch)
        cdef problem trouble
        trouble.name = NULL
        cdef int status
        with nogil:
            status = digests_hash(self.digests, batch, &trouble)
        return problem_tuple(&trouble) if status else None

    def finish(self):
        digests_finish(self.digests)

    def cancel(self):
        self.digests.cancelled = 1


def mark_unchanged(tree, lower_table, *, epoch, bint preserve_hardlinks=True):
    """See diff.pyi."""
    cdef header_options options
    options.has_epoch = epoch is not None
    options.epoch = 0 if epoch is None else epoch
    cdef void *upper = PyCapsule_GetPointer(tree.capsule(), "build_oci.tree")
    cdef void *below = PyCapsule_GetPointer(lower_table.capsule(), "build_oci.lower")
    cdef size_t unchanged = 0, whiteouts = 0
    cdef int status
    with nogil:
        status = diff_mark(
            <_tree *>upper, <const lower *>below, &options, preserve_hardlinks, &unchanged,
            &whiteouts,
        )
    if status:
        raise MemoryError
    return unchanged, whiteouts


def mark_added(tree, lower_table, removed=(), *, epoch, bint preserve_hardlinks=True):
    """See diff.pyi."""
    cdef header_options options
    options.has_epoch = epoch is not None
    options.epoch = 0 if epoch is None else epoch
    cdef void *upper = PyCapsule_GetPointer(tree.capsule(), "build_oci.tree")
    cdef void *below = PyCapsule_GetPointer(lower_table.capsule(), "build_oci.lower")
    cdef list paths = list(removed)
    cdef size_t unchanged = 0, whiteouts = 0, missing = 0, i, count = len(paths)
    cdef const char **texts = <const char **>calloc(count + 1, sizeof(char *))
    cdef problem trouble
    cdef int status
    if texts == NULL:
        raise MemoryError
    try:
        for i in range(count):
            texts[i] = <const char *><bytes?>paths[i]
        with nogil:
            status = diff_add(
                <_tree *>upper, <const lower *>below, &options, preserve_hardlinks,
                <const char *const *>texts, count, &unchanged, &whiteouts, &missing, &trouble,
            )
    finally:
        free(texts)
    if status < 0:
        raise MemoryError
    if status and missing < count:
        raise LookupError(missing)
    return unchanged, whiteouts, problem_tuple(&trouble) if status else None
