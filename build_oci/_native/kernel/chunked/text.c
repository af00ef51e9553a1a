#include "text.h"

#include "grow.h"
#include "hex.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* SIZE bytes to write to; NULL without memory. */
static char *reserve(text *t, size_t size)
{
    if (t->failed)
        return NULL;
    if (GROW(&t->at, &t->capacity, t->size + size)) {
        t->failed = 1;
        return NULL;
    }
    assert(t->size + size <= t->capacity);
    char *room = t->at + t->size;
    t->size += size;
    return room;
}

void text_put(text *t, const char *data, size_t size)
{
    char *room = reserve(t, size);
    if (room && size)
        memcpy(room, data, size);
}

void text_put_string(text *t, const char *terminated)
{
    text_put(t, terminated, strlen(terminated));
}

void text_put_number(text *t, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    text_put(t, digits + at, sizeof digits - at);
}

void text_put_json(text *t, const uint8_t *data, size_t size)
{
    text_put(t, "\"", 1);
    size_t plain = 0; /* first byte that is not in the text yet */
    for (size_t at = 0; at < size; at++) {
        uint8_t c = data[at];
        if (c >= ' ' && c != '"' && c != '\\')
            continue;
        text_put(t, (const char *)data + plain, at - plain);
        plain = at + 1;
        if (c >= ' ') {
            char escaped[2] = {'\\', (char)c};
            text_put(t, escaped, 2);
        } else {
            char escaped[6] = {
                '\\', 'u', '0', '0', (char)('0' + (c >> 4)), "0123456789abcdef"[c & 15]};
            text_put(t, escaped, 6);
        }
    }
    text_put(t, (const char *)data + plain, size - plain);
    text_put(t, "\"", 1);
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void three(char *out, uint32_t bits)
{
    out[0] = alphabet[bits >> 18];
    out[1] = alphabet[bits >> 12 & 63];
    out[2] = alphabet[bits >> 6 & 63];
    out[3] = alphabet[bits & 63];
}

void text_put_base64(text *t, size_t zeros, const uint8_t *data, size_t size)
{
    size_t total = zeros + size;
    char *out = reserve(t, (total + 2) / 3 * 4);
    if (!out)
        return;
    for (; zeros >= 3; zeros -= 3, out += 4)
        memcpy(out, "AAAA", 4);
    uint8_t group[3] = {0, 0, 0};
    if (zeros) {
        size_t own = size < 3 - zeros ? size : 3 - zeros;
        memcpy(group + zeros, data, own);
        data += own;
        size -= own;
        three(out, (uint32_t)group[0] << 16 | (uint32_t)group[1] << 8 | group[2]);
        if (zeros + own < 3)
            out[3] = '=';
        if (zeros + own < 2)
            out[2] = '=';
        out += 4;
    }
    for (; size >= 3; size -= 3, data += 3, out += 4)
        three(out, (uint32_t)data[0] << 16 | (uint32_t)data[1] << 8 | data[2]);
    if (size) {
        three(out, (uint32_t)data[0] << 16 | (size > 1 ? (uint32_t)data[1] << 8 : 0));
        out[3] = '=';
        if (size < 2)
            out[2] = '=';
    }
}

void text_put_digest(text *t, const uint8_t digest[32])
{
    char hex[HEX_DIGEST];
    hex_write_digest(digest, hex);
    text_put_string(t, "\"sha256:");
    text_put(t, hex, sizeof hex);
    text_put(t, "\"", 1);
}
