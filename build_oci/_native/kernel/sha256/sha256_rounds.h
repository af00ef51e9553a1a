/* The rounds of SHA-256 (FIPS 180-4, 6.2.2), for words of one message or for vectors of the same
 * word of several. Macros, for whose arguments a function would need a name for each kind: they use
 * the variables a to h, and w, the last sixteen words of the schedule. */
#ifndef BUILD_OCI_SHA256_ROUNDS_H
#define BUILD_OCI_SHA256_ROUNDS_H

/* Compilers make one instruction of it where the CPU has it. */
#define ROTR(x, n) ((x) >> (n) | (x) << (32 - (n)))

/* Round T + I, for an I below sixteen. The names rotate from one round to the next instead of the
 * values. */
#define ROUND(a, b, c, d, e, f, g, h, t, i)                                        \
    do {                                                                           \
        h += (ROTR(e, 6) ^ ROTR(e, 11) ^ ROTR(e, 25)) + (g ^ (e & (f ^ g))) +      \
             sha256_rounds[(t) + (i)] + w[i];                                      \
        d += h;                                                                    \
        h += (ROTR(a, 2) ^ ROTR(a, 13) ^ ROTR(a, 22)) + ((a & b) | (c & (a | b))); \
    } while (0)

#define EIGHT_ROUNDS(t, i)                       \
    do {                                         \
        ROUND(a, b, c, d, e, f, g, h, t, i + 0); \
        ROUND(h, a, b, c, d, e, f, g, t, i + 1); \
        ROUND(g, h, a, b, c, d, e, f, t, i + 2); \
        ROUND(f, g, h, a, b, c, d, e, t, i + 3); \
        ROUND(e, f, g, h, a, b, c, d, t, i + 4); \
        ROUND(d, e, f, g, h, a, b, c, t, i + 5); \
        ROUND(c, d, e, f, g, h, a, b, t, i + 6); \
        ROUND(b, c, d, e, f, g, h, a, t, i + 7); \
    } while (0)

/* Word I of the sixteen that follow, from EARLY and LATE, which stand one and fourteen behind it:
 * variables, for what is read of w in here, where it is written to, compilers read again and again
 * (a third of the scalar kernel's speed). */
#define NEXT_WORD(i, early, late)                                \
    do {                                                         \
        w[i] += w[((i) + 9) & 15];                               \
        w[i] += ROTR(early, 7) ^ ROTR(early, 18) ^ (early) >> 3; \
        w[i] += ROTR(late, 17) ^ ROTR(late, 19) ^ (late) >> 10;  \
    } while (0)

#endif
