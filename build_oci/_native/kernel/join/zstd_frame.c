#include "zstd_frame.h"

#include "zstd_sequences.h"

#include <stdlib.h>
#include <string.h>

enum { RAW_BLOCK, RLE_BLOCK, COMPRESSED_BLOCK };
enum { LAST_OFFSETS = 3 };

/* A block that is being looked at. */
typedef struct block {
    const uint8_t *data; /* behind its header */
    size_t size;         /* as it is stored */
    size_t told;         /* by the header; of a block that is not compressed, what it stands for */
    unsigned type;
    int last;
} block;

/* Puts what stands at AT into OUT and returns where the next block begins, or NULL. */
static const uint8_t *take_block(block *out, const uint8_t *at, const uint8_t *end)
{
    if (end - at < FRAME_BLOCK_HEADER)
        return NULL;
    uint32_t word = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
    *out = (block){.data = at + FRAME_BLOCK_HEADER, .last = word & 1, .type = word >> 1 & 3, .size = word >> 3, .told = word >> 3};
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
    size_t size; /* in the block; 0: it does not fit */
    size_t stands_for;
    unsigned type;
} literals;

static literals read_literals(const uint8_t *data, size_t size)
{
    literals found = {0};
    unsigned format = size ? data[0] >> 2 & 3 : 0;
    uint64_t word = 0;
    for (size_t i = 0; i < 5 && i < size; i++) /* the longest header */
        word |= (uint64_t)data[i] << 8 * i;
    size_t header, content;
    found.type = word & 3;
    if (found.type < TREE_LITERALS) { /* as they are, or one byte that is repeated */
        header = format == 1 ? 2 : format == 3 ? 3 : 1;
        found.stands_for = (size_t)(header == 1 ? (word & 0xff) >> 3 : (word & (header == 2 ? 0xffff : 0xffffff)) >> 4);
        content = found.type ? 1 : found.stands_for;
    } else {
        unsigned bits = format < 2 ? 10 : format == 2 ? 14 : 18;
        header = format < 2 ? 3 : format == 2 ? 4 : 5;
        found.stands_for = (size_t)(word >> 4 & ((1u << bits) - 1));
        content = (size_t)(word >> (4 + bits) & ((1u << bits) - 1));
    }
    if (header + content < size)
        found.size = header + content;
    return found;
}

/* The last offsets of the compressor that made the frame, and those of a reader, 0 where they are not known. */
typedef struct offsets {
    uint32_t maker[LAST_OFFSETS], reader[LAST_OFFSETS];
} offsets;

/* Which of the last offsets VALUE means, or LAST_OFFSETS for a distance of its own (3.1.1.5). */
static unsigned which_last(uint32_t value, int no_literals)
{
    if (value > LAST_OFFSETS)
        return LAST_OFFSETS;
    return value - 1 + (unsigned)no_literals; /* 3: one less than the newest */
}

static uint32_t resolved(const uint32_t last[LAST_OFFSETS], uint32_t value, int no_literals)
{
    unsigned which = which_last(value, no_literals);
    if (value > LAST_OFFSETS)
        return value - LAST_OFFSETS;
    return which < LAST_OFFSETS ? last[which] : last[0] ? last[0] - 1 : 0;
}

static void remember(uint32_t last[LAST_OFFSETS], uint32_t value, int no_literals, uint32_t distance)
{
    unsigned which = which_last(value, no_literals);
    if (!which)
        return;
    if (which != 1)
        last[2] = last[1];
    last[1] = last[0];
    last[0] = distance;
}

/* Makes Q mean the same for the reader. 1 if it had to be changed, -1 if it means nothing. */
static int translate(offsets *o, sequence *q)
{
    int no_literals = !q->codes[LITERAL_LENGTHS];
    uint32_t value = offset_value(q), distance = resolved(o->maker, value, no_literals);
    if (!distance)
        return -1;
    remember(o->maker, value, no_literals, distance);
    int changed = resolved(o->reader, value, no_literals) != distance;
    if (changed) {
        value = distance + LAST_OFFSETS;
        set_offset_value(q, value);
    }
    remember(o->reader, value, no_literals, distance);
    return changed;
}

static int agree(const offsets *o)
{
    return !memcmp(o->maker, o->reader, sizeof o->maker);
}

typedef struct maker {
    fse_table tables[SEQUENCE_CODES];
    uint8_t replaced[SEQUENCE_CODES]; /* of each kind: has the reader another table than the compressor had? */
    int treeless;                     /* does the reader lack the compressor's tree of literals? */
    offsets offsets;
    sequence *sequences, *again;
    uint8_t *written;
    uint8_t *head;
    size_t head_size, head_room;
    const uint8_t *plain, *plain_end; /* what the frame stands for, from the next block on */
    size_t limit;
} maker;

static int append(maker *m, const uint8_t *data, size_t size)
{
    if (m->head_room - m->head_size < size) {
        size_t room = 2 * (m->head_size + size);
        uint8_t *more = realloc(m->head, room);
        if (!more)
            return -1;
        m->head = more;
        m->head_room = room;
    }
    memcpy(m->head + m->head_size, data, size);
    m->head_size += size;
    return 0;
}

/* B as it stands, but for the mark of the last. */
static int append_block(maker *m, const block *b)
{
    uint8_t header[FRAME_BLOCK_HEADER];
    memcpy(header, b->data - FRAME_BLOCK_HEADER, FRAME_BLOCK_HEADER);
    header[0] &= 0xfe;
    return append(m, header, sizeof header) || append(m, b->data, b->size);
}

/* Beside the outcomes that others are told. */
enum { TOO_LARGE = FRAME_NO_MEMORY + 1 };

/* Writes B anew, with the first COUNT sequences as they now are. */
static int rewrite(maker *m, const block *b, size_t literals, size_t count)
{
    uint8_t header[FRAME_BLOCK_HEADER];
    size_t size = section_write(m->sequences, count, m->written);
    if (!size || literals + size >= m->limit)
        return TOO_LARGE;
    /* A reader would not see a mistake in here, so it is read again. */
    fse_table tables[SEQUENCE_CODES];
    section s;
    if (section_begin(&s, m->written, m->written + size, tables) || s.count != count || section_read(&s, tables, m->again) ||
        memcmp(m->again, m->sequences, count * sizeof *m->again))
        return FRAME_MALFORMED;
    put_block_header(header, (uint32_t)(literals + size), COMPRESSED_BLOCK);
    if (append(m, header, sizeof header) || append(m, b->data, literals) || append(m, m->written, size))
        return FRAME_NO_MEMORY;
    return FRAME_CONTINUED;
}

/* The next SIZE bytes as they are. */
static frame_outcome store(maker *m, size_t size)
{
    uint8_t header[FRAME_BLOCK_HEADER];
    put_block_header(header, (uint32_t)size, RAW_BLOCK);
    return append(m, header, sizeof header) || append(m, m->plain, size) ? FRAME_NO_MEMORY : FRAME_CONTINUED;
}

/* Adds a compressed block to the head: as it is, anew, or what it stands for. */
static frame_outcome continue_compressed(maker *m, const block *b)
{
    literals l = read_literals(b->data, b->size);
    section s;
    if (!l.size || section_begin(&s, b->data + l.size, b->data + b->size, m->tables) || section_read(&s, m->tables, m->sequences))
        return FRAME_MALFORMED;
    uint32_t reader[LAST_OFFSETS];
    memcpy(reader, m->offsets.reader, sizeof reader);
    size_t size = l.stands_for;
    int anew = 0;
    for (int of = 0; s.count && of < SEQUENCE_CODES; of++)
        anew |= s.repeated[of] && m->replaced[of];
    for (size_t i = 0; i < s.count; i++) {
        int changed = translate(&m->offsets, &m->sequences[i]);
        if (changed < 0)
            return FRAME_MALFORMED;
        anew |= changed;
        size += match_length(&m->sequences[i]);
    }
    if (size > ZSTD_BLOCK_MAX || size > (size_t)(m->plain_end - m->plain))
        return FRAME_MALFORMED;
    int outcome = TOO_LARGE;
    if (l.type != TREELESS_LITERALS || !m->treeless)
        outcome = anew ? rewrite(m, b, l.size, s.count) : append_block(m, b) ? FRAME_NO_MEMORY : FRAME_CONTINUED;
    if (outcome == TOO_LARGE) {
        outcome = store(m, size);
        /* The reader is where it was before. */
        memcpy(m->offsets.reader, reader, sizeof reader);
        for (int of = 0; s.count && of < SEQUENCE_CODES; of++)
            m->replaced[of] |= !s.repeated[of];
        m->treeless |= l.type == TREE_LITERALS;
    } else {
        for (int of = 0; s.count && of < SEQUENCE_CODES; of++)
            m->replaced[of] = anew || (m->replaced[of] && s.repeated[of]);
        m->treeless &= l.type != TREE_LITERALS;
    }
    m->plain += size;
    return (frame_outcome)outcome;
}

static frame_outcome continue_block(maker *m, const block *b)
{
    if (b->type == COMPRESSED_BLOCK)
        return continue_compressed(m, b);
    if (b->told > (size_t)(m->plain_end - m->plain))
        return FRAME_MALFORMED;
    m->plain += b->told;
    return append_block(m, b) ? FRAME_NO_MEMORY : FRAME_CONTINUED;
}

static int settled(const maker *m)
{
    return agree(&m->offsets) && !m->treeless && !m->replaced[0] && !m->replaced[1] && !m->replaced[2];
}

static frame_outcome work(maker *m, const uint8_t *frame, size_t size, frame_continuation *out)
{
    static const uint8_t magic[] = {0x28, 0xb5, 0x2f, 0xfd};
    const uint8_t *end = frame + size, *at = frame + sizeof magic + 2;
    if (size < sizeof magic + 2 || memcmp(frame, magic, sizeof magic) || frame[sizeof magic])
        return FRAME_MALFORMED;
    block b = {0};
    int in_head = 1;
    while (!b.last) {
        const uint8_t *from = at;
        if (!(at = take_block(&b, from, end)))
            return FRAME_MALFORMED;
        if (in_head && settled(m)) {
            in_head = 0;
            out->from = (size_t)(from - frame);
        }
        if (in_head) {
            frame_outcome outcome = continue_block(m, &b);
            if (outcome != FRAME_CONTINUED)
                return outcome;
        }
        out->last = (size_t)(from - frame);
    }
    if (at != end || (in_head && m->plain != m->plain_end))
        return FRAME_MALFORMED;
    if (in_head)
        out->from = out->last = size;
    else {
        memcpy(out->end, frame + out->last, FRAME_BLOCK_HEADER);
        out->end[0] &= 0xfe;
    }
    return FRAME_CONTINUED;
}

frame_outcome frame_continue(const uint8_t *frame, size_t size, const uint8_t *plain, size_t plain_size, size_t limit,
                             frame_continuation *out)
{
    *out = (frame_continuation){0};
    maker *m = calloc(1, sizeof *m);
    if (!m)
        return FRAME_NO_MEMORY;
    static const uint32_t first[LAST_OFFSETS] = {1, 4, 8};
    memcpy(m->offsets.maker, first, sizeof first);
    m->plain = plain;
    m->plain_end = plain + plain_size;
    m->limit = limit;
    m->sequences = malloc(SEQUENCES_MAX * sizeof *m->sequences);
    m->again = malloc(SEQUENCES_MAX * sizeof *m->again);
    m->written = malloc(SEQUENCE_ROOM * (SEQUENCES_MAX + 1));
    frame_outcome outcome = m->sequences && m->again && m->written ? work(m, frame, size, out) : FRAME_NO_MEMORY;
    free(m->sequences);
    free(m->again);
    free(m->written);
    if (outcome == FRAME_CONTINUED) {
        out->head = m->head;
        out->head_size = m->head_size;
    } else {
        free(m->head);
    }
    free(m);
    return outcome;
}
