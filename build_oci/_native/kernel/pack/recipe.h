/*
 * Digests of tar headers in order. A header holds the digest of its file's content, so they stand
 * for everything that an archive holds.
 */
#ifndef BUILD_OCI_RECIPE_H
#define BUILD_OCI_RECIPE_H

#include "pack.h"

/* The SHA-256 of all headers of PLAN into OUT. 1 where a file's digest is not known yet, -1 without
 * memory. */
int recipe_of_plan(const plan *, uint8_t out[SHA256_DIGEST]);

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
