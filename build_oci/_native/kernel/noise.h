/* Data that deflate cannot make smaller, found in a fraction of the time that it takes to try. */
#ifndef BUILD_OCI_NOISE_H
#define BUILD_OCI_NOISE_H

#include <stddef.h>
#include <stdint.h>

enum { NOISE_PERCENT = 1 };

/*
 * Is there so little in DATA that its bytes are worth 1 - NOISE_PERCENT / 100 of their number at the least? That is when all byte values are
 * about as frequent, in each piece of it, and hardly a byte is part of a match that deflate could use. Stops where the answer is no, which
 * is early for most of what is not noise.
 */
int is_noise(const uint8_t *data, size_t size);

#endif
