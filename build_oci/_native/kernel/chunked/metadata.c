#include "metadata.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

enum { DEVICE_FIELD = 07777777 }; /* of a header: seven octal digits */

#define FIRST_SECOND (-62167219200) /* of the year 0 */
#define LAST_SECOND 253402300799    /* of the year 9999 */

/* The archive's name of an entry, in SMALL where it fits. */
typedef struct name {
    uint8_t small[1024], *at;
    size_t size;
} name;

static int name_of(name *n, const entry *e)
{
    size_t needed = entry_path(e, NULL) + 8;
    n->at = needed <= sizeof n->small ? n->small : malloc(needed);
    if (!n->at)
        return -1;
    n->size = archive_name(e, n->at);
    return 0;
}

static void name_end(name *n)
{
    if (n->at != n->small)
        free(n->at);
}

static void put_name(text *t, const entry *e)
{
    name n;
    if (name_of(&n, e)) {
        t->failed = 1;
        return;
    }
    text_put_json(t, n.at, n.size);
    name_end(&n);
}

static int is_link(const entry *e)
{
    return S_ISREG(e->mode) && e->link;
}

static int64_t time_of(const entry *e, const header_options *options, uint32_t *nanoseconds)
{
    *nanoseconds = options->has_epoch ? 0 : e->mtime_ns;
    return options->has_epoch ? options->epoch : e->mtime;
}

inexpressible toc_can_say(const entry *e, const header_options *options)
{
    name n;
    uint32_t nanoseconds;
    int64_t seconds = time_of(e, options, &nanoseconds);
    if (seconds < FIRST_SECOND || seconds > LAST_SECOND)
        return TIME_TOO_FAR;
    /* The components above were looked at with their own entries, but are they emitted? */
    if (name_of(&n, e))
        return WITHOUT_MEMORY;
    int fits = is_utf8(n.at, n.size);
    name_end(&n);
    if (fits && S_ISLNK(e->mode))
        fits = is_utf8((const uint8_t *)e->target, e->target_size);
    if (fits && is_link(e)) {
        if (name_of(&n, e->link))
            return WITHOUT_MEMORY;
        fits = is_utf8(n.at, n.size);
        name_end(&n);
    }
    xattr item;
    for (size_t at = 0; fits && !is_link(e) && xattr_next(e->xattrs, e->xattrs_size, &at, &item);)
        fits = is_utf8(item.name, item.name_size);
    return fits ? EXPRESSIBLE : NAME_NOT_UTF8;
}

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
static void put_time(text *t, int64_t seconds, uint32_t nanoseconds)
{
    int64_t days = (seconds - FIRST_SECOND) / 86400 - 60;
    unsigned clock = (unsigned)((seconds - FIRST_SECOND) % 86400);
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

static const char *type_of(const entry *e)
{
    switch (e->mode & S_IFMT) {
    case S_IFDIR: return "dir";
    case S_IFLNK: return "symlink";
    case S_IFCHR: return "char";
    case S_IFBLK: return "block";
    case S_IFIFO: return "fifo";
    default: return e->link ? "hardlink" : "reg";
    }
}

static void put_xattrs(text *t, const entry *e)
{
    xattr item;
    const char *before = "{";
    put_key(t, "xattrs");
    for (size_t at = 0; xattr_next(e->xattrs, e->xattrs_size, &at, &item); before = ",") {
        text_put(t, before, 1);
        text_put_json(t, item.name, item.name_size);
        text_put(t, ":\"", 2);
        text_put_base64(t, 0, item.value, item.value_size);
        text_put(t, "\"", 1);
    }
    text_put(t, "}", 1);
}

void toc_entry(text *t, const entry *e, const header_options *options)
{
    uint32_t nanoseconds;
    int64_t seconds = time_of(e, options, &nanoseconds);
    text_put_string(t, ",{\"type\":\"");
    text_put_string(t, type_of(e));
    text_put_string(t, "\",\"name\":");
    put_name(t, e);
    if (is_link(e)) {
        put_key(t, "linkName");
        put_name(t, e->link);
    } else if (S_ISLNK(e->mode)) {
        put_key(t, "linkName");
        text_put_json(t, (const uint8_t *)e->target, e->target_size);
    }
    put_number(t, "mode", e->mode & 07777);
    if (has_content(e))
        put_number(t, "size", e->size);
    put_number(t, "uid", e->uid);
    put_number(t, "gid", e->gid);
    if (seconds || nanoseconds) {
        put_key(t, "modtime");
        put_time(t, seconds, nanoseconds);
    }
    if (S_ISCHR(e->mode) || S_ISBLK(e->mode)) {
        put_number(t, "devMajor", major((dev_t)e->rdev) & DEVICE_FIELD);
        put_number(t, "devMinor", minor((dev_t)e->rdev) & DEVICE_FIELD);
    }
    if (e->xattrs_size && !is_link(e))
        put_xattrs(t, e);
}

void toc_file(text *t, const entry *e, const header_options *options, uint64_t offset, uint64_t end)
{
    toc_entry(t, e, options);
    put_key(t, "digest");
    text_put_digest(t, e->digest);
    put_number(t, "offset", offset);
    put_number(t, "endOffset", end);
}

void toc_chunk(text *t, const entry *e, uint64_t offset, uint64_t place)
{
    text_put_string(t, ",{\"type\":\"chunk\",\"name\":");
    put_name(t, e);
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

void tar_split_content(text *t, const entry *e, uint64_t checksum, uint64_t position)
{
    text_put_string(t, "{\"type\":1,\"name\":");
    put_name(t, e);
    if (has_content(e)) {
        uint8_t bytes[8];
        for (int i = 0; i < 8; i++)
            bytes[i] = (uint8_t)(checksum >> (56 - 8 * i));
        text_put_string(t, ",\"size\":");
        text_put_number(t, e->size);
        text_put_string(t, ",\"payload\":\"");
        text_put_base64(t, 0, bytes, sizeof bytes);
        text_put(t, "\"", 1);
    } else {
        text_put_string(t, ",\"payload\":null");
    }
    put_position(t, position);
}
