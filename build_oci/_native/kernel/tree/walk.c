#include "walk_worker.h"

#include "grow.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROBLEMS_MAX = 100 /* after so many the walk stops */ };

int walk_exhausted(walk *s)
{
    pthread_mutex_lock(&s->lock);
    s->exhausted = 1;
    s->stopped = 1;
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    return -1;
}

int walk_report(walk *s, problem_kind kind, const char *call, int error, const entry *at,
                const char *name)
{
    problem *p = calloc(1, sizeof *p);
    char *copy = name ? strdup(name) : NULL;
    if (!p || (name && !copy)) {
        free(p);
        free(copy);
        return walk_exhausted(s);
    }
    *p = (problem){.kind = kind, .call = call, .error = error, .at = at, .name = copy};
    pthread_mutex_lock(&s->lock);
    p->next = s->problems;
    s->problems = p;
    if (kind != PROBLEM_SOCKET && kind != PROBLEM_WHITEOUT_NAME &&
        ++s->problems_count >= PROBLEMS_MAX) {
        s->stopped = 1;
        pthread_cond_broadcast(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static void take_stat(walk *s, entry *e, const struct stat *st)
{
    e->dev = (uint64_t)st->st_dev;
    e->ino = (uint64_t)st->st_ino;
    e->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
    e->rdev = (uint64_t)st->st_rdev;
    e->mtime = (int64_t)st->st_mtim.tv_sec;
    e->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
    e->mode = (uint32_t)st->st_mode;
    e->uid = s->options.flags & WALK_OWNER ? s->options.uid : (uint32_t)st->st_uid;
    e->gid = s->options.flags & WALK_OWNER ? s->options.gid : (uint32_t)st->st_gid;
    e->nlink = (uint32_t)st->st_nlink;
    if ((uint32_t)st->st_uid != s->root_uid)
        atomic_store_explicit(&s->owners_differ, 1, memory_order_relaxed);
}

/* Adds NAME to w->found, unless it is left out, or reports why not. -1: stop. */
static int look_at(walk *s, walk_worker *w, entry *directory, int fd, const char *name)
{
    struct stat st;
    const exclude_places *places = s->exclusion ? directory->excluded : NULL, *below = NULL;
    if (places) {
        int excluded = exclude_step(s->exclusion, &w->stepper, places, name, strlen(name));
        if (excluded)
            return excluded < 0 ? walk_exhausted(s) : 0;
    }
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return walk_report(s, errno == ENOENT ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "fstatat", errno,
                           directory, name);
    if (S_ISSOCK(st.st_mode))
        return walk_report(s, PROBLEM_SOCKET, "fstatat", 0, directory, name);
    if (!(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode) ||
          S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) || S_ISFIFO(st.st_mode)))
        return walk_report(s, PROBLEM_TYPE, "fstatat", 0, directory, name);
    if (!strncmp(name, ".wh.", 4)) {
        directory->flags |= ENTRY_WHITEOUT_NAMES;
        if (walk_report(s, PROBLEM_WHITEOUT_NAME, "readdir", 0, directory, name))
            return -1;
    }
    if (GROW(&w->found, &w->found_capacity, w->found_count + 1))
        return walk_exhausted(s);
    entry *e = &w->found[w->found_count];
    *e = (entry){.parent = directory};
    take_stat(s, e, &st);
    if (places && S_ISDIR(e->mode)) {
        int failed = 0;
        below = exclude_keep(&w->stepper, &w->arena, places, &failed);
        if (failed)
            return walk_exhausted(s);
    }
    e->excluded = below;
    e->name_size = (uint16_t)strlen(name);
    if (!(e->name = arena_copy(&w->arena, name, e->name_size)))
        return walk_exhausted(s);
    if (S_ISLNK(e->mode)) {
        ssize_t size = readlinkat(fd, name, w->target, sizeof w->target);
        if (size < 0) {
            int replaced = errno == ENOENT || errno == EINVAL;
            return walk_report(s, replaced ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "readlinkat", errno,
                               directory, name);
        }
        e->target_size = (uint16_t)size;
        if (!(e->target = arena_copy(&w->arena, w->target, (size_t)size)))
            return walk_exhausted(s);
    }
    if (!(s->options.flags & WALK_SKIP_XATTRS) ||
        s->options.flags & (WALK_TRUST_CHECKSUMS | WALK_TRUST_ON_FUSE)) {
        /* Where the kernel refuses the path whole, the same file by way of its open directory. */
        char by_descriptor[sizeof "/proc/self/fd/" + 16 + NAME_MAX + 1];
        const char *path = w->path;
        if (w->prefix_size && w->prefix_size + e->name_size < PATH_MAX)
            memcpy(w->path + w->prefix_size, name, (size_t)e->name_size + 1);
        else {
            snprintf(by_descriptor, sizeof by_descriptor, "/proc/self/fd/%d/%s", fd, name);
            path = by_descriptor;
        }
        if (walk_read_xattrs(s, w, e, path, directory, name))
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

/*
 * Network file systems may list a name twice: once in w->found, which is sorted, is enough. A name
 * that stands for two things has changed in between.
 */
static int drop_repeated(walk *s, walk_worker *w, entry *directory)
{
    size_t kept = 0, files = 0;
    for (size_t i = 0; i < w->found_count; i++) {
        const entry *e = &w->found[i], *former = kept ? &w->found[kept - 1] : NULL;
        if (!former || S_ISDIR(former->mode) != S_ISDIR(e->mode) || strcmp(former->name, e->name))
            w->found[kept++] = *e;
        else if ((former->ino != e->ino || former->dev != e->dev || former->mode != e->mode) &&
                 walk_report(s, PROBLEM_CHANGED, "readdir", 0, directory, e->name))
            return -1;
    }
    w->found_count = kept;
    while (files < kept && !S_ISDIR(w->found[files].mode))
        files++;
    for (size_t i = 0, j = files; i < files && j < kept;) {
        int order = strcmp(w->found[i].name, w->found[j].name);
        if (!order && walk_report(s, PROBLEM_CHANGED, "readdir", 0, directory, w->found[i].name))
            return -1;
        i += order <= 0;
        j += order >= 0;
    }
    return 0;
}

/* Gives w->found to DIRECTORY, sorted, and its subdirectories to the other threads. */
static int adopt(walk *s, walk_worker *w, entry *directory)
{
    if (!w->found_count)
        return 0;
    if (w->found_count > UINT32_MAX)
        return walk_exhausted(s);
    qsort(w->found, w->found_count, sizeof *w->found, in_order);
    if (drop_repeated(s, w, directory))
        return -1;
    size_t count = w->found_count;
    entry *children = arena_take(&w->arena, count * sizeof *children);
    if (!children)
        return walk_exhausted(s);
    memcpy(children, w->found, count * sizeof *children);
    size_t files = 0;
    while (files < count && !S_ISDIR(children[files].mode))
        files++;
    assert(!directory->children);
    for (size_t i = 1; i < count; i++)
        assert(in_order(&children[i - 1], &children[i]) < 0);
    directory->children = children;
    directory->children_count = (uint32_t)count;
    directory->files_count = (uint32_t)files;
    atomic_fetch_add_explicit(&s->entries, count, memory_order_relaxed);
    if (files == count)
        return 0;
    pthread_mutex_lock(&s->lock);
    if (GROW(&s->waiting, &s->waiting_capacity, s->waiting_count + (count - files))) {
        pthread_mutex_unlock(&s->lock);
        return walk_exhausted(s);
    }
    /* The last one goes first: taken from the end, directories come in the order in which a disk
     * probably holds them. */
    for (size_t i = count; i-- > files;)
        s->waiting[s->waiting_count++] = &children[i];
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static void set_prefix(const walk *s, walk_worker *w, const entry *directory)
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

static void close_last(walk_worker *w)
{
    if (w->stream)
        closedir(w->stream);
    w->stream = NULL;
    w->last.directory = NULL;
}

/* Does the path by which attributes were read still lead to DIRECTORY? */
static int look_at_prefix(walk *s, walk_worker *w, entry *directory)
{
    struct stat st;
    if (!w->read_by_path || !w->prefix_size)
        return 0;
    w->path[w->prefix_size] = 0;
    if (!lstat(w->path, &st) && entry_is(directory, &st))
        return 0;
    return walk_report(s, PROBLEM_CHANGED, "lstat", 0, directory, NULL);
}

static int read_directory(walk *s, walk_worker *w, entry *directory)
{
    problem trouble;
    int fd = tree_open_directory(&s->tree, directory, &w->last, &trouble);
    close_last(w);
    if (fd < 0)
        return walk_report(s, trouble.kind, trouble.call, trouble.error, directory, NULL);
    DIR *stream = fdopendir(fd);
    if (!stream) {
        int error = errno;
        close(fd);
        return walk_report(s, PROBLEM_SYSTEM, "fdopendir", error, directory, NULL);
    }
    w->stream = stream;
    w->last = (open_directory){.directory = directory, .fd = fd};
    set_prefix(s, w, directory);
    w->found_count = 0;
    w->read_by_path = 0;
    int status = 0;
    while (!atomic_load_explicit(&s->stopped, memory_order_relaxed)) {
        errno = 0;
        struct dirent *item = readdir(stream);
        if (!item) {
            if (errno)
                status = walk_report(s, PROBLEM_SYSTEM, "readdir", errno, directory, NULL);
            break;
        }
        if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, ".."))
            continue;
        if ((status = look_at(s, w, directory, fd, item->d_name)))
            break;
    }
    /* One that was removed before we came to read it looks empty. */
    struct stat st;
    if (!status && !fstat(fd, &st) && !st.st_nlink && directory->nlink)
        status = walk_report(s, PROBLEM_CHANGED, "readdir", 0, directory, NULL);
    if (!status)
        status = look_at_prefix(s, w, directory);
    return status ? status : adopt(s, w, directory);
}

static int read_root(walk *s)
{
    walk_worker *w = calloc(1, sizeof *w);
    if (!w)
        return -1;
    w->next = s->workers;
    s->workers = w;
    /* Behind a slash and a dot the kernel follows a symbolic link that names the root, in lstat and
     * in llistxattr alike. */
    char *path = malloc(strlen(s->tree.root_path) + 3);
    if (!path)
        return -1;
    sprintf(path, "%s/.", s->tree.root_path);
    struct stat st;
    int status = 0;
    if (lstat(path, &st))
        status = walk_report(s, PROBLEM_SYSTEM, "lstat", errno, &s->tree.root, NULL);
    else if (!S_ISDIR(st.st_mode))
        status = walk_report(s, PROBLEM_SYSTEM, "lstat", ENOTDIR, &s->tree.root, NULL);
    else {
        s->root_uid = (uint32_t)st.st_uid;
        take_stat(s, &s->tree.root, &st);
        s->tree.root.excluded = s->exclusion ? s->exclusion->start : NULL;
        if (!(s->options.flags & WALK_SKIP_XATTRS))
            status = walk_read_xattrs(s, w, &s->tree.root, path, &s->tree.root, NULL);
    }
    free(path);
    return status;
}

walk *walk_new(const char *root_path, const walk_options *options)
{
    walk *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    s->options = *options;
    s->options.excluded = NULL; /* the caller's */
    s->tree.root.name = "";
    s->tree.slice_size = 1 << 20;
    fingerprint_key_make(&s->tree.key);
    s->tree.root_path = strdup(root_path);
    s->waiting = malloc(16 * sizeof *s->waiting);
    s->waiting_capacity = 16;
    if (options->excluded_count)
        s->exclusion = exclusion_new(options->excluded, options->excluded_count);
    if (!s->tree.root_path || !s->waiting || (options->excluded_count && !s->exclusion) ||
        read_root(s)) {
        walk_free(s);
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

int walk_run(walk *s)
{
    walk_worker *w = calloc(1, sizeof *w);
    if (!w)
        return walk_exhausted(s);
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
        int status = read_directory(s, w, directory);
        pthread_mutex_lock(&s->lock);
        assert(s->busy);
        s->busy--;
        if (status || (!s->busy && !s->waiting_count))
            pthread_cond_broadcast(&s->wake);
    }
    int status = s->exhausted ? -1 : 0;
    pthread_mutex_unlock(&s->lock);
    close_last(w);
    exclude_stepper_end(&w->stepper);
    free(w->found);
    free(w->attributes);
    free(w->values);
    w->found = NULL;
    w->attributes = NULL;
    w->values = NULL;
    return status;
}

void walk_stop(walk *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopped = 1;
    pthread_cond_broadcast(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void walk_free(walk *s)
{
    while (s->problems) {
        problem *p = s->problems;
        s->problems = p->next;
        free((char *)p->name);
        free(p);
    }
    while (s->workers) {
        walk_worker *w = s->workers;
        s->workers = w->next;
        free(w->found);
        free(w->attributes);
        free(w->values);
        arena_release(&w->arena);
        free(w);
    }
    arena_release(&s->tree.arena);
    exclusion_free(s->exclusion);
    free(s->tree.root_path);
    free(s->waiting);
    free(s->devices);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
