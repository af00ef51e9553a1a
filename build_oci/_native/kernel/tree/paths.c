#include "paths.h"

#include "grow.h"

#include <stdlib.h>
#include <string.h>

/* The child NAME of the finder's directory. */
static entry *find_child(path_finder *f, const char *name, size_t size)
{
    if (f->last && f->last->parent == f->directory) {
        const entry *next = f->last + 1;
        if (next < f->directory->children + f->directory->children_count &&
            next->name_size == size && !memcmp(next->name, name, size))
            return (entry *)next;
    }
    return tree_child(f->directory, name, size);
}

/* Up, until the finder's directory is one that leads to PATH. */
static void climb(path_finder *f, const char *path, size_t size)
{
    while (f->prefix_size && (size <= f->prefix_size || path[f->prefix_size] != '/' ||
                              memcmp(path, f->prefix, f->prefix_size))) {
        f->prefix_size -= f->directory->name_size;
        f->prefix_size -= f->prefix_size > 0; /* the slash */
        f->directory = f->directory->parent;
    }
}

entry *paths_find(path_finder *f, const char *path, size_t size, int *failed)
{
    climb(f, path, size);
    size_t at = f->prefix_size ? f->prefix_size + 1 : 0;
    if (!size)
        return f->directory;
    for (;;) {
        const char *slash = memchr(path + at, '/', size - at);
        size_t end = slash ? (size_t)(slash - path) : size;
        entry *child = find_child(f, path + at, end - at);
        if (!child || (slash && !S_ISDIR(child->mode)))
            return NULL;
        f->last = child;
        if (!slash)
            return child;
        if (GROW(&f->prefix, &f->prefix_capacity, end)) {
            *failed = 1;
            return NULL;
        }
        memcpy(f->prefix + f->prefix_size, path + f->prefix_size, end - f->prefix_size);
        f->prefix_size = end;
        f->directory = child;
        at = end + 1;
    }
}

void paths_end(path_finder *f)
{
    free(f->prefix);
}
