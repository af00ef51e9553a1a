"""Deflate streams that were made apart, joined. See deflate.pyi for the interface and kernel/deflate.h for the work."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef extern from "deflate.h" nogil:
    enum:
        DEFLATE_FLUSH_ROOM

    ctypedef struct deflate_shape:
        uint64_t last_block
        uint64_t end
        uint64_t size

    int deflate_walk(const uint8_t *data, size_t size, deflate_shape *shape)
    size_t deflate_continue(uint8_t *data, size_t size, const deflate_shape *shape)


def continued(stream, size):
    cdef Py_buffer view
    cdef deflate_shape shape
    cdef int failed
    cdef size_t used
    cdef uint64_t expected = size
    cdef uint8_t *out
    PyObject_GetBuffer(stream, &view, PyBUF_SIMPLE)
    try:
        used = view.len
        with nogil:
            failed = deflate_walk(<const uint8_t *>view.buf, used, &shape)
        if failed or shape.size != expected:
            raise ValueError(f"this is not a whole deflate stream of {size} bytes")
        room = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(used + DEFLATE_FLUSH_ROOM))
        out = <uint8_t *>PyBytes_AsString(room)
        memcpy(out, view.buf, used)
    finally:
        PyBuffer_Release(&view)
    used = deflate_continue(out, used, &shape)
    return room[:used]
