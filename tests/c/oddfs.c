/*
 * For LD_PRELOAD: a file system that is odd in the ways of network file systems, /proc and FUSE.
 *
 * ODD_TWICE: names, separated by slashes, that readdir gives twice. ODD_SIZE: INODE=SIZE;…: what
 * stat says of these files. ODD_FUSE: statfs says FUSE, and adds a line to this file. ODD_DIGEST:
 * INODE=HEX;…: user.checksum.sha256 as BuildStream's file system tells it: asked by name it
 * answers, but it is not in the list. ODD_ATTRIBUTES=NUMBER: every file has so many of 64 KiB.
 * ODD_SWAP: each time that llistxattr is asked for a path that ends with this, the shell runs
 * ODD_DO first. ODD_SWAP_GOT: the same each time that lgetxattr has answered. ODD_LISTED: readdir
 * tells other inodes than stat ("inodes"), or no types ("types").
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* What TABLE (KEY=VALUE;…) has for the number KEY; NULL without. */
static const char *find(const char *table, unsigned long long key)
{
    for (const char *at = table; at && *at; at = strchr(at, ';') ? strchr(at, ';') + 1 : NULL) {
        char *end;
        if (strtoull(at, &end, 10) == key && *end == '=')
            return end + 1;
    }
    return NULL;
}

static int lie(int result, struct stat *st)
{
    const char *size = result ? NULL : find(getenv("ODD_SIZE"), st->st_ino);
    if (size)
        st->st_size = atoll(size);
    return result;
}

/* Defines SYMBOL, by whichever name the caller's headers call it, in terms of `real`. */
#define WRAP(result, symbol, parameters, types, ...)                      \
    result odd_##symbol parameters __asm__(#symbol);                      \
    result odd_##symbol parameters                                        \
    {                                                                     \
        result(*real) types = (result(*) types)dlsym(RTLD_NEXT, #symbol); \
        __VA_ARGS__                                                       \
    }
#define FSTATAT(symbol)                                                         \
    WRAP(int, symbol, (int at, const char *name, struct stat *into, int flags), \
         (int, const char *, struct stat *, int), return lie(real(at, name, into, flags), into);)
#define FSTAT(symbol)                                                    \
    WRAP(int, symbol, (int fd, struct stat *into), (int, struct stat *), \
         return lie(real(fd, into), into);)
#define READDIR(symbol) \
    WRAP(struct dirent *, symbol, (DIR * stream), (DIR *), return twice(stream, real);)
#define STATFS(symbol)                                                                          \
    WRAP(int, symbol, (const char *path, struct statfs *into), (const char *, struct statfs *), \
         int result = real(path, into);                                                         \
         call_fuse(into); return result;)

static struct dirent *twice(DIR *stream, struct dirent *(*real)(DIR *))
{
    static __thread struct dirent again;
    static __thread DIR *of;
    if (of == stream) {
        of = NULL;
        return &again;
    }
    struct dirent *item = real(stream);
    const char *names = getenv("ODD_TWICE"),
               *found = item && names ? strstr(names, item->d_name) : NULL;
    size_t size = item ? strlen(item->d_name) : 0;
    const char *listed = getenv("ODD_LISTED");
    if (item && listed && !strcmp(listed, "inodes"))
        item->d_ino ^= 1;
    if (item && listed && !strcmp(listed, "types"))
        item->d_type = DT_UNKNOWN;
    if (found && (found == names || found[-1] == '/') && (!found[size] || found[size] == '/')) {
        again = *item;
        of = stream;
    }
    return item;
}

static void call_fuse(struct statfs *into)
{
    const char *log = getenv("ODD_FUSE");
    if (!log)
        return;
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (write(fd, "statfs\n", 7) != 7)
        abort();
    close(fd);
    into->f_type = 0x65735546;
}

FSTATAT(fstatat)
FSTATAT(fstatat64)
FSTAT(fstat)
FSTAT(fstat64)
READDIR(readdir)
READDIR(readdir64)
STATFS(statfs)
STATFS(statfs64)

static int ends_with(const char *text, const char *end)
{
    return end && strlen(text) >= strlen(end) && !strcmp(text + strlen(text) - strlen(end), end);
}

ssize_t llistxattr(const char *path, char *list, size_t size)
{
    ssize_t (*real)(const char *, char *, size_t) =
        (ssize_t (*)(const char *, char *, size_t))dlsym(RTLD_NEXT, "llistxattr");
    if (ends_with(path, getenv("ODD_SWAP")) && system(getenv("ODD_DO")))
        abort();
    if (getenv("ODD_ATTRIBUTES")) {
        ssize_t used = 0;
        for (int i = 0; i < atoi(getenv("ODD_ATTRIBUTES")); i++)
            used += sprintf(list + used, "user.%d", i) + 1;
        return used;
    }
    return real(path, list, size);
}

ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size)
{
    ssize_t (*real)(const char *, const char *, void *, size_t) =
        (ssize_t (*)(const char *, const char *, void *, size_t))dlsym(RTLD_NEXT, "lgetxattr");
    struct stat st;
    const char *digest = NULL;
    if (getenv("ODD_ATTRIBUTES") && strcmp(name, "user.checksum.sha256")) {
        memset(value, 'v', 65536);
        return 65536;
    }
    if (!strcmp(name, "user.checksum.sha256") && !lstat(path, &st))
        digest = find(getenv("ODD_DIGEST"), st.st_ino);
    if (!digest) {
        ssize_t got = real(path, name, value, size);
        int error = errno;
        if (ends_with(path, getenv("ODD_SWAP_GOT")) && system(getenv("ODD_DO")))
            abort();
        errno = error;
        return got;
    }
    memcpy(value, digest, 64);
    return 64;
}
