"""zstd frames that were made apart, joined. See zstd.pyi for the interface and
kernel/join/zstd_frame.h for the work.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t
from libc.stdlib cimport free

cdef extern from "zstd_sequences.h" nogil:
    enum:
        ZSTD_BLOCK_MAX

cdef extern from "zstd_frame.h" nogil:
    enum:
        FRAME_BLOCK_HEADER

    ctypedef struct joinable_frame:
        uint8_t *head
        size_t head_size
        size_t start "from"
        size_t last
        uint8_t end[FRAME_BLOCK_HEADER]

    ctypedef enum frame_outcome:
        FRAME_JOINABLE
        FRAME_MALFORMED
        FRAME_NO_MEMORY

    frame_outcome frame_make_joinable(const uint8_t *frame, size_t size, const uint8_t *plain,
                                      size_t plain_size, size_t limit, joinable_frame *out)


def make_joinable(frame, plain, size_t limit=ZSTD_BLOCK_MAX):
    cdef Py_buffer view, data
    cdef joinable_frame found
    cdef frame_outcome outcome
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(plain, &data, PyBUF_SIMPLE)
        with nogil:
            outcome = frame_make_joinable(
                <const uint8_t *>view.buf, <size_t>view.len,
                <const uint8_t *>data.buf, <size_t>data.len,
                min(limit, <size_t>ZSTD_BLOCK_MAX), &found,
            )
        PyBuffer_Release(&data)
    finally:
        PyBuffer_Release(&view)
    if outcome == FRAME_NO_MEMORY:
        raise MemoryError
    if outcome == FRAME_MALFORMED:
        raise ValueError(
            "this is not a zstd frame of that data without checksum, content size and dictionary"
        )
    pieces = []
    try:
        if found.head_size:
            pieces.append((<const char *>found.head)[:found.head_size])
    finally:
        free(found.head)
    whole = memoryview(frame)
    if found.start < <size_t>len(whole):
        pieces += [
            whole[found.start:found.last], (<const char *>found.end)[:FRAME_BLOCK_HEADER],
            whole[found.last + FRAME_BLOCK_HEADER:],
        ]
    return pieces
