/* A zstd frame (RFC 8878, 3.1.1) that was made alone, as a continuation of blocks that come before it in one longer frame. */
#ifndef BUILD_OCI_FRAME_H
#define BUILD_OCI_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum { FRAME_BLOCK_HEADER = 3 };

/* What is to be written for a frame: HEAD, then its bytes from FROM on, with the header of the last block, at LAST, replaced by END. */
typedef struct frame_continuation {
    uint8_t *head; /* blocks written anew; to be freed */
    size_t head_size;
    size_t from; /* the size of the frame, if all its blocks are in the head */
    size_t last;
    uint8_t end[FRAME_BLOCK_HEADER]; /* no longer the last */
} frame_continuation;

typedef enum frame_outcome {
    FRAME_CONTINUED,
    FRAME_MALFORMED,
    FRAME_NO_MEMORY,
} frame_outcome;

/*
 * Works out what continues any frame in the way that the SIZE bytes at FRAME, one whole frame of the PLAIN_SIZE bytes at PLAIN, would by
 * itself. It has no checksum, tells no content size and names no dictionary. A block that is written anew stays below LIMIT, which is at
 * most ZSTD_BLOCK_MAX; where it cannot, it is stored as it is.
 *
 * Its compressor counted on the three offsets that every frame begins with. A reader that comes from other blocks has others: so the
 * blocks that name one of those are written anew, and the distance told in full, until all three have been replaced by the frame's own;
 * and so are those blocks that repeat a table of a block that was.
 */
frame_outcome frame_continue(const uint8_t *frame, size_t size, const uint8_t *plain, size_t plain_size, size_t limit,
                             frame_continuation *out);

#endif
