"""The tree that an image unpacks to: a thin face of kernel/parent/unpack.c."""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

import os
import tempfile

from build_oci._native.walk import entries_emitted, entries_listing, entries_paths

from build_oci._native.tree cimport tree


cdef extern from "reader.h" nogil:
    ctypedef struct member:
        pass

    ctypedef struct tar_reader:
        pass

    const member *tar_reader_members(const tar_reader *, size_t *count)


cdef extern from "unpack.h" nogil:
    enum:
        ENTRY_IN_ARCHIVE

    ctypedef struct lower:
        pass

    ctypedef struct archived "entry":
        uint64_t dev, ino, size
        uint32_t mode
        uint16_t flags

    ctypedef struct unpack_source:
        const member *members
        size_t count
        int fd
        uint64_t start
        int is_ours

    ctypedef struct unpack:
        tree tree
        size_t entries
        int has_owner
        uint32_t uid, gid
        int take_instructions
        const char *error

    unpack *unpack_new(const lower *, const unpack_source *, size_t count, size_t memory_limit)
    int unpack_more(unpack *, size_t limit)
    const archived *unpack_find(const unpack *, const char *path, size_t size)
    void unpack_free(unpack *)


cdef object copied(archive, offset, size):
    """A descriptor of a file without a name that holds SIZE bytes of ARCHIVE from OFFSET on."""
    # Where no more files may be open, tempfile finds no directory for one, and does not say why.
    os.close(os.dup(archive))
    with tempfile.TemporaryFile() as file:
        while size:
            piece = os.pread(archive, min(size, 1 << 20), offset)
            if not piece:
                raise OSError(5, os.strerror(5))
            file.write(piece)
            offset += len(piece)
            size -= len(piece)
        file.seek(0)
        return os.dup(file.fileno())


# Between two looks for cancellation.
cdef enum:
    ENTRIES_AT_ONCE = 65536


cdef class ImageTree:
    """See unpack.pyi."""

    cdef unpack *unpack
    cdef list sources  # with the readers that the tree points into

    def __cinit__(
        self, lower_table, sources, *, owner=None, bint take_instructions=False,
        size_t memory_limit=1 << 30, check=None
    ):
        cdef size_t count = len(sources), i
        cdef unpack_source *given = <unpack_source *>calloc(count + 1, sizeof(unpack_source))
        cdef void *below = PyCapsule_GetPointer(lower_table.capsule(), "build_oci.lower")
        cdef const tar_reader *native
        cdef int status = 1
        if given == NULL:
            raise MemoryError
        self.sources = list(sources)
        try:
            for i, (reader, archive, start, is_ours) in enumerate(self.sources):
                native = <const tar_reader *>PyCapsule_GetPointer(
                    reader.capsule(), "build_oci.members"
                )
                given[i].members = tar_reader_members(native, &given[i].count)
                given[i].fd = archive.fileno()
                given[i].start = start
                given[i].is_ours = is_ours
            self.unpack = unpack_new(<const lower *>below, given, count, memory_limit)
        finally:
            free(given)
        if self.unpack == NULL:
            raise MemoryError
        self.unpack.take_instructions = take_instructions
        if owner is not None:
            self.unpack.has_owner = 1
            self.unpack.uid, self.unpack.gid = owner
        while status > 0:
            if check is not None:
                check()
            with nogil:
                status = unpack_more(self.unpack, ENTRIES_AT_ONCE)
        if status and not self.unpack.error[0]:
            raise MemoryError
        if status:
            raise ValueError(self.unpack.error.decode("utf-8", "backslashreplace"))

    def __dealloc__(self):
        if self.unpack != NULL:
            unpack_free(self.unpack)

    def __len__(self):
        return self.unpack.entries

    @property
    def digests_believed(self):
        return 0

    def paths(self):
        return entries_paths(self.capsule())

    def listing(self):
        return entries_listing(self.capsule(), self)

    def emitted(self):
        return entries_emitted(self.capsule())

    def open_file(self, bytes path):
        found = self.find(path)
        if found is None:
            return None
        number, offset, size = found
        return copied(self.sources[number][1].fileno(), offset, size)

    def find(self, bytes path):
        cdef const archived *found = unpack_find(self.unpack, path, len(path))
        if found == NULL or not found.flags & ENTRY_IN_ARCHIVE:
            return None
        return found.dev, found.ino, found.size

    def capsule(self):
        return PyCapsule_New(&self.unpack.tree, "build_oci.tree", NULL)
