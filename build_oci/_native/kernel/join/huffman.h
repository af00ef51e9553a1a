/*
 * The Huffman codes of a deflate block (RFC 1951, 3.2), as tables. They say how many bits a code
 * takes and what kind of symbol follows, and not what the code stands for.
 *
 * A table entry has 16 bits. With 2 x 2,048 entries a stream, the tables of two streams take 16 KiB
 * and stay in the first-level cache:
 *
 *     bit 15       SPECIAL   the fast loop stops here; one of NONE, FAR, END, LONGER
 *     bit 11       DISTANCE  a length was read: the next code is a distance; the bit, added to the
 *                            index, leads to the table of distances, 1 << 11 entries further on
 *     bit 10       LONGER    with SPECIAL: the code has more than 11 bits
 *     bit  9       END       with SPECIAL: the end of the block
 *     bit  8       FAR       with SPECIAL: a distance of more than FAST_DISTANCE_BITS
 *     bits 7 to 0  bits that the code takes, with the extra bits behind it
 */
#ifndef BUILD_OCI_HUFFMAN_H
#define BUILD_OCI_HUFFMAN_H

#include <stdint.h>

enum {
    LONGEST_CODE = 15,
    LITERALS = 288, /* symbols for literals and match lengths */
    DISTANCES = 32,
    TABLE_BITS = 11,         /* of a code that one look-up finds */
    LENGTH_BITS = 7,         /* of the longest code of a code length */
    FAST_DISTANCE_BITS = 20, /* of a distance that the fast loop takes, with its extra bits */
};

/* What a code means; the bits are laid out above. */
typedef uint16_t table_entry;
#define BITS(e) ((e) & 0xff)
enum {
    DISTANCE = 1 << TABLE_BITS,
    SPECIAL = 1 << 15,
    FAR = SPECIAL | 1 << 8,
    END = SPECIAL | 1 << 9,
    LONGER = SPECIAL | 1 << 10,
    NONE = SPECIAL, /* no such code */
};

/* A Huffman code in the form that is read bit by bit. */
typedef struct {
    uint16_t count[LONGEST_CODE + 1];
    uint16_t symbols[LITERALS]; /* in the order of their codes */
} huffman_code;

/*
 * Each makes the code whose SYMBOLS symbols have codes of LENGTHS bits (3.2.2), and its table: 1 <<
 * TABLE_BITS entries for literals (with match lengths) and distances, 1 << LENGTH_BITS for code
 * lengths, whose entries hold the symbol in bits 15 to 8. Returns -1 if the lengths are
 * oversubscribed: they ask for more codes than exist.
 */
int huffman_make_literals(huffman_code *, table_entry *table, const uint8_t *lengths,
                          unsigned symbols);
int huffman_make_distances(huffman_code *, table_entry *table, const uint8_t *lengths,
                           unsigned symbols);
int huffman_make_lengths(huffman_code *, table_entry *table, const uint8_t *lengths,
                         unsigned symbols);

/* The entry of a code that is too long for the table, read bit by bit from the lowest of BITS; NONE
 * if there is no such code. */
table_entry huffman_long_literal(const huffman_code *, uint64_t bits);
table_entry huffman_long_distance(const huffman_code *, uint64_t bits);

#endif
