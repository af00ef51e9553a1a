"""The layers of a walked tree and their tar segments: a thin face of kernel/pack/partition.c,
kernel/pack/pack.c and kernel/pack/archive_check.c.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from build_oci._native.tree cimport entry, path_of, problem, problem_tuple
from build_oci._native.tree cimport tree as _tree


cdef extern from "sha256.h" nogil:
    ctypedef struct sha256_kernel:
        pass

    const sha256_kernel *sha256_kernel_at(int id)


cdef extern from "partition.h" nogil:
    ctypedef struct partition:
        size_t *starts
        size_t layers_count

    partition *partition_new(
        _tree *, const uint32_t *owners, size_t count, size_t layers, int directories_last,
        int preserve_links, const char **problem,
    )
    void partition_free(partition *)


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
        entry **members
        uint64_t archive_size, files, bytes
        int cancelled

    plan *plan_new(const partition *, size_t layer, const header_options *, const sha256_kernel *,
                   uint64_t segment_size)
    int plan_digest(plan *, const size_t *indexes, size_t count, problem *out)
    int plan_fill(plan *, size_t index, uint8_t *into, problem *out)
    void plan_free(plan *)


cdef extern from "recipe.h" nogil:
    enum:
        SHA256_DIGEST

    ctypedef struct recipe:
        const uint8_t *bytes
        size_t size

    int recipe_begin(recipe *, const plan *)
    int recipe_next(recipe *)
    void recipe_digest(const recipe *, uint8_t *out)
    void recipe_end(recipe *)
    int recipe_of_components(
        _tree *, const sha256_kernel *, const uint32_t *owners, size_t entries, size_t count,
        uint8_t (*out)[32], uint8_t *known,
    )


cdef extern from "layer_recipe.h" nogil:
    ctypedef struct member:
        uint32_t name_size

    ctypedef struct member_view:
        const member *members
        size_t count
        int ended

    ctypedef enum difference:
        DIFFERENCE_NONE
        DIFFERENCE_NEW
        DIFFERENCE_GONE
        DIFFERENCE_TYPE
        DIFFERENCE_CONTENT
        DIFFERENCE_TARGET
        DIFFERENCE_MODE
        DIFFERENCE_OWNER
        DIFFERENCE_MTIME
        DIFFERENCE_XATTR
        DIFFERENCE_DEVICE

    difference layer_recipe_difference(const plan *, const member *, size_t count, int ended,
                                       size_t *at)


cdef extern from "member_name.h" nogil:
    void member_name(const member *, char *out)


cdef extern from "archive_check.h" nogil:
    ctypedef struct archive_check:
        pass

    archive_check *archive_check_new(const plan *)
    int archive_check_possible(const plan *)
    int archive_check_feed(
        archive_check *, const uint8_t *data, size_t size, archive_check *other,
        const uint8_t *other_data, size_t other_size,
    )
    int archive_check_holds(const archive_check *)
    int archive_check_complete(const archive_check *)
    void archive_check_digest(const archive_check *, uint8_t *digest)
    void archive_check_free(archive_check *)


OWNER_NOBODY = 0xFFFFFFFF


def component_digests(tree, const uint32_t[::1] owners not None, size_t count, *, int kernel):
    """See tar.pyi."""
    cdef const sha256_kernel *chosen = sha256_kernel_at(kernel)
    if chosen == NULL:
        raise ValueError(f"this CPU has no SHA-256 kernel {kernel}")
    cdef size_t entries = owners.shape[0]
    if not entries:
        raise ValueError("there are not as many owners as entries")
    cdef const uint32_t *first = &owners[0]
    cdef _tree *native = <_tree *>PyCapsule_GetPointer(tree.capsule(), "build_oci.tree")
    cdef uint8_t *digests = <uint8_t *>calloc(count + 1, SHA256_DIGEST)
    cdef uint8_t *known = <uint8_t *>calloc(count + 1, 1)
    cdef int status = -1
    cdef size_t i
    try:
        if digests != NULL and known != NULL:
            with nogil:
                status = recipe_of_components(
                    native, chosen, first, entries, count, <uint8_t (*)[32]>digests, known
                )
        if status < 0:
            raise MemoryError
        if status:
            raise ValueError("there are not as many owners as entries")
        return [
            (<char *>digests + SHA256_DIGEST * i)[:SHA256_DIGEST] if known[i] else None
            for i in range(count)
        ]
    finally:
        free(digests)
        free(known)


cdef class Partition:
    """See tar.pyi."""

    cdef partition *partition
    cdef object tree

    def __cinit__(
        self, tree, owners=None, size_t layers=1, *, bint directories_last=False,
        bint preserve_hardlinks=True,
    ):
        self.tree = tree
        if not layers or layers > 1 << 16:
            raise ValueError("there must be from 1 to 65,536 layers")
        cdef const uint32_t[::1] numbers = owners
        cdef const uint32_t *first = NULL
        cdef size_t count = 0
        if owners is not None:
            count = numbers.shape[0]
            if not count:
                raise ValueError("there are not as many owners as entries")
            first = &numbers[0]
        cdef const char *trouble = NULL
        cdef _tree *native = <_tree *>PyCapsule_GetPointer(tree.capsule(), "build_oci.tree")
        with nogil:
            self.partition = partition_new(
                native, first, count, layers, directories_last, preserve_hardlinks, &trouble
            )
        if self.partition == NULL:
            if trouble == NULL:
                raise MemoryError
            raise ValueError((<bytes>trouble).decode("ascii"))

    def __dealloc__(self):
        if self.partition != NULL:
            partition_free(self.partition)

    def __len__(self):
        return self.partition.layers_count

    def members(self, size_t layer):
        if layer >= self.partition.layers_count:
            raise IndexError(layer)
        return self.partition.starts[layer + 1] - self.partition.starts[layer]


cdef class Plan:
    """See tar.pyi."""

    cdef plan *plan
    cdef Partition partition

    def __cinit__(
        self, Partition partition, size_t layer=0, *, epoch, int kernel, uint64_t segment_size
    ):
        self.partition = partition
        cdef header_options options
        options.has_epoch = epoch is not None
        options.epoch = 0 if epoch is None else epoch
        cdef const sha256_kernel *chosen = sha256_kernel_at(kernel)
        if chosen == NULL:
            raise ValueError(f"this CPU has no SHA-256 kernel {kernel}")
        if not segment_size or segment_size % 512:
            raise ValueError("segment_size must be a multiple of 512")
        if layer >= partition.partition.layers_count:
            raise IndexError(layer)
        with nogil:
            self.plan = plan_new(partition.partition, layer, &options, chosen, segment_size)
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

    def recipe(self, take=None):
        cdef uint8_t digest[32]
        cdef recipe headers
        cdef int status
        with nogil:
            status = recipe_begin(&headers, self.plan)
        if status:
            return None
        try:
            while True:
                with nogil:
                    status = recipe_next(&headers)
                if status:
                    raise MemoryError
                if not headers.size:
                    break
                if take is not None:
                    take(PyMemoryView_FromMemory(<char *>headers.bytes, headers.size, PyBUF_READ))
            recipe_digest(&headers, digest)
        finally:
            recipe_end(&headers)
        return (<char *>digest)[:SHA256_DIGEST]

    def to_digest(self, size_t index):
        self._checked(index)
        if self.plan.segments[index].kind != SEGMENT_HEADER:
            return 0
        return self.plan.segments[index].offset

    def digest(self, *indexes):
        cdef size_t count = len(indexes), i
        cdef size_t *chosen = <size_t *>calloc(count + 1, sizeof(size_t))
        cdef problem trouble
        cdef int status
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
                status = plan_digest(self.plan, chosen, count, &trouble)
        finally:
            free(chosen)
        return problem_tuple(&trouble) if status else None

    def fill(self, size_t index, uint8_t[::1] into):
        self._checked(index)
        if <uint64_t>into.shape[0] < self.plan.segments[index].size:
            raise ValueError("the buffer is smaller than the segment")
        cdef problem trouble
        trouble.name = NULL
        cdef uint8_t *start = &into[0]
        cdef int status
        with nogil:
            status = plan_fill(self.plan, index, start, &trouble)
        return problem_tuple(&trouble) if status else None

    def difference(self, reader, size_t start=0):
        cdef void *seen = PyCapsule_GetPointer(reader.seen(), "build_oci.member_view")
        cdef member_view *view = <member_view *>seen
        cdef size_t at = start
        cdef difference found
        with nogil:
            found = layer_recipe_difference(self.plan, view.members, view.count, view.ended, &at)
        if found == DIFFERENCE_NONE:
            return at
        kind = {
            DIFFERENCE_NEW: "new", DIFFERENCE_GONE: "gone", DIFFERENCE_TYPE: "type",
            DIFFERENCE_CONTENT: "content", DIFFERENCE_TARGET: "target", DIFFERENCE_MODE: "mode",
            DIFFERENCE_OWNER: "owner", DIFFERENCE_MTIME: "mtime", DIFFERENCE_XATTR: "xattr",
            DIFFERENCE_DEVICE: "device",
        }[found]
        if found == DIFFERENCE_GONE:
            name = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>view.members[at].name_size)
            member_name(view.members + at, PyBytes_AsString(name))
            return kind, name
        return kind, path_of(self.plan.members[at])

    def cancel(self):
        self.plan.cancelled = 1

    def restart(self):
        self.plan.cancelled = 0

    def capsule(self):
        return PyCapsule_New(self.plan, "build_oci.plan", NULL)


cdef class ArchiveCheck:
    """See tar.pyi."""

    cdef archive_check *check
    cdef Plan plan

    def __cinit__(self, Plan plan):
        self.plan = plan
        with nogil:
            self.check = archive_check_new(plan.plan)
        if self.check == NULL:
            raise MemoryError

    def __dealloc__(self):
        archive_check_free(self.check)

    @staticmethod
    def possible(Plan plan):
        return bool(archive_check_possible(plan.plan))

    def feed(self, data, ArchiveCheck other=None, other_data=b""):
        cdef Py_buffer view, other_view
        cdef archive_check *second = NULL if other is None else other.check
        cdef int status
        if other is self:
            raise ValueError("one archive cannot be fed twice at once")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(other_data, &other_view, PyBUF_SIMPLE)
            try:
                with nogil:
                    status = archive_check_feed(
                        self.check, <const uint8_t *>view.buf, <size_t>view.len, second,
                        <const uint8_t *>other_view.buf, <size_t>other_view.len,
                    )
            finally:
                PyBuffer_Release(&other_view)
        finally:
            PyBuffer_Release(&view)
        if status:
            raise MemoryError

    @property
    def holds(self):
        return bool(archive_check_holds(self.check))

    @property
    def complete(self):
        return bool(archive_check_complete(self.check))

    @property
    def digest(self):
        cdef uint8_t digest[32]
        archive_check_digest(self.check, digest)
        return (<const char *>digest)[:SHA256_DIGEST]
