/*
 * An archive that streams by, held against the plan of a layer whose files were all hashed in this
 * process.
 *
 * The problem: an image of an earlier build tells that a layer has the recipe of a plan
 * (layer_recipe.h). Before the layer is used, what it tells is verified. To read the archive as a
 * stranger's and to hash every content again costs twice as much as to hash the archive alone.
 *
 * The picture: all that is in the archive of the plan is known. Its headers can be written, since
 * every digest is known. Of every slice of a content there is the fingerprint that hashing the tree
 * left (fingerprint.h).
 *
 *     the plan's   H1  f(C1)  zeros  H2  f(C2)  zeros  ...  two blocks of zeros
 *                  =    =      =     =    =      =                =
 *     the layer's  H1    C1   zeros  H2    C2   zeros  ...  two blocks of zeros
 *
 * Invariant: as long as archive_check_holds(), every byte that was fed is the plan's: headers,
 * padding and end were compared, and a slice of another content has another fingerprint, but for a
 * probability below 2^-48 (the key is random and never leaves the process). No number in the
 * archive is read, so nothing in it can lead the check astray.
 *
 * Beside that the archive is hashed, two archives side by side where there are two.
 */
#ifndef BUILD_OCI_ARCHIVE_CHECK_H
#define BUILD_OCI_ARCHIVE_CHECK_H

#include "pack.h"

typedef struct archive_check archive_check;

/* For the archive of PLAN, which must live as long. NULL without memory. */
archive_check *archive_check_new(const plan *);

/* Has every content of PLAN its digest and its fingerprints? Others cannot be checked so. */
int archive_check_possible(const plan *);

/* The next bytes of an archive, and of another one (NULL: there is none), which are hashed side by
 * side. -1 without memory. */
int archive_check_feed(archive_check *, const uint8_t *data, size_t size, archive_check *other,
                       const uint8_t *other_data, size_t other_size);

/* Is what was fed so far the start of the plan's archive? */
int archive_check_holds(const archive_check *);

/* Is it all of that archive? */
int archive_check_complete(const archive_check *);

/* The SHA-256 of all that was fed. */
void archive_check_digest(const archive_check *, uint8_t digest[SHA256_DIGEST]);

void archive_check_free(archive_check *);

#endif
