/* SHA-256 with the SHA extensions of x86-64. See sha256.h. */
#include "sha256.h"

#ifdef SHA256_HAVE_X86

#include <cpuid.h>
#include <immintrin.h>

#define WITH_SHA __attribute__((target("sha,sse4.1,ssse3")))
#define WITH_SHA_INLINE WITH_SHA __attribute__((always_inline)) static inline

/* One message under way, in the order of words that sha256rnds2 wants (the highest lane named
 * first). */
typedef struct stream {
    __m128i abef, cdgh;
    __m128i w[4]; /* the last sixteen words of the message schedule */
} stream;

WITH_SHA_INLINE stream load_state(const uint32_t state[8])
{
    stream s;
    __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    s.abef = _mm_alignr_epi8(cdab, efgh, 8);
    s.cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
    return s;
}

WITH_SHA_INLINE void store_state(uint32_t state[8], const stream *s)
{
    __m128i feba = _mm_shuffle_epi32(s->abef, 0x1B);
    __m128i dchg = _mm_shuffle_epi32(s->cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Rounds 4 * GROUP to 4 * GROUP + 3 of the block at DATA. */
WITH_SHA_INLINE void four_rounds(stream *s, const uint8_t *data, int group)
{
    __m128i *w = &s->w[group & 3];
    if (group < 4) {
        const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
        *w = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * group)), big_endian);
    } else {
        __m128i last = s->w[(group + 3) & 3];
        __m128i seven_ago = _mm_alignr_epi8(last, s->w[(group + 2) & 3], 4);
        *w = _mm_sha256msg2_epu32(
            _mm_add_epi32(_mm_sha256msg1_epu32(*w, s->w[(group + 1) & 3]), seven_ago), last);
    }
    __m128i wk = _mm_add_epi32(*w, _mm_load_si128((const __m128i *)(sha256_rounds + 4 * group)));
    s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, wk);
    s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh, _mm_shuffle_epi32(wk, 0x0E));
}

WITH_SHA static void x86_one(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    stream s = load_state(state);
    for (; blocks; blocks--, data += SHA256_BLOCK) {
        __m128i abef = s.abef, cdgh = s.cdgh;
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++)
            four_rounds(&s, data, group);
        s.abef = _mm_add_epi32(s.abef, abef);
        s.cdgh = _mm_add_epi32(s.cdgh, cdgh);
    }
    store_state(state, &s);
}

/* Each sha256rnds2 waits for the one before it; those of a second message fill the wait. */
WITH_SHA static void x86_two(uint32_t a[8], const uint8_t *da, uint32_t b[8], const uint8_t *db,
                             size_t blocks)
{
    stream sa = load_state(a), sb = load_state(b);
    for (; blocks; blocks--, da += SHA256_BLOCK, db += SHA256_BLOCK) {
        __m128i abef_a = sa.abef, cdgh_a = sa.cdgh, abef_b = sb.abef, cdgh_b = sb.cdgh;
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++) {
            four_rounds(&sa, da, group);
            four_rounds(&sb, db, group);
        }
        sa.abef = _mm_add_epi32(sa.abef, abef_a);
        sa.cdgh = _mm_add_epi32(sa.cdgh, cdgh_a);
        sb.abef = _mm_add_epi32(sb.abef, abef_b);
        sb.cdgh = _mm_add_epi32(sb.cdgh, cdgh_b);
    }
    store_state(a, &sa);
    store_state(b, &sb);
}

/* Where a thread has left something in the upper halves of the vector registers (ISA-L's CRC-32
 * does), instructions like these, which keep them, wait for each other: two messages took 2.8 times
 * as long (EPYC, Zen 4). */
__attribute__((target("avx"), noinline)) static void clear_upper_halves(void)
{
    _mm256_zeroupper();
}

static void avx_one(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    clear_upper_halves();
    x86_one(state, data, blocks);
}

static void avx_two(uint32_t a[8], const uint8_t *da, uint32_t b[8], const uint8_t *db,
                    size_t blocks)
{
    clear_upper_halves();
    x86_two(a, da, b, db, blocks);
}

static const sha256_kernel SHA_NI = {.name = "sha-ni", .one = x86_one, .two = x86_two};
static const sha256_kernel SHA_NI_AND_AVX = {.name = "sha-ni", .one = avx_one, .two = avx_two};
/* Where sixteen take as long as nine or ten by twos. */
static const sha256_kernel SHA_NI_AND_AVX512 = {
    .name = "sha-ni-avx512",
    .one = avx_one,
    .two = avx_two,
    .many = sha256_avx512_sixteen,
    .lanes = 16,
    .least = 10,
};

const sha256_kernel *sha256_kernel_x86(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(1, 0, &eax, &ebx, &ecx, &edx) || !(ecx & bit_SSSE3) ||
        !(ecx & bit_SSE4_1))
        return NULL;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ebx & 1u << 29))
        return NULL;
    return __builtin_cpu_supports("avx") ? &SHA_NI_AND_AVX : &SHA_NI;
}

/* On Intel alone. GB/s of one core with files of 64 KiB: a Xeon (model 167) 2.3 by twos and 4.1 by
 * sixteens; a Zen 4 of AMD, which computes 256 bits at a time, 3.4 by twos and 2.9 by eights. */
const sha256_kernel *sha256_kernel_x86_avx512(void)
{
    return sha256_kernel_x86() && sha256_kernel_avx512() && __builtin_cpu_is("intel")
               ? &SHA_NI_AND_AVX512
               : NULL;
}

#endif
