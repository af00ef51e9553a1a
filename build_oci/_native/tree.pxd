# The entry table (kernel/tree/tree.h) as the extensions see it, and how a problem in it is told to
# Python.

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "xattr.h" nogil:
    ctypedef struct xattr:
        const uint8_t *name
        const uint8_t *value
        uint32_t name_size, value_size

    int xattr_next(const uint8_t *packed, size_t size, size_t *at, xattr *out)


cdef extern from "tree.h" nogil:
    enum:
        ENTRY_IN_ARCHIVE
        ENTRY_UNCHANGED
        ENTRY_WHITEOUT

    ctypedef struct entry:
        entry *parent
        const char *name
        const char *target
        const uint8_t *instructions
        size_t number
        uint64_t size
        uint32_t mode
        uint32_t instructions_size
        uint16_t target_size
        uint16_t name_size
        uint16_t flags
        uint8_t digest[32]


cdef extern from "problem.h" nogil:
    ctypedef enum problem_kind:
        PROBLEM_CANCELLED
        PROBLEM_SYSTEM
        PROBLEM_CHANGED
        PROBLEM_LENGTH
        PROBLEM_XATTR_NAME
        PROBLEM_XATTRS_SIZE
        PROBLEM_TYPE
        PROBLEM_SOCKET
        PROBLEM_WHITEOUT_NAME
        PROBLEM_COVERS

    ctypedef struct problem:
        problem_kind kind
        int error
        const char *call
        const entry *at
        const char *name
        problem *next


cdef extern from "tree.h" nogil:
    ctypedef struct tree:
        char *root_path
        entry root

    size_t entry_path(const entry *, char *out)
    entry **tree_order(tree *, size_t *count)


cdef inline bytes path_of(const entry *at):
    """The path of an entry below the root of its tree, without a leading slash; empty: the root."""
    # One byte more: the C function closes the path with a NUL.
    cdef size_t size = entry_path(at, NULL)
    cdef bytes path = PyBytes_FromStringAndSize(NULL, size + 1)
    entry_path(at, PyBytes_AsString(path))
    return path[:size]


cdef inline tuple problem_tuple(const problem *p):
    """(kind, errno, call, path) of a problem; see build_oci._native.walk.Problem."""
    cdef bytes path = path_of(p.at)
    if p.name != NULL:
        path = path + b"/" + p.name if path else <bytes>p.name
    kind = {
        PROBLEM_CANCELLED: "cancelled", PROBLEM_SYSTEM: "system", PROBLEM_CHANGED: "changed",
        PROBLEM_LENGTH: "length", PROBLEM_XATTR_NAME: "xattr-name",
        PROBLEM_XATTRS_SIZE: "xattrs-size",
        PROBLEM_TYPE: "type", PROBLEM_SOCKET: "socket", PROBLEM_WHITEOUT_NAME: "whiteout-name",
        PROBLEM_COVERS: "covers",
    }[p.kind]
    return kind, p.error, (<bytes>p.call).decode("ascii") if p.call != NULL else "", path
