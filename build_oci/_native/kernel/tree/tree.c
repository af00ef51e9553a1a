#include "tree.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t entry_path(const entry *e, char *out)
{
    size_t size = 0;
    for (const entry *at = e; at->parent; at = at->parent)
        size += at->name_size + 1;
    if (!size) {
        if (out)
            *out = 0;
        return 0;
    }
    size--;
    if (out) {
        char *end = out + size;
        *end = 0;
        for (const entry *at = e; at->parent; at = at->parent) {
            end -= at->name_size;
            memcpy(end, at->name, at->name_size);
            if (at->parent->parent)
                *--end = '/';
        }
    }
    return size;
}

/* Files and subdirectories are two sorted ranges. */
entry *tree_child(const entry *directory, const char *name, size_t size)
{
    entry *ranges[2] = {directory->children, directory->children + directory->files_count};
    size_t counts[2] = {directory->files_count, directory->children_count - directory->files_count};
    for (int i = 0; i < 2; i++) {
        size_t low = 0, high = counts[i];
        while (low < high) {
            size_t middle = low + (high - low) / 2;
            entry *e = &ranges[i][middle];
            size_t shorter = e->name_size < size ? e->name_size : size;
            int order = memcmp(e->name, name, shorter);
            if (!order)
                order = (e->name_size > size) - (e->name_size < size);
            if (!order)
                return e;
            if (order < 0)
                low = middle + 1;
            else
                high = middle;
        }
    }
    return NULL;
}

entry *tree_insert_directory(tree *t, entry *directory, const char *name, size_t size)
{
    size_t count = directory->children_count, place = directory->files_count;
    entry *block = arena_take(&t->arena, (count + 1) * sizeof *block);
    char *copy = arena_copy(&t->arena, name, size);
    if (!block || !copy || count == UINT32_MAX)
        return NULL;
    while (place < count && strcmp(directory->children[place].name, copy) < 0)
        place++;
    for (size_t i = 0; i <= count; i++) {
        entry *e = &block[i];
        if (i == place) {
            *e = (entry){.parent = directory,
                         .name = copy,
                         .name_size = (uint16_t)size,
                         .mode = S_IFDIR | 0755,
                         .nlink = 1};
            continue;
        }
        *e = directory->children[i - (i > place)];
        for (size_t j = 0; S_ISDIR(e->mode) && j < e->children_count; j++)
            e->children[j].parent = e;
    }
    assert(place <= count && place >= directory->files_count);
    directory->children = block;
    directory->children_count++;
    return &block[place];
}

/* The next entry in tar order after E, skipping whiteouts; NULL at the end. */
static entry *next_in_order(const entry *e)
{
    if (S_ISDIR(e->mode) && e->children_count)
        return e->children;
    /* Within a block the files come first, then the subdirectories, each followed by all that is
     * below it. */
    for (; e->parent; e = e->parent) {
        const entry *end = e->parent->children + e->parent->children_count;
        if (e + 1 < end)
            return (entry *)(e + 1);
    }
    return NULL;
}

entry **tree_order(tree *t, size_t *count)
{
    size_t total = 0;
    for (entry *e = &t->root; e; e = next_in_order(e)) {
        total++;
        if (S_ISDIR(e->mode))
            for (entry *w = e->whiteouts; w; w = w->next)
                total++;
    }
    entry **order = malloc(total * sizeof *order);
    if (!order)
        return NULL;
    size_t at = 0;
    for (entry *e = &t->root; e; e = next_in_order(e)) {
        order[at++] = e;
        if (S_ISDIR(e->mode))
            for (entry *w = e->whiteouts; w; w = w->next)
                order[at++] = w;
    }
    assert(at == total);
    *count = total;
    return order;
}

int entry_has_content(const entry *e)
{
    return S_ISREG(e->mode) && !e->link && e->size;
}

int entry_is(const entry *e, const struct stat *st)
{
    return (uint64_t)st->st_dev == e->dev && (uint64_t)st->st_ino == e->ino &&
           (st->st_mode & S_IFMT) == (e->mode & S_IFMT);
}

int tree_take_fingerprints(tree *t, entry *e)
{
    size_t slices = (size_t)((e->size + t->slice_size - 1) / t->slice_size);
    e->fingerprints = arena_take(&t->arena, slices * sizeof *e->fingerprints);
    for (size_t i = 0; e->fingerprints && i < slices; i++)
        atomic_init(&e->fingerprints[i], 0);
    return e->fingerprints ? 0 : -1;
}

int tree_same_slice(const tree *t, const entry *e, uint64_t offset, uint64_t fingerprint)
{
    uint64_t other = 0, value = fingerprint + 1; /* 0 stands for an empty slot */
    assert(e->fingerprints && offset < e->size);
    return atomic_compare_exchange_strong(&e->fingerprints[offset / t->slice_size], &other,
                                          value) ||
           other == value;
}

int tree_same_content(const tree *t, const entry *e, const uint8_t *content)
{
    for (uint64_t offset = 0; offset < e->size; offset += t->slice_size) {
        uint64_t left = e->size - offset, size = left < t->slice_size ? left : t->slice_size;
        if (!tree_same_slice(t, e, offset,
                             fingerprint_add(&t->key, 0, content + offset, (size_t)size)))
            return 0;
    }
    return 1;
}

/*
 * For paths that the kernel refuses whole: from NEAR or from the root, in pieces of whole
 * components. A symbolic link in the middle of a piece would be followed; the caller compares what
 * is reached with the entry.
 */
static int open_in_pieces(const tree *t, const entry *directory, const open_directory *near)
{
    const entry *start = directory;
    size_t size = 0;
    while (start->parent && !(near && start == near->directory)) {
        size += start->name_size + (size_t)1;
        start = start->parent;
    }
    char *path = malloc(size + 1);
    if (!path)
        return -1;
    char *at = path + size;
    for (const entry *e = directory; e != start; e = e->parent) {
        *--at = 0;
        at -= e->name_size;
        memcpy(at, e->name, e->name_size);
    }
    /* Every component ends with a NUL now; those of one piece are joined by slashes. */
    int fd = start->parent
                 ? fcntl(near->fd, F_DUPFD_CLOEXEC, 0)
                 : open(*t->root_path ? t->root_path : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (at = path; fd >= 0 && at < path + size;) {
        char *piece = at;
        at += strlen(at) + 1;
        while (at < path + size && (size_t)(at - piece) + strlen(at) + 1 < PATH_MAX) {
            at[-1] = '/';
            at += strlen(at) + 1;
        }
        int below = openat(fd, piece, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        close(fd);
        errno = error;
        fd = below;
    }
    free(path);
    return fd;
}

int tree_open_directory(const tree *t, const entry *directory, const open_directory *near,
                        problem *out)
{
    int fd;
    size_t root = strlen(t->root_path);
    if (near && !near->directory)
        near = NULL;
    if (near && directory->parent == near->directory) {
        fd = openat(near->fd, directory->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    } else if (root + 1 + entry_path(directory, NULL) < PATH_MAX) {
        char path[PATH_MAX];
        memcpy(path, t->root_path, root);
        path[root] = '/';
        entry_path(directory, path + root + 1);
        /* The root may be named by a symbolic link: its closing slash lets the kernel follow that
         * one. */
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    } else {
        fd = open_in_pieces(t, directory, near);
    }
    if (fd < 0) {
        if (errno == ELOOP || errno == ENOTDIR || (errno == ENOENT && directory->parent)) {
            return problem_fill(PROBLEM_CHANGED, 0, directory, "open", out);
        }
        return problem_fill(PROBLEM_SYSTEM, errno, directory, "open", out);
    }
    struct stat st;
    if (fstat(fd, &st)) {
        problem_fill(PROBLEM_SYSTEM, errno, directory, "fstat", out);
        close(fd);
        return -1;
    }
    if (!entry_is(directory, &st)) {
        problem_fill(PROBLEM_CHANGED, 0, directory, "open", out);
        close(fd);
        return -1;
    }
    return fd;
}
