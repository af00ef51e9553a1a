"""Two images compared: a thin face of kernel/compare/compare.c."""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t


cdef extern from "reader.h" nogil:
    enum:
        MEMBER_HARD_LINK

    ctypedef struct member:
        const char *target
        uint64_t size, rdev
        int64_t mtime
        uint32_t mtime_ns, mode, uid, gid, target_size, flags

    ctypedef struct tar_reader:
        pass

    const member *tar_reader_members(const tar_reader *, size_t *count)


cdef extern from "compare.h" nogil:
    enum:
        COMPARE_NO_LAYER

    ctypedef struct compare_node:
        pass

    ctypedef struct occurrence:
        const member *m
        uint32_t layer

    ctypedef struct difference:
        const compare_node *node
        const occurrence *old
        const occurrence *new
        uint16_t what, bits

    ctypedef struct compare:
        pass

    compare *compare_new(size_t memory_limit, int old_complete, int new_complete)
    int compare_begin_layer(compare *, int side, uint32_t layer)
    int compare_add(compare *, const member *members, size_t count)
    void compare_start(compare *, int everything)
    size_t compare_walk(compare *, difference *out, size_t capacity, int *ended)
    uint32_t compare_counterpart(compare *, uint32_t layer)
    void compare_start_layer(compare *, uint32_t layer, uint32_t counterpart)
    size_t compare_walk_layer(compare *, difference *out, size_t capacity, int *ended)
    int compare_same_order(const compare *)
    size_t compare_path(const compare_node *, char *out)
    void compare_free(compare *)


cdef enum:
    MEMBERS_AT_ONCE = 16384  # between two looks for cancellation
    DIFFERENCES_AT_ONCE = 1024


cdef object _path(const compare_node *node):
    cdef size_t size = compare_path(node, NULL)
    path = PyBytes_FromStringAndSize(NULL, size)
    compare_path(node, PyBytes_AsString(path))
    return path


cdef object _entry(const occurrence *o):
    if o == NULL:
        return None
    cdef const member *m = o.m
    target = None if m.target == NULL else m.target[:m.target_size]
    return (
        o.layer, m.mode, m.size, m.uid, m.gid, int(m.mtime) * 1000000000 + m.mtime_ns, target,
        m.rdev, bool(m.flags & MEMBER_HARD_LINK),
    )


cdef class Comparison:
    """See compare.pyi."""

    cdef compare *compare
    cdef list readers

    def __cinit__(self, *, size_t memory_limit, bint old_complete, bint new_complete):
        self.readers = []
        self.compare = compare_new(memory_limit, old_complete, new_complete)
        if self.compare == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.compare != NULL:
            compare_free(self.compare)

    def add(self, int side, uint32_t layer, reader, check=None):
        cdef void *native = PyCapsule_GetPointer(reader.capsule(), "build_oci.members")
        cdef size_t count = 0, at = 0, size
        cdef const member *members = tar_reader_members(<const tar_reader *>native, &count)
        cdef int status
        self.readers.append(reader)
        if compare_begin_layer(self.compare, side, layer):
            raise MemoryError
        while at < count:
            if check is not None:
                check()
            size = min(<size_t>MEMBERS_AT_ONCE, count - at)
            with nogil:
                status = compare_add(self.compare, members + at, size)
            if status:
                raise ValueError("the names of these images need more memory than they may take")
            at += size

    cdef list _told(self, difference *found, size_t count):
        cdef size_t i
        told = []
        for i in range(count):
            told.append((
                _path(found[i].node), found[i].what, found[i].bits, _entry(found[i].old),
                _entry(found[i].new),
            ))
        return told

    def differences(self, *, bint everything=False, check=None):
        compare_start(self.compare, everything)
        cdef int ended = 0
        while not ended:
            if check is not None:
                check()
            batch = self._next_batch(0)
            ended = batch[1]
            yield from batch[0]

    def layer_differences(self, uint32_t layer, counterpart, *, check=None):
        compare_start_layer(
            self.compare, layer, COMPARE_NO_LAYER if counterpart is None else counterpart
        )
        cdef int ended = 0
        while not ended:
            if check is not None:
                check()
            batch = self._next_batch(1)
            ended = batch[1]
            yield from batch[0]

    cdef tuple _next_batch(self, int of_layer):
        cdef difference found[DIFFERENCES_AT_ONCE]
        cdef size_t count
        cdef int ended = 0
        with nogil:
            if of_layer:
                count = compare_walk_layer(self.compare, found, DIFFERENCES_AT_ONCE, &ended)
            else:
                count = compare_walk(self.compare, found, DIFFERENCES_AT_ONCE, &ended)
        return self._told(found, count), ended

    def counterpart(self, uint32_t layer):
        cdef uint32_t found
        with nogil:
            found = compare_counterpart(self.compare, layer)
        return None if found == <uint32_t>COMPARE_NO_LAYER else found

    def same_order(self):
        return bool(compare_same_order(self.compare))
