"""SHA-256 of many buffers at once, several side by side on one core. See sha256.pyi for the
interface and kernel/sha256/sha256.h.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free

cdef extern from "sha256.h" nogil:
    enum:
        SHA256_DIGEST
        SHA256_KERNELS
        SHA256_MOST_LANES

    ctypedef struct sha256_kernel:
        const char *name
        void *two

    ctypedef struct sha256_context:
        pass

    ctypedef struct sha256_job:
        const uint8_t *data
        size_t size
        uint8_t *digest

    const sha256_kernel *sha256_kernel_at(int id)
    int sha256_kernel_best()
    size_t sha256_together(const sha256_kernel *kernel, const uint64_t *sizes, size_t count,
                           uint64_t share)
    void sha256_init(sha256_context *context)
    void sha256_update(const sha256_kernel *kernel, sha256_context *context, const uint8_t *data,
                       size_t size)
    void sha256_update_two(const sha256_kernel *kernel,
                           sha256_context *a, const uint8_t *data_a, size_t size_a,
                           sha256_context *b, const uint8_t *data_b, size_t size_b)
    void sha256_final(const sha256_kernel *kernel, const sha256_context *context, uint8_t *digest)
    void sha256_many(const sha256_kernel *kernel, const sha256_job *jobs, size_t count)

cdef extern from "files.h" nogil:
    ctypedef struct hashed_file:
        int fd, error
        uint64_t start, most, size
        uint8_t digest[32]

    ctypedef struct files_progress:
        uint64_t done
        int cancelled

    int sha256_files(const sha256_kernel *, hashed_file *files, size_t count, files_progress *)


# What the CPU has is asked once: the question traps under a hypervisor.
cdef const sha256_kernel *KERNELS[SHA256_KERNELS]
cdef int number
for number in range(SHA256_KERNELS):
    KERNELS[number] = sha256_kernel_at(number)
cdef int BEST = sha256_kernel_best()


cdef const sha256_kernel *kernel_at(int kernel) except NULL:
    if not 0 <= kernel < SHA256_KERNELS or KERNELS[kernel] == NULL:
        raise ValueError(
            f"{kernel} is not the number of a SHA-256 kernel of this CPU; kernel_id() knows: auto,"
            f" {', '.join(kernels())}"
        )
    return KERNELS[kernel]


def kernels():
    return tuple([KERNELS[i].name.decode() for i in range(SHA256_KERNELS) if KERNELS[i] != NULL])


def kernel_id(str name):
    cdef int i
    if name == "auto":
        return BEST
    for i in range(SHA256_KERNELS):
        if KERNELS[i] != NULL and KERNELS[i].name.decode() == name:
            return i
    raise ValueError(
        f"{name!r} is not a SHA-256 kernel of this CPU; there are: auto, {', '.join(kernels())}"
    )


def in_pairs(int kernel=BEST):
    return kernel_at(kernel).two != NULL


def together(sizes, share, int kernel=BEST):
    cdef uint64_t first[SHA256_MOST_LANES]
    cdef size_t count = 0
    for size in sizes:
        if count == SHA256_MOST_LANES:
            break
        first[count] = min(size, 1 << 56)  # nothing that large is there, whatever somebody tells
        count += 1
    return sha256_together(kernel_at(kernel), first, count, min(share, (1 << 64) - 1))


def digest(data, int kernel=BEST):
    return digest_many((data,), kernel)[0]


def digest_many(buffers, int kernel=BEST):
    cdef const sha256_kernel *chosen = kernel_at(kernel)
    # A copy: nobody may change it while the GIL is released.
    cdef tuple held = tuple(buffers)
    cdef size_t count = len(held), taken = 0, i
    cdef Py_buffer *views = <Py_buffer *>calloc(count + 1, sizeof(Py_buffer))
    cdef sha256_job *jobs = <sha256_job *>calloc(count + 1, sizeof(sha256_job))
    cdef uint8_t *digests = <uint8_t *>calloc(count + 1, SHA256_DIGEST)
    try:
        if views == NULL or jobs == NULL or digests == NULL:
            raise MemoryError
        for data in held:
            PyObject_GetBuffer(data, &views[taken], PyBUF_SIMPLE)
            jobs[taken].data = <const uint8_t *>views[taken].buf
            jobs[taken].size = <size_t>views[taken].len
            jobs[taken].digest = digests + SHA256_DIGEST * taken
            taken += 1
        with nogil:
            sha256_many(chosen, jobs, count)
        return [(<const char *>jobs[i].digest)[:SHA256_DIGEST] for i in range(count)]
    finally:
        for i in range(taken):
            PyBuffer_Release(&views[i])
        free(views)
        free(jobs)
        free(digests)


cdef class Sha256:
    cdef sha256_context context
    cdef const sha256_kernel *kernel

    def __cinit__(self, int kernel=BEST):
        self.kernel = kernel_at(kernel)
        sha256_init(&self.context)

    def update(self, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        with nogil:
            sha256_update(self.kernel, &self.context, <const uint8_t *>view.buf, <size_t>view.len)
        PyBuffer_Release(&view)

    def update_pair(self, data, Sha256 other not None, other_data):
        if other is self:
            raise ValueError("a message cannot be beside itself")
        cdef Py_buffer view, other_view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(other_data, &other_view, PyBUF_SIMPLE)
            with nogil:
                sha256_update_two(
                    self.kernel,
                    &self.context, <const uint8_t *>view.buf, <size_t>view.len,
                    &other.context, <const uint8_t *>other_view.buf, <size_t>other_view.len,
                )
            PyBuffer_Release(&other_view)
        finally:
            PyBuffer_Release(&view)

    def digest(self):
        cdef uint8_t digest[SHA256_DIGEST]
        sha256_final(self.kernel, &self.context, digest)
        return (<const char *>digest)[:SHA256_DIGEST]


cdef class Files:
    """See sha256.pyi."""

    cdef const sha256_kernel *kernel
    cdef hashed_file *files
    cdef size_t count
    cdef files_progress progress

    def __cinit__(self, parts, int kernel=BEST):
        self.kernel = kernel_at(kernel)
        cdef list chosen = list(parts)
        cdef size_t i
        self.files = <hashed_file *>calloc(len(chosen) + 1, sizeof(hashed_file))
        if self.files == NULL:
            raise MemoryError
        for i in range(<size_t>len(chosen)):
            fd, start, most = chosen[i]
            self.files[i].fd = fd
            self.files[i].start = start
            self.files[i].most = most
        self.count = len(chosen)

    def __dealloc__(self):
        free(self.files)

    def run(self):
        cdef int status
        cdef size_t i
        with nogil:
            status = sha256_files(self.kernel, self.files, self.count, &self.progress)
        if status < 0:
            raise MemoryError
        if status:
            return None
        return [
            (self.files[i].error, self.files[i].size,
             (<const char *>self.files[i].digest)[:SHA256_DIGEST])
            for i in range(self.count)
        ]

    @property
    def done(self):
        return self.progress.done

    def cancel(self):
        self.progress.cancelled = 1
