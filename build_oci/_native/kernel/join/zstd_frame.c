/*
 * Lets the blocks of a zstd frame follow any other blocks of one longer frame (RFC 8878, 3.1.1).
 *
 * Problem. Each block of a layer is compressed by itself into a whole frame, by any thread. A
 * reader of the layer shall find one frame. But blocks of a frame depend on earlier blocks in three
 * ways:
 * - repeat offsets (3.1.1.5): a sequence may name one of the last three offsets. A frame starts
 *   with 1, 4 and 8; in the joined frame a decoder holds the last offsets of the frame before.
 * - tables of sequences: a block may repeat (mode REPEATED) the tables of an earlier block.
 * - the Huffman tree of literals: a block may use that of an earlier one (treeless literals).
 *
 * Picture. `head` holds copies of the first blocks; the rest of the frame is used as it is:
 *
 *     frame:    | header | block 0 | block 1 | block 2 | ... | block n, last |
 *     joinable:          | block 0'| block 1'| block 2 | ... | block n       |
 *                          |------ head ------|-- unchanged, but for the mark of the last --|
 *                                             ^ from
 *
 * This file simulates two decoders: `compressor`, the decoder that the compressor counted on, and
 * `decoder`, the one that comes from unknown blocks; its unknown offsets are 0. For each block:
 *
 *     tree of treeless   sequences and tables   rewritten block    result
 *     literals is there  mean the same          is below limit
 *     no                 -                      -                  store: a raw block of its data
 *     yes                yes                    -                  copy
 *     yes                no                     yes                rewrite: distances in full,
 *                                                                  predefined tables
 *     yes                no                     no                 store
 *
 * Why joining is sound. As soon as both decoders have equal offsets, equal tables and an equal
 * tree, they are in the same state, so all later blocks mean the same. settled() tests exactly
 * this. Matches reach no further back than the start of the frame's own data, which is also there
 * in the joined frame. docs/internals/joining.md decodes an example byte by byte.
 *
 * Invariants.
 * - A block in the head never depends on anything before the frame: offsets that are named are
 *   known.
 * - stale_table[k]: a decoder of the joined frame holds another table k than this frame's
 *   compressor assumed. Rewriting a block sets it (the decoder now has the predefined table),
 *   storing a block with a new table sets it, copying a block with a new table clears it.
 *   stale_tree likewise.
 * - Storing a block leaves the decoder's offsets alone, because a raw block has no sequences.
 * - Every rewritten block is decoded again and compared, because a wrong one may be a valid block
 *   of other data: no decoder would notice, only the digest of the layer (diff_id).
 *
 * Measurement. 8 MiB of shared libraries at level 3: 0.4 ms, 0.3 % of the time of compressing them.
 * 2.4 % of the bytes are in heads, and the stream is 0.1 % larger than the frames.
 */
#include "zstd_frame.h"

#include "grow.h"
#include "zstd_sequences.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { RAW_BLOCK, RLE_BLOCK, COMPRESSED_BLOCK };
enum { REPEAT_OFFSETS = 3 };

/* A block of the frame (3.1.1.2). */
typedef struct block {
    const uint8_t *data; /* after its header */
    size_t size;         /* in the frame, without the header */
    size_t size_field;   /* in the header: of a raw or RLE block, its decompressed size */
    unsigned type;
    int last;
} block;

/* Reads the block at AT into OUT. Returns the start of the next block, or NULL if this one is
   malformed. */
static const uint8_t *take_block(const uint8_t *at, const uint8_t *end, block *out)
{
    if (end - at < FRAME_BLOCK_HEADER)
        return NULL;
    uint32_t word = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
    *out = (block){.data = at + FRAME_BLOCK_HEADER,
                   .last = word & 1,
                   .type = word >> 1 & 3,
                   .size = word >> 3,
                   .size_field = word >> 3};
    if (out->type > COMPRESSED_BLOCK || out->size > ZSTD_BLOCK_MAX)
        return NULL;
    if (out->type == RLE_BLOCK)
        out->size = 1;
    return (size_t)(end - out->data) < out->size ? NULL : out->data + out->size;
}

static void put_block_header(uint8_t *out, uint32_t size, unsigned type)
{
    uint32_t word = size << 3 | type << 1;
    out[0] = (uint8_t)word;
    out[1] = (uint8_t)(word >> 8);
    out[2] = (uint8_t)(word >> 16);
}

enum { TREE_LITERALS = 2, TREELESS_LITERALS = 3 };

/* The literals section (3.1.1.3.1) that a compressed block begins with. */
typedef struct literals {
    size_t size;       /* in the block; 0: it does not fit */
    size_t plain_size; /* decompressed */
    unsigned type;
} literals;

static literals read_literals(const uint8_t *data, size_t size)
{
    literals found = {0};
    unsigned format = size ? data[0] >> 2 & 3 : 0;
    uint64_t word = 0;
    for (size_t i = 0; i < 5 && i < size; i++) /* 5: the longest header */
        word |= (uint64_t)data[i] << 8 * i;
    size_t header, content;
    found.type = word & 3;
    if (found.type < TREE_LITERALS) { /* raw, or one byte that is repeated */
        header = format == 1 ? 2 : format == 3 ? 3 : 1;
        found.plain_size = (size_t)(header == 1 ? (word & 0xff) >> 3
                                                : (word & (header == 2 ? 0xffff : 0xffffff)) >> 4);
        content = found.type ? 1 : found.plain_size;
    } else {
        unsigned bits = format < 2 ? 10 : format == 2 ? 14 : 18;
        header = format < 2 ? 3 : format == 2 ? 4 : 5;
        found.plain_size = (size_t)(word >> 4 & ((1u << bits) - 1));
        content = (size_t)(word >> (4 + bits) & ((1u << bits) - 1));
    }
    if (header + content < size)
        found.size = header + content;
    return found;
}

/* The repeat offsets, newest first: those that the compressor counted on, and those of a decoder of
   the joined frame; 0 is unknown. */
typedef struct offsets {
    uint32_t compressor[REPEAT_OFFSETS], decoder[REPEAT_OFFSETS];
} offsets;

/* Which repeat offset VALUE names (3.1.1.5); REPEAT_OFFSETS if it is a distance, or the newest
   offset less one. */
static unsigned repeat_index(uint32_t value, int no_literals)
{
    if (value > REPEAT_OFFSETS)
        return REPEAT_OFFSETS;
    return value - 1 + (unsigned)no_literals;
}

/* The distance that VALUE means; 0 if it is unknown. */
static uint32_t resolve(const uint32_t last[REPEAT_OFFSETS], uint32_t value, int no_literals)
{
    unsigned which = repeat_index(value, no_literals);
    if (value > REPEAT_OFFSETS)
        return value - REPEAT_OFFSETS;
    return which < REPEAT_OFFSETS ? last[which] : last[0] ? last[0] - 1 : 0;
}

/* Brings the repeat offsets up to date after a match at DISTANCE that was coded as VALUE. */
static void push_offset(uint32_t last[REPEAT_OFFSETS], uint32_t value, int no_literals,
                        uint32_t distance)
{
    unsigned which = repeat_index(value, no_literals);
    if (!which)
        return;
    if (which != 1)
        last[2] = last[1];
    last[1] = last[0];
    last[0] = distance;
}

/* Makes Q mean the same for the decoder. Returns 1 if it had to be changed, 0 if not, -1 if it is
   malformed. */
static int translate(offsets *o, sequence *q)
{
    int no_literals = !q->codes[LITERAL_LENGTHS];
    uint32_t value = sequence_offset_value(q),
             distance = resolve(o->compressor, value, no_literals);
    if (!distance)
        return -1;
    push_offset(o->compressor, value, no_literals, distance);
    int changed = resolve(o->decoder, value, no_literals) != distance;
    if (changed) {
        value = distance + REPEAT_OFFSETS;
        sequence_set_offset_value(q, value);
    }
    assert(resolve(o->decoder, value, no_literals) == distance);
    push_offset(o->decoder, value, no_literals, distance);
    return changed;
}

static int offsets_agree(const offsets *o)
{
    return !memcmp(o->compressor, o->decoder, sizeof o->compressor);
}

typedef struct joiner {
    fse_table tables[SEQUENCE_CODES];
    /* the decoder holds another table than the compressor assumed */
    uint8_t stale_table[SEQUENCE_CODES];
    int stale_tree; /* the decoder lacks the compressor's Huffman tree */
    offsets offsets;
    sequence *sequences; /* of the current block */
    sequence *reread;    /* those of a rewritten block, decoded again */
    uint8_t *written;    /* the section of a rewritten block */
    uint8_t *head;
    size_t head_size, head_capacity;
    const uint8_t *plain, *plain_end; /* the decompressed data from the current block on */
    size_t limit;                     /* bytes that a rewritten block must stay below */
} joiner;

static int append(joiner *j, const uint8_t *data, size_t size)
{
    if (GROW(&j->head, &j->head_capacity, j->head_size + size))
        return -1;
    memcpy(j->head + j->head_size, data, size);
    j->head_size += size;
    return 0;
}

/* Appends B unchanged, but for the mark of the last block. */
static int append_block(joiner *j, const block *b)
{
    uint8_t header[FRAME_BLOCK_HEADER];
    memcpy(header, b->data - FRAME_BLOCK_HEADER, FRAME_BLOCK_HEADER);
    header[0] &= 0xfe;
    return append(j, header, sizeof header) || append(j, b->data, b->size);
}

/* An outcome of rewrite() alone: the block must be stored. */
enum { TOO_LARGE = FRAME_NO_MEMORY + 1 };

/* Appends B with its literals as they are and its COUNT sequences as they now are. */
static int rewrite(joiner *j, const block *b, size_t literals, size_t count)
{
    uint8_t header[FRAME_BLOCK_HEADER];
    size_t size = section_write(j->sequences, count, j->written);
    if (!size || literals + size >= j->limit)
        return TOO_LARGE;
    /* No reader would notice a mistake made here, so decode and compare. */
    fse_table tables[SEQUENCE_CODES];
    section s;
    if (section_begin(&s, j->written, j->written + size, tables) || s.count != count ||
        section_read(&s, tables, j->reread) ||
        memcmp(j->reread, j->sequences, count * sizeof *j->reread))
        return FRAME_MALFORMED;
    put_block_header(header, (uint32_t)(literals + size), COMPRESSED_BLOCK);
    if (append(j, header, sizeof header) || append(j, b->data, literals) ||
        append(j, j->written, size))
        return FRAME_NO_MEMORY;
    return FRAME_JOINABLE;
}

/* Appends the next SIZE decompressed bytes as a raw block. */
static frame_outcome store(joiner *j, size_t size)
{
    uint8_t header[FRAME_BLOCK_HEADER];
    put_block_header(header, (uint32_t)size, RAW_BLOCK);
    return append(j, header, sizeof header) || append(j, j->plain, size) ? FRAME_NO_MEMORY
                                                                         : FRAME_JOINABLE;
}

/* Appends a compressed block to the head: copied, rewritten or stored, by the table at the top. */
static frame_outcome join_compressed(joiner *j, const block *b)
{
    literals l = read_literals(b->data, b->size);
    section s;
    if (!l.size || section_begin(&s, b->data + l.size, b->data + b->size, j->tables) ||
        section_read(&s, j->tables, j->sequences))
        return FRAME_MALFORMED;
    uint32_t decoder[REPEAT_OFFSETS];
    memcpy(decoder, j->offsets.decoder, sizeof decoder);
    size_t size = l.plain_size;
    int rewritten = 0;
    for (int of = 0; s.count && of < SEQUENCE_CODES; of++)
        rewritten |= s.repeated[of] && j->stale_table[of];
    for (size_t i = 0; i < s.count; i++) {
        int changed = translate(&j->offsets, &j->sequences[i]);
        if (changed < 0)
            return FRAME_MALFORMED;
        rewritten |= changed;
        size += sequence_match_length(&j->sequences[i]);
    }
    if (size > ZSTD_BLOCK_MAX || size > (size_t)(j->plain_end - j->plain))
        return FRAME_MALFORMED;
    int outcome = TOO_LARGE;
    if (l.type != TREELESS_LITERALS || !j->stale_tree)
        outcome = rewritten            ? rewrite(j, b, l.size, s.count)
                  : append_block(j, b) ? FRAME_NO_MEMORY
                                       : FRAME_JOINABLE;
    if (outcome == TOO_LARGE) {
        outcome = store(j, size);
        /* A raw block leaves the decoder in the state that it had. */
        memcpy(j->offsets.decoder, decoder, sizeof decoder);
        for (int of = 0; s.count && of < SEQUENCE_CODES; of++)
            j->stale_table[of] |= !s.repeated[of];
        j->stale_tree |= l.type == TREE_LITERALS;
    } else {
        for (int of = 0; s.count && of < SEQUENCE_CODES; of++)
            j->stale_table[of] = rewritten || (j->stale_table[of] && s.repeated[of]);
        j->stale_tree &= l.type != TREE_LITERALS;
    }
    j->plain += size;
    return (frame_outcome)outcome;
}

static frame_outcome join_block(joiner *j, const block *b)
{
    if (b->type == COMPRESSED_BLOCK)
        return join_compressed(j, b);
    if (b->size_field > (size_t)(j->plain_end - j->plain))
        return FRAME_MALFORMED;
    j->plain += b->size_field;
    return append_block(j, b) ? FRAME_NO_MEMORY : FRAME_JOINABLE;
}

/* True once the decoder is in the state that the compressor assumed, so that no later block needs a
   change. */
static int settled(const joiner *j)
{
    return offsets_agree(&j->offsets) && !j->stale_tree && !j->stale_table[0] &&
           !j->stale_table[1] && !j->stale_table[2];
}

static frame_outcome join_blocks(joiner *j, const uint8_t *frame, size_t size, joinable_frame *out)
{
    static const uint8_t magic[] = {0x28, 0xb5, 0x2f, 0xfd};
    const uint8_t *end = frame + size, *at = frame + sizeof magic + 2;
    if (size < sizeof magic + 2 || memcmp(frame, magic, sizeof magic) || frame[sizeof magic])
        return FRAME_MALFORMED;
    block b = {0};
    int in_head = 1;
    while (!b.last) {
        const uint8_t *from = at;
        if (!(at = take_block(from, end, &b)))
            return FRAME_MALFORMED;
        if (in_head && settled(j)) {
            in_head = 0;
            out->from = (size_t)(from - frame);
        }
        if (in_head) {
            frame_outcome outcome = join_block(j, &b);
            if (outcome != FRAME_JOINABLE)
                return outcome;
        }
        out->last = (size_t)(from - frame);
    }
    if (at != end || (in_head && j->plain != j->plain_end))
        return FRAME_MALFORMED;
    assert(!in_head || j->plain <= j->plain_end);
    if (in_head) {
        out->from = out->last = size;
    } else {
        memcpy(out->end, frame + out->last, FRAME_BLOCK_HEADER);
        out->end[0] &= 0xfe;
    }
    return FRAME_JOINABLE;
}

frame_outcome frame_make_joinable(const uint8_t *frame, size_t size, const uint8_t *plain,
                                  size_t plain_size, size_t limit, joinable_frame *out)
{
    *out = (joinable_frame){0};
    joiner *j = calloc(1, sizeof *j);
    if (!j)
        return FRAME_NO_MEMORY;
    static const uint32_t first[REPEAT_OFFSETS] = {1, 4, 8};
    memcpy(j->offsets.compressor, first, sizeof first);
    j->plain = plain;
    j->plain_end = plain + plain_size;
    j->limit = limit;
    assert(limit <= ZSTD_BLOCK_MAX);
    j->sequences = malloc(SEQUENCES_MAX * sizeof *j->sequences);
    j->reread = malloc(SEQUENCES_MAX * sizeof *j->reread);
    j->written = malloc(SEQUENCE_ROOM * (SEQUENCES_MAX + 1));
    frame_outcome outcome = j->sequences && j->reread && j->written
                                ? join_blocks(j, frame, size, out)
                                : FRAME_NO_MEMORY;
    free(j->sequences);
    free(j->reread);
    free(j->written);
    if (outcome == FRAME_JOINABLE) {
        out->head = j->head;
        out->head_size = j->head_size;
    } else {
        free(j->head);
    }
    free(j);
    return outcome;
}
