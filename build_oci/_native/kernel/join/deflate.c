#include "deflate.h"

#include <string.h>

enum {
    LONGEST_CODE = 15,
    LITERALS = 288, /* symbols for literals and match lengths */
    DISTANCES = 32,
    TABLE_BITS = 11, /* of a code that is found with one look into a table */
    LENGTH_BITS = 7, /* the codes of code lengths are no longer than that */
};

/* What a code stands for, in half a word, so that the tables of two streams stay in a core's nearest cache: how many bits it takes with the
   extra bits behind it, and what comes next. */
typedef uint16_t entry;
#define BITS(e) ((e) & 0xff)
enum {
    DISTANCE = 1 << TABLE_BITS, /* a distance comes next, whose table begins so many entries further on */
    SPECIAL = 1 << 15,          /* not for the quick loop: one of these */
    FAR = SPECIAL | 1 << 8,     /* more bits than it counts on */
    END = SPECIAL | 1 << 9,
    LONGER = SPECIAL | 1 << 10, /* the code is longer than the table knows */
    NONE = SPECIAL,             /* no such code */
};

/* The quick loop looks three times into what it has read at once, at least 56 bits. No length takes more than 11 bits and 5 extra ones; of
   two distances with a symbol between them each may take so many. */
enum { QUICK_LOOKS = 3, NEAR_BITS = 20 };
_Static_assert(2 * NEAR_BITS + TABLE_BITS + 5 <= 56 && NEAR_BITS + 2 * (TABLE_BITS + 5) <= 56, "whichever comes first");

/* What a walk bit by bit needs of a Huffman code. */
typedef struct {
    uint16_t count[LONGEST_CODE + 1];
    uint16_t symbols[LITERALS]; /* in the order of their codes */
} code;

typedef struct {
    const uint8_t *next, *end;
    uint64_t bits;
    unsigned held;   /* bits that may be looked at; behind the end of the data they are zeros */
    uint64_t beyond; /* of them, bits that were never there */
} reader;

static inline uint64_t word_at(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline void refill(reader *in)
{
    if (in->end - in->next >= 8) {
        in->bits |= word_at(in->next) << in->held;
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

    if (symbol < 256)
        return (entry)length;
    if (symbol == 256)
        return (entry)(END | length);
    if (symbol > 285)
        return NONE;
    return (entry)(DISTANCE | (length + extra[symbol - 257]));
}

static entry distance_meaning(unsigned symbol, unsigned length)
{
    unsigned bits = length + (symbol < 4 ? 0 : symbol / 2 - 1);

    if (symbol > 29)
        return NONE;
    return (entry)(bits > NEAR_BITS ? FAR | bits : bits);
}

/* The symbol itself stands in the place of what comes next. */
static entry length_meaning(unsigned symbol, unsigned length)
{
    return (entry)(symbol << 8 | length);
}

/* The code whose SYMBOLS symbols have codes of LENGTHS bits (3.2.2), and its table. Returns -1 if there are more codes than can be told apart.

   A code of n bits stands at every index whose lowest n bits it is, its first bit being the lowest. So the table grows with the codes: at n
   bits it is what it was before, twice. */
static int make_code(code *made, entry *table, const uint8_t *lengths, unsigned symbols, unsigned table_bits, meaning mean)
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

            table[next & (size - 1)] = length <= table_bits ? mean(made->symbols[at], length) : LONGER;
            at++;
            while (next & highest) /* one more, its highest bit being the lowest */
                highest >>= 1;
            next = (next & (highest - 1)) | highest;
            if (!highest)
                next = 0; /* that was the last there can be */
        }
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

/* Where the reading of one stream has come to. */
typedef struct {
    reader in;
    const uint8_t *data;
    size_t bytes;
    int last;
    entry before;                  /* what was read last: does a distance come next? */
    entry table[2 << TABLE_BITS]; /* first that of literals and lengths */
    code literals, distances;
    deflate_shape *shape;
} walker;

static int make_codes(walker *walk, const uint8_t *lengths, unsigned literals, unsigned distances)
{
    if (literals > 286 && literals != LITERALS)
        return -1;
    if (make_code(&walk->literals, walk->table, lengths, literals, TABLE_BITS, literal_meaning) != 0)
        return -1;
    return make_code(&walk->distances, walk->table + DISTANCE, lengths + literals, distances, TABLE_BITS, distance_meaning);
}

static int fixed_codes(walker *walk)
{
    uint8_t lengths[LITERALS + DISTANCES];

    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    memset(lengths + LITERALS, 5, DISTANCES);
    return make_codes(walk, lengths, LITERALS, DISTANCES);
}

/* The codes that stand before a block (3.2.7). */
static int read_codes(walker *walk)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[LITERALS + DISTANCES] = {0};
    reader *in = &walk->in;
    unsigned literals, distances, count, at = 0;

    refill(in);
    literals = take(in, 5) + 257;
    distances = take(in, 5) + 1;
    count = take(in, 4) + 4;
    for (unsigned i = 0; i < count; i++) {
        refill(in);
        lengths[order[i]] = (uint8_t)take(in, 3);
    }
    if (literals > 286 || make_code(&walk->literals, walk->table, lengths, 19, LENGTH_BITS, length_meaning) != 0)
        return -1;
    memset(lengths, 0, sizeof lengths);
    while (at < literals + distances) {
        unsigned symbol, repeat = 1, value;
        entry found;

        refill(in);
        found = walk->table[in->bits & ((1 << LENGTH_BITS) - 1)];
        if (found == NONE)
            return -1;
        take(in, BITS(found));
        value = symbol = found >> 8;
        if (symbol >= 16) {
            if (symbol == 16 && at == 0)
                return -1;
            value = symbol == 16 ? lengths[at - 1] : 0;
            repeat = symbol == 16 ? 3 + take(in, 2) : symbol == 17 ? 3 + take(in, 3) : 11 + take(in, 7);
        }
        if (repeat > literals + distances - at)
            return -1;
        memset(lengths + at, (int)value, repeat);
        at += repeat;
    }
    return make_codes(walk, lengths, literals, distances);
}

static int skip_stored(reader *in)
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
    return 0;
}

static void start(walker *walk, const uint8_t *data, size_t size, deflate_shape *shape)
{
    walk->in = (reader){data, data + size, 0, 0, 0};
    walk->data = data;
    walk->bytes = size;
    walk->last = 0;
    walk->before = 0;
    walk->shape = shape;
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
            failed = skip_stored(in);
        else
            failed = type == 3 ? -1 : type == 1 ? fixed_codes(walk) : read_codes(walk);
        if (failed != 0 || position(in, walk->data) > (uint64_t)walk->bytes * 8)
            return -1;
        if (type != 0)
            return 1;
    }
    walk->shape->end = position(in, walk->data);
    return (walk->shape->end + 7) / 8 == walk->bytes ? 0 : -1;
}

/* Reads one symbol or distance of whatever kind. Returns 1 within the block, else what next_block() says of the block after it. */
static int step(walker *walk)
{
    reader *in = &walk->in;
    int distance = walk->before & DISTANCE;
    entry found;

    refill(in);
    if (in->beyond > 64)
        return -1;
    found = walk->table[(in->bits & (DISTANCE - 1)) + (unsigned)distance];
    if (found == LONGER)
        found = distance ? long_code(&walk->distances, in->bits, distance_meaning) : long_code(&walk->literals, in->bits, literal_meaning);
    if (found == NONE)
        return -1;
    take(in, BITS(found));
    walk->before = found;
    if ((found & END) == END)
        return position(in, walk->data) > (uint64_t)walk->bytes * 8 ? -1 : next_block(walk);
    return 1;
}

/* What the quick loop keeps of a walker, in registers. */
typedef struct {
    const uint8_t *next;
    uint64_t bits, held, before;
} quick;

static inline quick quicken(const walker *walk)
{
    return (quick){walk->in.next, walk->in.bits, walk->in.held, walk->before};
}

static inline void settle(walker *walk, const quick *from)
{
    walk->in.next = from->next;
    walk->in.bits = from->bits;
    walk->in.held = (unsigned)from->held;
    walk->before = (entry)from->before;
}

static inline void quick_refill(quick *at)
{
    at->bits |= word_at(at->next) << at->held;
    at->next += (63 - at->held) >> 3;
    at->held |= 56;
}

/* Which table is next is reckoned, not asked: a wrong guess would cost more than the work. Returns whether what was read is special. */
static inline uint64_t quick_look(quick *at, const entry *table)
{
    uint64_t found = table[(at->bits & (DISTANCE - 1)) | (at->before & DISTANCE)];
    at->bits >>= BITS(found);
    at->held -= BITS(found);
    at->before = found;
    return found;
}

static int is_quick(const walker *walk)
{
    return walk->bytes >= 8 && !walk->in.beyond;
}

/* Reads two streams side by side, up to where one of them has something special next or comes to its last bytes: each look into a table
   waits for the one before it, and while one stream waits the other goes on. */
static void step_both(walker *one, walker *two)
{
    quick first = quicken(one), second = quicken(two), first_was = first, second_was = second;

    if (!is_quick(one) || !is_quick(two))
        return;
    const uint8_t *first_end = one->in.end - 8, *second_end = two->in.end - 8;
    while (first.next <= first_end && second.next <= second_end) {
        uint64_t special = 0;

        quick_refill(&first);
        quick_refill(&second);
        first_was = first;
        second_was = second;
        for (int i = 0; i < QUICK_LOOKS; i++)
            special |= quick_look(&first, one->table) | quick_look(&second, two->table);
        if (__builtin_expect(special & SPECIAL, 0)) {
            first = first_was;
            second = second_was;
            break;
        }
    }
    settle(one, &first);
    settle(two, &second);
}

/* The same with one stream. */
static void step_alone(walker *walk)
{
    quick at = quicken(walk), was = at;

    if (!is_quick(walk))
        return;
    const uint8_t *end = walk->in.end - 8;
    while (at.next <= end) {
        uint64_t special = 0;

        quick_refill(&at);
        was = at;
        for (int i = 0; i < QUICK_LOOKS; i++)
            special |= quick_look(&at, walk->table);
        if (__builtin_expect(special & SPECIAL, 0)) {
            at = was;
            break;
        }
    }
    settle(walk, &at);
}

/* Beyond what the quick loop did not do. */
static int steps(walker *walk)
{
    int more = 1;

    for (int i = 0; i < QUICK_LOOKS && more > 0; i++)
        more = step(walk);
    return more;
}

static int finish(walker *walk, int more)
{
    while (more > 0) {
        step_alone(walk);
        more = steps(walk);
    }
    return more;
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
        more = steps(&one);
        other = steps(&two);
    }
    return finish(&one, more) | finish(&two, other);
}

size_t deflate_continue(uint8_t *data, size_t size, const deflate_shape *shape, uint8_t flush[DEFLATE_FLUSH_ROOM])
{
    unsigned used = (unsigned)(shape->end & 7); /* of the last byte; 0: all */
    /* The header of the stored block is three zeros, then zeros up to a whole byte: what pads the last byte does if they fit. */
    size_t whole = used == 0 || used > 5;

    data[shape->last_block / 8] &= (uint8_t) ~(1u << (shape->last_block & 7));
    if (used != 0)
        data[size - 1] &= (uint8_t)((1u << used) - 1);
    flush[0] = 0;
    memcpy(flush + whole, "\0\0\xff\xff", 4);
    return whole + 4;
}
