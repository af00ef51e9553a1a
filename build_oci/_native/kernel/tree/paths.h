/*
 * Which entry has a path: for lists of paths in which neighbours share their directory, as those of
 * package data bases and maps do.
 *
 * The finder stays in the directory of the path that it was asked last. From there it goes up as
 * far as the next path demands, and down again by binary search (tree_child); where the next path
 * names the next entry of the directory, that is seen at once. A table of all paths would be one
 * more copy of them, and each question a miss of the cache.
 */
#ifndef BUILD_OCI_PATHS_H
#define BUILD_OCI_PATHS_H

#include "tree.h"

/* All zero but `directory`, the root, at the start. One thread at a time. */
typedef struct path_finder {
    entry *directory;
    const entry *last; /* found last, in any directory; NULL: none */
    char *prefix;      /* the path of `directory` */
    size_t prefix_size, prefix_capacity;
} path_finder;

/* The entry that has the PATH of SIZE bytes below the root, without a slash at either end; no
 * symbolic link is followed. NULL where there is none, or, with *FAILED set, no memory. */
entry *paths_find(path_finder *, const char *path, size_t size, int *failed);

void paths_end(path_finder *);

#endif
