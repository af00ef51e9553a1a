/*
 * Reads and writes the sequences of a zstd block (RFC 8878, 3.1.1.3.2).
 *
 * A sequence is a number of literals to copy, the distance of a match, and its length. Instead of a
 * distance it may name one of the last three offsets (a repeat offset), so its meaning depends on
 * the blocks before it.
 */
#ifndef BUILD_OCI_ZSTD_SEQUENCES_H
#define BUILD_OCI_ZSTD_SEQUENCES_H

#include <stddef.h>
#include <stdint.h>

enum {
    ZSTD_BLOCK_MAX = 128 * 1024,        /* bytes of a block, compressed or not */
    SEQUENCES_MAX = ZSTD_BLOCK_MAX / 3, /* no match is shorter than three bytes */
    SEQUENCE_ROOM = 10, /* bytes that section_write() takes at most for a sequence */
    FSE_LOG_MAX = 9,
};

/* The three values of a sequence, each with codes, extra bits and a table of its own. All arrays
   have this order. */
enum { LITERAL_LENGTHS, OFFSETS, MATCH_LENGTHS, SEQUENCE_CODES };

/* A decoding table of the finite state entropy coder (4.1): the symbol of each state, and the next
   state. */
typedef struct fse_table {
    uint8_t log; /* 1 << log states */
    struct {
        uint16_t base; /* next state = base + the next `bits` bits of the stream */
        uint8_t symbol, bits;
    } states[1 << FSE_LOG_MAX];
} fse_table;

typedef struct sequence {
    /* the last is 0: without padding, sequences can be compared by memcmp() */
    uint8_t codes[SEQUENCE_CODES + 1];
    uint32_t extra[SEQUENCE_CODES]; /* the value of the extra bits of each code */
} sequence;

/* The sequences section of one block, which follows its literals. */
typedef struct section {
    const uint8_t *data, *end;
    size_t head; /* bytes of the number of sequences */
    size_t count;
    size_t stream; /* bytes from `data` to the bit stream */
    /* true where the section uses the table of an earlier block */
    uint8_t repeated[SEQUENCE_CODES];
} section;

/*
 * Reads the header of the section from DATA to END: the number of sequences, and TABLES, which stay
 * as they are where the section repeats them. Returns 0, or -1 if it is malformed.
 */
int section_begin(section *, const uint8_t *data, const uint8_t *end,
                  fse_table tables[SEQUENCE_CODES]);

/* Decodes the sequences into OUT, which has room for `count`. Returns 0, or -1 if they are
   malformed or do not fill the section exactly. */
int section_read(const section *, const fse_table tables[SEQUENCE_CODES], sequence *out);

/*
 * Writes a section of COUNT sequences with the predefined tables (3.1.1.3.2.2), so that it depends
 * on no other block. OUT has room for SEQUENCE_ROOM * (COUNT + 1) bytes. Returns the size, or 0 if
 * a predefined table lacks a code.
 */
size_t section_write(const sequence *sequences, size_t count, uint8_t *out);

/* The length of the match, in bytes. */
size_t sequence_match_length(const sequence *);

/* The coded offset (3.1.1.5): 1 to 3 name a repeat offset; larger values are the distance + 3. */
uint32_t sequence_offset_value(const sequence *);
void sequence_set_offset_value(sequence *, uint32_t value);

#endif
