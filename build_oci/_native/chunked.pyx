"""Blocks of an archive as parts of a zstd:chunked layer. See chunked.pyi for the interface and
kernel/chunked/parts.h for the work.
"""

from collections import namedtuple

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free

from build_oci._native.tree cimport entry, path_of, problem, told


Piece = namedtuple("Piece", "member offset size checksum starts_chunk is_last chunks")


cdef extern from "crc64.h" nogil:
    uint64_t crc64_update(uint64_t crc, const uint8_t *data, size_t size)
    uint64_t crc64_combine(uint64_t crc_a, uint64_t crc_b, uint64_t size_b)


cdef extern from "rolling.h" nogil:
    ctypedef struct cut:
        size_t start, size
        int is_hole

    ctypedef struct cuts:
        cut *items
        size_t count, capacity

    int rolling_cut(cuts *out, const uint8_t *data, size_t size, const uint8_t *before,
                    size_t before_size, const uint8_t *after, size_t after_size, int *starts_chunk)


cdef extern from "text.h" nogil:
    ctypedef struct text:
        char *at
        size_t size, capacity
        int failed


cdef extern from "parts.h" nogil:
    ctypedef struct header_options:
        pass

    ctypedef struct plan:
        header_options options
        entry **members
        size_t members_count, segments_count

    ctypedef struct frame:
        uint64_t start, size

    ctypedef struct chunk:
        size_t frame
        int is_hole, is_digested
        uint8_t digest[32]

    ctypedef struct piece:
        size_t member
        uint64_t start, size, offset, checksum
        size_t first, count
        int starts_chunk, is_last

    ctypedef struct parts:
        frame *frames
        chunk *chunks
        piece *pieces
        size_t frames_count, chunks_count, pieces_count

    int parts_find(parts *, plan *, size_t first, size_t count, const uint8_t *data, problem *out)
    void parts_free(parts *)
    int is_whole(const piece *)
    void parts_toc(const parts *, const plan *, const uint64_t *packed, uint64_t offset, text *out)
    void parts_tar_split(const parts *, const plan *, const uint8_t *data, text *out)


cdef extern from "metadata.h" nogil:
    ctypedef enum inexpressible:
        EXPRESSIBLE
        NAME_NOT_UTF8
        TIME_TOO_FAR
        WITHOUT_MEMORY

    inexpressible toc_can_say(const entry *, const header_options *)
    void toc_entry(text *, const entry *, const header_options *)
    void toc_file(text *, const entry *, const header_options *, uint64_t offset, uint64_t end)
    void toc_chunk(text *, const entry *, uint64_t offset, uint64_t place)
    void toc_chunk_keys(text *, uint64_t size, const uint8_t *digest, int is_hole)
    void tar_split_content(text *, const entry *, uint64_t checksum, uint64_t position)


cdef inline text empty() noexcept:
    cdef text t
    t.at = NULL
    t.size = t.capacity = 0
    t.failed = 0
    return t


cdef bytes taken(text *t):
    """The bytes of a text, whose memory is freed."""
    try:
        if t.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(t.at, t.size)
    finally:
        free(t.at)


cdef plan *plan_of(owner) except NULL:
    return <plan *>PyCapsule_GetPointer(owner.capsule(), "build_oci.plan")


def crc64(const uint8_t[::1] data, uint64_t crc=0):
    cdef size_t size = data.shape[0]
    if size:
        with nogil:
            crc = crc64_update(crc, &data[0], size)
    return crc


def crc64_joined(uint64_t first, uint64_t second, uint64_t size):
    return crc64_combine(first, second, size)


def cut_content(const uint8_t[::1] data, bytes before=b"", bytes after=b""):
    cdef cuts found
    found.items = NULL
    found.count = 0
    found.capacity = 0
    cdef size_t size = data.shape[0], before_size = len(before), after_size = len(after), i
    cdef const uint8_t *at_before = before
    cdef const uint8_t *at_after = after
    cdef int starts = 1, status = 0
    if not size:
        return [], True
    with nogil:
        status = rolling_cut(&found, &data[0], size, at_before, before_size, at_after, after_size,
                             &starts)
    try:
        if status:
            raise MemoryError
        cuts_found = [
            (found.items[i].start, found.items[i].size, bool(found.items[i].is_hole))
            for i in range(found.count)
        ]
        return cuts_found, bool(starts)
    finally:
        free(found.items)


def survey(owner):
    cdef plan *of = plan_of(owner)
    cdef text t = empty()
    cdef uint64_t total = 0
    cdef inexpressible why = EXPRESSIBLE
    cdef size_t i, failed_at = 0
    with nogil:
        for i in range(of.members_count):
            why = toc_can_say(of.members[i], &of.options)
            if why != EXPRESSIBLE:
                failed_at = i
                break
            toc_entry(&t, of.members[i], &of.options)
            total += t.size + 1
            t.size = 0
    free(t.at)
    if t.failed or why == WITHOUT_MEMORY:
        raise MemoryError
    if why != EXPRESSIBLE:
        return total, "name" if why == NAME_NOT_UTF8 else "time", path_of(of.members[failed_at])
    return total, "", b""


cdef class Parts:
    """See chunked.pyi."""

    cdef parts parts
    cdef plan *plan
    cdef object owner
    cdef readonly object problem
    cdef readonly bytes tar_split

    def __cinit__(self, owner, size_t first, size_t count, const uint8_t[::1] data):
        self.owner = owner
        self.plan = plan_of(owner)
        if first + count > self.plan.segments_count or not count:
            raise IndexError(first + count)
        cdef problem trouble
        trouble.name = NULL
        cdef text t = empty()
        cdef const uint8_t *start = &data[0]
        cdef int status
        with nogil:
            status = parts_find(&self.parts, self.plan, first, count, start, &trouble)
            if not status:
                parts_tar_split(&self.parts, self.plan, start, &t)
        self.tar_split = taken(&t)
        self.problem = told(&trouble) if status else None

    def __dealloc__(self):
        parts_free(&self.parts)

    def frames(self):
        cdef size_t size = self.parts.frames_count * sizeof(frame)
        return PyBytes_FromStringAndSize(<const char *>self.parts.frames, size)

    def toc(self, const uint64_t[::1] packed, uint64_t offset):
        cdef text t = empty()
        if <size_t>packed.shape[0] != self.parts.frames_count:
            raise ValueError("not one size for each frame")
        if self.parts.frames_count:
            with nogil:
                parts_toc(&self.parts, self.plan, &packed[0], offset, &t)
        return taken(&t)

    def pieces(self):
        cdef size_t i, j
        cdef piece *c
        cdef chunk *one
        found = []
        for i in range(self.parts.pieces_count):
            c = &self.parts.pieces[i]
            if is_whole(c):
                continue
            chunks = []
            for j in range(c.count):
                one = &self.parts.chunks[c.first + j]
                digest = (<const char *>one.digest)[:32] if one.is_digested else None
                chunks.append((
                    one.frame, self.parts.frames[one.frame].start,
                    self.parts.frames[one.frame].size, bool(one.is_hole), digest,
                ))
            found.append(Piece(
                c.member, c.offset, c.size, c.checksum, bool(c.starts_chunk), bool(c.is_last),
                chunks,
            ))
        return found


cdef entry *member_of(plan *of, size_t member) except NULL:
    if member >= of.members_count:
        raise IndexError(member)
    return of.members[member]


def file_entry(owner, size_t member, uint64_t offset, uint64_t end):
    cdef plan *of = plan_of(owner)
    cdef text t = empty()
    toc_file(&t, member_of(of, member), &of.options, offset, end)
    return taken(&t)


def chunk_entry(owner, size_t member, uint64_t offset, uint64_t place):
    cdef text t = empty()
    toc_chunk(&t, member_of(plan_of(owner), member), offset, place)
    return taken(&t)


def chunk_keys(uint64_t size, const uint8_t[::1] digest, bint is_hole):
    if digest.shape[0] != 32:
        raise ValueError("no SHA-256")
    cdef text t = empty()
    toc_chunk_keys(&t, size, &digest[0], is_hole)
    return taken(&t)


def content_line(owner, size_t member, uint64_t checksum):
    cdef text t = empty()
    tar_split_content(&t, member_of(plan_of(owner), member), checksum, 2 * <uint64_t>member + 1)
    return taken(&t)
