#include "block.h"

#include <string.h>

size_t block_text(const uint8_t *field, size_t size)
{
    const uint8_t *end = memchr(field, 0, size);
    return end ? (size_t)(end - field) : size;
}

int block_number(const uint8_t *field, size_t size, int64_t *out)
{
    if (*field & 0x80) {
        int64_t value = *field & 0x40 ? (int64_t)*field - 256 : *field & 0x7f;
        for (size_t at = 1; at < size; at++) {
            if (value > INT64_MAX / 256 || value < INT64_MIN / 256)
                return -1;
            value = 256 * value + field[at];
        }
        *out = value;
        return 0;
    }
    size_t at = 0;
    while (at < size && field[at] == ' ')
        at++;
    for (*out = 0; at < size && field[at] >= '0' && field[at] <= '7'; at++)
        *out = 8 * *out + (field[at] - '0');
    for (; at < size; at++)
        if (field[at] && field[at] != ' ')
            return -1;
    return 0;
}

int block_is_zero(const uint8_t *data, size_t size)
{
    return !size || (!data[0] && !memcmp(data, data + 1, size - 1));
}

int block_checksum_holds(const uint8_t *block)
{
    int64_t expected;
    int32_t plain = 8 * ' ', negative = 0; /* the field itself counts as spaces */
    if (block[CHECKSUM_AT] & 0x80 || block_number(block + CHECKSUM_AT, CHECKSUM_SIZE, &expected))
        return 0;
    /* All of it and then the field back: a loop without a branch, which the compiler makes wide. */
    for (size_t i = 0; i < TAR_BLOCK; i++)
        plain += block[i];
    for (size_t i = CHECKSUM_AT; i < CHECKSUM_AT + CHECKSUM_SIZE; i++)
        plain -= block[i];
    if (expected == plain)
        return 1;
    for (size_t i = 0; i < TAR_BLOCK; i++)
        negative += (i < CHECKSUM_AT || i >= CHECKSUM_AT + CHECKSUM_SIZE) && block[i] & 0x80;
    return expected == plain - 256 * negative; /* as some old writers did */
}

static int is_gnu(const uint8_t *block)
{
    return !memcmp(block + MAGIC_AT, "ustar  ", 8);
}

int block_has_devices(const uint8_t *block)
{
    return is_gnu(block) || !memcmp(block + MAGIC_AT, "ustar", 6);
}

int block_prefix_misread(const uint8_t *block)
{
    int64_t time;
    if (!is_gnu(block) || !(block_number(block + GNU_ATIME_AT, LONG_SIZE, &time) ||
                            block_number(block + GNU_CTIME_AT, LONG_SIZE, &time)))
        return 0;
    size_t size = block_text(block + PREFIX_AT, PREFIX_SIZE);
    for (size_t i = 0; i < size; i++)
        if (block[PREFIX_AT + i] & 0x80)
            return 0;
    return size > 0;
}

size_t block_name(const uint8_t *block, uint8_t *out)
{
    size_t size = 0;
    /* In GNU's format, whose magic goes on with a space, the place of the prefix belongs to other
     * things. */
    if (!memcmp(block + MAGIC_AT, "ustar", 6)) {
        size =
            block_text(block + PREFIX_AT,
                       memcmp(block + XSTAR_MAGIC_AT, "tar", 4) ? PREFIX_SIZE : XSTAR_PREFIX_SIZE);
        memcpy(out, block + PREFIX_AT, size);
        if (size)
            out[size++] = '/';
    }
    size_t name = block_text(block + NAME_AT, NAME_SIZE);
    memcpy(out + size, block + NAME_AT, name);
    return size + name;
}

const char *block_type_name(uint8_t type)
{
    switch (type) {
    case 'S': return "a sparse file";
    case 'D': return "a directory of an incremental dump";
    case 'M': return "a file continued from another volume";
    case 'N': return "an old list of long names";
    case 'V': return "a volume label";
    default: return "unknown";
    }
}
