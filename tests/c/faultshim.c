/*
 * For LD_PRELOAD: lets something happen at one call of the C library.
 *
 * At the FAULT_NTH time (default 1; 0: each time) that the process does FAULT_CALL (see the names
 * below) to a path that the pattern FAULT_PATH matches (fnmatch; `*` stands for slashes too),
 * either the shell runs FAULT_DO first, with the process as its $PPID, or the call fails with the
 * error number FAULT_ERRNO. A close closes nevertheless. FAULT_HAPPENED names a file that is made
 * then.
 *
 * FAULT_ROOM: regular files together take so many bytes of write, then ENOSPC.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static atomic_long calls, written;

static long number(const char *variable, long otherwise)
{
    const char *set = getenv(variable);
    return set ? atol(set) : otherwise;
}

/* The path of NAME below the open directory AT; of AT itself where NAME is NULL. */
static int resolve(int at, const char *name, char path[2 * PATH_MAX])
{
    size_t used = 0;
    if (!name || *name != '/') {
        char link[40];
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t size = readlink(link, path, PATH_MAX - 1);
        if (size < 0)
            return -1;
        used = (size_t)size;
        if (name)
            path[used++] = '/';
    }
    path[used] = 0;
    if (name)
        snprintf(path + used, PATH_MAX, "%s", name);
    return 0;
}

static void run(const char *command)
{
    size_t count = 0, kept = 0;
    while (environ[count])
        count++;
    char **others = calloc(count + 1, sizeof *others);
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], "LD_PRELOAD=", 11))
            others[kept++] = environ[i];
    char *arguments[] = {"sh", "-ec", (char *)command, NULL};
    pid_t child;
    int status = 0;
    if (posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, others))
        abort();
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            abort();
    if (status)
        abort();
    free(others);
}

/* Is this the call? Then FAULT_DO has been done, or -1 asks the caller to fail with errno as it is
 * set. */
static int happens(const char *call, int at, const char *name)
{
    const char *wanted = getenv("FAULT_CALL"), *pattern = getenv("FAULT_PATH"),
               *command = getenv("FAULT_DO"), *mark = getenv("FAULT_HAPPENED");
    if (!wanted || !pattern || strcmp(wanted, call))
        return 0;
    int before = errno;
    char path[2 * PATH_MAX];
    long nth = number("FAULT_NTH", 1);
    int is_it = !resolve(at, name, path) && !fnmatch(pattern, path, 0) &&
                (!nth || atomic_fetch_add(&calls, 1) + 1 == nth);
    if (is_it && mark)
        syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT, 0600));
    if (is_it && command)
        run(command);
    errno = is_it && !command ? (int)number("FAULT_ERRNO", EIO) : before;
    return is_it && !command ? -1 : 0;
}

/* Defines SYMBOL, by whichever name the caller's headers call it, in terms of `real`. */
#define WRAP(result, symbol, parameters, types, ...)                      \
    result fault_##symbol parameters __asm__(#symbol);                    \
    result fault_##symbol parameters                                      \
    {                                                                     \
        result(*real) types = (result(*) types)dlsym(RTLD_NEXT, #symbol); \
        __VA_ARGS__                                                       \
    }

#define MODE                      \
    va_list more;                 \
    va_start(more, flags);        \
    int mode = va_arg(more, int); \
    va_end(more);

#define OPEN(symbol)                                                                \
    WRAP(int, symbol, (const char *name, int flags, ...), (const char *, int, ...), \
         MODE return happens("open", AT_FDCWD, name) ? -1 : real(name, flags, mode);)
#define OPENAT(symbol)                                                                           \
    WRAP(int, symbol, (int at, const char *name, int flags, ...), (int, const char *, int, ...), \
         MODE return happens("open", at, name) ? -1 : real(at, name, flags, mode);)
#define PREAD(symbol)                                                      \
    WRAP(ssize_t, symbol, (int fd, void *into, size_t size, off_t offset), \
         (int, void *, size_t, off_t),                                     \
         return happens("read", fd, NULL) ? -1 : real(fd, into, size, offset);)
#define PREADV(symbol)                                                                 \
    WRAP(ssize_t, symbol, (int fd, const struct iovec *into, int count, off_t offset), \
         (int, const struct iovec *, int, off_t),                                      \
         return happens("read", fd, NULL) ? -1 : real(fd, into, count, offset);)
#define READDIR(symbol)                           \
    WRAP(void *, symbol, (DIR * stream), (DIR *), \
         return happens("readdir", dirfd(stream), NULL) ? NULL : real(stream);)
#define FSTATAT(symbol)                                                  \
    WRAP(int, symbol, (int at, const char *name, void *into, int flags), \
         (int, const char *, void *, int),                               \
         return happens("stat", at, name) ? -1 : real(at, name, into, flags);)
#define SENDFILE(symbol)                                                  \
    WRAP(ssize_t, symbol, (int to, int from, off_t *offset, size_t size), \
         (int, int, off_t *, size_t),                                     \
         return happens("copy", to, NULL) ? -1 : real(to, from, offset, size);)

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
PREAD(pread)
PREAD(pread64)
PREADV(preadv)
PREADV(preadv64)
READDIR(readdir)
READDIR(readdir64)
FSTATAT(fstatat)
FSTATAT(fstatat64)
SENDFILE(sendfile)
SENDFILE(sendfile64)
WRAP(ssize_t, read, (int fd, void *into, size_t size), (int, void *, size_t),
     return happens("read", fd, NULL) ? -1 : real(fd, into, size);)
WRAP(ssize_t, copy_file_range,
     (int from, off_t *in, int to, off_t *out, size_t size, unsigned flags),
     (int, off_t *, int, off_t *, size_t, unsigned),
     return happens("copy", to, NULL) ? -1 : real(from, in, to, out, size, flags);)
WRAP(int, rename, (const char *from, const char *to), (const char *, const char *),
     return happens("rename", AT_FDCWD, to) ? -1 : real(from, to);)
WRAP(int, link, (const char *from, const char *to), (const char *, const char *),
     return happens("link", AT_FDCWD, to) ? -1 : real(from, to);)
WRAP(int, renameat, (int at, const char *from, int to_at, const char *to),
     (int, const char *, int, const char *),
     return happens("rename", to_at, to) ? -1 : real(at, from, to_at, to);)
WRAP(int, linkat, (int at, const char *from, int to_at, const char *to, int flags),
     (int, const char *, int, const char *, int),
     return happens("link", to_at, to) ? -1 : real(at, from, to_at, to, flags);)
WRAP(int, mkdirat, (int at, const char *name, mode_t mode), (int, const char *, mode_t),
     return happens("mkdir", at, name) ? -1 : real(at, name, mode);)
WRAP(int, unlinkat, (int at, const char *name, int flags), (int, const char *, int),
     return happens(flags ? "rmdir" : "unlink", at, name) ? -1 : real(at, name, flags);)
WRAP(int, rmdir, (const char *name), (const char *),
     return happens("rmdir", AT_FDCWD, name) ? -1 : real(name);)
WRAP(int, flock, (int fd, int operation), (int, int),
     return happens("flock", fd, NULL) ? -1 : real(fd, operation);)
WRAP(int, fsync, (int fd), (int), return happens("fsync", fd, NULL) ? -1 : real(fd);)
WRAP(int, mkdir, (const char *name, mode_t mode), (const char *, mode_t),
     return happens("mkdir", AT_FDCWD, name) ? -1 : real(name, mode);)
WRAP(int, close, (int fd), (int), int fails = happens("close", fd, NULL), error = errno;
     int end = real(fd); if (fails) errno = error; return fails ? -1 : end;)

WRAP(
    ssize_t, write, (int fd, const void *from, size_t size), (int, const void *, size_t),
    struct stat st;
    if (happens("write", fd, NULL)) return -1;
    if (getenv("FAULT_ROOM") && !fstat(fd, &st) && S_ISREG(st.st_mode)) {
        long left = number("FAULT_ROOM", 0) - written;
        if (left <= 0 && size) {
            errno = ENOSPC;
            return -1;
        }
        if ((long)size > left)
            size = (size_t)left;
        written += (long)size;
    } return real(fd, from, size);)
