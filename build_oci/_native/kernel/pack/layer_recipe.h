/*
 * The recipe of a layer: the SHA-256 of its archive's headers in order, contents and padding left
 * out.
 *
 * The problem: a layer that an earlier build made is to be used again without packing it. So one
 * has to know, before a byte of content is read, that packing would give the very archive that the
 * earlier layer holds.
 *
 * The picture: an archive A of ours is, for each member, its headers H (an extended header with its
 * records and padding where there is one, then the ustar block), its content C and zeros P up to a
 * whole block; then two blocks of zeros.
 *
 *     A      = H1 C1 P1  H2 C2 P2 ...  Hn Cn Pn  zeros
 *     recipe = SHA-256(H1 H2 ... Hn)
 *
 * Two ways lead to it: recipe_next() (recipe.h) writes the headers of entries whose digests are
 * all known; reader.c takes the raw bytes of the headers out of an archive that streams by
 * (tar_reader_digest_headers).
 *
 * Invariant: if the tar reader took a whole archive B without refusing it, gives a recipe for it,
 * and that is the recipe of the plan of A, then B = A byte for byte. Proof:
 *   1. The recipes are equal, so the concatenated headers are (SHA-256 has no known collisions).
 *   2. Where a header ends, and how long the content behind it is, follows from the bytes of the
 *      headers up to there alone. So both are cut into the same H1 ... Hn, and Ci has the same
 *      length in both.
 *   3. Every Hi of A in front of content holds the record freedesktopsdk.checksum.sha256, and so
 *      does that of B. The tar reader hashes every content and refuses a record that is not its
 *      digest. So both Ci have one SHA-256 and are equal. (Digests in A that were believed are what
 *      packing would write too.)
 *   4. The tar reader gives no recipe where an archive has other padding than zeros, or ends with
 *      anything but two blocks of zeros.
 * Then the digest of B, its diff_id, is that of A. Without the check in 3 (a tar reader that trusts
 * records) this holds as far as the writer of B is trusted.
 */
#ifndef BUILD_OCI_LAYER_RECIPE_H
#define BUILD_OCI_LAYER_RECIPE_H

#include "member.h"
#include "pack.h"

/* In what the first entry that differs does so. */
typedef enum difference {
    DIFFERENCE_NONE,
    DIFFERENCE_NEW,  /* the archive has no such member at this place */
    DIFFERENCE_GONE, /* the plan has no such entry */
    DIFFERENCE_TYPE,
    DIFFERENCE_CONTENT,
    DIFFERENCE_TARGET, /* of a link */
    DIFFERENCE_MODE,
    DIFFERENCE_OWNER,
    DIFFERENCE_MTIME,
    DIFFERENCE_XATTR,
    DIFFERENCE_DEVICE,
} difference;

/*
 * Holds the entries of a plan, from number *AT on, against COUNT members of an archive. Moves *AT
 * to the first that differs: the number of a member for DIFFERENCE_GONE, else of an entry. ENDED:
 * more members do not follow. Digests that are not known count as equal.
 */
difference layer_recipe_difference(const plan *, const member *, size_t count, int ended,
                                   size_t *at);

#endif
