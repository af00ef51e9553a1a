#include "scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    LIST_MAX = 64 * 1024,  /* XATTR_LIST_MAX of the kernel */
    VALUE_MAX = 64 * 1024, /* XATTR_SIZE_MAX of the kernel */
    PROBLEMS_MAX = 100,    /* after so many the walk stops */
};

struct scan_worker {
    scan_worker *next;
    arena arena;
    entry *found; /* the children of the directory at hand */
    size_t found_count, found_capacity;
    xattr *attributes; /* of the file at hand */
    size_t attributes_capacity;
    uint8_t *values; /* of these attributes, one after the other */
    size_t values_capacity;
    size_t prefix_size; /* of the directory's part of `path`, with the closing slash; 0 where it does not fit */
    char path[PATH_MAX];
    char list[LIST_MAX + 1];
    char target[PATH_MAX + 1];
};

static int exhausted(scan *s)
{
    pthread_mutex_lock(&s->lock);
    s->exhausted = s->stopped = 1;
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    return -1;
}

static int report(scan *s, problem_kind kind, const char *call, int error, const entry *at, const char *name)
{
    problem *p = calloc(1, sizeof *p);
    char *copy = name ? strdup(name) : NULL;
    if (!p || (name && !copy)) {
        free(p);
        free(copy);
        return exhausted(s);
    }
    *p = (problem){.kind = kind, .call = call, .error = error, .at = at, .name = copy};
    pthread_mutex_lock(&s->lock);
    p->next = s->problems;
    s->problems = p;
    if (kind != PROBLEM_SOCKET && kind != PROBLEM_WHITEOUT_NAME && ++s->problems_count >= PROBLEMS_MAX) {
        s->stopped = 1;
        pthread_cond_broadcast(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    return 0;
}

/*
 * Room for one more attribute and for a value of any size behind USED bytes of values. 0 without memory.
 */
static int reserve(scan_worker *w, size_t count, size_t used)
{
    if (count == w->attributes_capacity) {
        size_t capacity = count ? 2 * count : 16;
        xattr *more = realloc(w->attributes, capacity * sizeof *more);
        if (!more)
            return 0;
        w->attributes = more;
        w->attributes_capacity = capacity;
    }
    if (w->values_capacity - used < VALUE_MAX) {
        size_t capacity = 2 * used + 2 * VALUE_MAX;
        uint8_t *more = realloc(w->values, capacity);
        if (!more)
            return 0;
        w->values = more;
        w->values_capacity = capacity;
    }
    return 1;
}

/* The attributes of E by its PATH. For messages it is NAME in DIRECTORY, or DIRECTORY itself where NAME is NULL. */
static int read_xattrs(scan *s, scan_worker *w, entry *e, const char *path, const entry *directory, const char *name)
{
    ssize_t listed = llistxattr(path, w->list, LIST_MAX);
    if (listed < 0) {
        if (errno == ENOTSUP || errno == ENOSYS)
            return 0;
        return report(s, errno == ENOENT ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "llistxattr", errno, directory, name);
    }
    w->list[listed] = 0;
    size_t count = 0, used = 0;
    for (const char *attribute = w->list; attribute < w->list + listed; attribute += strlen(attribute) + 1) {
        if (!*attribute || belongs_to_host(attribute, strlen(attribute)))
            continue;
        int checksum = !strcmp(attribute, "user.checksum.sha256");
        if (checksum && !(S_ISREG(e->mode) && s->flags & SCAN_TRUST_CHECKSUMS))
            continue;
        if (strchr(attribute, '='))
            return report(s, PROBLEM_XATTR_NAME, "llistxattr", 0, directory, name);
        if (!reserve(w, count, used))
            return exhausted(s);
        ssize_t size = lgetxattr(path, attribute, w->values + used, VALUE_MAX);
        if (size < 0) {
            int vanished = errno == ENODATA || errno == ENOENT;
            return report(s, vanished ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "lgetxattr", errno, directory, name);
        }
        if (checksum) {
            if (parse_digest(w->values + used, (size_t)size, e->digest))
                e->flags |= ENTRY_DIGEST_KNOWN;
            continue;
        }
        w->attributes[count++] = (xattr){
            .name = (const uint8_t *)attribute, .name_size = (uint32_t)strlen(attribute), .value_size = (uint32_t)size};
        used += (size_t)size;
    }
    /* Only now do the values stay where they are. */
    used = 0;
    for (size_t i = 0; i < count; i++) {
        w->attributes[i].value = w->values + used;
        used += w->attributes[i].value_size;
    }
    if (xattr_pack(&w->arena, w->attributes, count, &e->xattrs, &e->xattrs_size))
        return exhausted(s);
    return 0;
}

static void take_stat(entry *e, const struct stat *st)
{
    e->dev = (uint64_t)st->st_dev;
    e->ino = (uint64_t)st->st_ino;
    e->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
    e->rdev = (uint64_t)st->st_rdev;
    e->mtime = (int64_t)st->st_mtim.tv_sec;
    e->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
    e->mode = (uint32_t)st->st_mode;
    e->uid = (uint32_t)st->st_uid;
    e->gid = (uint32_t)st->st_gid;
    e->nlink = (uint32_t)st->st_nlink;
}

/* Adds NAME to w->found, or reports why not. -1: stop. */
static int look_at(scan *s, scan_worker *w, entry *directory, int fd, const char *name)
{
    struct stat st;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return report(s, errno == ENOENT ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "fstatat", errno, directory, name);
    if (S_ISSOCK(st.st_mode))
        return report(s, PROBLEM_SOCKET, "fstatat", 0, directory, name);
    if (!(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode) || S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ||
          S_ISFIFO(st.st_mode)))
        return report(s, PROBLEM_TYPE, "fstatat", 0, directory, name);
    if (!strncmp(name, ".wh.", 4) && report(s, PROBLEM_WHITEOUT_NAME, "readdir", 0, directory, name))
        return -1;
    if (w->found_count == w->found_capacity) {
        size_t capacity = w->found_capacity ? 2 * w->found_capacity : 256;
        entry *more = realloc(w->found, capacity * sizeof *more);
        if (!more)
            return exhausted(s);
        w->found = more;
        w->found_capacity = capacity;
    }
    entry *e = &w->found[w->found_count];
    *e = (entry){.parent = directory};
    take_stat(e, &st);
    e->name_size = (uint16_t)strlen(name);
    if (!(e->name = arena_copy(&w->arena, name, e->name_size)))
        return exhausted(s);
    if (S_ISLNK(e->mode)) {
        ssize_t size = readlinkat(fd, name, w->target, sizeof w->target);
        if (size < 0) {
            int replaced = errno == ENOENT || errno == EINVAL;
            return report(s, replaced ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "readlinkat", errno, directory, name);
        }
        e->target_size = (uint16_t)size;
        if (!(e->target = arena_copy(&w->arena, w->target, (size_t)size)))
            return exhausted(s);
    }
    if (!(s->flags & SCAN_SKIP_XATTRS)) {
        /* Where the kernel refuses the path whole, the same file by way of its open directory. */
        char by_descriptor[sizeof "/proc/self/fd/" + 16 + NAME_MAX + 1];
        const char *path = w->path;
        if (w->prefix_size && w->prefix_size + e->name_size < PATH_MAX)
            memcpy(w->path + w->prefix_size, name, (size_t)e->name_size + 1);
        else {
            snprintf(by_descriptor, sizeof by_descriptor, "/proc/self/fd/%d/%s", fd, name);
            path = by_descriptor;
        }
        if (read_xattrs(s, w, e, path, directory, name))
            return -1;
    }
    w->found_count++;
    return 0;
}

/* In tar order within one directory: files before subdirectories, each by the bytes of the name. */
static int in_order(const void *left, const void *right)
{
    const entry *a = left, *b = right;
    int a_directory = S_ISDIR(a->mode), b_directory = S_ISDIR(b->mode);
    if (a_directory != b_directory)
        return a_directory - b_directory;
    return strcmp(a->name, b->name);
}

/* Gives w->found to DIRECTORY, sorted, and its subdirectories to the other threads. */
static int adopt(scan *s, scan_worker *w, entry *directory)
{
    size_t count = w->found_count;
    if (!count)
        return 0;
    if (count > UINT32_MAX)
        return exhausted(s);
    qsort(w->found, count, sizeof *w->found, in_order);
    entry *children = arena_take(&w->arena, count * sizeof *children);
    if (!children)
        return exhausted(s);
    memcpy(children, w->found, count * sizeof *children);
    size_t files = 0;
    while (files < count && !S_ISDIR(children[files].mode))
        files++;
    directory->children = children;
    directory->children_count = (uint32_t)count;
    directory->files_count = (uint32_t)files;
    atomic_fetch_add_explicit(&s->entries, count, memory_order_relaxed);
    if (files == count)
        return 0;
    pthread_mutex_lock(&s->lock);
    size_t needed = s->waiting_count + (count - files);
    if (needed > s->waiting_capacity) {
        size_t capacity = 2 * needed;
        entry **more = realloc(s->waiting, capacity * sizeof *more);
        if (!more) {
            pthread_mutex_unlock(&s->lock);
            return exhausted(s);
        }
        s->waiting = more;
        s->waiting_capacity = capacity;
    }
    /* The last one goes first: taken from the end, directories come in the order in which a disk probably holds them. */
    for (size_t i = count; i-- > files;)
        s->waiting[s->waiting_count++] = &children[i];
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static void set_prefix(const scan *s, scan_worker *w, const entry *directory)
{
    size_t root = strlen(s->tree.root_path), below = entry_path(directory, NULL);
    w->prefix_size = 0;
    if (root + 1 + below + 1 >= PATH_MAX)
        return;
    memcpy(w->path, s->tree.root_path, root);
    w->path[root] = '/';
    entry_path(directory, w->path + root + 1);
    w->prefix_size = root + 1 + below;
    if (below)
        w->path[w->prefix_size++] = '/';
}

static int read_directory(scan *s, scan_worker *w, entry *directory)
{
    problem trouble;
    int fd = tree_open_directory(&s->tree, directory, NULL, &trouble);
    if (fd < 0)
        return report(s, trouble.kind, trouble.call, trouble.error, directory, NULL);
    DIR *stream = fdopendir(fd);
    if (!stream) {
        int error = errno;
        close(fd);
        return report(s, PROBLEM_SYSTEM, "fdopendir", error, directory, NULL);
    }
    set_prefix(s, w, directory);
    w->found_count = 0;
    int end = 0;
    for (;;) {
        errno = 0;
        struct dirent *item = readdir(stream);
        if (!item) {
            if (errno)
                end = report(s, PROBLEM_SYSTEM, "readdir", errno, directory, NULL);
            break;
        }
        if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, ".."))
            continue;
        if ((end = look_at(s, w, directory, fd, item->d_name)))
            break;
    }
    /* One that was removed before we came to read it looks empty. */
    struct stat st;
    if (!end && !fstat(fd, &st) && !st.st_nlink && directory->nlink)
        end = report(s, PROBLEM_CHANGED, "readdir", 0, directory, NULL);
    closedir(stream);
    return end ? end : adopt(s, w, directory);
}

static int read_root(scan *s)
{
    scan_worker *w = calloc(1, sizeof *w);
    if (!w)
        return -1;
    w->next = s->workers;
    s->workers = w;
    /* Behind a slash and a dot the kernel follows a symbolic link that names the root, in lstat and in llistxattr alike. */
    char *path = malloc(strlen(s->tree.root_path) + 3);
    if (!path)
        return -1;
    sprintf(path, "%s/.", s->tree.root_path);
    struct stat st;
    int end = 0;
    if (lstat(path, &st))
        end = report(s, PROBLEM_SYSTEM, "lstat", errno, &s->tree.root, NULL);
    else if (!S_ISDIR(st.st_mode))
        end = report(s, PROBLEM_SYSTEM, "lstat", ENOTDIR, &s->tree.root, NULL);
    else {
        take_stat(&s->tree.root, &st);
        if (!(s->flags & SCAN_SKIP_XATTRS))
            end = read_xattrs(s, w, &s->tree.root, path, &s->tree.root, NULL);
    }
    free(path);
    return end;
}

scan *scan_new(const char *root_path, unsigned flags)
{
    scan *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    s->flags = flags;
    s->tree.root.name = "";
    s->tree.slice_size = 1 << 20;
    fingerprint_key_make(&s->tree.key);
    s->tree.root_path = strdup(root_path);
    s->waiting = malloc(16 * sizeof *s->waiting);
    s->waiting_capacity = 16;
    if (!s->tree.root_path || !s->waiting || read_root(s)) {
        scan_free(s);
        errno = ENOMEM;
        return NULL;
    }
    size_t size = strlen(s->tree.root_path);
    while (size && s->tree.root_path[size - 1] == '/')
        s->tree.root_path[--size] = 0;
    atomic_store(&s->entries, 1);
    if (S_ISDIR(s->tree.root.mode))
        s->waiting[s->waiting_count++] = &s->tree.root;
    return s;
}

int scan_run(scan *s)
{
    scan_worker *w = calloc(1, sizeof *w);
    if (!w)
        return exhausted(s);
    pthread_mutex_lock(&s->lock);
    w->next = s->workers;
    s->workers = w;
    for (;;) {
        while (!s->stopped && !s->waiting_count && s->busy)
            pthread_cond_wait(&s->wake, &s->lock);
        if (s->stopped || !s->waiting_count)
            break;
        entry *directory = s->waiting[--s->waiting_count];
        s->busy++;
        pthread_mutex_unlock(&s->lock);
        int end = read_directory(s, w, directory);
        pthread_mutex_lock(&s->lock);
        s->busy--;
        if (end || (!s->busy && !s->waiting_count))
            pthread_cond_broadcast(&s->wake);
    }
    int end = s->exhausted ? -1 : 0;
    pthread_mutex_unlock(&s->lock);
    free(w->found);
    free(w->attributes);
    free(w->values);
    w->found = NULL;
    w->attributes = NULL;
    w->values = NULL;
    return end;
}

void scan_stop(scan *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopped = 1;
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void scan_free(scan *s)
{
    while (s->problems) {
        problem *p = s->problems;
        s->problems = p->next;
        free((char *)p->name);
        free(p);
    }
    while (s->workers) {
        scan_worker *w = s->workers;
        s->workers = w->next;
        free(w->found);
        free(w->attributes);
        free(w->values);
        arena_release(&w->arena);
        free(w);
    }
    arena_release(&s->tree.arena);
    free(s->tree.root_path);
    free(s->waiting);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
