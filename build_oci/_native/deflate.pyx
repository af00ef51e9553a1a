"""Deflate streams that were made apart, joined. See deflate.pyi for the interface and kernel/deflate.h for the work."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "deflate.h" nogil:
    enum:
        DEFLATE_FLUSH_ROOM

    ctypedef struct deflate_shape:
        uint64_t last_block
        uint64_t end
        uint64_t size

    int deflate_walk_two(
        const uint8_t *first, size_t first_size, deflate_shape *first_shape,
        const uint8_t *second, size_t second_size, deflate_shape *second_shape
    )
    size_t deflate_continue(uint8_t *data, size_t size, const deflate_shape *shape)

cdef extern from "noise.h" nogil:
    bint is_noise(const uint8_t *data, size_t size)


def looks_packed(data):
    cdef Py_buffer view
    cdef bint found
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        found = is_noise(<const uint8_t *>view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return found


def continued(first, size_t first_size, second=b"\x03\x00", size_t second_size=0):
    cdef Py_buffer a, b
    cdef deflate_shape a_shape, b_shape
    cdef int failed
    cdef size_t used
    cdef uint8_t *out
    PyObject_GetBuffer(first, &a, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(second, &b, PyBUF_SIMPLE)
        try:
            room = PyBytes_FromStringAndSize(NULL, a.len + b.len + 2 * DEFLATE_FLUSH_ROOM)
            out = <uint8_t *>PyBytes_AsString(room)
            with nogil:
                failed = deflate_walk_two(<const uint8_t *>a.buf, a.len, &a_shape, <const uint8_t *>b.buf, b.len, &b_shape)
                if failed == 0 and a_shape.size == first_size and b_shape.size == second_size:
                    memcpy(out, a.buf, a.len)
                    used = deflate_continue(out, a.len, &a_shape)
                    memcpy(out + used, b.buf, b.len)
                    used += deflate_continue(out + used, b.len, &b_shape)
                else:
                    failed = -1
        finally:
            PyBuffer_Release(&b)
    finally:
        PyBuffer_Release(&a)
    if failed:
        raise ValueError(f"this is not a whole deflate stream of {first_size} bytes, or not one of {second_size}")
    return room[:used]


def check_room(size_t size):
    cdef void *room = malloc(size)
    if room == NULL:
        raise MemoryError(f"no room for {size} bytes")
    free(room)
