"""Blocks of an archive as parts of a zstd:chunked layer. See chunked.pyi for the interface and
kernel/chunked/parts.h for the work.
"""

from collections import namedtuple

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from build_oci._native.tree cimport entry, path_of, problem, problem_tuple


Piece = namedtuple("Piece", "offset size checksum starts_chunk is_last chunks")
OpenFile = namedtuple("OpenFile", "entry name position size digest")


cdef extern from "crc64.h" nogil:
    uint64_t crc64_update(uint64_t crc, const uint8_t *data, size_t size)
    uint64_t crc64_combine(uint64_t crc_a, uint64_t crc_b, uint64_t size_b)


cdef extern from "path_set.h" nogil:
    ctypedef struct path_set:
        pass

    ctypedef enum path_added:
        PATH_NEW
        PATH_TWICE
        PATH_WITHOUT_MEMORY

    uint64_t path_hash(const uint8_t *name, size_t size)
    path_added path_set_add(path_set *, uint64_t hash)
    void path_set_free(path_set *)


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


cdef extern from "sha256.h" nogil:
    ctypedef struct sha256_kernel:
        pass

    const sha256_kernel *sha256_kernel_at(int id)
    int sha256_kernel_best()


cdef extern from "parts.h" nogil:
    ctypedef struct frame:
        uint64_t start, size

    ctypedef struct chunk:
        size_t frame
        int is_hole, is_digested
        uint8_t digest[32]

    ctypedef struct piece:
        uint64_t start, size, offset, checksum
        size_t first, count
        int starts_chunk, is_last

    ctypedef struct text_span:
        size_t at, size

    ctypedef struct item:
        uint64_t position, size
        text_span entry, name

    ctypedef struct parts:
        frame *frames
        chunk *chunks
        piece *pieces
        size_t frames_count, chunks_count, pieces_count
        text texts

    ctypedef int read_around(void *of, const piece *, uint8_t *before, size_t *before_size,
                             uint8_t *after, size_t *after_size)

    int parts_cut(parts *, const sha256_kernel *, const uint8_t *data, uint64_t size, read_around *,
                  void *of)
    void parts_free(parts *)
    int piece_is_whole(const piece *)
    void parts_toc(const parts *, const uint64_t *packed, uint64_t offset, text *out)
    void parts_tar_split(const parts *, const uint8_t *data, text *out)
    const item *parts_opened(const parts *)


cdef extern from "plan_parts.h" nogil:
    ctypedef struct header_options:
        pass

    ctypedef struct plan:
        header_options options
        entry **members
        size_t members_count, segments_count

    ctypedef enum inexpressible:
        EXPRESSIBLE
        NAME_NOT_UTF8
        TIME_TOO_FAR
        WHITEOUT_WITH_CONTENT
        WITHOUT_MEMORY

    inexpressible plan_parts_can_say(const entry *, const header_options *)
    void plan_parts_put_entry(text *, const entry *, const header_options *, text_span *name)
    int plan_parts(parts *, plan *, size_t first, size_t count, const uint8_t *data, problem *out)


cdef extern from "splitter.h" nogil:
    ctypedef struct splitter:
        uint64_t size, full
        const char *why "problem"
        int without_memory

    ctypedef struct surroundings:
        pass

    void splitter_begin(splitter *, uint64_t limit)
    size_t splitter_feed(splitter *, const uint8_t *data, size_t size)
    void splitter_finish(splitter *)
    void splitter_take(splitter *, const uint8_t *data, parts *out, surroundings *)
    int splitter_read_surroundings(void *of, const piece *, uint8_t *before, size_t *before_size,
                                   uint8_t *after, size_t *after_size)
    void splitter_free(splitter *)


cdef extern from "metadata.h" nogil:
    void toc_content(text *, const uint8_t *digest, uint64_t offset, uint64_t end)
    void toc_chunk(text *, const char *name, size_t name_size, uint64_t offset, uint64_t place)
    void toc_chunk_keys(text *, uint64_t size, const uint8_t *digest, int is_hole)
    void tar_split_content(text *, const char *name, size_t name_size, uint64_t size,
                           uint64_t checksum, uint64_t position)


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
        return [
            (found.items[i].start, found.items[i].size, bool(found.items[i].is_hole))
            for i in range(found.count)
        ], bool(starts)
    finally:
        free(found.items)


def survey(owner):
    cdef plan *of = plan_of(owner)
    cdef text t = empty()
    cdef text_span name
    cdef uint64_t total = 0
    cdef inexpressible why = EXPRESSIBLE
    cdef size_t i, failed_at = 0
    with nogil:
        for i in range(of.members_count):
            why = plan_parts_can_say(of.members[i], &of.options)
            if why != EXPRESSIBLE:
                failed_at = i
                break
            plan_parts_put_entry(&t, of.members[i], &of.options, &name)
            total += t.size + 1
            t.size = 0
    free(t.at)
    if t.failed or why == WITHOUT_MEMORY:
        raise MemoryError
    if why != EXPRESSIBLE:
        said = {NAME_NOT_UTF8: "name", TIME_TOO_FAR: "time", WHITEOUT_WITH_CONTENT: "whiteout"}
        return total, said[why], path_of(of.members[failed_at])
    return total, "", b""


cdef bytes slice_of(const text *t, text_span span):
    return PyBytes_FromStringAndSize(t.at + span.at, span.size)


cdef class Parts:
    """See chunked.pyi."""

    cdef parts parts
    cdef readonly object problem
    cdef readonly object opened
    cdef readonly bytes tar_split

    def __dealloc__(self):
        parts_free(&self.parts)

    cdef int _begin(self, const uint8_t *data, const uint8_t *digest) except -1:
        """What follows from the cut: the lines of the tar-split, the file that is open at the end.
        """
        cdef text t = empty()
        cdef const item *opened
        with nogil:
            parts_tar_split(&self.parts, data, &t)
        self.tar_split = taken(&t)
        opened = parts_opened(&self.parts)
        if opened != NULL:
            known = (<const char *>digest)[:32] if digest != NULL else None
            self.opened = OpenFile(
                slice_of(&self.parts.texts, opened.entry),
                slice_of(&self.parts.texts, opened.name),
                opened.position, opened.size, known,
            )
        return 0

    def frames(self):
        cdef size_t size = self.parts.frames_count * sizeof(frame)
        return PyBytes_FromStringAndSize(<const char *>self.parts.frames, size)

    def toc(self, const uint64_t[::1] packed, uint64_t offset):
        cdef text t = empty()
        if <size_t>packed.shape[0] != self.parts.frames_count:
            raise ValueError("not one size for each frame")
        if self.parts.frames_count:
            with nogil:
                parts_toc(&self.parts, &packed[0], offset, &t)
        return taken(&t)

    def pieces(self):
        cdef size_t i, j
        cdef piece *c
        cdef chunk *one
        found = []
        for i in range(self.parts.pieces_count):
            c = &self.parts.pieces[i]
            if piece_is_whole(c):
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
                c.offset, c.size, c.checksum, bool(c.starts_chunk), bool(c.is_last), chunks,
            ))
        return found


def plan_block(owner, size_t first, size_t count, const uint8_t[::1] data):
    cdef plan *of = plan_of(owner)
    cdef Parts found = Parts.__new__(Parts)
    cdef problem trouble
    cdef const uint8_t *start = &data[0]
    cdef const uint8_t *digest = NULL
    cdef const item *opened
    cdef int status
    if first + count > of.segments_count or not count:
        raise IndexError(first + count)
    trouble.name = NULL
    with nogil:
        status = plan_parts(&found.parts, of, first, count, start, &trouble)
    if status:
        found.problem = problem_tuple(&trouble)
        return found
    opened = parts_opened(&found.parts)
    if opened != NULL:
        digest = of.members[opened.position // 2].digest
    found._begin(start, digest)
    return found


cdef class Cut:
    """See chunked.pyi."""

    cdef parts parts
    cdef surroundings around
    cdef const sha256_kernel *kernel
    cdef readonly uint64_t size
    cdef readonly list pieces

    def __dealloc__(self):
        parts_free(&self.parts)

    def parts_of(self, const uint8_t[::1] data):
        cdef Parts found = Parts.__new__(Parts)
        cdef int status
        cdef const uint8_t *start = &data[0]
        if <uint64_t>data.shape[0] != self.size:
            raise ValueError("not the block that was cut")
        found.parts = self.parts
        memset(&self.parts, 0, sizeof(parts))
        with nogil:
            status = parts_cut(
                &found.parts, self.kernel, start, self.size, splitter_read_surroundings,
                &self.around,
            )
        if status:
            raise MemoryError
        found._begin(start, NULL)
        return found


cdef class Splitter:
    """See chunked.pyi."""

    cdef splitter splitter
    cdef const sha256_kernel *kernel

    def __cinit__(self, uint64_t limit, kernel=None):
        splitter_begin(&self.splitter, limit)
        self.kernel = sha256_kernel_at(sha256_kernel_best() if kernel is None else kernel)
        if self.kernel == NULL:
            raise ValueError(f"this CPU has no SHA-256 kernel {kernel}")

    def __dealloc__(self):
        splitter_free(&self.splitter)

    cdef int _check(self) except -1:
        if self.splitter.without_memory:
            raise MemoryError
        if self.splitter.why != NULL:
            raise ValueError((<bytes>self.splitter.why).decode("ascii"))
        return 0

    def feed(self, const uint8_t[::1] data):
        cdef size_t size = data.shape[0], taken_in = 0
        if size:
            with nogil:
                taken_in = splitter_feed(&self.splitter, &data[0], size)
        self._check()
        return taken_in

    def finish(self):
        splitter_finish(&self.splitter)
        self._check()

    @property
    def full(self):
        return self.splitter.full

    def take(self, const uint8_t[::1] data):
        cdef Cut cut = Cut.__new__(Cut)
        cdef piece *one
        cdef size_t i
        if not self.splitter.full or <uint64_t>data.shape[0] != self.splitter.size:
            raise ValueError("no block is full, or these are not its bytes")
        cut.size = self.splitter.full
        cut.kernel = self.kernel
        splitter_take(&self.splitter, &data[0], &cut.parts, &cut.around)
        self._check()
        cut.pieces = []
        for i in range(cut.parts.pieces_count):
            one = &cut.parts.pieces[i]
            if not piece_is_whole(one):
                cut.pieces.append((one.start, one.size, bool(one.is_last)))
        return cut


cdef class PathSet:
    """See chunked.pyi."""

    cdef path_set paths

    def __dealloc__(self):
        path_set_free(&self.paths)

    def add(self, bytes path):
        cdef path_added added = path_set_add(&self.paths, path_hash(path, len(path)))
        if added == PATH_WITHOUT_MEMORY:
            raise MemoryError
        return added == PATH_NEW


def content_keys(const uint8_t[::1] digest, uint64_t offset, uint64_t end):
    cdef text t = empty()
    toc_content(&t, digest_of(digest), offset, end)
    return taken(&t)


def chunk_entry(bytes name, uint64_t offset, uint64_t place):
    cdef text t = empty()
    toc_chunk(&t, name, len(name), offset, place)
    return taken(&t)


cdef const uint8_t *digest_of(const uint8_t[::1] digest) except NULL:
    if digest.shape[0] != 32:
        raise ValueError("no SHA-256")
    return &digest[0]


def chunk_keys(uint64_t size, const uint8_t[::1] digest, bint is_hole):
    cdef text t = empty()
    toc_chunk_keys(&t, size, digest_of(digest), is_hole)
    return taken(&t)


def content_line(bytes name, uint64_t size, uint64_t checksum, uint64_t position):
    cdef text t = empty()
    tar_split_content(&t, name, len(name), size, checksum, position)
    return taken(&t)
