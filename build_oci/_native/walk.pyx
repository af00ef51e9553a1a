"""The parallel walk of a root file system: a thin face of kernel/tree/scan.c."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from build_oci._native.tree cimport entry, path_of, problem, told, tree, tree_order


cdef extern from "scan.h" nogil:
    enum:
        SCAN_SKIP_XATTRS
        SCAN_TRUST_CHECKSUMS
        SCAN_TRUST_ON_FUSE
        SCAN_OWNER

    ctypedef struct scan_options:
        unsigned flags
        uint32_t uid, gid
        const char *const *excluded
        size_t excluded_count

    ctypedef struct exclusion:
        unsigned char *used

    ctypedef struct scan:
        tree tree
        exclusion *exclusion
        problem *problems
        size_t entries, believed
        uint32_t root_uid
        int owners_differ

    scan *scan_new(const char *root_path, const scan_options *options)
    int scan_run(scan *)
    void scan_stop(scan *)
    void scan_free(scan *)


cdef class Tree:
    """See walk.pyi."""

    cdef scan *scan
    cdef size_t patterns

    def __cinit__(self, bytes root, *, bint skip_xattrs=False, trust_checksums=None, owner=None, exclude=()):
        cdef scan_options options
        cdef size_t i
        options.flags = SCAN_SKIP_XATTRS if skip_xattrs else 0
        if trust_checksums is None:
            options.flags |= SCAN_TRUST_ON_FUSE
        elif trust_checksums:
            options.flags |= SCAN_TRUST_CHECKSUMS
        if owner is not None:
            options.flags |= SCAN_OWNER
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
                self.scan = scan_new(path, &options)
        finally:
            free(texts)
        if self.scan == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.scan != NULL:
            scan_free(self.scan)

    def run(self):
        cdef int end
        with nogil:
            end = scan_run(self.scan)
        if end:
            raise MemoryError

    def stop(self):
        scan_stop(self.scan)

    def __len__(self):
        return self.scan.entries

    def problems(self):
        found = []
        cdef problem *p = self.scan.problems
        while p != NULL:
            found.append(told(p))
            p = p.next
        # A name that was listed twice is told once.
        return sorted(set(found), key=lambda item: (item[3], item[0]))

    def paths(self):
        cdef size_t count = 0
        cdef entry **order = tree_order(&self.scan.tree, &count)
        if order == NULL:
            raise MemoryError
        try:
            return [path_of(order[i]) for i in range(count)]
        finally:
            free(order)

    def unused(self):
        return [i for i in range(self.patterns) if not self.scan.exclusion.used[i]]

    @property
    def digests_believed(self):
        return self.scan.believed

    @property
    def sole_owner(self):
        return None if self.scan.owners_differ else self.scan.root_uid

    @property
    def mode(self):
        return self.scan.tree.root.mode & 0o7777

    def capsule(self):
        return PyCapsule_New(&self.scan.tree, "build_oci.tree", NULL)
