/* SHA-256 of eight messages at once, a lane of a vector each, for CPUs of x86-64 without the SHA
 * extensions. See sha256.h. */
#include "sha256.h"
#include "sha256_rounds.h"

#ifdef SHA256_HAVE_X86

#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2")))
#define WITH_AVX512 __attribute__((target("avx2,avx512f,avx512vl")))
#define WITH_AVX2_INLINE WITH_AVX2 __attribute__((always_inline)) static inline

/* One word of each message. */
typedef uint32_t words __attribute__((vector_size(32)));

/* Eight words of each message, from AT on, so that each vector is the same word of all. */
WITH_AVX2_INLINE void load_eight(words to[8], const uint8_t *const data[8], size_t at)
{
    const __m256i big_endian = _mm256_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203,
                                                 0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m256i rows[8], pairs[8], fours[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        rows[i] =
            _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(data[i] + at)), big_endian);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        to[i] = (words)_mm256_permute2x128_si256(fours[i], fours[i + 4], 0x20);
        to[i + 4] = (words)_mm256_permute2x128_si256(fours[i], fours[i + 4], 0x31);
    }
}

WITH_AVX2_INLINE void compress_eight(uint32_t *const states[8], const uint8_t *const data[8],
                                     size_t blocks)
{
    union {
        words word[8];
        uint32_t of[8][8]; /* the same word of each message */
    } state;
    for (int message = 0; message < 8; message++)
        for (int i = 0; i < 8; i++)
            state.of[i][message] = states[message][i];
    words a = state.word[0], b = state.word[1], c = state.word[2], d = state.word[3];
    words e = state.word[4], f = state.word[5], g = state.word[6], h = state.word[7];
    for (size_t block = 0; block < blocks; block++) {
        words w[16]; /* the last sixteen words of the message schedule */
        load_eight(w, data, block * SHA256_BLOCK);
        load_eight(w + 8, data, block * SHA256_BLOCK + SHA256_BLOCK / 2);
        for (int t = 0;; t += 16) {
            EIGHT_ROUNDS(t, 0);
            EIGHT_ROUNDS(t, 8);
            if (t == 48)
                break;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                words early = w[(i + 1) & 15], late = w[(i + 14) & 15];
                NEXT_WORD(i, early, late);
            }
        }
        state.word[0] = a += state.word[0];
        state.word[1] = b += state.word[1];
        state.word[2] = c += state.word[2];
        state.word[3] = d += state.word[3];
        state.word[4] = e += state.word[4];
        state.word[5] = f += state.word[5];
        state.word[6] = g += state.word[6];
        state.word[7] = h += state.word[7];
    }
    for (int message = 0; message < 8; message++)
        for (int i = 0; i < 8; i++)
            states[message][i] = state.of[i][message];
}

WITH_AVX2 static void avx2_eight(uint32_t *const states[8], const uint8_t *const data[8],
                                 size_t blocks)
{
    compress_eight(states, data, blocks);
}

WITH_AVX512 static void avx512_eight(uint32_t *const states[8], const uint8_t *const data[8],
                                     size_t blocks)
{
    compress_eight(states, data, blocks);
}

static const sha256_kernel AVX2 = {"avx2", sha256_scalar_one, NULL, avx2_eight};
static const sha256_kernel AVX512 = {"avx512", sha256_scalar_one, NULL, avx512_eight};

/* Both questions are also about the operating system, which has to save the registers. */

const sha256_kernel *sha256_kernel_avx2(void)
{
    return __builtin_cpu_supports("avx2") ? &AVX2 : NULL;
}

const sha256_kernel *sha256_kernel_avx512(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512vl")
               ? &AVX512
               : NULL;
}

#endif
