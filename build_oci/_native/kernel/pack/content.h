/* Reading the files of a walked tree, each held against what the walk saw of it. */
#ifndef BUILD_OCI_CONTENT_H
#define BUILD_OCI_CONTENT_H

#include "tree.h"

/* Opens files of one tree; files of one directory in a row cost one look-up of that directory. One reader a thread. */
typedef struct reader {
    const tree *tree;
    const entry *directory; /* whose descriptor is `fd`; NULL at first */
    int fd;
} reader;

void reader_begin(reader *, const tree *);
void reader_end(reader *);

/* A descriptor of the regular file E, open for reading. -1 with OUT filled, also when it is no longer what the walk saw. */
int reader_open(reader *, const entry *e, problem *out);

/* Reads SIZE bytes from OFFSET. -1 with OUT filled, also when the file ends before. */
int content_read(int fd, const entry *e, uint64_t offset, uint8_t *into, size_t size, problem *out);

/* Is the file still as long and as old as the walk saw it? -1 with OUT filled. */
int content_unchanged(int fd, const entry *e, problem *out);

/* Opens E and reads all of it, held against the walk before and after. -1 with OUT filled. */
int content_read_whole(reader *, const entry *e, uint8_t *into, problem *out);

#endif
