#include "rolling.h"

#include "grow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum {
    SPLIT_MASK = 0xffff,
    /* added to each byte by the rule; it cancels out of the first sum and leaves a constant in
     * the second */
    OFFSET = 31,
    HOLE_PROBES = 512, /* any hole holds a multiple of this with 8 zero bytes from there on */
};

/*
 * first = the bytes of the window added up.
 * second = 64 * 63 * 31 + each byte times its age, from 1 for the newest to 64 for the oldest. Only
 * 16 bits of it are ever asked for.
 */
typedef struct sums {
    uint32_t first, second;
} sums;

static sums sums_of(const uint8_t window[ROLLING_WINDOW])
{
    sums s = {0, ROLLING_WINDOW * (ROLLING_WINDOW - 1) * OFFSET};
    for (uint32_t i = 0; i < ROLLING_WINDOW; i++) {
        s.first += window[i];
        s.second += (ROLLING_WINDOW - i) * window[i];
    }
    return s;
}

static int splits(sums s)
{
    return (s.second & SPLIT_MASK) == SPLIT_MASK;
}

#if defined(__SSE2__)
/* Each of eight lanes plus all before it. */
static __m128i prefix_sums(__m128i lanes)
{
    lanes = _mm_add_epi16(lanes, _mm_slli_si128(lanes, 2));
    lanes = _mm_add_epi16(lanes, _mm_slli_si128(lanes, 4));
    return _mm_add_epi16(lanes, _mm_slli_si128(lanes, 8));
}

static __m128i last_lane(__m128i lanes)
{
    return _mm_shuffle_epi32(_mm_shufflehi_epi16(lanes, 0xff), 0xff);
}

/*
 * Eight steps at once, in 16 bits, FIRST and SECOND in every lane. With f the prefix sums of what
 * enters less what leaves, step i finds
 *     first + f[i]   and   second + (i + 1) * first + the prefix sums of (f - 64 * what leaves)[i],
 * so that only two additions wait for the eight steps before. Returns the second sums of the steps.
 */
static __m128i roll_eight(__m128i *first, __m128i *second, __m128i in, __m128i out)
{
    __m128i f = prefix_sums(_mm_sub_epi16(in, out));
    __m128i g = prefix_sums(_mm_sub_epi16(f, _mm_slli_epi16(out, 6)));
    __m128i sums = _mm_add_epi16(_mm_add_epi16(*second, g),
                                 _mm_mullo_epi16(*first, _mm_setr_epi16(1, 2, 3, 4, 5, 6, 7, 8)));
    *second = _mm_add_epi16(_mm_add_epi16(*second, _mm_slli_epi16(*first, 3)), last_lane(g));
    *first = _mm_add_epi16(*first, last_lane(f));
    return sums;
}

/* Rolls in as many of SIZE bytes as come in sixteens without the end of a chunk among them; returns
 * how many. */
static size_t roll_plain(sums *s, const uint8_t *p, size_t size)
{
    const __m128i zero = _mm_setzero_si128(), ones = _mm_set1_epi16(-1);
    __m128i first = _mm_set1_epi16((short)s->first), second = _mm_set1_epi16((short)s->second);
    size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        __m128i in = _mm_loadu_si128((const __m128i *)(p + i));
        __m128i out = _mm_loadu_si128((const __m128i *)(p + i - ROLLING_WINDOW));
        __m128i next_first = first, next_second = second;
        __m128i low = roll_eight(&next_first, &next_second, _mm_unpacklo_epi8(in, zero),
                                 _mm_unpacklo_epi8(out, zero));
        __m128i high = roll_eight(&next_first, &next_second, _mm_unpackhi_epi8(in, zero),
                                  _mm_unpackhi_epi8(out, zero));
        if (_mm_movemask_epi8(
                _mm_or_si128(_mm_cmpeq_epi16(low, ones), _mm_cmpeq_epi16(high, ones))))
            break;
        first = next_first;
        second = next_second;
    }
    s->first = (uint32_t)_mm_extract_epi16(first, 0);
    s->second = (uint32_t)_mm_extract_epi16(second, 0);
    return i;
}
#else
static size_t roll_plain(sums *s, const uint8_t *p, size_t size)
{
    (void)s, (void)p, (void)size;
    return 0;
}
#endif

/* Rolls SIZE bytes in at most, with the 64 bytes before them in front of P; stops behind one that
 * ends a chunk. Returns how many it took. */
static size_t roll(sums *s, const uint8_t *p, size_t size, int *found)
{
    size_t i = roll_plain(s, p, size);
    *found = 0;
    for (; i < size; i++) {
        uint32_t gone = p[(ptrdiff_t)i - ROLLING_WINDOW];
        s->first += p[i] - gone;
        s->second += s->first - ROLLING_WINDOW * gone;
        if (splits(*s)) {
            *found = 1;
            return i + 1;
        }
    }
    return i;
}

static size_t leading_zeros(const uint8_t *data, size_t size)
{
    size_t at = 0;
    for (uint64_t word; at + 8 <= size; at += 8) {
        memcpy(&word, data + at, 8);
        if (word)
            break;
    }
    while (at < size && !data[at])
        at++;
    return at;
}

/* Zeros at the end of the SIZE bytes at DATA. */
static size_t trailing_zeros(const uint8_t *data, size_t size)
{
    size_t at = size;
    for (uint64_t word; at >= 8; at -= 8) {
        memcpy(&word, data + at - 8, 8);
        if (word)
            break;
    }
    while (at && !data[at - 1])
        at--;
    return size - at;
}

static int add(cuts *out, size_t start, size_t size, int is_hole)
{
    if (!size)
        return 0;
    if (GROW(&out->items, &out->capacity, out->count + 1))
        return -1;
    assert(!out->count ||
           out->items[out->count - 1].start + out->items[out->count - 1].size == start);
    out->items[out->count++] = (cut){start, size, is_hole};
    return 0;
}

/* The window in front of DATA + AT. */
static void window_at(uint8_t *window, const uint8_t *data, size_t at, const uint8_t *before,
                      size_t before_size)
{
    size_t own = at < ROLLING_WINDOW ? at : ROLLING_WINDOW, rest = ROLLING_WINDOW - own;
    size_t earlier = before_size < rest ? before_size : rest;
    memset(window, 0, rest - earlier);
    if (earlier)
        memcpy(window + rest - earlier, before + before_size - earlier, earlier);
    memcpy(window + rest, data + at - own, own);
}

/* The chunks of the data between two holes, [START, END). */
static int cut_data(cuts *out, const uint8_t *data, size_t start, size_t end, const uint8_t *before,
                    size_t before_size)
{
    if (start == end)
        return 0;
    uint8_t stage[2 * ROLLING_WINDOW];
    window_at(stage, data, start, before, before_size);
    sums s = sums_of(stage);
    size_t chunk = start, at = start;
    if (start < ROLLING_WINDOW) {
        /* Here the window does not lie in DATA. */
        size_t size = end - start < ROLLING_WINDOW ? end - start : ROLLING_WINDOW;
        memcpy(stage + ROLLING_WINDOW, data + start, size);
        for (size_t done = 0; done < size;) {
            int found;
            done += roll(&s, stage + ROLLING_WINDOW + done, size - done, &found);
            at = start + done;
            if (found) {
                if (add(out, chunk, at - chunk, 0))
                    return -1;
                chunk = at;
            }
        }
    }
    while (at < end) {
        int found;
        at += roll(&s, data + at, end - at, &found);
        if (found) {
            if (add(out, chunk, at - chunk, 0))
                return -1;
            chunk = at;
        }
    }
    return add(out, chunk, end - chunk, 0);
}

/* The next hole in [FROM, END) that lies wholly inside; its size, 0 where there is none. */
static size_t next_hole(const uint8_t *data, size_t from, size_t end, size_t *start)
{
    for (size_t at = from; at + 8 <= end; at += HOLE_PROBES) {
        uint64_t word;
        memcpy(&word, data + at, 8);
        if (word)
            continue;
        size_t back = trailing_zeros(data + from, at - from),
               size = back + leading_zeros(data + at, end - at);
        if (size >= HOLE_MIN) {
            *start = at - back;
            return size;
        }
    }
    return 0;
}

int rolling_cut(cuts *out, const uint8_t *data, size_t size, const uint8_t *before,
                size_t before_size, const uint8_t *after, size_t after_size, int *starts_chunk)
{
    size_t earlier = trailing_zeros(before, before_size), later = leading_zeros(after, after_size);
    size_t head = leading_zeros(data, size);
    int is_zero = head == size;
    size_t tail = is_zero ? 0 : trailing_zeros(data, size);
    int head_is_hole = head && head + earlier + (is_zero ? later : 0) >= HOLE_MIN;
    int tail_is_hole = tail && tail + later >= HOLE_MIN;

    int was_in_hole = earlier && earlier + head + (is_zero ? later : 0) >= HOLE_MIN;
    *starts_chunk = was_in_hole != head_is_hole;
    if (!before_size) {
        *starts_chunk = 1;
    } else if (!was_in_hole && !head_is_hole) {
        uint8_t window[ROLLING_WINDOW];
        window_at(window, data, 0, before, before_size);
        *starts_chunk = splits(sums_of(window));
    }

    size_t at = 0, end = tail_is_hole ? size - tail : size;
    if (head_is_hole) {
        if (add(out, 0, head, 1))
            return -1;
        at = head;
    }
    while (at < end) {
        size_t start = end, hole = next_hole(data, at, end, &start);
        if (!hole)
            start = end;
        if (cut_data(out, data, at, start, before, before_size) || add(out, start, hole, 1))
            return -1;
        at = start + hole;
    }
    return tail_is_hole ? add(out, end, tail, 1) : 0;
}
