/* Reading the files of a tree: on disk, each held against what the walk saw of it; or in the
 * archives of an image (unpack.h). */
#ifndef BUILD_OCI_CONTENT_H
#define BUILD_OCI_CONTENT_H

#include "tree.h"

/* Opens files of one tree; files of one directory in a row cost one look-up of that directory. One
 * reader a thread. */
typedef struct reader {
    const tree *tree;
    open_directory at;
} reader;

void reader_begin(reader *, const tree *);
void reader_end(reader *);

/*
 * A descriptor of what has the name of the regular file E, open for reading. -1 with OUT filled.
 * Whether it is what the walk saw is for content_unchanged() to say, once all has been read:
 * nothing that was read may be used before.
 */
int reader_open(reader *, const entry *e, problem *out);

/*
 * Reads SIZE bytes from OFFSET, and where they are to be the last ones, sees that there are no
 * more. -1 with OUT filled, also when there are fewer or more: PROBLEM_CHANGED if the file is no
 * longer what the walk saw, PROBLEM_LENGTH if its size lies.
 */
int content_read(int fd, const entry *e, uint64_t offset, uint8_t *into, size_t size, problem *out);

/* Opens the regular file E of a directory on disk, and reads its first SIZE bytes, or as many as it
 * has, *GOT of them. -1 with OUT filled, also when it is not the file that the walk saw. */
int content_read_head(reader *, const entry *e, uint8_t *into, size_t size, size_t *got,
                      problem *out);

/* Is the file still as long and as old as the walk saw it? -1 with OUT filled. */
int content_unchanged(int fd, const entry *e, problem *out);

/* Opens E and reads all of it, held against the walk. Four calls for a small file. -1 with OUT
 * filled. */
int content_read_whole(reader *, const entry *e, uint8_t *into, problem *out);

#endif
