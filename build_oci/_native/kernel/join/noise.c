#include "noise.h"

#include <string.h>

enum {
    PIECE = 64 * 1024,         /* for less, a Huffman code of its own does not pay */
    SHORTEST_PIECE = 4 * 1024, /* in less, some values are more frequent by chance */
    WINDOW = 32 * 1024,        /* as far as deflate looks back */
    MATCH = 4,                 /* shorter ones hardly pay, and random data has many */
    HASH_BITS = 14,            /* 64 KiB: the table fits into the second-level cache */
    LOG_BITS = 12,             /* fractional bits of a logarithm */
};

static uint32_t load(const uint8_t *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap32(word);
#endif
    return word;
}

/* The binary logarithm of VALUE. Each fractional bit says whether squaring the mantissa reaches
   2. */
static uint32_t logarithm(uint32_t value)
{
    unsigned whole = 31 - (unsigned)__builtin_clz(value);
    /* the mantissa, from 1 to 2, in units of 2 ^ -31 */
    uint64_t x = (uint64_t)value << (31 - whole);
    uint32_t log = whole;
    for (int i = 0; i < LOG_BITS; i++) {
        x = x * x >> 31;
        log = log << 1 | (uint32_t)(x >> 32);
        x >>= x >> 32;
    }
    return log;
}

/* Bytes that an ideal order-0 code saves of DATA. */
static size_t saved_by_code(const uint8_t *data, size_t size)
{
    /* four counters, so that equal bytes in a row do not wait for each other */
    uint32_t counts[4][256] = {{0}};
    size_t i = 0;
    for (; i + 4 <= size; i += 4) {
        counts[0][data[i]]++;
        counts[1][data[i + 1]]++;
        counts[2][data[i + 2]]++;
        counts[3][data[i + 3]]++;
    }
    for (; i < size; i++)
        counts[0][data[i]]++;
    uint64_t bits = (uint64_t)size * logarithm((uint32_t)size);
    for (int value = 0; value < 256; value++) {
        uint32_t count = counts[0][value] + counts[1][value] + counts[2][value] + counts[3][value];
        if (count)
            bits -= (uint64_t)count * logarithm(count);
    }
    bits = (bits >> LOG_BITS) + 1;
    return size > bits / 8 ? size - (size_t)(bits / 8) : 0;
}

int noise_is_incompressible(const uint8_t *data, size_t size)
{
    uint32_t last[1 << HASH_BITS] = {0}; /* position at which each hash was seen last */
    size_t saved = 0, allowed = size * NOISE_PERCENT / 100, at = 0;
    for (size_t piece = 0; piece < size; piece += PIECE) {
        size_t end = size - piece < PIECE ? size : piece + PIECE;
        if (end - piece >= SHORTEST_PIECE)
            saved += saved_by_code(data + piece, end - piece);
        while (saved <= allowed && at < end && size - at >= MATCH) {
            uint32_t word = load(data + at), hash = word * 2654435761u >> (32 - HASH_BITS);
            size_t seen = last[hash];
            last[hash] = (uint32_t)at;
            /* The condition that nearly always holds is first, for branch prediction. */
            if (load(data + seen) != word || seen >= at || at - seen > WINDOW) {
                at++;
                continue;
            }
            size_t length = MATCH;
            while (at + length < size && data[seen + length] == data[at + length])
                length++;
            saved += length;
            at += length;
        }
        if (saved > allowed)
            return 0;
    }
    return 1;
}
