#include "metadata.h"

static void put_key(text *t, const char *key)
{
    text_put(t, ",\"", 2);
    text_put_string(t, key);
    text_put(t, "\":", 2);
}

static void put_number(text *t, const char *key, uint64_t value)
{
    if (!value)
        return;
    put_key(t, key);
    text_put_number(t, value);
}

static void put_two(text *t, unsigned value)
{
    char digits[2] = {(char)('0' + value / 10), (char)('0' + value % 10)};
    text_put(t, digits, 2);
}

/* RFC 3339, in UTC. The days are counted from 1 March of the year 0, so that a leap day is the last
 * one of its year. */
static void put_time(text *t, const char *key, toc_time time)
{
    int64_t seconds = time.seconds;
    uint32_t nanoseconds = time.nanoseconds;
    if (!seconds && !nanoseconds)
        return;
    put_key(t, key);
    int64_t days = (seconds - TOC_FIRST_SECOND) / 86400 - 60;
    unsigned clock = (unsigned)((seconds - TOC_FIRST_SECOND) % 86400);
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    unsigned of_era = (unsigned)(days - era * 146097);
    unsigned of_years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * of_years + of_years / 4 - of_years / 100);
    unsigned month_from_march = (5 * of_year + 2) / 153,
             day = of_year - (153 * month_from_march + 2) / 5 + 1;
    unsigned month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    unsigned year = (unsigned)(era * 400 + of_years) + (month <= 2);
    text_put(t, "\"", 1);
    put_two(t, year / 100);
    put_two(t, year % 100);
    text_put(t, "-", 1);
    put_two(t, month);
    text_put(t, "-", 1);
    put_two(t, day);
    text_put(t, "T", 1);
    put_two(t, clock / 3600);
    text_put(t, ":", 1);
    put_two(t, clock / 60 % 60);
    text_put(t, ":", 1);
    put_two(t, clock % 60);
    if (nanoseconds) {
        char fraction[10] = ".";
        for (size_t i = 9; i > 0; i--, nanoseconds /= 10)
            fraction[i] = (char)('0' + nanoseconds % 10);
        size_t size = sizeof fraction;
        while (fraction[size - 1] == '0')
            size--;
        text_put(t, fraction, size);
    }
    text_put(t, "Z\"", 2);
}

void toc_begin(text *t, const char *type)
{
    text_put_string(t, ",{\"type\":\"");
    text_put_string(t, type);
    text_put_string(t, "\",\"name\":");
}

void toc_target(text *t)
{
    put_key(t, "linkName");
}

void toc_put_numbers(text *t, const toc_numbers *numbers)
{
    put_number(t, "mode", numbers->mode);
    put_number(t, "size", numbers->size);
    put_number(t, "uid", numbers->uid);
    put_number(t, "gid", numbers->gid);
    put_time(t, "modtime", numbers->modified);
    put_time(t, "accesstime", numbers->accessed);
    put_time(t, "changetime", numbers->changed);
    put_number(t, "devMajor", numbers->dev_major);
    put_number(t, "devMinor", numbers->dev_minor);
}

void toc_xattr(text *t, const uint8_t *name, size_t name_size, const uint8_t *value,
               size_t value_size, int first)
{
    if (first) {
        put_key(t, "xattrs");
        text_put(t, "{", 1);
    } else {
        text_put(t, ",", 1);
    }
    text_put_json(t, name, name_size);
    text_put(t, ":\"", 2);
    text_put_base64(t, 0, value, value_size);
    text_put(t, "\"", 1);
}

void toc_xattrs_end(text *t)
{
    text_put(t, "}", 1);
}

void toc_content(text *t, const uint8_t digest[32], uint64_t offset, uint64_t end)
{
    put_key(t, "digest");
    text_put_digest(t, digest);
    put_number(t, "offset", offset);
    put_number(t, "endOffset", end);
}

void toc_chunk(text *t, const char *name, size_t name_size, uint64_t offset, uint64_t place)
{
    text_put_string(t, ",{\"type\":\"chunk\",\"name\":");
    text_put(t, name, name_size);
    put_number(t, "offset", offset);
    put_number(t, "chunkOffset", place);
}

void toc_chunk_keys(text *t, uint64_t size, const uint8_t digest[32], int is_hole)
{
    put_number(t, "chunkSize", size);
    put_key(t, "chunkDigest");
    text_put_digest(t, digest);
    if (is_hole) {
        put_key(t, "chunkType");
        text_put_string(t, "\"zeros\"");
    }
}

static void put_position(text *t, uint64_t position)
{
    text_put_string(t, ",\"position\":");
    text_put_number(t, position);
    text_put(t, "}\n", 2);
}

void tar_split_bytes(text *t, size_t zeros, const uint8_t *data, size_t size, uint64_t position)
{
    text_put_string(t, "{\"type\":2,\"payload\":\"");
    text_put_base64(t, zeros, data, size);
    text_put(t, "\"", 1);
    put_position(t, position);
}

void tar_split_content(text *t, const char *name, size_t name_size, uint64_t size,
                       uint64_t checksum, uint64_t position)
{
    text_put_string(t, "{\"type\":1,\"name\":");
    text_put(t, name, name_size);
    if (size) {
        uint8_t bytes[8];
        for (int i = 0; i < 8; i++)
            bytes[i] = (uint8_t)(checksum >> (56 - 8 * i));
        text_put_string(t, ",\"size\":");
        text_put_number(t, size);
        text_put_string(t, ",\"payload\":\"");
        text_put_base64(t, 0, bytes, sizeof bytes);
        text_put(t, "\"", 1);
    } else {
        text_put_string(t, ",\"payload\":null");
    }
    put_position(t, position);
}
