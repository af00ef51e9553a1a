/* SHA-256 digests in lower-case hexadecimal digits. */
#ifndef BUILD_OCI_HEX_H
#define BUILD_OCI_HEX_H

#include <stddef.h>
#include <stdint.h>

enum { HEX_DIGEST = 64 };

static inline void hex_write_digest(const uint8_t digest[32], char out[HEX_DIGEST])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < HEX_DIGEST / 2; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
}

static inline int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The digest that TEXT stands for, into OUT. Is it one? */
static inline int hex_parse_digest(const uint8_t *text, size_t size, uint8_t out[32])
{
    if (size != HEX_DIGEST)
        return 0;
    for (size_t i = 0; i < HEX_DIGEST / 2; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return 0;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return 1;
}

#endif
