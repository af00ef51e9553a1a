#include "content.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

void reader_begin(reader *r, const tree *t)
{
    *r = (reader){.tree = t};
}

void reader_end(reader *r)
{
    if (r->at.directory)
        close(r->at.fd);
    r->at.directory = NULL;
}

int content_unchanged(int fd, const entry *e, problem *out)
{
    struct stat st;
    if (e->flags & ENTRY_IN_ARCHIVE)
        return 0; /* digests and fingerprints tell */
    if (fstat(fd, &st))
        return problem_fill(PROBLEM_SYSTEM, errno, e, "fstat", out);
    /* One without any name left has vanished, open as it may be; there are file systems that never
     * count links. */
    if (!entry_is(e, &st) || (!st.st_nlink && e->nlink) || (uint64_t)st.st_size != e->size ||
        (int64_t)st.st_mtim.tv_sec != e->mtime || (uint32_t)st.st_mtim.tv_nsec != e->mtime_ns)
        return problem_fill(PROBLEM_CHANGED, errno, e, "fstat", out);
    return 0;
}

int reader_open(reader *r, const entry *e, problem *out)
{
    if (e->flags & ENTRY_IN_ARCHIVE) {
        int copy = fcntl(r->tree->sources[e->dev], F_DUPFD_CLOEXEC, 0);
        return copy < 0 ? problem_fill(PROBLEM_SYSTEM, errno, e, "open", out) : copy;
    }
    if (r->at.directory != e->parent) {
        int fd = tree_open_directory(r->tree, e->parent, &r->at, out);
        reader_end(r);
        if (fd < 0)
            return -1;
        r->at = (open_directory){.directory = e->parent, .fd = fd};
    }
    /* O_NONBLOCK: a FIFO that has taken the file's place must not stop us; it has no effect on a
     * regular file. */
    int fd = openat(r->at.fd, e->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return problem_fill(errno == ENOENT || errno == ELOOP || errno == ENXIO ? PROBLEM_CHANGED
                                                                                : PROBLEM_SYSTEM,
                            errno, e, "open", out);
    return fd;
}

/* Reading failed or came to another end than it should: because of a change, if there was one, else
 * of KIND. */
static int misread(int fd, problem_kind kind, const entry *e, problem *out)
{
    int error = errno;
    if (content_unchanged(fd, e, out))
        return -1;
    /* An archive was found to be whole before. */
    if (kind == PROBLEM_LENGTH && e->flags & ENTRY_IN_ARCHIVE)
        kind = PROBLEM_CHANGED;
    return problem_fill(kind, error, e, "read", out);
}

int content_read(int fd, const entry *e, uint64_t offset, uint8_t *into, size_t size, problem *out)
{
    /* The end is asked for together with what stands before it: a byte more than the size says. An
     * archive goes on behind it. */
    int last = offset + size == e->size && !(e->flags & ENTRY_IN_ARCHIVE);
    uint64_t start = e->flags & ENTRY_IN_ARCHIVE ? e->ino : 0;
    while (size || last) {
        uint8_t beyond;
        struct iovec parts[2] = {{into, size}, {&beyond, 1}};
        ssize_t got = preadv(fd, parts, last ? 2 : 1, (off_t)(start + offset));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return misread(fd, PROBLEM_SYSTEM, e, out);
        if ((size_t)got > size || (!got && size))
            return misread(fd, PROBLEM_LENGTH, e, out);
        if ((size_t)got == size)
            return 0;
        into += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return 0;
}

int content_read_head(reader *r, const entry *e, uint8_t *into, size_t size, size_t *got,
                      problem *out)
{
    struct stat st;
    int fd = reader_open(r, e, out), status = 0;
    if (fd < 0)
        return -1;
    if (fstat(fd, &st))
        status = problem_fill(PROBLEM_SYSTEM, errno, e, "fstat", out);
    else if (!entry_is(e, &st))
        status = problem_fill(PROBLEM_CHANGED, 0, e, "fstat", out);
    for (*got = 0; !status && *got < size;) {
        ssize_t more = read(fd, into + *got, size - *got);
        if (more < 0 && errno != EINTR)
            status = problem_fill(PROBLEM_SYSTEM, errno, e, "read", out);
        if (!more)
            break;
        *got += more > 0 ? (size_t)more : 0;
    }
    close(fd);
    return status;
}

int content_read_whole(reader *r, const entry *e, uint8_t *into, problem *out)
{
    if (e->flags & ENTRY_IN_ARCHIVE)
        return content_read(r->tree->sources[e->dev], e, 0, into, (size_t)e->size, out);
    int fd = reader_open(r, e, out);
    if (fd < 0)
        return -1;
    int status = content_read(fd, e, 0, into, (size_t)e->size, out);
    if (!status)
        status = content_unchanged(fd, e, out);
    close(fd);
    return status;
}
