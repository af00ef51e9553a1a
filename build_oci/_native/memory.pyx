"""Large pieces of memory. See memory.pyi."""

from cpython.bytearray cimport PyByteArray_AsString, PyByteArray_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #include <stdint.h>
    #include <sys/mman.h>
    #ifdef MADV_HUGEPAGE
    /* A page fault for each 2 MiB in place of one for each 4 KiB; a wish, which may be refused. */
    static void prefer_large_pages(void *start, size_t size)
    {
        const uintptr_t page = 2u << 20;
        uintptr_t from = ((uintptr_t)start + page - 1) & ~(page - 1);
        uintptr_t to = ((uintptr_t)start + size) & ~(page - 1);
        if (from < to)
            madvise((void *)from, to - from, MADV_HUGEPAGE);
    }
    #else
    static void prefer_large_pages(void *start, size_t size) {}
    #endif
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
    void prefer_large_pages(void *start, size_t size)


def uninitialised_bytearray(Py_ssize_t size):
    made = PyByteArray_FromStringAndSize(NULL, size)
    prefer_large_pages(PyByteArray_AsString(made), size)
    return made


def probe_allocation(size_t size):
    cdef void *there = malloc(size)
    if there == NULL:
        raise MemoryError(f"no room for {size} bytes")
    free(there)


def use_single_heap(int largest):
    set_single_heap(largest)
