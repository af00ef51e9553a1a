"""The parallel walk of a root file system: a thin face of kernel/tree/scan.c."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdlib cimport free

from build_oci._native.tree cimport entry, path_of, problem, told, tree, tree_order


cdef extern from "scan.h" nogil:
    enum:
        SCAN_SKIP_XATTRS
        SCAN_TRUST_CHECKSUMS

    ctypedef struct scan:
        tree tree
        problem *problems
        size_t entries

    scan *scan_new(const char *root_path, unsigned flags)
    int scan_run(scan *)
    void scan_stop(scan *)
    void scan_free(scan *)


cdef class Tree:
    """See walk.pyi."""

    cdef scan *scan

    def __cinit__(self, bytes root, *, bint skip_xattrs=False, bint trust_checksums=True):
        cdef unsigned flags = (SCAN_SKIP_XATTRS if skip_xattrs else 0) | (SCAN_TRUST_CHECKSUMS if trust_checksums else 0)
        if b"\0" in root:
            raise ValueError("a path cannot hold a NUL byte")
        cdef const char *path = root
        with nogil:
            self.scan = scan_new(path, flags)
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
        return sorted(found, key=lambda item: (item[3], item[0]))

    def paths(self):
        cdef size_t count = 0
        cdef entry **order = tree_order(&self.scan.tree, &count)
        if order == NULL:
            raise MemoryError
        try:
            return [path_of(order[i]) for i in range(count)]
        finally:
            free(order)

    def capsule(self):
        return PyCapsule_New(&self.scan.tree, "build_oci.tree", NULL)
