/* Text that grows, and JSON in it. Once memory is exhausted nothing more is taken in, and `failed`
 * is set. */
#ifndef BUILD_OCI_TEXT_H
#define BUILD_OCI_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* All zero is a valid empty text; the caller frees `at`. */
typedef struct text {
    char *at;
    size_t size, capacity;
    int failed;
} text;

/* SIZE bytes of a text, from AT on. */
typedef struct text_span {
    size_t at, size;
} text_span;

void text_put(text *, const char *data, size_t size);
void text_put_string(text *, const char *terminated);
void text_put_number(text *, uint64_t);

/* DATA, which is UTF-8, as a JSON string with its quotes. */
void text_put_json(text *, const uint8_t *data, size_t size);

/* ZEROS zero bytes and DATA in base64, without quotes. */
void text_put_base64(text *, size_t zeros, const uint8_t *data, size_t size);

/* "sha256:" and 64 hexadecimal digits, with quotes. */
void text_put_digest(text *, const uint8_t digest[32]);

#endif
