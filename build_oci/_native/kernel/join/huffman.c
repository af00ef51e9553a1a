#include "huffman.h"

#include <assert.h>
#include <string.h>

/* Returns the table entry of SYMBOL, whose code has LENGTH bits. */
typedef table_entry (*meaning)(unsigned symbol, unsigned length);

static table_entry literal_meaning(unsigned symbol, unsigned length)
{
    static const uint8_t extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                      2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};

    if (symbol < 256)
        return (table_entry)length;
    if (symbol == 256)
        return (table_entry)(END | length);
    if (symbol > 285)
        return NONE;
    return (table_entry)(DISTANCE | (length + extra[symbol - 257]));
}

static table_entry distance_meaning(unsigned symbol, unsigned length)
{
    unsigned bits = length + (symbol < 4 ? 0 : symbol / 2 - 1);

    if (symbol > 29)
        return NONE;
    return (table_entry)(bits > FAST_DISTANCE_BITS ? FAR | bits : bits);
}

static table_entry length_meaning(unsigned symbol, unsigned length)
{
    return (table_entry)(symbol << 8 | length);
}

/* A code of n bits stands at every index whose lowest n bits it is; its first bit is the lowest. So
   the table doubles with each length: for n bits it is the table of n - 1 bits twice, with the new
   codes put in. */
static int make_code(huffman_code *made, table_entry *table, const uint8_t *lengths,
                     unsigned symbols, unsigned table_bits, meaning mean)
{
    uint16_t offsets[LONGEST_CODE + 2] = {0};
    unsigned symbol, length, at = 0, size = 1, next = 0;
    int left = 1;

    memset(made->count, 0, sizeof made->count);
    for (symbol = 0; symbol < symbols; symbol++)
        made->count[lengths[symbol]]++;
    made->count[0] = 0;
    for (length = 1; length <= LONGEST_CODE; length++) {
        left = 2 * left - made->count[length];
        if (left < 0)
            return -1;
        offsets[length + 1] = (uint16_t)(offsets[length] + made->count[length]);
    }
    for (symbol = 0; symbol < symbols; symbol++)
        if (lengths[symbol])
            made->symbols[offsets[lengths[symbol]]++] = (uint16_t)symbol;

    table[0] = NONE;
    for (length = 1; length <= LONGEST_CODE; length++) {
        if (length <= table_bits) {
            memcpy(table + size, table, size * sizeof *table);
            size *= 2;
        }
        for (unsigned count = made->count[length]; count; count--) {
            unsigned highest = 1u << (length - 1);

            assert(at < LITERALS && made->symbols[at] < symbols);

            table[next & (size - 1)] =
                length <= table_bits ? mean(made->symbols[at], length) : LONGER;
            at++;
            while (next & highest) /* adds one to a number whose bits are reversed */
                highest >>= 1;
            next = (next & (highest - 1)) | highest;
            if (!highest)
                next = 0; /* that was the last possible code */
        }
    }
    return 0;
}

static table_entry long_code(const huffman_code *from, uint64_t bits, meaning mean)
{
    int value = 0, first = 0, index = 0;

    for (unsigned length = 1; length <= LONGEST_CODE; length++, bits >>= 1) {
        value |= (int)(bits & 1);
        if (value - first < from->count[length])
            return mean(from->symbols[index + value - first], length);
        index += from->count[length];
        first = (first + from->count[length]) << 1;
        value <<= 1;
    }
    return NONE;
}

int huffman_make_literals(huffman_code *made, table_entry *table, const uint8_t *lengths,
                          unsigned symbols)
{
    return make_code(made, table, lengths, symbols, TABLE_BITS, literal_meaning);
}

int huffman_make_distances(huffman_code *made, table_entry *table, const uint8_t *lengths,
                           unsigned symbols)
{
    return make_code(made, table, lengths, symbols, TABLE_BITS, distance_meaning);
}

int huffman_make_lengths(huffman_code *made, table_entry *table, const uint8_t *lengths,
                         unsigned symbols)
{
    return make_code(made, table, lengths, symbols, LENGTH_BITS, length_meaning);
}

table_entry huffman_long_literal(const huffman_code *from, uint64_t bits)
{
    return long_code(from, bits, literal_meaning);
}

table_entry huffman_long_distance(const huffman_code *from, uint64_t bits)
{
    return long_code(from, bits, distance_meaning);
}
