"""Large pieces of memory. See memory.pyi."""

from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #ifdef __GLIBC__
    #include <malloc.h>
    static void set_single_heap(int largest)
    {
        mallopt(M_ARENA_MAX, 1);
        mallopt(M_MMAP_THRESHOLD, largest);
        mallopt(M_TRIM_THRESHOLD, 32 << 20);
    }
    #else
    static void set_single_heap(int largest) {}
    #endif
    """
    void set_single_heap(int largest)


def uninitialised_bytearray(Py_ssize_t size):
    return PyByteArray_FromStringAndSize(NULL, size)


def probe_allocation(size_t size):
    cdef void *there = malloc(size)
    if there == NULL:
        raise MemoryError(f"no room for {size} bytes")
    free(there)


def use_single_heap(int largest):
    set_single_heap(largest)
