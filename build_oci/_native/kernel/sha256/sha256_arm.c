/* SHA-256 with the crypto extension of Armv8. See sha256.h. */
#include "sha256.h"

#ifdef SHA256_HAVE_ARM

#include <arm_neon.h>
#include <sys/auxv.h>

#ifndef HWCAP_SHA2
#define HWCAP_SHA2 (1 << 6)
#endif

/* GCC ties the intrinsics to the whole crypto group, of which only SHA-2 is used here. */
#if defined(__clang__)
#define SHA2 __attribute__((target("sha2")))
#else
#define SHA2 __attribute__((target("+crypto")))
#endif
#define SHA2_INLINE SHA2 __attribute__((always_inline)) static inline

/* One message under way. */
typedef struct stream {
    uint32x4_t abcd, efgh;
    uint32x4_t w[4]; /* the last sixteen words of the message schedule */
} stream;

SHA2_INLINE stream load_state(const uint32_t state[8])
{
    stream s;
    s.abcd = vld1q_u32(state);
    s.efgh = vld1q_u32(state + 4);
    return s;
}

SHA2_INLINE void store_state(uint32_t state[8], const stream *s)
{
    vst1q_u32(state, s->abcd);
    vst1q_u32(state + 4, s->efgh);
}

/* Rounds 4 * GROUP to 4 * GROUP + 3 of the block at DATA. */
SHA2_INLINE void four_rounds(stream *s, const uint8_t *data, int group)
{
    uint32x4_t *w = &s->w[group & 3];
    if (group < 4)
        *w = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * group)));
    else
        *w = vsha256su1q_u32(vsha256su0q_u32(*w, s->w[(group + 1) & 3]), s->w[(group + 2) & 3],
                             s->w[(group + 3) & 3]);
    uint32x4_t wk = vaddq_u32(*w, vld1q_u32(sha256_rounds + 4 * group));
    uint32x4_t abcd = s->abcd;
    s->abcd = vsha256hq_u32(abcd, s->efgh, wk);
    s->efgh = vsha256h2q_u32(s->efgh, abcd, wk);
}

SHA2 static void arm_one(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    stream s = load_state(state);
    for (; blocks; blocks--, data += SHA256_BLOCK) {
        uint32x4_t abcd = s.abcd, efgh = s.efgh;
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++)
            four_rounds(&s, data, group);
        s.abcd = vaddq_u32(s.abcd, abcd);
        s.efgh = vaddq_u32(s.efgh, efgh);
    }
    store_state(state, &s);
}

/* Each group of rounds waits for the one before it; those of a second message fill the wait. */
SHA2 static void arm_two(uint32_t a[8], const uint8_t *da, uint32_t b[8], const uint8_t *db,
                         size_t blocks)
{
    stream sa = load_state(a), sb = load_state(b);
    for (; blocks; blocks--, da += SHA256_BLOCK, db += SHA256_BLOCK) {
        uint32x4_t abcd_a = sa.abcd, efgh_a = sa.efgh, abcd_b = sb.abcd, efgh_b = sb.efgh;
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++) {
            four_rounds(&sa, da, group);
            four_rounds(&sb, db, group);
        }
        sa.abcd = vaddq_u32(sa.abcd, abcd_a);
        sa.efgh = vaddq_u32(sa.efgh, efgh_a);
        sb.abcd = vaddq_u32(sb.abcd, abcd_b);
        sb.efgh = vaddq_u32(sb.efgh, efgh_b);
    }
    store_state(a, &sa);
    store_state(b, &sb);
}

static const sha256_kernel ARMV8_KERNEL = {.name = "armv8", .one = arm_one, .two = arm_two};

const sha256_kernel *sha256_kernel_arm(void)
{
    return getauxval(AT_HWCAP) & HWCAP_SHA2 ? &ARMV8_KERNEL : NULL;
}

#endif
