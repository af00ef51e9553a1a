"""A tree held against what its parent image has: a thin face of kernel/diff.c."""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t

from build_oci._native.tree cimport problem, told
from build_oci._native.tree cimport tree as _tree


cdef extern from "sha256.h" nogil:
    ctypedef struct sha256_kernel:
        pass

    const sha256_kernel *sha256_kernel_at(int id)


cdef extern from "diff.h" nogil:
    ctypedef struct header_options:
        int has_epoch
        int64_t epoch

    ctypedef struct lower:
        pass

    ctypedef struct diff:
        size_t batches_count, unchanged, whiteouts
        int cancelled

    diff *diff_new(_tree *, const lower *, const header_options *, const sha256_kernel *, int preserve_links)
    int diff_hash(diff *, size_t batch, problem *out)
    int diff_decide(diff *)
    void diff_free(diff *)


cdef class Diff:
    """See diff.pyi."""

    cdef diff *diff
    cdef object tree, lower

    def __cinit__(self, tree, lower_table, *, epoch, int kernel, bint preserve_hardlinks=True):
        self.tree = tree
        self.lower = lower_table
        cdef header_options options
        options.has_epoch = epoch is not None
        options.epoch = 0 if epoch is None else epoch
        cdef const sha256_kernel *chosen = sha256_kernel_at(kernel)
        if chosen == NULL:
            raise ValueError(f"this CPU has no SHA-256 kernel {kernel}")
        cdef void *upper = PyCapsule_GetPointer(tree.capsule(), "build_oci.tree")
        cdef void *below = PyCapsule_GetPointer(lower_table.capsule(), "build_oci.lower")
        with nogil:
            self.diff = diff_new(<_tree *>upper, <const lower *>below, &options, chosen, preserve_hardlinks)
        if self.diff == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.diff != NULL:
            diff_free(self.diff)

    def __len__(self):
        return self.diff.batches_count

    def hash(self, size_t batch):
        if batch >= self.diff.batches_count:
            raise IndexError(batch)
        cdef problem trouble
        trouble.name = NULL
        cdef int end
        with nogil:
            end = diff_hash(self.diff, batch, &trouble)
        return told(&trouble) if end else None

    def decide(self):
        cdef int end
        with nogil:
            end = diff_decide(self.diff)
        if end:
            raise MemoryError
        return self.diff.unchanged, self.diff.whiteouts

    def cancel(self):
        self.diff.cancelled = 1
