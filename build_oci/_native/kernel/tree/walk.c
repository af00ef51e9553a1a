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

enum {
    PROBLEMS_MAX = 100, /* after so many the walk stops */
    MISLED_MAX = 16,    /* after so many readdir is not believed */
};

int walk_exhausted(walk *w)
{
    pthread_mutex_lock(&w->lock);
    w->exhausted = 1;
    w->stopped = 1;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    return -1;
}

int walk_report(walk *w, problem_kind kind, const char *call, int error, const entry *at,
                const char *name)
{
    problem *p = calloc(1, sizeof *p);
    char *copy = name ? strdup(name) : NULL;
    if (!p || (name && !copy)) {
        free(p);
        free(copy);
        return walk_exhausted(w);
    }
    *p = (problem){.kind = kind, .call = call, .error = error, .at = at, .name = copy};
    pthread_mutex_lock(&w->lock);
    p->next = w->problems;
    w->problems = p;
    if (kind != PROBLEM_SOCKET && kind != PROBLEM_WHITEOUT_NAME &&
        ++w->problems_count >= PROBLEMS_MAX) {
        w->stopped = 1;
        pthread_cond_broadcast(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
    return 0;
}

static void take_stat(walk *w, entry *e, const struct stat *st)
{
    e->dev = (uint64_t)st->st_dev;
    e->ino = (uint64_t)st->st_ino;
    e->size = S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0;
    e->rdev = (uint64_t)st->st_rdev;
    e->mtime = (int64_t)st->st_mtim.tv_sec;
    e->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
    e->mode = (uint32_t)st->st_mode;
    e->uid = w->options.flags & WALK_OWNER ? w->options.uid : (uint32_t)st->st_uid;
    e->gid = w->options.flags & WALK_OWNER ? w->options.gid : (uint32_t)st->st_gid;
    e->nlink = (uint32_t)st->st_nlink;
    if ((uint32_t)st->st_uid != w->root_uid)
        atomic_store_explicit(&w->owners_differ, 1, memory_order_relaxed);
}

/* The path of NAME in the directory at hand, which is open as FD: in worker->path, or, where the
 * kernel refuses it whole, by way of the descriptor in ELSEWHERE. */
static const char *find_path(walk_worker *worker, int fd, const char *name, char *elsewhere,
                             size_t room)
{
    size_t size = strlen(name);
    if (worker->prefix_size && worker->prefix_size + size < PATH_MAX) {
        memcpy(worker->path + worker->prefix_size, name, size + 1);
        return worker->path;
    }
    snprintf(elsewhere, room, "/proc/self/fd/%d/%s", fd, name);
    return elsewhere;
}

/*
 * Reads the attributes of a regular file before anything else of it is looked at. Of E are known
 * type, device and inode, as readdir tells them in ITEM. The look that follows goes by the same
 * path and says whether that is so, and with it whether the attributes are those of the file: no
 * other look is needed. A directory that is exchanged for a link and back must do so between these
 * two calls to let the attributes of another file in, as with two looks.
 *
 * There are file systems where readdir tells other inodes than stat. There this is a call for
 * nothing, and given up soon. -1: stop; 1: not read.
 */
static int read_ahead(walk *w, walk_worker *worker, const entry *directory,
                      const struct dirent *item, const char *path, entry *e)
{
    if (item->d_type != DT_REG || worker->misled >= MISLED_MAX)
        return 1;
    *e = (entry){.dev = directory->dev, .ino = (uint64_t)item->d_ino, .mode = S_IFREG};
    return walk_read_xattrs_ahead(w, worker, e, path, directory, item->d_name);
}

/* Gives E the attributes of SEEN. */
static void take_attributes(entry *e, const entry *seen)
{
    e->xattrs = seen->xattrs;
    e->xattrs_size = seen->xattrs_size;
    e->instructions = seen->instructions;
    e->instructions_size = seen->instructions_size;
    e->flags |= seen->flags;
    memcpy(e->digest, seen->digest, sizeof e->digest);
}

/* Adds ITEM to worker->found, unless it is left out, or reports why not. -1: stop. */
static int look_at(walk *w, walk_worker *worker, entry *directory, int fd,
                   const struct dirent *item)
{
    const char *name = item->d_name;
    struct stat st;
    const exclude_places *places = w->exclusion ? directory->excluded : NULL, *below = NULL;
    if (places) {
        int excluded = exclude_step(w->exclusion, &worker->stepper, places, name, strlen(name));
        if (excluded)
            return excluded < 0 ? walk_exhausted(w) : 0;
    }
    char elsewhere[sizeof "/proc/self/fd/" + 16 + NAME_MAX + 1];
    const char *path = NULL;
    entry seen;
    int unread = 1;
    if (!(w->options.flags & WALK_SKIP_XATTRS) ||
        w->options.flags & (WALK_TRUST_CHECKSUMS | WALK_TRUST_ON_FUSE)) {
        path = find_path(worker, fd, name, elsewhere, sizeof elsewhere);
        if ((unread = read_ahead(w, worker, directory, item, path, &seen)) < 0)
            return -1;
    }
    /* By the path that the attributes were read by: it still leads to the file of the directory. */
    if (!unread) {
        int failed = fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW);
        /* That the path leads nowhere is for the look by way of the directory to tell. */
        if (failed && errno != ENOENT && errno != ENOTDIR)
            return walk_report(w, PROBLEM_SYSTEM, "fstatat", errno, directory, name);
        if (failed || !entry_is(&seen, &st)) {
            worker->misled++;
            unread = 1;
        }
    }
    if (unread && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return walk_report(w, errno == ENOENT ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "fstatat", errno,
                           directory, name);
    if (S_ISSOCK(st.st_mode))
        return walk_report(w, PROBLEM_SOCKET, "fstatat", 0, directory, name);
    if (!(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode) ||
          S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) || S_ISFIFO(st.st_mode)))
        return walk_report(w, PROBLEM_TYPE, "fstatat", 0, directory, name);
    if (!strncmp(name, ".wh.", 4)) {
        directory->flags |= ENTRY_WHITEOUT_NAMES;
        if (walk_report(w, PROBLEM_WHITEOUT_NAME, "readdir", 0, directory, name))
            return -1;
    }
    if (GROW(&worker->found, &worker->found_capacity, worker->found_count + 1))
        return walk_exhausted(w);
    entry *e = &worker->found[worker->found_count];
    *e = (entry){.parent = directory};
    take_stat(w, e, &st);
    if (places && S_ISDIR(e->mode)) {
        int failed = 0;
        below = exclude_keep(&worker->stepper, &worker->arena, places, &failed);
        if (failed)
            return walk_exhausted(w);
    }
    e->excluded = below;
    e->name_size = (uint16_t)strlen(name);
    if (!(e->name = arena_copy(&worker->arena, name, e->name_size)))
        return walk_exhausted(w);
    if (S_ISLNK(e->mode)) {
        ssize_t size = readlinkat(fd, name, worker->target, sizeof worker->target);
        if (size < 0) {
            int replaced = errno == ENOENT || errno == EINVAL;
            return walk_report(w, replaced ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "readlinkat", errno,
                               directory, name);
        }
        e->target_size = (uint16_t)size;
        if (!(e->target = arena_copy(&worker->arena, worker->target, (size_t)size)))
            return walk_exhausted(w);
    }
    if (!unread)
        take_attributes(e, &seen);
    else if (path && walk_read_xattrs(w, worker, e, path, directory, name))
        return -1;
    if (e->flags & ENTRY_BELIEVED)
        atomic_fetch_add_explicit(&w->believed, 1, memory_order_relaxed);
    worker->found_count++;
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
 * Network file systems may list a name twice: once in worker->found, which is sorted, is enough. A
 * name that stands for two things has changed in between.
 */
static int drop_repeated(walk *w, walk_worker *worker, entry *directory)
{
    size_t kept = 0, files = 0;
    for (size_t i = 0; i < worker->found_count; i++) {
        const entry *e = &worker->found[i], *former = kept ? &worker->found[kept - 1] : NULL;
        if (!former || S_ISDIR(former->mode) != S_ISDIR(e->mode) || strcmp(former->name, e->name))
            worker->found[kept++] = *e;
        else if ((former->ino != e->ino || former->dev != e->dev || former->mode != e->mode) &&
                 walk_report(w, PROBLEM_CHANGED, "readdir", 0, directory, e->name))
            return -1;
    }
    worker->found_count = kept;
    while (files < kept && !S_ISDIR(worker->found[files].mode))
        files++;
    for (size_t i = 0, j = files; i < files && j < kept;) {
        int order = strcmp(worker->found[i].name, worker->found[j].name);
        if (!order &&
            walk_report(w, PROBLEM_CHANGED, "readdir", 0, directory, worker->found[i].name))
            return -1;
        i += order <= 0;
        j += order >= 0;
    }
    return 0;
}

/* Gives worker->found to DIRECTORY, sorted, and its subdirectories to the other threads. */
static int adopt(walk *w, walk_worker *worker, entry *directory)
{
    if (!worker->found_count)
        return 0;
    if (worker->found_count > UINT32_MAX)
        return walk_exhausted(w);
    qsort(worker->found, worker->found_count, sizeof *worker->found, in_order);
    if (drop_repeated(w, worker, directory))
        return -1;
    size_t count = worker->found_count;
    entry *children = arena_take(&worker->arena, count * sizeof *children);
    if (!children)
        return walk_exhausted(w);
    memcpy(children, worker->found, count * sizeof *children);
    size_t files = 0;
    while (files < count && !S_ISDIR(children[files].mode))
        files++;
    assert(!directory->children);
    for (size_t i = 1; i < count; i++)
        assert(in_order(&children[i - 1], &children[i]) < 0);
    directory->children = children;
    directory->children_count = (uint32_t)count;
    directory->files_count = (uint32_t)files;
    atomic_fetch_add_explicit(&w->entries, count, memory_order_relaxed);
    if (files == count)
        return 0;
    pthread_mutex_lock(&w->lock);
    if (GROW(&w->waiting, &w->waiting_capacity, w->waiting_count + (count - files))) {
        pthread_mutex_unlock(&w->lock);
        return walk_exhausted(w);
    }
    /* The last one goes first: taken from the end, directories come in the order in which a disk
     * probably holds them. */
    for (size_t i = count; i-- > files;)
        w->waiting[w->waiting_count++] = &children[i];
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

static void set_prefix(const walk *w, walk_worker *worker, const entry *directory)
{
    size_t root = strlen(w->tree.root_path), below = entry_path(directory, NULL);
    worker->prefix_size = 0;
    if (root + 1 + below + 1 >= PATH_MAX)
        return;
    memcpy(worker->path, w->tree.root_path, root);
    worker->path[root] = '/';
    entry_path(directory, worker->path + root + 1);
    worker->prefix_size = root + 1 + below;
    if (below)
        worker->path[worker->prefix_size++] = '/';
}

static void close_last(walk_worker *worker)
{
    if (worker->stream)
        closedir(worker->stream);
    worker->stream = NULL;
    worker->last.directory = NULL;
}

/* Does the path by which attributes were read still lead to DIRECTORY? */
static int look_at_prefix(walk *w, walk_worker *worker, entry *directory)
{
    struct stat st;
    if (!worker->read_by_path || !worker->prefix_size)
        return 0;
    worker->path[worker->prefix_size] = 0;
    if (!lstat(worker->path, &st) && entry_is(directory, &st))
        return 0;
    return walk_report(w, PROBLEM_CHANGED, "lstat", 0, directory, NULL);
}

static int read_directory(walk *w, walk_worker *worker, entry *directory)
{
    problem trouble;
    int fd = tree_open_directory(&w->tree, directory, &worker->last, &trouble);
    close_last(worker);
    if (fd < 0)
        return walk_report(w, trouble.kind, trouble.call, trouble.error, directory, NULL);
    DIR *stream = fdopendir(fd);
    if (!stream) {
        int error = errno;
        close(fd);
        return walk_report(w, PROBLEM_SYSTEM, "fdopendir", error, directory, NULL);
    }
    worker->stream = stream;
    worker->last = (open_directory){.directory = directory, .fd = fd};
    set_prefix(w, worker, directory);
    worker->found_count = 0;
    worker->read_by_path = 0;
    int status = 0;
    while (!atomic_load_explicit(&w->stopped, memory_order_relaxed)) {
        errno = 0;
        struct dirent *item = readdir(stream);
        if (!item) {
            if (errno)
                status = walk_report(w, PROBLEM_SYSTEM, "readdir", errno, directory, NULL);
            break;
        }
        if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, ".."))
            continue;
        if ((status = look_at(w, worker, directory, fd, item)))
            break;
    }
    /* One that was removed before we came to read it looks empty. */
    struct stat st;
    if (!status && !fstat(fd, &st) && !st.st_nlink && directory->nlink)
        status = walk_report(w, PROBLEM_CHANGED, "readdir", 0, directory, NULL);
    if (!status)
        status = look_at_prefix(w, worker, directory);
    return status ? status : adopt(w, worker, directory);
}

static int read_root(walk *w)
{
    walk_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return -1;
    worker->next = w->workers;
    w->workers = worker;
    /* Behind a slash and a dot the kernel follows a symbolic link that names the root, in lstat and
     * in llistxattr alike. */
    char *path = malloc(strlen(w->tree.root_path) + 3);
    if (!path)
        return -1;
    sprintf(path, "%s/.", w->tree.root_path);
    struct stat st;
    int status = 0;
    if (lstat(path, &st))
        status = walk_report(w, PROBLEM_SYSTEM, "lstat", errno, &w->tree.root, NULL);
    else if (!S_ISDIR(st.st_mode))
        status = walk_report(w, PROBLEM_SYSTEM, "lstat", ENOTDIR, &w->tree.root, NULL);
    else {
        w->root_uid = (uint32_t)st.st_uid;
        take_stat(w, &w->tree.root, &st);
        w->tree.root.excluded = w->exclusion ? w->exclusion->start : NULL;
        if (!(w->options.flags & WALK_SKIP_XATTRS))
            status = walk_read_xattrs(w, worker, &w->tree.root, path, &w->tree.root, NULL);
    }
    free(path);
    return status;
}

walk *walk_new(const char *root_path, const walk_options *options)
{
    walk *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    w->options = *options;
    w->options.excluded = NULL; /* the caller's */
    w->tree.root.name = "";
    w->tree.slice_size = 1 << 20;
    fingerprint_key_make(&w->tree.key);
    w->tree.root_path = strdup(root_path);
    w->waiting = malloc(16 * sizeof *w->waiting);
    w->waiting_capacity = 16;
    if (options->excluded_count)
        w->exclusion = exclusion_new(options->excluded, options->excluded_count);
    if (!w->tree.root_path || !w->waiting || (options->excluded_count && !w->exclusion) ||
        read_root(w)) {
        walk_free(w);
        errno = ENOMEM;
        return NULL;
    }
    size_t size = strlen(w->tree.root_path);
    while (size && w->tree.root_path[size - 1] == '/')
        w->tree.root_path[--size] = 0;
    atomic_store(&w->entries, 1);
    if (S_ISDIR(w->tree.root.mode))
        w->waiting[w->waiting_count++] = &w->tree.root;
    return w;
}

int walk_run(walk *w)
{
    walk_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return walk_exhausted(w);
    pthread_mutex_lock(&w->lock);
    worker->next = w->workers;
    w->workers = worker;
    for (;;) {
        while (!w->stopped && !w->waiting_count && w->busy)
            pthread_cond_wait(&w->wake, &w->lock);
        if (w->stopped || !w->waiting_count)
            break;
        entry *directory = w->waiting[--w->waiting_count];
        w->busy++;
        pthread_mutex_unlock(&w->lock);
        int status = read_directory(w, worker, directory);
        pthread_mutex_lock(&w->lock);
        assert(w->busy);
        w->busy--;
        if (status || (!w->busy && !w->waiting_count))
            pthread_cond_broadcast(&w->wake);
    }
    int status = w->exhausted ? -1 : 0;
    pthread_mutex_unlock(&w->lock);
    close_last(worker);
    exclude_stepper_end(&worker->stepper);
    free(worker->found);
    free(worker->attributes);
    free(worker->values);
    worker->found = NULL;
    worker->attributes = NULL;
    worker->values = NULL;
    return status;
}

void walk_stop(walk *w)
{
    pthread_mutex_lock(&w->lock);
    w->stopped = 1;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

void walk_free(walk *w)
{
    while (w->problems) {
        problem *p = w->problems;
        w->problems = p->next;
        free((char *)p->name);
        free(p);
    }
    while (w->workers) {
        walk_worker *worker = w->workers;
        w->workers = worker->next;
        free(worker->found);
        free(worker->attributes);
        free(worker->values);
        arena_release(&worker->arena);
        free(worker);
    }
    arena_release(&w->tree.arena);
    exclusion_free(w->exclusion);
    free(w->tree.root_path);
    free(w->waiting);
    free(w->devices);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
