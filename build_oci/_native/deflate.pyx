"""Deflate streams that were made apart, joined. See deflate.pyi for the interface and
kernel/join/deflate.h for the work.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

cdef extern from "deflate.h" nogil:
    enum:
        DEFLATE_FLUSH_ROOM

    ctypedef struct deflate_shape:
        uint64_t last_block
        uint64_t end

    int deflate_walk_two(
        const uint8_t *first, size_t first_size, deflate_shape *first_shape,
        const uint8_t *second, size_t second_size, deflate_shape *second_shape
    )
    size_t deflate_make_joinable(uint8_t *data, size_t size, const deflate_shape *, uint8_t *flush)

cdef extern from "noise.h" nogil:
    bint noise_is_incompressible(const uint8_t *data, size_t size)


def is_incompressible(data):
    cdef Py_buffer view
    cdef bint found
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        found = noise_is_incompressible(<const uint8_t *>view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return found


def make_joinable(bytearray first not None, bytearray second=None):
    cdef Py_buffer a, b
    cdef deflate_shape a_shape, b_shape
    cdef uint8_t a_flush[DEFLATE_FLUSH_ROOM]
    cdef uint8_t b_flush[DEFLATE_FLUSH_ROOM]
    cdef size_t a_more, b_more
    cdef bint failed
    if second is None:
        second = bytearray(b"\x03\x00")  # nothing at all
    if second is first:
        raise ValueError("a stream cannot follow itself")
    PyObject_GetBuffer(first, &a, PyBUF_WRITABLE)
    try:
        PyObject_GetBuffer(second, &b, PyBUF_WRITABLE)
        with nogil:
            failed = 0 != deflate_walk_two(
                <const uint8_t *>a.buf, a.len, &a_shape, <const uint8_t *>b.buf, b.len, &b_shape
            )
            if not failed:
                a_more = deflate_make_joinable(<uint8_t *>a.buf, a.len, &a_shape, a_flush)
                b_more = deflate_make_joinable(<uint8_t *>b.buf, b.len, &b_shape, b_flush)
        PyBuffer_Release(&b)
    finally:
        PyBuffer_Release(&a)
    if failed:
        raise ValueError("this is not a whole deflate stream")
    first += (<const char *>a_flush)[:a_more]
    second += (<const char *>b_flush)[:b_more]
