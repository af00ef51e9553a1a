/*
 * Decodes the sequences of a zstd block and encodes them again (RFC 8878).
 *
 * Problem. Where zstd_frame.c must change an offset, it needs the sequences of a block as numbers,
 * and must write them so that no table of another block is needed.
 *
 * Picture. The section (3.1.1.3.2), in the order of its bytes:
 *
 *     | count: 1 to 3 bytes | modes: 1 byte | tables: 0 to 3 | bit stream ... 1 0..0 |
 *                             LL OF ML 00                                     ^ mark
 *
 * A mode says where the table of literal lengths, offsets or match lengths comes from:
 * - PREDEFINED: the format defines it
 * - RLE: it has one symbol
 * - COMPRESSED: its distribution stands here
 * - REPEATED: an earlier block has it
 *
 * The bit stream is read backwards, from the highest set bit of the last byte. That bit is only a
 * mark:
 *
 *     first states  | extra bits of sequence 0 | state bits | extra bits of sequence 1 | ...
 *     LL OF ML      | OF ML LL                 | LL ML OF   | OF ML LL                 |
 *
 * A state of a table gives a symbol (a code), and, with some more bits, the next state. After the
 * last sequence no state bits follow. Because the reader starts at the end, section_write() goes
 * from the last sequence to the first, and puts the fields of each in the opposite order.
 *
 * To encode symbol s such that state t follows, the encoder needs the one state of s whose range
 * base .. base + (1 << bits) - 1 holds t. The ranges of a symbol's states are disjoint and cover
 * all states (4.1), so the table `from[s][t]` answers it; with 64 states it takes 3.4 KiB.
 *
 * Invariants.
 * - The probabilities of a distribution sum to 1 << log, where -1 counts as one state. Otherwise
 *   read_table() and make_table() refuse it. So every state of a table has a symbol.
 * - state < 1 << log, because base + the largest value of its bits stays below it.
 * - section_read() accepts a bit stream only if it ends exactly at its first bit.
 * - section_write() is the inverse of section_read(): zstd_frame.c checks that for every block.
 * - Every code has fewer than `symbols` values, which the tables of extra bits cover.
 *
 * Measurement. Decoding and encoding concern only the first blocks of a frame: in shared libraries
 * at level 3, 2.4 % of the bytes (see zstd_frame.c). So this code is short, not fast.
 */
#include "zstd_sequences.h"

#include <assert.h>
#include <string.h>

enum { PREDEFINED, RLE, COMPRESSED, REPEATED }; /* modes of a table (3.1.1.3.2.1) */

/* Extra bits of each code (3.1.1.3.2.1.1). The code of an offset is the number of its extra
   bits. */
static const uint8_t LITERAL_LENGTH_BITS[36] = {0, 0, 0, 0, 0, 0,  0,  0,  0,  0,  0,  0,
                                                0, 0, 0, 0, 1, 1,  1,  1,  2,  2,  3,  3,
                                                4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const uint8_t MATCH_LENGTH_BITS[53] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,  0,  0,  0,  0,  0, 0,
    0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* The predefined distributions (3.1.1.3.2.2). */
static const int16_t LITERAL_LENGTH_DEFAULT[36] = {4, 3, 2, 2, 2, 2, 2, 2, 2,  2,  2,  2,
                                                   2, 1, 1, 1, 2, 2, 2, 2, 2,  2,  2,  2,
                                                   2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1};
static const int16_t OFFSET_DEFAULT[29] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 1,  1,  1,  1,  1, 1,
                                           1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1};
static const int16_t MATCH_LENGTH_DEFAULT[53] = {
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,  1,  1,  1,  1,  1,  1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1};

typedef struct kind {
    unsigned symbols, log_max, default_log;
    const int16_t *defaults;
    unsigned default_symbols;
} kind;

static const kind KINDS[SEQUENCE_CODES] = {
    {36, 9, 6, LITERAL_LENGTH_DEFAULT, 36},
    {32, 8, 5, OFFSET_DEFAULT, 29},
    {53, 9, 6, MATCH_LENGTH_DEFAULT, 53},
};

enum { SYMBOLS_MAX = 53 };

static unsigned extra_bits(int of, unsigned code)
{
    return of == OFFSETS           ? code
           : of == LITERAL_LENGTHS ? LITERAL_LENGTH_BITS[code]
                                   : MATCH_LENGTH_BITS[code];
}

static unsigned highest_bit(uint32_t value)
{
    return 31 - (unsigned)__builtin_clz(value);
}

/* SIZE bits (at most 32) of DATA from bit AT on, the lowest first. Bits after END read as zeros. */
static uint32_t bits_at(const uint8_t *data, const uint8_t *end, size_t at, unsigned size)
{
    uint64_t word = 0;
    size_t left = (size_t)(end - data);
    if (at / 8 >= left)
        return 0;
    memcpy(&word, data + at / 8, left - at / 8 < 8 ? left - at / 8 : 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return (uint32_t)(word >> at % 8 & (((uint64_t)1 << size) - 1));
}

/* Tables. */

/* Makes the table of a distribution (4.1.1). Symbols with the count -1 (rarer than one state) get
   one state each, from the end; the states of the others are spread by a fixed step. Returns -1 if
   the counts do not sum to the number of states. */
static int make_table(fse_table *table, const int16_t *counts, unsigned symbols, unsigned log)
{
    unsigned size = 1u << log, mask = size - 1, high = size - 1, at = 0;
    unsigned next[SYMBOLS_MAX];
    assert(symbols <= SYMBOLS_MAX && log >= 5);
    table->log = (uint8_t)log;
    for (unsigned s = 0; s < symbols; s++) {
        next[s] = counts[s] < 0 ? 1 : (unsigned)counts[s];
        if (counts[s] < 0)
            table->states[high--].symbol = (uint8_t)s;
    }
    for (unsigned s = 0; s < symbols; s++)
        for (int i = 0; i < counts[s]; i++) {
            table->states[at].symbol = (uint8_t)s;
            do
                at = (at + (size >> 1) + (size >> 3) + 3) & mask;
            while (at > high);
        }
    if (at)
        return -1;
    for (unsigned i = 0; i < size; i++) {
        unsigned x = next[table->states[i].symbol]++;
        unsigned bits = log - highest_bit(x);
        table->states[i].bits = (uint8_t)bits;
        table->states[i].base = (uint16_t)((x << bits) - size);
        assert((x << bits) >= size && (x << bits) + (1u << bits) <= 2 * size);
    }
    return 0;
}

/* Reads a distribution at *DATA (4.1.1), makes its table and moves *DATA behind it. */
static int read_table(fse_table *table, const uint8_t **data, const uint8_t *end, const kind *of)
{
    int16_t counts[SYMBOLS_MAX] = {0};
    size_t at = 4;
    unsigned log = 5 + bits_at(*data, end, 0, 4), symbol = 0;
    if (log > of->log_max)
        return -1;
    int left = 1 << log;
    while (left > 0) {
        if (symbol >= of->symbols)
            return -1;
        /* A value is at most left + 1. Where that leaves some of the `bits`-bit numbers unused,
           small values take one bit less. */
        unsigned bits = highest_bit((uint32_t)left + 1) + 1;
        uint32_t small = (1u << bits) - 1 - ((uint32_t)left + 1),
                 value = bits_at(*data, end, at, bits);
        uint32_t low = value & ((1u << (bits - 1)) - 1);
        if (low < small) {
            value = low;
            at += bits - 1;
        } else {
            if (value >= 1u << (bits - 1))
                value -= small;
            at += bits;
        }
        int count = (int)value - 1;
        counts[symbol++] = (int16_t)count;
        left -= count < 0 ? 1 : count;
        if (!count) {
            uint32_t more;
            do {
                more = bits_at(*data, end, at, 2);
                at += 2;
                symbol += more;
            } while (more == 3 && symbol < of->symbols);
        }
    }
    if (left || symbol > of->symbols || (at + 7) / 8 > (size_t)(end - *data))
        return -1;
    *data += (at + 7) / 8;
    return make_table(table, counts, of->symbols, log);
}

static int take_table(fse_table *table, unsigned mode, const uint8_t **data, const uint8_t *end,
                      const kind *of)
{
    switch (mode) {
    case PREDEFINED: return make_table(table, of->defaults, of->default_symbols, of->default_log);
    case RLE:
        if (*data == end || **data >= of->symbols)
            return -1;
        table->log = 0;
        table->states[0].symbol = *(*data)++;
        table->states[0].bits = 0;
        table->states[0].base = 0;
        return 0;
    case COMPRESSED: return read_table(table, data, end, of);
    default: return 0;
    }
}

/* Reading. */

int section_begin(section *s, const uint8_t *data, const uint8_t *end,
                  fse_table tables[SEQUENCE_CODES])
{
    *s = (section){.data = data, .end = end};
    const uint8_t *at = data;
    if (at == end)
        return -1;
    s->count = *at++;
    if (s->count > 127) {
        size_t more = s->count == 255 ? 2 : 1;
        if ((size_t)(end - at) < more)
            return -1;
        s->count =
            more == 1 ? ((s->count - 128) << 8) + at[0] : at[0] + ((size_t)at[1] << 8) + 0x7f00;
        at += more;
    }
    s->head = (size_t)(at - data);
    if (!s->count)
        return at == end ? 0 : -1;
    if (s->count > SEQUENCES_MAX || at == end || *at & 3)
        return -1;
    unsigned modes = *at++;
    for (int of = 0; of < SEQUENCE_CODES; of++) {
        unsigned mode = modes >> (6 - 2 * of) & 3;
        s->repeated[of] = mode == REPEATED;
        if (take_table(&tables[of], mode, &at, end, &KINDS[of]))
            return -1;
    }
    s->stream = (size_t)(at - data);
    return 0;
}

/* Reads a bit stream from its end. */
typedef struct backward_reader {
    const uint8_t *data, *end;
    size_t left;
    int exhausted;
} backward_reader;

static uint32_t take(backward_reader *in, unsigned size)
{
    assert(size <= 32);
    if (size > in->left) {
        in->exhausted = 1;
        return 0;
    }
    in->left -= size;
    return bits_at(in->data, in->end, in->left, size);
}

/* The order of the bits (3.1.1.3.2.1.2): extra bits of a sequence, bits of the next states, first
   states. */
static const uint8_t EXTRA_ORDER[SEQUENCE_CODES] = {OFFSETS, MATCH_LENGTHS, LITERAL_LENGTHS};
static const uint8_t STATE_ORDER[SEQUENCE_CODES] = {LITERAL_LENGTHS, MATCH_LENGTHS, OFFSETS};
static const uint8_t FIRST_ORDER[SEQUENCE_CODES] = {LITERAL_LENGTHS, OFFSETS, MATCH_LENGTHS};

int section_read(const section *s, const fse_table tables[SEQUENCE_CODES], sequence *out)
{
    backward_reader in = {.data = s->data + s->stream, .end = s->end};
    if (!s->count)
        return 0;
    if (in.data == in.end || !in.end[-1])
        return -1;
    /* the highest bit is a mark */
    in.left = 8 * (size_t)(in.end - in.data - 1) + highest_bit(in.end[-1]);
    uint32_t states[SEQUENCE_CODES];
    for (int i = 0; i < SEQUENCE_CODES; i++)
        states[FIRST_ORDER[i]] = take(&in, tables[FIRST_ORDER[i]].log);
    for (size_t n = 0; n < s->count; n++) {
        if (n)
            for (int i = 0; i < SEQUENCE_CODES; i++) {
                int of = STATE_ORDER[i];
                states[of] = tables[of].states[states[of]].base +
                             take(&in, tables[of].states[states[of]].bits);
            }
        out[n].codes[SEQUENCE_CODES] = 0;
        for (int i = 0; i < SEQUENCE_CODES; i++) {
            int of = EXTRA_ORDER[i];
            out[n].codes[of] = tables[of].states[states[of]].symbol;
            out[n].extra[of] = take(&in, extra_bits(of, out[n].codes[of]));
        }
        if (in.exhausted)
            return -1;
    }
    return in.left ? -1 : 0;
}

size_t sequence_match_length(const sequence *q)
{
    size_t length = 3 + q->extra[MATCH_LENGTHS];
    /* each covers as many lengths as its extra bits have values */
    for (unsigned code = 0; code < q->codes[MATCH_LENGTHS]; code++)
        length += (size_t)1 << MATCH_LENGTH_BITS[code];
    return length;
}

uint32_t sequence_offset_value(const sequence *q)
{
    return (1u << q->codes[OFFSETS]) + q->extra[OFFSETS];
}

void sequence_set_offset_value(sequence *q, uint32_t value)
{
    q->codes[OFFSETS] = (uint8_t)highest_bit(value);
    q->extra[OFFSETS] = value - (1u << q->codes[OFFSETS]);
}

/* Writing. */

typedef struct writer {
    uint8_t *next;
    uint64_t bits;
    unsigned held;
} writer;

static void put(writer *out, uint32_t value, unsigned size)
{
    assert(out->held < 8 && size <= 32 && (uint64_t)value >> size == 0);
    out->bits |= (uint64_t)value << out->held;
    out->held += size;
    while (out->held >= 8) {
        *out->next++ = (uint8_t)out->bits;
        out->bits >>= 8;
        out->held -= 8;
    }
}

enum { DEFAULT_STATES = 64 };

/* from[s][t] is the state of symbol s that state t can follow. */
typedef struct fse_encoder {
    fse_table table;
    uint8_t known[SYMBOLS_MAX];
    uint8_t from[SYMBOLS_MAX][DEFAULT_STATES];
} fse_encoder;

static void make_encoder(fse_encoder *encoders, const kind *of)
{
    make_table(&encoders->table, of->defaults, of->default_symbols, of->default_log);
    memset(encoders->known, 0, sizeof encoders->known);
    for (unsigned i = 0; i < 1u << of->default_log; i++) {
        unsigned symbol = encoders->table.states[i].symbol, base = encoders->table.states[i].base;
        encoders->known[symbol] = 1;
        memset(encoders->from[symbol] + base, (int)i, (size_t)1 << encoders->table.states[i].bits);
    }
}

size_t section_write(const sequence *sequences, size_t count, uint8_t *out)
{
    fse_encoder encoders[SEQUENCE_CODES];
    writer w = {.next = out};
    if (count < 128) {
        *w.next++ = (uint8_t)count;
    } else if (count < 0x7f00) {
        *w.next++ = (uint8_t)(128 + (count >> 8));
        *w.next++ = (uint8_t)count;
    } else {
        *w.next++ = 255;
        *w.next++ = (uint8_t)(count - 0x7f00);
        *w.next++ = (uint8_t)((count - 0x7f00) >> 8);
    }
    if (!count)
        return (size_t)(w.next - out);
    *w.next++ = PREDEFINED;
    for (int of = 0; of < SEQUENCE_CODES; of++)
        make_encoder(&encoders[of], &KINDS[of]);
    unsigned states[SEQUENCE_CODES] = {0};
    for (size_t n = count; n-- > 0;) {
        const sequence *q = &sequences[n];
        for (int i = SEQUENCE_CODES; i-- > 0;) {
            int of = STATE_ORDER[i];
            if (!encoders[of].known[q->codes[of]])
                return 0;
            /* No state follows the last sequence, so any state of its symbol serves: the one before
               state 0. */
            unsigned state = encoders[of].from[q->codes[of]][states[of]];
            if (n + 1 < count)
                put(&w, states[of] - encoders[of].table.states[state].base,
                    encoders[of].table.states[state].bits);
            states[of] = state;
        }
        for (int i = SEQUENCE_CODES; i-- > 0;) {
            int of = EXTRA_ORDER[i];
            put(&w, q->extra[of], extra_bits(of, q->codes[of]));
        }
    }
    for (int i = SEQUENCE_CODES; i-- > 0;) {
        int of = FIRST_ORDER[i];
        put(&w, states[of], encoders[of].table.log);
    }
    put(&w, 1, 1);
    if (w.held)
        put(&w, 0, 8 - w.held);
    return (size_t)(w.next - out);
}
