#include "noise.h"

#include <string.h>

enum {
    PIECE = 64 * 1024,  /* a code of its own for less than that does not pay */
    SHORTEST_PIECE = 16 * 1024, /* in less, chance alone makes some values more frequent */
    WINDOW = 32 * 1024, /* as far as deflate looks back */
    MATCH = 4,          /* a shorter one hardly pays, and noise has many */
    HASH_BITS = 14,     /* 64 KiB: the table stays in a core's own cache */
};

static uint32_t load(const uint8_t *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/*
 * Would a code for the single bytes save more than half of NOISE_PERCENT? Not if the sum of the squares of their frequencies is less than
 * 2 ^ (8 / 200) times that of equal ones: what it says of their entropy is never too much.
 */
static int is_uneven(const uint8_t *data, size_t size)
{
    uint32_t counts[4][256] = {{0}}; /* four, so that equal bytes need not wait for each other */
    size_t i = 0;
    for (; i + 4 <= size; i += 4) {
        counts[0][data[i]]++;
        counts[1][data[i + 1]]++;
        counts[2][data[i + 2]]++;
        counts[3][data[i + 3]]++;
    }
    for (; i < size; i++)
        counts[0][data[i]]++;
    uint64_t squares = 0;
    for (int value = 0; value < 256; value++) {
        uint64_t count = (uint64_t)counts[0][value] + counts[1][value] + counts[2][value] + counts[3][value];
        squares += count * count;
    }
    return squares * 256 * 1000 > (uint64_t)size * size * 1028;
}

int is_noise(const uint8_t *data, size_t size)
{
    uint32_t last[1 << HASH_BITS] = {0}; /* where each hash was seen last, and 1 */
    size_t matched = 0, allowed = size * NOISE_PERCENT / 200, at = 0;
    for (size_t piece = 0; piece < size; piece += PIECE) {
        size_t end = size - piece < PIECE ? size : piece + PIECE;
        if (end - piece >= SHORTEST_PIECE && is_uneven(data + piece, end - piece))
            return 0;
        while (at < end && size - at >= MATCH) {
            uint32_t hash = load(data + at) * 2654435761u >> (32 - HASH_BITS);
            size_t seen = last[hash];
            last[hash] = (uint32_t)at + 1;
            if (!seen || at - (seen - 1) > WINDOW || load(data + seen - 1) != load(data + at)) {
                at++;
                continue;
            }
            size_t length = MATCH;
            while (at + length < size && data[seen - 1 + length] == data[at + length])
                length++;
            matched += length;
            at += length;
            if (matched > allowed)
                return 0;
        }
    }
    return 1;
}
