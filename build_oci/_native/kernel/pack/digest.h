/*
 * The digests of many files: small ones read whole and hashed side by side, large ones read piece
 * by piece, as many at a time as the kernel has lanes (sha256.h).
 */
#ifndef BUILD_OCI_DIGEST_H
#define BUILD_OCI_DIGEST_H

#include "content.h"
#include "sha256.h"

#include <stdatomic.h>

/*
 * Sets the digests of FILES, regular files of one tree, from their content. Gives up, with -1 and
 * PROBLEM_CANCELLED, once *CANCELLED is set; -1 with OUT filled when one cannot be read or has
 * changed.
 */
int digest_files(const tree *, const sha256_kernel *, entry *const *files, size_t count,
                 const atomic_int *cancelled, problem *out);

/* Every file of a tree whose digest is not known, once for each inode, cut into batches of work. */
typedef struct digests {
    const tree *tree;
    const sha256_kernel *kernel;
    entry **files;
    size_t files_count;
    /* where in `files` each begins; one more than there are, for the end of the last */
    size_t *batches;
    size_t batches_count;
    entry **others; /* further names of an inode, each with the first in its `link` */
    size_t others_count;
    atomic_int cancelled;
} digests;

/* The batches are cut for THREADS of them, at least 1. NULL without memory. */
digests *digests_new(tree *, const sha256_kernel *, size_t threads);

/* Hashes one batch; from any thread. -1 with OUT filled. */
int digests_hash(digests *, size_t batch, problem *out);

/* Once every batch has been hashed: from then on every regular file of the tree has its digest. */
void digests_finish(digests *);

void digests_free(digests *);

#endif
