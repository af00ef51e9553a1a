/*
 * Digests of tar headers in order. A header holds the digest of its file's content, so they stand
 * for everything that an archive holds.
 */
#ifndef BUILD_OCI_RECIPE_H
#define BUILD_OCI_RECIPE_H

#include "pack.h"

/* The headers of a plan in order, in pieces that are whole headers, and their digest. */
typedef struct recipe {
    const plan *plan;
    header_maker maker;
    uint8_t *bytes; /* of the piece */
    size_t size, capacity;
    size_t at; /* of the next member */
    sha256_context context;
} recipe;

/* Begins with the first member of PLAN. 1 where a file's digest is not known yet, and then there is
 * nothing to end. */
int recipe_begin(recipe *, const plan *);

/* The next piece, until `size` is 0. -1 without memory. */
int recipe_next(recipe *);

/* The SHA-256 of all pieces so far. */
void recipe_digest(const recipe *, uint8_t out[SHA256_DIGEST]);

void recipe_end(recipe *);

/*
 * For each of COUNT components the SHA-256 of the headers of its entries, without directories, in
 * tar order and with the time 0, into OUT; KNOWN says for which. A component is not known where the
 * digest of a file of it is not. Each name of an inode counts as a file, so that it makes no
 * difference whether links were found already. OWNERS has the number of a component for each of
 * ENTRIES entries of the walk; what is no number of one belongs to none. -1 without memory, 1 where
 * ENTRIES does not fit.
 */
int recipe_of_components(tree *, const sha256_kernel *, const uint32_t *owners, size_t entries,
                         size_t count, uint8_t (*out)[SHA256_DIGEST], uint8_t *known);

#endif
