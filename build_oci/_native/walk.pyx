"""The parallel walk of a root file system: a thin face of kernel/tree/walk.c."""

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr

from collections import namedtuple

from build_oci._native.tree cimport (
    ENTRY_IN_ARCHIVE,
    ENTRY_UNCHANGED,
    ENTRY_WHITEOUT,
    entry,
    path_of,
    problem,
    problem_tuple,
    tree,
    tree_order,
    xattr,
    xattr_next,
)


cdef extern from "sys/stat.h" nogil:
    bint S_ISDIR(uint32_t mode)
    bint S_ISLNK(uint32_t mode)
    bint S_ISREG(uint32_t mode)


cdef extern from "inodes.h" nogil:
    ctypedef struct inode_table:
        pass

    ctypedef struct inode_group:
        pass

    inode_group *inodes_group(const inode_table *, const entry *e)
    int inodes_begin(inode_table *, entry **entries, size_t count)
    entry *inodes_first(const inode_table *, entry *e)
    void inodes_end(inode_table *)


cdef extern from "paths.h" nogil:
    ctypedef struct path_finder:
        entry *directory

    entry *paths_find(path_finder *, const char *path, size_t size, int *failed)
    void paths_end(path_finder *)


cdef extern from "content.h" nogil:
    ctypedef struct reader:
        pass

    void reader_begin(reader *, const tree *)
    void reader_end(reader *)
    int content_read_head(
        reader *, const entry *e, uint8_t *into, size_t size, size_t *got, problem *out
    )


cdef extern from "walk.h" nogil:
    enum:
        WALK_SKIP_XATTRS
        WALK_TRUST_CHECKSUMS
        WALK_TRUST_ON_FUSE
        WALK_OWNER
        WALK_TAKE_INSTRUCTIONS

    ctypedef struct walk_options:
        unsigned flags
        uint32_t uid, gid
        const char *const *excluded
        size_t excluded_count

    ctypedef struct exclusion:
        unsigned char *used

    ctypedef struct walk:
        tree tree
        exclusion *exclusion
        problem *problems
        size_t entries, believed
        uint32_t root_uid
        int owners_differ

    walk *walk_new(const char *root_path, const walk_options *options)
    int walk_run(walk *)
    void walk_stop(walk *)
    void walk_free(walk *)


cdef extern from "checksum.h" nogil:
    int checksum_of(int fd, int everywhere, uint8_t *out)


def believed_digest(int fd, *, bint everywhere):
    """See walk.pyi."""
    cdef uint8_t digest[32]
    cdef int found
    with nogil:
        found = checksum_of(fd, everywhere, digest)
    return (<const char *>digest)[:32] if found else None


Listing = namedtuple(
    "Listing",
    ("paths", "directories", "sizes", "links", "symlinks", "components", "intervals"),
    module=__name__,
)
Listing.__doc__ = "See walk.pyi."


cdef _take_instructions(const entry *e, size_t number, dict components, dict intervals):
    cdef xattr item
    cdef size_t at = 0
    while xattr_next(e.instructions, e.instructions_size, &at, &item):
        value = (<const char *>item.value)[:item.value_size]
        if (<const char *>item.name)[:item.name_size] == b"user.component":
            components[number] = value
        else:
            intervals[number] = value


cdef entry **_walked(tree *walked, size_t *count) except NULL:
    """All entries of the walk, without whiteouts, in tar order. The caller frees them."""
    cdef size_t total = 0, i
    cdef entry **order = tree_order(walked, &total)
    if order == NULL:
        raise MemoryError
    count[0] = 0
    for i in range(total):
        if not order[i].flags & ENTRY_WHITEOUT:
            order[count[0]] = order[i]
            count[0] += 1
    return order


cdef class Paths:
    """See walk.pyi."""

    cdef object owner
    cdef entry **order
    cdef size_t count
    cdef path_finder finder
    cdef reader reader
    cdef uint8_t *content
    cdef size_t room

    def __cinit__(self, capsule, owner):
        cdef tree *native = <tree *>PyCapsule_GetPointer(capsule, "build_oci.tree")
        cdef size_t i
        self.owner = owner  # which keeps the entries
        self.order = _walked(native, &self.count)
        self.finder.directory = &native.root
        reader_begin(&self.reader, native)
        for i in range(self.count):
            self.order[i].number = i

    def __dealloc__(self):
        self.close()
        free(self.content)
        free(self.order)
        paths_end(&self.finder)

    def __len__(self):
        return self.count

    def __getitem__(self, size_t number):
        if number >= self.count:
            raise IndexError(number)
        return path_of(self.order[number])

    def __iter__(self):
        cdef size_t i
        return iter([path_of(self.order[i]) for i in range(self.count)])

    cdef object _find(self, const char *path, size_t size):
        cdef int failed = 0
        cdef entry *found = paths_find(&self.finder, path, size, &failed)
        if failed:
            raise MemoryError
        # Not what was put in, or numbered anew, since.
        if found == NULL or found.number >= self.count or self.order[found.number] != found:
            return None
        return found.number

    def get(self, bytes path):
        return self._find(path, len(path))

    def find_lines(self, bytes text, size_t skip):
        cdef const char *at = text
        cdef const char *end = at + len(text)
        cdef const char *line_end
        cdef list found = []
        while at < end:
            line_end = <const char *>memchr(at, b"\n", end - at)
            if line_end == NULL:
                line_end = end
            if <size_t>(line_end - at) > skip:
                found.append(self._find(at + skip, line_end - at - skip))
            else:
                found.append(self._find(at, 0))
            at = line_end + 1
        return found

    def head(self, size_t number, size_t most):
        cdef entry *e
        cdef size_t got = 0, size
        cdef int status
        cdef problem trouble
        if number >= self.count:
            raise IndexError(number)
        e = self.order[number]
        if not S_ISREG(e.mode) or e.flags & ENTRY_IN_ARCHIVE:
            return None
        # A byte more than there is: it shows whether the file has grown.
        size = most if most < e.size else e.size + 1
        if size > self.room:
            free(self.content)
            self.room = 0
            self.content = <uint8_t *>malloc(size)
            if self.content == NULL:
                raise MemoryError
            self.room = size
        with nogil:
            status = content_read_head(&self.reader, e, self.content, size, &got, &trouble)
        if status or got > e.size:
            return None
        return PyBytes_FromStringAndSize(<char *>self.content, got)

    def close(self):
        reader_end(&self.reader)


def entries_paths(capsule):
    """See walk.pyi."""
    cdef size_t count, i
    cdef entry **order = _walked(<tree *>PyCapsule_GetPointer(capsule, "build_oci.tree"), &count)
    try:
        return [path_of(order[i]) for i in range(count)]
    finally:
        free(order)


def entries_listing(capsule, owner):
    """See walk.pyi."""
    cdef Paths paths = Paths(capsule, owner)
    cdef entry **order = paths.order
    cdef size_t count = paths.count, i
    cdef inode_table inodes
    cdef entry *first
    cdef bint begun = False
    try:
        directories = PyBytes_FromStringAndSize(NULL, count)
        sizes = PyBytes_FromStringAndSize(NULL, count * sizeof(uint64_t))
        links = PyBytes_FromStringAndSize(NULL, count * sizeof(uint32_t))
        symlinks = {}
        components = {}
        intervals = {}
        if inodes_begin(&inodes, order, count):
            raise MemoryError
        begun = True
        for i in range(count):
            PyBytes_AsString(directories)[i] = S_ISDIR(order[i].mode)
            (<uint64_t *>PyBytes_AsString(sizes))[i] = order[i].size
            first = inodes_first(&inodes, order[i])
            if first == NULL and inodes_group(&inodes, order[i]) != NULL:
                first = order[i]
            (<uint32_t *>PyBytes_AsString(links))[i] = (
                0 if first == NULL else <uint32_t>(first.number + 1)
            )
            if S_ISLNK(order[i].mode):
                symlinks[path_of(order[i])] = order[i].target[:order[i].target_size]
            if order[i].instructions_size:
                _take_instructions(order[i], i, components, intervals)
        return Listing(
            paths, directories, memoryview(sizes).cast("Q"), memoryview(links).cast("I"),
            symlinks, components, intervals,
        )
    finally:
        if begun:
            inodes_end(&inodes)


def entries_emitted(capsule):
    """See walk.pyi."""
    cdef size_t count, i
    cdef entry **order = _walked(<tree *>PyCapsule_GetPointer(capsule, "build_oci.tree"), &count)
    try:
        flags = PyBytes_FromStringAndSize(NULL, count)
        for i in range(count):
            PyBytes_AsString(flags)[i] = not order[i].flags & ENTRY_UNCHANGED
        return flags
    finally:
        free(order)


cdef class Tree:
    """See walk.pyi."""

    cdef walk *walk
    cdef size_t patterns

    def __cinit__(
        self, bytes root, *, bint skip_xattrs=False, trust_checksums=None, owner=None, exclude=(),
        bint take_instructions=False,
    ):
        cdef walk_options options
        cdef size_t i
        options.flags = WALK_SKIP_XATTRS if skip_xattrs else 0
        if trust_checksums is None:
            options.flags |= WALK_TRUST_ON_FUSE
        elif trust_checksums:
            options.flags |= WALK_TRUST_CHECKSUMS
        if take_instructions:
            options.flags |= WALK_TAKE_INSTRUCTIONS
        if owner is not None:
            options.flags |= WALK_OWNER
            options.uid, options.gid = owner
        cdef list patterns = list(exclude)
        if b"\0" in root or any(b"\0" in pattern for pattern in patterns):
            raise ValueError("a path cannot hold a NUL byte")
        cdef const char *path = root
        self.patterns = options.excluded_count = len(patterns)
        cdef const char **texts = <const char **>calloc(self.patterns + 1, sizeof(char *))
        if texts == NULL:
            raise MemoryError
        try:
            for i in range(self.patterns):
                texts[i] = <const char *><bytes?>patterns[i]
            options.excluded = <const char *const *>texts
            with nogil:
                self.walk = walk_new(path, &options)
        finally:
            free(texts)
        if self.walk == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.walk != NULL:
            walk_free(self.walk)

    def run(self):
        cdef int status
        with nogil:
            status = walk_run(self.walk)
        if status:
            raise MemoryError

    def stop(self):
        walk_stop(self.walk)

    def __len__(self):
        return self.walk.entries

    def problems(self):
        found = []
        cdef problem *p = self.walk.problems
        while p != NULL:
            found.append(problem_tuple(p))
            p = p.next
        # A name that was listed twice is told once.
        return sorted(set(found), key=lambda item: (item[3], item[0]))

    def paths(self):
        return entries_paths(self.capsule())

    def listing(self):
        return entries_listing(self.capsule(), self)

    def emitted(self):
        return entries_emitted(self.capsule())

    def unused(self):
        return [i for i in range(self.patterns) if not self.walk.exclusion.used[i]]

    @property
    def digests_believed(self):
        return self.walk.believed

    @property
    def sole_owner(self):
        return None if self.walk.owners_differ else self.walk.root_uid

    @property
    def mode(self):
        return self.walk.tree.root.mode & 0o7777

    def capsule(self):
        return PyCapsule_New(&self.walk.tree, "build_oci.tree", NULL)
