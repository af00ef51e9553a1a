#include "fingerprint.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

typedef unsigned __int128 wide;

static const uint64_t PRIME = ((uint64_t)1 << 61) - 1;

/* VALUE modulo the prime. 2^61 counts as 1 there, so the bits from 61 on are added to those below.
 */
static uint64_t reduce(wide value)
{
    uint64_t folded =
        (uint64_t)(value & PRIME) + (uint64_t)(value >> 61 & PRIME) + (uint64_t)(value >> 122);
    folded = (folded & PRIME) + (folded >> 61);
    return folded >= PRIME ? folded - PRIME : folded;
}

void fingerprint_key_make(fingerprint_key *key)
{
    if (getrandom(key, sizeof *key, GRND_NONBLOCK) != (ssize_t)sizeof *key) {
        /* No random numbers here (an old kernel, a strict sandbox): the time and an address, spread
         * by splitmix64. */
        struct timespec now = {0};
        clock_gettime(CLOCK_MONOTONIC, &now);
        uint64_t seed =
            (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^ (uint64_t)(uintptr_t)key;
        for (size_t i = 0; i < sizeof *key / sizeof seed; i++) {
            uint64_t z = seed += 0x9e3779b97f4a7c15u;
            z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
            z = (z ^ z >> 27) * 0x94d049bb133111ebu;
            z ^= z >> 31;
            memcpy((uint8_t *)key + i * sizeof z, &z, sizeof z);
        }
    }
    key->point = reduce(key->point);
    key->high = reduce(key->high);
}

static inline uint64_t word(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline wide block_sum(const uint64_t *key, const uint8_t *data)
{
    wide even = 0, odd = 0;
    for (size_t i = 0; i < FINGERPRINT_WORDS; i += 4) {
        even += (wide)(word(data + 8 * i) + key[i]) * (word(data + 8 * i + 8) + key[i + 1]);
        odd +=
            (wide)(word(data + 8 * i + 16) + key[i + 2]) * (word(data + 8 * i + 24) + key[i + 3]);
    }
    return even + odd;
}

uint64_t fingerprint_add(const fingerprint_key *key, uint64_t former, const uint8_t *data,
                         size_t size)
{
    while (size) {
        uint8_t padded[FINGERPRINT_BLOCK];
        size_t taken = size < FINGERPRINT_BLOCK ? size : FINGERPRINT_BLOCK;
        const uint8_t *block = data;
        if (taken < FINGERPRINT_BLOCK) {
            memset(padded, 0, sizeof padded);
            memcpy(padded, data, taken);
            block = padded;
        }
        wide sum = block_sum(key->words, block);
        /* Each product stays below 2^125. */
        former = reduce((wide)former * key->point + (wide)(uint64_t)(sum >> 64) * key->high +
                        (uint64_t)sum);
        data += taken;
        size -= taken;
    }
    return former;
}
