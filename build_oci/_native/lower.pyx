"""The lower file system, as the layers of a parent image tell of it: a thin face of
kernel/tar/reader.c.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport strerror

from build_oci._native.tree cimport xattr, xattr_next


cdef extern from "sha256.h" nogil:
    ctypedef struct sha256_kernel:
        pass

    const sha256_kernel *sha256_kernel_at(int id)
    int sha256_kernel_best()


cdef extern from "reader.h" nogil:
    enum:
        MEMBER_DIGEST_KNOWN
        MEMBER_HARD_LINK
        MEMBER_AMBIGUOUS
        MEMBER_XATTR_NEWLINE

    ctypedef struct member:
        const char *target
        const uint8_t *xattrs
        uint64_t size, rdev
        int64_t mtime
        uint32_t mtime_ns, mode, uid, gid, xattrs_size, name_size, target_size, flags
        const uint8_t *digest

    ctypedef struct member_view:
        const member *members
        size_t count
        int ended

    ctypedef struct tar_reader:
        pass

    tar_reader *tar_reader_new(const sha256_kernel *, size_t memory_limit, int trust)
    int tar_reader_feed(tar_reader *, const uint8_t *data, size_t size)
    int tar_reader_seek_through(
        tar_reader *, int fd, uint64_t start, uint64_t size, uint64_t *at, size_t most, int *error
    )
    int tar_reader_finish(tar_reader *)
    const member *tar_reader_members(const tar_reader *, size_t *count)
    size_t tar_reader_held(const tar_reader *)
    const char *tar_reader_error(const tar_reader *)
    void tar_reader_digest_archive(tar_reader *)
    void tar_reader_archive_digest(const tar_reader *, uint8_t *digest)
    void tar_reader_digest_headers(tar_reader *)
    void tar_reader_forget(tar_reader *)
    void tar_reader_headers_alone(tar_reader *)
    void tar_reader_keep_whole(tar_reader *)
    void tar_reader_count_whole_names(tar_reader *)
    int tar_reader_headers_digest(const tar_reader *, uint8_t *digest)
    void tar_reader_free(tar_reader *)


cdef extern from "member_name.h" nogil:
    void member_name(const member *, char *out)


cdef class TarReader:
    """See lower.pyi."""

    cdef tar_reader *reader
    cdef member_view view
    cdef bint finished, digesting

    def __cinit__(
        self, *, kernel=None, size_t memory_limit=1 << 31, bint trust=False, bint digest=False,
        bint recipe=False, bint keep=True, bint whole=False, bint whole_names=True,
        bint headers=False,
    ):
        cdef int number = sha256_kernel_best() if kernel is None else kernel
        cdef const sha256_kernel *chosen = sha256_kernel_at(number)
        if chosen == NULL:
            raise ValueError(f"this CPU has no SHA-256 kernel {kernel}")
        self.reader = tar_reader_new(chosen, memory_limit, trust)
        if self.reader == NULL:
            raise MemoryError
        self.digesting = digest
        if digest:
            tar_reader_digest_archive(self.reader)
        if recipe:
            tar_reader_digest_headers(self.reader)
        if not keep:
            tar_reader_forget(self.reader)
        if headers:
            tar_reader_headers_alone(self.reader)
        if whole:
            tar_reader_keep_whole(self.reader)
        if whole_names:
            tar_reader_count_whole_names(self.reader)

    def __dealloc__(self):
        tar_reader_free(self.reader)

    cdef int _raise(self) except -1:
        cdef const char *message = tar_reader_error(self.reader)
        if message == NULL:
            raise MemoryError
        raise ValueError((<bytes>message).decode("ascii"))

    def feed(self, data):
        if self.finished:
            raise RuntimeError("the archive has been finished")
        cdef Py_buffer view
        cdef int status
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        with nogil:
            status = tar_reader_feed(self.reader, <const uint8_t *>view.buf, <size_t>view.len)
        PyBuffer_Release(&view)
        if status:
            self._raise()

    def seek_through(self, int fd, uint64_t start, uint64_t size, uint64_t at, size_t most):
        cdef int error = 0, end
        if self.finished:
            raise RuntimeError("the archive has been finished")
        with nogil:
            end = tar_reader_seek_through(self.reader, fd, start, size, &at, most, &error)
        if end < 0:
            self._raise()
        if end and error:
            raise OSError(error, strerror(error).decode("utf-8", "replace"))
        if end:
            raise ValueError("the archive is truncated")
        return at

    def finish(self):
        if tar_reader_finish(self.reader):
            self._raise()
        self.finished = True

    def __len__(self):
        cdef size_t count
        tar_reader_members(self.reader, &count)
        return count

    @property
    def digest(self):
        cdef uint8_t digest[32]
        if not self.digesting:
            return None
        tar_reader_archive_digest(self.reader, digest)
        return (<const char *>digest)[:32]

    @property
    def recipe(self):
        cdef uint8_t digest[32]
        if not self.finished or not tar_reader_headers_digest(self.reader, digest):
            return None
        return (<const char *>digest)[:32]

    @property
    def held(self):
        return tar_reader_held(self.reader)

    def members(self, size_t start=0, stop=None):
        cdef size_t count, i, at
        cdef const member *m = tar_reader_members(self.reader, &count)
        cdef xattr item
        found = []
        for i in range(start, count if stop is None else min(count, <size_t>stop)):
            xattrs = []
            at = 0
            while xattr_next(m[i].xattrs, m[i].xattrs_size, &at, &item):
                if not item.name_size:
                    xattrs = None  # condensed
                    break
                key = (<const char *>item.name)[:item.name_size]
                xattrs.append((key, (<const char *>item.value)[:item.value_size]))
            name = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>m[i].name_size)
            member_name(m + i, PyBytes_AsString(name))
            found.append({
                "name": name,
                "target": None if m[i].target == NULL else m[i].target[:m[i].target_size],
                "hard_link": bool(m[i].flags & MEMBER_HARD_LINK),
                "ambiguous": bool(m[i].flags & MEMBER_AMBIGUOUS),
                "mode": m[i].mode, "uid": m[i].uid, "gid": m[i].gid, "size": m[i].size,
                "rdev": m[i].rdev,
                "mtime_ns": int(m[i].mtime) * 1000000000 + m[i].mtime_ns,
                "digest": (
                    (<const char *>m[i].digest)[:32] if m[i].flags & MEMBER_DIGEST_KNOWN else None
                ),
                "xattrs": xattrs, "xattr_newline": bool(m[i].flags & MEMBER_XATTR_NEWLINE),
            })
        return found

    def capsule(self):
        if not self.finished:
            raise RuntimeError("the archive has not been finished")
        return PyCapsule_New(self.reader, "build_oci.members", NULL)

    def seen(self):
        self.view.members = tar_reader_members(self.reader, &self.view.count)
        self.view.ended = self.finished
        # The digest of the last one may be under way.
        if not self.finished and self.view.count:
            self.view.count -= 1
        return PyCapsule_New(&self.view, "build_oci.member_view", NULL)

cdef extern from "lower.h" nogil:
    ctypedef struct lower:
        const char *error

    ctypedef struct lower_node:
        lower_node *parent
        const char *name
        uint16_t name_size

    lower *lower_new(size_t memory_limit)
    void lower_begin(lower *)
    int lower_hide(lower *, const member *members, size_t count)
    int lower_place(lower *, const member *members, size_t count)
    void lower_end(lower *)
    void lower_free(lower *)

cdef extern from "claims.h" nogil:
    int claims_in_both(const lower *left, const lower *right, const lower_node **named, size_t most,
                       size_t *count)


# Between two looks for cancellation.
cdef enum:
    MEMBERS_AT_ONCE = 16384
    CLAIMS_NAMED = 1000


cdef class Lower:
    """See lower.pyi."""

    cdef lower *lower
    cdef list readers

    def __cinit__(self, *, size_t memory_limit):
        self.readers = []
        self.lower = lower_new(memory_limit)
        if self.lower == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.lower != NULL:
            lower_free(self.lower)

    def apply(self, TarReader reader, check=None):
        cdef size_t count = 0, at, size
        cdef const member *members = tar_reader_members(reader.reader, &count)
        cdef int status, placing
        self.readers.append(reader)
        lower_begin(self.lower)
        for placing in range(2):
            at = 0
            while at < count:
                if check is not None:
                    check()
                size = min(<size_t>MEMBERS_AT_ONCE, count - at)
                with nogil:
                    if placing:
                        status = lower_place(self.lower, members + at, size)
                    else:
                        status = lower_hide(self.lower, members + at, size)
                if status:
                    raise ValueError(self.lower.error.decode("utf-8", "backslashreplace"))
                at += size
        with nogil:
            lower_end(self.lower)

    def claimed_too(self, Lower other):
        cdef const lower_node *named[CLAIMS_NAMED]
        cdef const lower_node *node
        cdef size_t count = 0, i
        cdef int status
        with nogil:
            status = claims_in_both(self.lower, other.lower, named, CLAIMS_NAMED, &count)
        if status:
            raise MemoryError
        paths = []
        for i in range(min(count, <size_t>CLAIMS_NAMED)):
            names = []
            node = named[i]
            while node.parent != NULL:
                names.append(node.name[:node.name_size])
                node = node.parent
            paths.append(b"/".join(reversed(names)))
        return count, sorted(paths)

    def capsule(self):
        return PyCapsule_New(self.lower, "build_oci.lower", NULL)
