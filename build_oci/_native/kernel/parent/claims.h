/* Names that two images have, where at least one of them has no directory: put on top of each
 * other, one of the two is lost. */
#ifndef BUILD_OCI_CLAIMS_H
#define BUILD_OCI_CLAIMS_H

#include "lower.h"

/* How many there are into *COUNT, and the first MOST of them, as RIGHT has them, into NAMED. -1
 * without memory. */
int claims_in_both(const lower *left, const lower *right, const lower_node **named, size_t most,
                   size_t *count);

#endif
