#include "crc64.h"

#include <pthread.h>
#include <string.h>

#define POLYNOMIAL 0xD800000000000000ull

/*
 * Slicing: tables[k][b] is the checksum register that byte B leaves after K further zero bytes.
 * Sixteen bytes then cost sixteen look-ups that do not wait for each other, where byte after byte
 * would cost sixteen that do.
 */
enum { SLICES = 16 };

static uint64_t tables[SLICES][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_tables(void)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint64_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        tables[0][byte] = crc;
    }
    for (int slice = 1; slice < SLICES; slice++)
        for (unsigned byte = 0; byte < 256; byte++)
            tables[slice][byte] =
                tables[slice - 1][byte] >> 8 ^ tables[0][tables[slice - 1][byte] & 255];
}

static uint64_t little_endian(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

uint64_t crc64_update(uint64_t crc, const uint8_t *data, size_t size)
{
    pthread_once(&once, fill_tables);
    crc = ~crc;
    for (; size >= SLICES; data += SLICES, size -= SLICES) {
        uint64_t low = crc ^ little_endian(data), high = little_endian(data + 8);
        uint64_t a = 0, b = 0;
        for (int i = 0; i < 8; i++) {
            a ^= tables[15 - i][low >> 8 * i & 255];
            b ^= tables[7 - i][high >> 8 * i & 255];
        }
        crc = a ^ b;
    }
    while (size--)
        crc = crc >> 8 ^ tables[0][(crc ^ *data++) & 255];
    return ~crc;
}

/* A times B modulo the polynomial. In the reflected order the highest bit is the coefficient of
 * x^0. */
static uint64_t multiply(uint64_t a, uint64_t b)
{
    uint64_t product = 0;
    for (uint64_t bit = 1ull << 63; bit; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1; /* times x */
    }
    return product;
}

uint64_t crc64_combine(uint64_t crc_a, uint64_t crc_b, uint64_t size_b)
{
    /* Shifting A by SIZE_B bytes is multiplying it by x^(8 * SIZE_B), by squaring; the inversions
     * at both ends cancel. */
    uint64_t power = 1ull << 55; /* x^8 */
    for (; size_b; size_b >>= 1) {
        if (size_b & 1)
            crc_a = multiply(crc_a, power);
        power = multiply(power, power);
    }
    return crc_a ^ crc_b;
}
