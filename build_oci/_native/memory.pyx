"""Large pieces of memory. See memory.pyi."""

from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #ifdef __GLIBC__
    #include <malloc.h>
    static void use_one_heap(void)
    {
        mallopt(M_ARENA_MAX, 1);
        mallopt(M_MMAP_THRESHOLD, 32 << 20);
        mallopt(M_TRIM_THRESHOLD, 32 << 20);
    }
    #else
    static void use_one_heap(void) {}
    #endif
    """
    void use_one_heap()


def room(Py_ssize_t size):
    return PyByteArray_FromStringAndSize(NULL, size)


def check_room(size_t size):
    cdef void *there = malloc(size)
    if there == NULL:
        raise MemoryError(f"no room for {size} bytes")
    free(there)


def one_heap():
    use_one_heap()
