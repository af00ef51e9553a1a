#include "content.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { PIECE = 256 * 1024 }; /* small enough to be hashed from the cache that reading has just filled */

static int failed(problem *out, problem_kind kind, const entry *at, const char *call)
{
    *out = (problem){.kind = kind, .error = errno, .call = call, .at = at};
    return -1;
}

void reader_begin(reader *r, const tree *t)
{
    *r = (reader){.tree = t, .fd = -1};
}

void reader_end(reader *r)
{
    if (r->fd >= 0)
        close(r->fd);
    r->fd = -1;
    r->directory = NULL;
}

int content_unchanged(int fd, const entry *e, problem *out)
{
    struct stat st;
    if (fstat(fd, &st))
        return failed(out, PROBLEM_SYSTEM, e, "fstat");
    if (!entry_is(e, &st) || (uint64_t)st.st_size != e->size || (int64_t)st.st_mtim.tv_sec != e->mtime ||
        (uint32_t)st.st_mtim.tv_nsec != e->mtime_ns)
        return failed(out, PROBLEM_CHANGED, e, "fstat");
    return 0;
}

int reader_open(reader *r, const entry *e, problem *out)
{
    if (r->directory != e->parent) {
        reader_end(r);
        r->fd = tree_open_directory(r->tree, e->parent, out);
        if (r->fd < 0)
            return -1;
        r->directory = e->parent;
    }
    /* O_NONBLOCK: a FIFO that has taken the file's place must not stop us; it has no effect on a regular file. */
    int fd = openat(r->fd, e->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return failed(out, errno == ENOENT || errno == ELOOP || errno == ENXIO ? PROBLEM_CHANGED : PROBLEM_SYSTEM, e, "open");
    if (content_unchanged(fd, e, out)) {
        close(fd);
        return -1;
    }
    return fd;
}

int content_read(int fd, const entry *e, uint64_t offset, uint8_t *into, size_t size, problem *out)
{
    while (size) {
        ssize_t got = pread(fd, into, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return failed(out, PROBLEM_SYSTEM, e, "read");
        if (!got)
            return failed(out, PROBLEM_CHANGED, e, "read");
        into += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return 0;
}

int content_digest(reader *r, const sha256_kernel *kernel, entry *e, const atomic_int *cancelled, problem *out)
{
    int fd = reader_open(r, e, out);
    if (fd < 0)
        return -1;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    uint8_t *piece = malloc(PIECE);
    int end = piece ? 0 : (errno = ENOMEM, failed(out, PROBLEM_SYSTEM, e, "malloc"));
    sha256_context context;
    sha256_init(&context);
    for (uint64_t offset = 0; !end && offset < e->size; offset += PIECE) {
        size_t size = e->size - offset < PIECE ? (size_t)(e->size - offset) : PIECE;
        if (atomic_load_explicit(cancelled, memory_order_relaxed)) {
            *out = (problem){.kind = PROBLEM_NONE, .at = e};
            end = -1;
        } else if (!(end = content_read(fd, e, offset, piece, size, out))) {
            sha256_update(kernel, &context, piece, size);
        }
    }
    if (!end && !(end = content_unchanged(fd, e, out))) {
        sha256_final(kernel, &context, e->digest);
        e->flags |= ENTRY_DIGEST_KNOWN;
    }
    free(piece);
    close(fd);
    return end;
}
