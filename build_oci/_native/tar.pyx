"""Tar segments of a walked tree: a thin face of kernel/pack/pack.c."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from build_oci._native.tree cimport problem, told
from build_oci._native.tree cimport tree as _tree


cdef extern from "sha256.h" nogil:
    ctypedef struct sha256_kernel:
        pass

    const sha256_kernel *sha256_kernel_at(int id)


cdef extern from "pack.h" nogil:
    ctypedef struct header_options:
        int has_epoch
        int64_t epoch

    ctypedef enum segment_kind:
        SEGMENT_BATCH
        SEGMENT_HEADER
        SEGMENT_SLICE
        SEGMENT_END

    ctypedef struct segment:
        uint64_t size, offset
        segment_kind kind

    ctypedef struct plan:
        segment *segments
        size_t segments_count, members_count
        uint64_t archive_size, files, bytes
        int cancelled

    plan *plan_new(_tree *, const header_options *, const sha256_kernel *, uint64_t segment_size, int preserve_links)
    int plan_digest(plan *, const size_t *indexes, size_t count, problem *out)
    int plan_fill(plan *, size_t index, uint8_t *into, problem *out)
    void plan_free(plan *)


cdef class Plan:
    """See tar.pyi."""

    cdef plan *plan
    cdef object tree

    def __cinit__(self, tree, *, epoch, int kernel, uint64_t segment_size, bint preserve_hardlinks=True):
        self.tree = tree
        cdef header_options options
        options.has_epoch = epoch is not None
        options.epoch = 0 if epoch is None else epoch
        cdef const sha256_kernel *chosen = sha256_kernel_at(kernel)
        if chosen == NULL:
            raise ValueError(f"this CPU has no SHA-256 kernel {kernel}")
        if not segment_size or segment_size % 512:
            raise ValueError("segment_size must be a multiple of 512")
        cdef void *native = PyCapsule_GetPointer(tree.capsule(), "build_oci.tree")
        with nogil:
            self.plan = plan_new(<_tree *>native, &options, chosen, segment_size, preserve_hardlinks)
        if self.plan == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.plan != NULL:
            plan_free(self.plan)

    def __len__(self):
        return self.plan.segments_count

    @property
    def members(self):
        return self.plan.members_count

    @property
    def files(self):
        return self.plan.files

    @property
    def content_size(self):
        return self.plan.bytes

    @property
    def archive_size(self):
        return self.plan.archive_size

    cdef int _checked(self, size_t index) except -1:
        if index >= self.plan.segments_count:
            raise IndexError(index)
        return 0

    def size(self, size_t index):
        self._checked(index)
        return self.plan.segments[index].size

    def to_digest(self, size_t index):
        self._checked(index)
        return self.plan.segments[index].offset if self.plan.segments[index].kind == SEGMENT_HEADER else 0

    def digest(self, *indexes):
        cdef size_t count = len(indexes), i
        cdef size_t *chosen = <size_t *>calloc(count + 1, sizeof(size_t))
        cdef problem trouble
        cdef int end
        trouble.name = NULL
        try:
            if chosen == NULL:
                raise MemoryError
            for i in range(count):
                chosen[i] = indexes[i]
                self._checked(chosen[i])
                if self.plan.segments[chosen[i]].kind != SEGMENT_HEADER:
                    raise ValueError("only the headers of a large file need a digest")
            with nogil:
                end = plan_digest(self.plan, chosen, count, &trouble)
        finally:
            free(chosen)
        return told(&trouble) if end else None

    def fill(self, size_t index, uint8_t[::1] into):
        self._checked(index)
        if <uint64_t>into.shape[0] < self.plan.segments[index].size:
            raise ValueError("the buffer is smaller than the segment")
        cdef problem trouble
        trouble.name = NULL
        cdef uint8_t *start = &into[0]
        cdef int end
        with nogil:
            end = plan_fill(self.plan, index, start, &trouble)
        return told(&trouble) if end else None

    def cancel(self):
        self.plan.cancelled = 1

    def restart(self):
        self.plan.cancelled = 0

    def capsule(self):
        return PyCapsule_New(self.plan, "build_oci.plan", NULL)
