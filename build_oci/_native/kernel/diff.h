/*
 * A tree held against what its parent image has: which entries are unchanged and need not be emitted, and which names of the parent a
 * whiteout must hide.
 *
 *   diff_new     compares names and metadata; what is left open are the files whose content decides
 *   diff_hash    hashes these, batch by batch, from many threads
 *   diff_decide  sets ENTRY_UNCHANGED and adds the whiteouts
 */
#ifndef BUILD_OCI_DIFF_H
#define BUILD_OCI_DIFF_H

#include "content.h"
#include "header.h"
#include "lower.h"

typedef struct diff_batch {
    size_t first, count; /* of the candidates */
} diff_batch;

typedef struct diff {
    tree *tree;
    const lower *lower;
    header_options options;
    const sha256_kernel *kernel;
    entry **order;
    size_t order_count;
    entry **candidates; /* same metadata, content not yet known */
    size_t candidates_count;
    diff_batch *batches;
    size_t batches_count;
    size_t unchanged, whiteouts; /* what diff_decide found */
    atomic_int cancelled;
} diff;

/* NULL without memory. LOWER may be shared with other diffs. */
diff *diff_new(tree *, const lower *, const header_options *, const sha256_kernel *, int preserve_links);

/* -1 with OUT filled. */
int diff_hash(diff *, size_t batch, problem *out);

/* Once every batch has been hashed. -1 without memory. */
int diff_decide(diff *);

void diff_free(diff *);

#endif
