"""Large pieces of memory. See memory.pyi."""

from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #ifdef __GLIBC__
    #include <malloc.h>
    static void use_one_heap(int largest)
    {
        mallopt(M_ARENA_MAX, 1);
        mallopt(M_MMAP_THRESHOLD, largest);
        mallopt(M_TRIM_THRESHOLD, 32 << 20);
    }
    #else
    static void use_one_heap(int largest) {}
    #endif
    """
    void use_one_heap(int largest)


def room(Py_ssize_t size):
    return PyByteArray_FromStringAndSize(NULL, size)


def check_room(size_t size):
    cdef void *there = malloc(size)
    if there == NULL:
        raise MemoryError(f"no room for {size} bytes")
    free(there)


def one_heap(int largest):
    use_one_heap(largest)
