/* Finds data that deflate cannot make smaller, in a fraction of the time that deflate takes to
   try. */
#ifndef BUILD_OCI_NOISE_H
#define BUILD_OCI_NOISE_H

#include <stddef.h>
#include <stdint.h>

enum { NOISE_PERCENT = 2 };

/*
 * Returns 1 if deflate could save at most NOISE_PERCENT of DATA, which has less than 4 GiB.
 *
 * It estimates, and hardly ever underestimates, what deflate could save: order-0 entropy per piece
 * of 64 KiB, plus the bytes in usable matches. Of the blocks of a root file system, those that pass
 * would have come out 0.4 % smaller, and the worst of them 1.2 %. It stops as soon as the answer is
 * no, which is early for most data. It computes with whole numbers alone, so that every CPU answers
 * the same.
 */
int noise_is_incompressible(const uint8_t *data, size_t size);

#endif
