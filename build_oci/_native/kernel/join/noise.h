/* Data that deflate cannot make smaller, found in a fraction of the time that it takes to try. */
#ifndef BUILD_OCI_NOISE_H
#define BUILD_OCI_NOISE_H

#include <stddef.h>
#include <stdint.h>

enum { NOISE_PERCENT = 2 };

/*
 * Can no more than NOISE_PERCENT of DATA, which has less than 4 GiB, be saved? That is reckoned, and rather too high, from the entropy of
 * the bytes, piece by piece, and the bytes of matches that deflate could use: of a root file system's blocks, those that are noise by
 * this would have come out 0.4 % smaller, and the worst of them 1.2 %. Stops where the answer is no, which is early for most others.
 * In whole numbers alone, so that every CPU comes to the same.
 */
int is_noise(const uint8_t *data, size_t size);

#endif
