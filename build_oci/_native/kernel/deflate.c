#include "deflate.h"

#include <string.h>

enum {
    LONGEST_CODE = 15,
    LITERALS = 288, /* symbols for literals and match lengths */
    DISTANCES = 32,
    LITERAL_BITS = 11, /* of a code that is found with one look into a table */
    DISTANCE_BITS = 9,
    LENGTH_BITS = 7, /* the codes of code lengths are no longer than that */
};

/* What a code stands for, in one word: how many bits it takes with the extra bits behind it (first, since the next look waits for it), how
   many without, what to do, and the bytes of output that it stands for before the extra bits are added. */
typedef uint32_t entry;
#define ENTRY(code, all, kind, base) ((entry)(all) | (entry)(code) << 8 | (entry)(kind) | (entry)(base) << 16)
#define ALL_BITS(e) ((e) & 63)
#define CODE_BITS(e) ((e) >> 8 & 31)
#define BASE(e) ((e) >> 16)
enum {
    LITERAL = 1 << 13, /* no distance follows */
    SPECIAL = 1 << 14, /* not for the quick loop: one of these */
    END = SPECIAL | 1 << 6,
    LONGER = SPECIAL | 1 << 7, /* the code is longer than the table knows */
    NONE = SPECIAL,            /* no such code */
};

/* One Huffman code: a table for short codes, and what a walk bit by bit needs for long ones. */
typedef struct {
    uint16_t count[LONGEST_CODE + 1];
    uint16_t symbols[LITERALS]; /* in the order of their codes */
    entry table[1 << LITERAL_BITS];
} code;

_Static_assert(LITERAL >> 4 == 1 << DISTANCE_BITS, "a literal leads to the half of the distance table where nothing is taken");
_Static_assert(LITERAL_BITS > DISTANCE_BITS, "both halves fit");

typedef struct {
    const uint8_t *next, *end;
    uint64_t bits;
    unsigned held;   /* bits that may be looked at; behind the end of the data they are zeros */
    uint64_t beyond; /* of them, bits that were never there */
} reader;

static inline void refill(reader *in)
{
    if (in->end - in->next >= 8) {
        uint64_t word;
        memcpy(&word, in->next, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
#endif
        in->bits |= word << in->held;
        in->next += (63 - in->held) >> 3;
        in->held |= 56;
        return;
    }
    while (in->held < 56) {
        if (in->next < in->end)
            in->bits |= (uint64_t)*in->next++ << in->held;
        else
            in->beyond += 8;
        in->held += 8;
    }
}

static inline uint32_t take(reader *in, unsigned count)
{
    uint32_t value = (uint32_t)(in->bits & (((uint64_t)1 << count) - 1));
    in->bits >>= count;
    in->held -= count;
    return value;
}

static uint64_t position(const reader *in, const uint8_t *data)
{
    return (uint64_t)(in->next - data) * 8 + in->beyond - in->held;
}

/* What the symbol means whose code is LENGTH bits long. */
typedef entry (*meaning)(unsigned symbol, unsigned length);

static entry literal_meaning(unsigned symbol, unsigned length)
{
    static const uint8_t extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    static const uint16_t base[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                      31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};

    if (symbol < 256)
        return ENTRY(length, length, LITERAL, 1);
    if (symbol == 256)
        return ENTRY(length, length, END, 0);
    if (symbol > 285)
        return NONE;
    return ENTRY(length, length + extra[symbol - 257], 0, base[symbol - 257]);
}

static entry distance_meaning(unsigned symbol, unsigned length)
{
    if (symbol > 29)
        return NONE;
    return ENTRY(length, length + (symbol < 4 ? 0 : symbol / 2 - 1), 0, 0);
}

static entry length_meaning(unsigned symbol, unsigned length)
{
    return ENTRY(length, length, 0, symbol);
}

/* The code whose SYMBOLS symbols have codes of LENGTHS bits (3.2.2). Returns -1 if there are more codes than can be told apart. */
static int make_code(code *made, const uint8_t *lengths, unsigned symbols, unsigned table_bits, meaning mean)
{
    uint16_t offsets[LONGEST_CODE + 2] = {0};
    unsigned next[LONGEST_CODE + 1], length, symbol, first = 0;
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
        first = (first + made->count[length - 1]) << 1;
        next[length] = first;
    }
    for (symbol = 0; symbol < 1u << table_bits; symbol++)
        made->table[symbol] = NONE;
    for (symbol = 0; symbol < symbols; symbol++) {
        unsigned bits, reversed = 0, at;

        length = lengths[symbol];
        if (length == 0)
            continue;
        made->symbols[offsets[length]++] = (uint16_t)symbol;
        for (bits = next[length]++, at = 0; at < length; at++, bits >>= 1)
            reversed = reversed << 1 | (bits & 1);
        if (length > table_bits)
            made->table[reversed & ((1u << table_bits) - 1)] = LONGER;
        else
            for (at = reversed; at < 1u << table_bits; at += 1u << length)
                made->table[at] = mean(symbol, length);
    }
    return 0;
}

/* What a code stands for that is too long for the table, read bit by bit; NONE if there is none. */
static entry long_code(const code *from, uint64_t bits, meaning mean)
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

static int make_distances(code *made, const uint8_t *lengths, unsigned symbols)
{
    /* Behind the table the quick loop looks when no distance follows. */
    memset(made->table + (1 << DISTANCE_BITS), 0, sizeof(entry) << DISTANCE_BITS);
    return make_code(made, lengths, symbols, DISTANCE_BITS, distance_meaning);
}

static int fixed_codes(code *literals, code *distances)
{
    uint8_t lengths[LITERALS];

    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    if (make_code(literals, lengths, LITERALS, LITERAL_BITS, literal_meaning) != 0)
        return -1;
    memset(lengths, 5, DISTANCES);
    return make_distances(distances, lengths, DISTANCES);
}

/* The codes that stand before a block (3.2.7). */
static int read_codes(reader *in, code *literals, code *distances)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[LITERALS + DISTANCES] = {0};
    unsigned literal_count, distance_count, length_count, at = 0;

    refill(in);
    literal_count = take(in, 5) + 257;
    distance_count = take(in, 5) + 1;
    length_count = take(in, 4) + 4;
    for (unsigned i = 0; i < length_count; i++) {
        refill(in);
        lengths[order[i]] = (uint8_t)take(in, 3);
    }
    if (make_code(literals, lengths, 19, LENGTH_BITS, length_meaning) != 0)
        return -1;
    memset(lengths, 0, sizeof lengths);
    while (at < literal_count + distance_count) {
        unsigned symbol, repeat = 1, value;
        entry found;

        refill(in);
        found = literals->table[in->bits & ((1 << LENGTH_BITS) - 1)];
        if (found == NONE)
            return -1;
        take(in, ALL_BITS(found));
        value = symbol = BASE(found);
        if (symbol >= 16) {
            if (symbol == 16 && at == 0)
                return -1;
            value = symbol == 16 ? lengths[at - 1] : 0;
            repeat = symbol == 16 ? 3 + take(in, 2) : symbol == 17 ? 3 + take(in, 3) : 11 + take(in, 7);
        }
        if (repeat > literal_count + distance_count - at)
            return -1;
        memset(lengths + at, (int)value, repeat);
        at += repeat;
    }
    if (literal_count > 286 || make_code(literals, lengths, literal_count, LITERAL_BITS, literal_meaning) != 0)
        return -1;
    return make_distances(distances, lengths + literal_count, distance_count);
}

static int skip_stored(reader *in, uint64_t *size)
{
    uint32_t length, complement;

    take(in, in->held & 7); /* to a whole byte: what is held ends with one */
    refill(in);
    length = take(in, 16);
    complement = take(in, 16);
    if (in->beyond > in->held || (length ^ complement) != 0xffff)
        return -1;
    /* What is held are whole bytes; give them back. */
    in->next -= (in->held - in->beyond) / 8;
    in->bits = in->held = 0;
    in->beyond = 0;
    if (length > (size_t)(in->end - in->next))
        return -1;
    in->next += length;
    *size += length;
    return 0;
}

/* Where the reading of one stream has come to. */
typedef struct {
    reader in;
    const uint8_t *data;
    size_t bytes;
    int last;
    code literals, distances;
    deflate_shape *shape;
} walker;

static void start(walker *walk, const uint8_t *data, size_t size, deflate_shape *shape)
{
    walk->in = (reader){data, data + size, 0, 0, 0};
    walk->data = data;
    walk->bytes = size;
    walk->last = 0;
    walk->shape = shape;
    shape->size = 0;
}

/* Reads up to the first symbol of the next block that has symbols. Returns 1 if there is one, 0 if the stream has ended, -1 if it is bad. */
static int next_block(walker *walk)
{
    reader *in = &walk->in;

    while (!walk->last) {
        uint32_t type;
        int failed;

        refill(in);
        walk->shape->last_block = position(in, walk->data);
        walk->last = (int)take(in, 1);
        type = take(in, 2);
        if (type == 0)
            failed = skip_stored(in, &walk->shape->size);
        else
            failed = type == 3   ? -1
                     : type == 1 ? fixed_codes(&walk->literals, &walk->distances)
                                 : read_codes(in, &walk->literals, &walk->distances);
        if (failed != 0 || position(in, walk->data) > (uint64_t)walk->bytes * 8)
            return -1;
        if (type != 0)
            return 1;
    }
    walk->shape->end = position(in, walk->data);
    return (walk->shape->end + 7) / 8 == walk->bytes ? 0 : -1;
}

/* Reads one symbol of whatever kind. Returns 1 for one within the block, else what next_block() says of the block after it. */
static int step(walker *walk)
{
    reader *in = &walk->in;
    entry found;

    refill(in);
    if (in->beyond > 64)
        return -1;
    found = walk->literals.table[in->bits & ((1 << LITERAL_BITS) - 1)];
    if ((found & LONGER) == LONGER)
        found = long_code(&walk->literals, in->bits, literal_meaning);
    if (found == NONE)
        return -1;
    walk->shape->size += BASE(found) + ((in->bits & (((uint64_t)1 << ALL_BITS(found)) - 1)) >> CODE_BITS(found));
    take(in, ALL_BITS(found));
    if ((found & END) == END)
        return position(in, walk->data) > (uint64_t)walk->bytes * 8 ? -1 : next_block(walk);
    if (found & LITERAL)
        return 1;
    found = walk->distances.table[in->bits & ((1 << DISTANCE_BITS) - 1)];
    if ((found & LONGER) == LONGER)
        found = long_code(&walk->distances, in->bits, distance_meaning);
    if (found == NONE)
        return -1;
    take(in, ALL_BITS(found));
    return 1;
}

/* What the quick loop keeps of a walker, in registers. */
typedef struct {
    const uint8_t *next;
    uint64_t bits, held, total;
} quick;

static inline quick quicken(const walker *walk)
{
    return (quick){walk->in.next, walk->in.bits, walk->in.held, walk->shape->size};
}

static inline void settle(walker *walk, const quick *from)
{
    walk->in.next = from->next;
    walk->in.bits = from->bits;
    walk->in.held = (unsigned)from->held;
    walk->shape->size = from->total;
}

/* Reads a symbol and its distance if one follows, without asking which: a wrong guess would cost more than the work. Returns whether the
   symbol, which is then still to be read, is a special one. */
static inline entry quick_step(quick *at, const entry *literals, const entry *distances)
{
    quick was;
    uint64_t word;
    entry symbol, distance;

    memcpy(&word, at->next, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    at->bits |= word << at->held;
    at->next += (63 - at->held) >> 3;
    at->held |= 56;
    was = *at;
    symbol = literals[at->bits & ((1 << LITERAL_BITS) - 1)];
    at->total += BASE(symbol) + ((at->bits & (((uint64_t)1 << ALL_BITS(symbol)) - 1)) >> CODE_BITS(symbol));
    at->bits >>= ALL_BITS(symbol);
    at->held -= ALL_BITS(symbol);
    distance = distances[(at->bits & ((1 << DISTANCE_BITS) - 1)) | (symbol & LITERAL) >> 4];
    at->bits >>= ALL_BITS(distance);
    at->held -= ALL_BITS(distance);
    if (__builtin_expect((symbol | distance) & SPECIAL, 0)) {
        *at = was;
        return 1;
    }
    return 0;
}

/* Reads two streams side by side, up to where one of them has a special symbol next or comes to its last bytes: each look into a table waits
   for the one before it, and while one stream waits the other goes on. */
static void step_both(walker *one, walker *two)
{
    quick first = quicken(one), second = quicken(two);
    const uint8_t *first_end = one->in.end - 8, *second_end = two->in.end - 8;
    entry special = 0;

    if (one->bytes < 8 || two->bytes < 8 || one->in.beyond || two->in.beyond)
        return;
    while (!special && first.next <= first_end && second.next <= second_end) {
        special = quick_step(&first, one->literals.table, one->distances.table);
        special |= quick_step(&second, two->literals.table, two->distances.table);
    }
    settle(one, &first);
    settle(two, &second);
}

int deflate_walk_two(const uint8_t *first, size_t first_size, deflate_shape *first_shape, const uint8_t *second, size_t second_size,
                     deflate_shape *second_shape)
{
    walker one, two;
    int more, other;

    start(&one, first, first_size, first_shape);
    start(&two, second, second_size, second_shape);
    more = next_block(&one);
    other = next_block(&two);
    while (more > 0 && other > 0) {
        step_both(&one, &two);
        more = step(&one);
        other = step(&two);
    }
    while (more > 0)
        more = step(&one);
    while (other > 0)
        other = step(&two);
    return more | other;
}

size_t deflate_continue(uint8_t *data, size_t size, const deflate_shape *shape)
{
    unsigned used = (unsigned)(shape->end & 7); /* of the last byte; 0: all */

    data[shape->last_block / 8] &= (uint8_t) ~(1u << (shape->last_block & 7));
    /* The header of the stored block is three zeros, then zeros up to a whole byte: what pads the last byte does if they fit. */
    if (used != 0)
        data[size - 1] &= (uint8_t)((1u << used) - 1);
    if (used == 0 || used > 5)
        data[size++] = 0;
    memcpy(data + size, "\0\0\xff\xff", 4);
    return size + 4;
}
