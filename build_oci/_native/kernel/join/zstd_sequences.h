/*
 * The sequences of a zstd block (RFC 8878, 3.1.1.3.2), read, and written anew where they cannot stay as they are.
 *
 * A sequence says how many literals to copy, how far back a match is, and how long. It may name one of the last three offsets instead of the
 * distance, so it means something else where other blocks come before it.
 */
#ifndef BUILD_OCI_SEQUENCES_H
#define BUILD_OCI_SEQUENCES_H

#include <stddef.h>
#include <stdint.h>

enum {
    ZSTD_BLOCK_MAX = 128 * 1024, /* bytes of a block, packed or not */
    SEQUENCES_MAX = ZSTD_BLOCK_MAX / 3, /* no match is shorter than three bytes */
    SEQUENCE_ROOM = 10, /* no sequence takes more bytes when it is written anew */
    FSE_LOG_MAX = 9,
};

/* What literal lengths, offsets and match lengths each have: in this order in all that follows. */
enum { LITERAL_LENGTHS, OFFSETS, MATCH_LENGTHS, SEQUENCE_CODES };

/* A table of the finite state entropy coder: what each state stands for, and where it leads. */
typedef struct fse_table {
    uint8_t log; /* 1 << log states */
    struct {
        uint16_t base; /* of the next state, to which the value of so many bits is added */
        uint8_t symbol, bits;
    } states[1 << FSE_LOG_MAX];
} fse_table;

typedef struct sequence {
    uint8_t codes[SEQUENCE_CODES + 1]; /* the last is 0: sequences are compared as they lie in memory, without a gap */
    uint32_t extra[SEQUENCE_CODES]; /* the values of the bits that follow each code */
} sequence;

/* The sequences section of one block, behind its literals. */
typedef struct section {
    const uint8_t *data, *end;
    size_t head; /* bytes that tell the number of sequences */
    size_t count;
    size_t stream; /* from `data` to where the bits begin */
    uint8_t repeated[SEQUENCE_CODES]; /* of each kind: is the table the one of the block before? */
} section;

/*
 * Takes in what comes before the bits of a section, from DATA to END: the number of sequences, and their TABLES, which stay as they are
 * where the block repeats them. -1 where that is not well-formed.
 */
int section_begin(section *, const uint8_t *data, const uint8_t *end, fse_table tables[SEQUENCE_CODES]);

/* The sequences themselves; OUT has room for `count`. -1 where they are not well-formed, or lead beyond the section. */
int section_read(const section *, const fse_table tables[SEQUENCE_CODES], sequence *out);

/*
 * Writes a section of these sequences with the tables that the format itself defines, so that it needs no others; OUT has room for
 * SEQUENCE_ROOM each and as much again. Returns its size, or 0 where a code is not in those tables.
 */
size_t section_write(const sequence *sequences, size_t count, uint8_t *out);

/* Bytes that the match of a sequence is long. */
size_t match_length(const sequence *);

/* The offset as it is coded: 1 to 3 for one of the last three, and above, the distance and 3. */
uint32_t offset_value(const sequence *);
void set_offset_value(sequence *, uint32_t value);

#endif
