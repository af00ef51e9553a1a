/* Joins zstd frames (RFC 8878, 3.1.1) that were compressed separately into one longer frame. */
#ifndef BUILD_OCI_ZSTD_FRAME_H
#define BUILD_OCI_ZSTD_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum { FRAME_BLOCK_HEADER = 3 };

/* What to write for a frame: HEAD, then the bytes of the frame from FROM on, with END in place of
   the header of its last block, at LAST. */
typedef struct joinable_frame {
    uint8_t *head; /* copies of the first blocks; the caller frees */
    size_t head_size;
    size_t from; /* the size of the frame if the head has all its blocks */
    size_t last;
    uint8_t end[FRAME_BLOCK_HEADER]; /* without the mark of the last block */
} joinable_frame;

typedef enum frame_outcome {
    FRAME_JOINABLE,
    FRAME_MALFORMED,
    FRAME_NO_MEMORY,
} frame_outcome;

/*
 * Finds what must be written for FRAME, one whole frame of SIZE bytes that decompresses to PLAIN,
 * so that it can follow any other blocks of a longer frame. FRAME must have no checksum, no content
 * size and no dictionary. A block that must be rewritten and would reach LIMIT bytes (at most
 * ZSTD_BLOCK_MAX) is stored as a raw block.
 *
 * On FRAME_JOINABLE the caller frees out->head. On any other outcome there is nothing to free.
 */
frame_outcome frame_make_joinable(const uint8_t *frame, size_t size, const uint8_t *plain,
                                  size_t plain_size, size_t limit, joinable_frame *out);

#endif
