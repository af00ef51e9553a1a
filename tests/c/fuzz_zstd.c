/*
 * libFuzzer target of frame_make_joinable(). Whatever the bytes, nothing is read outside them. What
 * comes out is whole blocks to its end, and none of them is marked as the last.
 */
#include "zstd_frame.h"
#include "zstd_sequences.h"

#include <stdlib.h>
#include <string.h>

/* Follows block after block to the end of DATA. */
static void check_blocks(const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (at < size) {
        if (size - at < FRAME_BLOCK_HEADER)
            abort();
        uint32_t word = data[at] | (uint32_t)data[at + 1] << 8 | (uint32_t)data[at + 2] << 16;
        size_t stored = (word >> 1 & 3) == 1 ? 1 : word >> 3;
        if (word & 1 || (word >> 1 & 3) == 3 || size - at - FRAME_BLOCK_HEADER < stored)
            abort();
        at += FRAME_BLOCK_HEADER + stored;
    }
}

/* A frame of the bytes behind the first, which says how large a block may be and how much the frame
 * may stand for. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t header[6] = {0x28, 0xb5, 0x2f, 0xfd, 0, 104};
    if (!size)
        return 0;
    size_t limit = data[0] & 1 ? ZSTD_BLOCK_MAX : (size_t)data[0] << 4,
           frame_size = sizeof header + size - 1;
    uint8_t *frame = malloc(frame_size);
    if (!frame)
        abort();
    memcpy(frame, header, sizeof header);
    memcpy(frame + sizeof header, data + 1, size - 1);
    size_t plain_size = (size_t)data[0] << 10;
    uint8_t *plain = calloc(1, plain_size + 1);
    if (!plain)
        abort();
    joinable_frame c;
    if (frame_make_joinable(frame, frame_size, plain, plain_size, limit, &c) == FRAME_JOINABLE) {
        if (c.from > frame_size || c.last > frame_size || c.from > c.last)
            abort();
        size_t made_size = c.head_size + (frame_size - c.from);
        uint8_t *made = malloc(made_size + 1);
        if (!made)
            abort();
        if (c.head_size)
            memcpy(made, c.head, c.head_size);
        memcpy(made + c.head_size, frame + c.from, frame_size - c.from);
        if (c.from < frame_size)
            memcpy(made + c.head_size + (c.last - c.from), c.end, FRAME_BLOCK_HEADER);
        check_blocks(made, made_size);
        free(made);
        free(c.head);
    }
    free(frame);
    free(plain);
    return 0;
}
