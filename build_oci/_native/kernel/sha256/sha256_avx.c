/* SHA-256 of many messages at once, a lane of a vector each: eight with AVX2, sixteen with AVX-512.
 * See sha256.h. */
#include "sha256.h"
#include "sha256_rounds.h"

#ifdef SHA256_HAVE_X86

#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2")))
#define WITH_AVX2_INLINE WITH_AVX2 __attribute__((always_inline)) static inline
#define WITH_AVX512 __attribute__((target("avx512f,avx512bw")))
#define WITH_AVX512_INLINE WITH_AVX512 __attribute__((always_inline)) static inline

/* One word of each message. */
typedef uint32_t eight_words __attribute__((vector_size(32)));
typedef uint32_t sixteen_words __attribute__((vector_size(64)));

/*
 * Loading turns a square around: a vector that is read has words of one message, a vector of the
 * schedule has the same word of all. With rows of messages a, b, c … and words 0, 1, 2 …:
 *
 *     a0 a1 a2 a3   unpack words    a0 b0 a1 b1   unpack pairs   a0 b0 c0 d0
 *     b0 b1 b2 b3  ------------->   a2 b2 a3 b3  ------------->  a1 b1 c1 d1
 *     c0 c1 c2 c3                   c0 d0 c1 d1                  a2 b2 c2 d2
 *     d0 d1 d2 d3                   c2 d2 c3 d3                  a3 b3 c3 d3
 *
 * The instructions do that in each quarter (half) of a vector alone, so that the quarters are put
 * in their places last.
 */

/* What unpacking makes of COUNT rows, vectors of so many BITS: the quarter (half) q of
 * FOURS[4 * g + k] has word 4 * q + k of messages 4 * g to 4 * g + 3. */
#define UNPACK(BITS, COUNT, rows, fours)                                           \
    do {                                                                           \
        __m##BITS##i pairs[COUNT];                                                 \
        _Pragma("GCC unroll 8") for (int i = 0; i < COUNT; i += 2)                 \
        {                                                                          \
            pairs[i] = _mm##BITS##_unpacklo_epi32(rows[i], rows[i + 1]);           \
            pairs[i + 1] = _mm##BITS##_unpackhi_epi32(rows[i], rows[i + 1]);       \
        }                                                                          \
        _Pragma("GCC unroll 4") for (int i = 0; i < COUNT; i += 4)                 \
        {                                                                          \
            fours[i] = _mm##BITS##_unpacklo_epi64(pairs[i], pairs[i + 2]);         \
            fours[i + 1] = _mm##BITS##_unpackhi_epi64(pairs[i], pairs[i + 2]);     \
            fours[i + 2] = _mm##BITS##_unpacklo_epi64(pairs[i + 1], pairs[i + 3]); \
            fours[i + 3] = _mm##BITS##_unpackhi_epi64(pairs[i + 1], pairs[i + 3]); \
        }                                                                          \
    } while (0)

/* Eight words of each message, from AT on. */
WITH_AVX2_INLINE void load_eight(eight_words to[8], const uint8_t *const *data, size_t at)
{
    const __m256i big_endian = _mm256_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203,
                                                 0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m256i rows[8], fours[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        rows[i] =
            _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(data[i] + at)), big_endian);
    UNPACK(256, 8, rows, fours);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        to[i] = (eight_words)_mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
        to[i + 4] = (eight_words)_mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
    }
}

/* Sixteen words of each message, from AT on. */
WITH_AVX512_INLINE void load_sixteen(sixteen_words to[16], const uint8_t *const *data, size_t at)
{
    const __m512i big_endian =
        _mm512_broadcast_i32x4(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
    __m512i rows[16], fours[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        rows[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(data[i] + at), big_endian);
    UNPACK(512, 16, rows, fours);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        /* The quarters 0 and 1, 2 and 3 of messages 0 to 7, then of 8 to 15. */
        __m512i first = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0x44);
        __m512i second = _mm512_shuffle_i32x4(fours[i], fours[i + 4], 0xee);
        __m512i third = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0x44);
        __m512i fourth = _mm512_shuffle_i32x4(fours[i + 8], fours[i + 12], 0xee);
        to[i] = (sixteen_words)_mm512_shuffle_i32x4(first, third, 0x88);
        to[i + 4] = (sixteen_words)_mm512_shuffle_i32x4(first, third, 0xdd);
        to[i + 8] = (sixteen_words)_mm512_shuffle_i32x4(second, fourth, 0x88);
        to[i + 12] = (sixteen_words)_mm512_shuffle_i32x4(second, fourth, 0xdd);
    }
}

/* The body of a kernel with the arguments `states`, `data` and `blocks`, for LANES messages. LOAD
 * fills W, the last sixteen words of the message schedule, from the block at an offset. */
#define COMPRESS(words, LANES, LOAD)                                        \
    do {                                                                    \
        union {                                                             \
            words word[8];                                                  \
            uint32_t of[8][LANES]; /* the same word of each message */      \
        } state;                                                            \
        for (int message = 0; message < LANES; message++)                   \
            for (int i = 0; i < 8; i++)                                     \
                state.of[i][message] = states[message][i];                  \
        words a = state.word[0], b = state.word[1], c = state.word[2];      \
        words d = state.word[3], e = state.word[4], f = state.word[5];      \
        words g = state.word[6], h = state.word[7];                         \
        for (size_t block = 0; block < blocks; block++) {                   \
            words w[16];                                                    \
            LOAD(w, data, block * SHA256_BLOCK);                            \
            for (int t = 0;; t += 16) {                                     \
                EIGHT_ROUNDS(t, 0);                                         \
                EIGHT_ROUNDS(t, 8);                                         \
                if (t == 48)                                                \
                    break;                                                  \
                _Pragma("GCC unroll 16") for (int i = 0; i < 16; i++)       \
                {                                                           \
                    words early = w[(i + 1) & 15], late = w[(i + 14) & 15]; \
                    NEXT_WORD(i, early, late);                              \
                }                                                           \
            }                                                               \
            state.word[0] = a += state.word[0];                             \
            state.word[1] = b += state.word[1];                             \
            state.word[2] = c += state.word[2];                             \
            state.word[3] = d += state.word[3];                             \
            state.word[4] = e += state.word[4];                             \
            state.word[5] = f += state.word[5];                             \
            state.word[6] = g += state.word[6];                             \
            state.word[7] = h += state.word[7];                             \
        }                                                                   \
        for (int message = 0; message < LANES; message++)                   \
            for (int i = 0; i < 8; i++)                                     \
                states[message][i] = state.of[i][message];                  \
    } while (0)

WITH_AVX2_INLINE void load_block_of_eight(eight_words to[16], const uint8_t *const *data, size_t at)
{
    load_eight(to, data, at);
    load_eight(to + 8, data, at + SHA256_BLOCK / 2);
}

WITH_AVX2 static void avx2_eight(uint32_t *const *states, const uint8_t *const *data, size_t blocks)
{
    COMPRESS(eight_words, 8, load_block_of_eight);
}

WITH_AVX512 void sha256_avx512_sixteen(uint32_t *const *states, const uint8_t *const *data,
                                       size_t blocks)
{
    COMPRESS(sixteen_words, 16, load_sixteen);
}

/* Of fewer messages than `least`, one after the other takes less. */
static const sha256_kernel AVX2 = {
    .name = "avx2",
    .one = sha256_scalar_one,
    .many = avx2_eight,
    .lanes = 8,
    .least = 3,
};
static const sha256_kernel AVX512 = {
    .name = "avx512",
    .one = sha256_scalar_one,
    .many = sha256_avx512_sixteen,
    .lanes = 16,
    .least = 2,
};

/* Both questions are also about the operating system, which has to save the registers. */

const sha256_kernel *sha256_kernel_avx2(void)
{
    return __builtin_cpu_supports("avx2") ? &AVX2 : NULL;
}

const sha256_kernel *sha256_kernel_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? &AVX512 : NULL;
}

#endif
