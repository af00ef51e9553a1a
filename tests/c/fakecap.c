/*
 * A shim for LD_PRELOAD that gives files extended attributes they do not have, as build sandboxes
 * do for file capabilities: by the device and inode of what a path names. Only llistxattr and
 * lgetxattr are faked, so whoever asks in any other way sees the disk alone.
 *
 * FAKECAP: DEVICE:INODE:NAME=HEX or DEVICE:INODE:NAME=HEX*TIMES, separated by semicolons; these
 * stand before what the file really has. FAKECAP_LOG: a file to which every path given to
 * llistxattr is appended, each ended by a NUL.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

/* The next attribute of ST from AT on: its name and what is behind the equals sign. NULL at the
 * end. */
static const char *next_of(const struct stat *st, const char *at, size_t *name_size,
                           const char **value)
{
    char prefix[64];
    int size = snprintf(prefix, sizeof prefix, "%llu:%llu:", (unsigned long long)st->st_dev,
                        (unsigned long long)st->st_ino);
    while (at && *at) {
        const char *equals = strchr(at, '=');
        if (!equals)
            return NULL;
        if (!strncmp(at, prefix, (size_t)size)) {
            *name_size = (size_t)(equals - at) - (size_t)size;
            *value = equals + 1;
            return at + size;
        }
        const char *end = strchr(equals, ';');
        at = end ? end + 1 : NULL;
    }
    return NULL;
}

static const char *after(const char *value)
{
    const char *end = strchr(value, ';');
    return end ? end + 1 : NULL;
}

ssize_t llistxattr(const char *path, char *list, size_t size)
{
    ssize_t (*next)(const char *, char *, size_t) =
        (ssize_t (*)(const char *, char *, size_t))real("llistxattr");
    const char *log = getenv("FAKECAP_LOG");
    if (log) {
        int fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, path, strlen(path) + 1) < 0)
            abort();
        close(fd);
    }
    struct stat st;
    if (lstat(path, &st))
        return -1;
    size_t used = 0, name_size;
    const char *value;
    for (const char *name = getenv("FAKECAP"); (name = next_of(&st, name, &name_size, &value));
         name = after(value)) {
        if (size) {
            if (used + name_size + 1 > size) {
                errno = ERANGE;
                return -1;
            }
            memcpy(list + used, name, name_size);
            list[used + name_size] = 0;
        }
        used += name_size + 1;
    }
    ssize_t more = next(path, size ? list + used : NULL, size ? size - used : 0);
    if (more < 0)
        return used && errno == ENOTSUP ? (ssize_t)used : -1;
    return (ssize_t)used + more;
}

ssize_t lgetxattr(const char *path, const char *wanted, void *into, size_t size)
{
    ssize_t (*next)(const char *, const char *, void *, size_t) =
        (ssize_t (*)(const char *, const char *, void *, size_t))real("lgetxattr");
    struct stat st;
    if (lstat(path, &st))
        return -1;
    size_t name_size;
    const char *value;
    for (const char *name = getenv("FAKECAP"); (name = next_of(&st, name, &name_size, &value));
         name = after(value)) {
        if (name_size != strlen(wanted) || memcmp(name, wanted, name_size))
            continue;
        size_t digits = strspn(value, "0123456789abcdef"),
               times = value[digits] == '*' ? strtoul(value + digits + 1, NULL, 10) : 1;
        size_t one = digits / 2, all = one * times;
        if (size && all > size) {
            errno = ERANGE;
            return -1;
        }
        for (size_t i = 0; size && i < all; i++) {
            const char pair[3] = {value[2 * (i % one)], value[2 * (i % one) + 1], 0};
            ((unsigned char *)into)[i] = (unsigned char)strtoul(pair, NULL, 16);
        }
        return (ssize_t)all;
    }
    return next(path, wanted, into, size);
}
