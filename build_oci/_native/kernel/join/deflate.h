/* The shape of a deflate stream (RFC 1951): where its last block begins and where it ends, found without unpacking it. */
#ifndef BUILD_OCI_DEFLATE_H
#define BUILD_OCI_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

/* Positions in bits from the start of the stream, the first bit of a byte being its lowest. */
typedef struct {
    uint64_t last_block; /* of the header of the block that says it is the last */
    uint64_t end;        /* behind that block */
} deflate_shape;

/* Reads two streams at once, which takes less time than one after the other: each step waits for the one before it. Returns 0, or -1 if one
   of them is not a whole, well-formed stream. */
int deflate_walk_two(const uint8_t *first, size_t first_size, deflate_shape *first_shape, const uint8_t *second, size_t second_size,
                     deflate_shape *second_shape);

/* Most bytes that deflate_continue may ask for. */
enum { DEFLATE_FLUSH_ROOM = 5 };

/* Makes the stream of SIZE bytes at DATA go on after its last block, which is no longer the last. Returns how many bytes of FLUSH are to follow
   it: an empty stored block that brings the stream to a whole byte. */
size_t deflate_continue(uint8_t *data, size_t size, const deflate_shape *shape, uint8_t flush[DEFLATE_FLUSH_ROOM]);

#endif
