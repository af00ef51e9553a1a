#include "header.h"

#include "hex.h"
#include "xattr.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

enum { DECIMAL_MAX = 20 };

#define OCTAL_7 ((uint64_t)1 << 21)  /* first number that an eight-byte field cannot hold */
#define OCTAL_11 ((uint64_t)1 << 33) /* likewise a twelve-byte field */

static const char USTAR[8] = {'u', 's', 't', 'a', 'r', 0, '0', '0'}; /* magic and version */
static const char DIGEST_KEY[] = "freedesktopsdk.checksum.sha256";
static const char XATTR_PREFIX[] = "SCHILY.xattr.";

/* Where bytes go; only their number is kept where there is no `at`. */
typedef struct sink {
    uint8_t *at;
    size_t size;
} sink;

static void put(sink *s, const void *data, size_t size)
{
    if (s->at && size)
        memcpy(s->at + s->size, data, size);
    s->size += size;
}

/* The length of the UTF-8 character at TEXT as Python's strict decoder sees it; 0 where there is
 * none. */
static size_t utf8_character(const uint8_t *text, size_t left)
{
    uint8_t c = text[0];
    if (c < 0x80)
        return 1;
    size_t size = c >= 0xc2 && c <= 0xdf   ? 2
                  : c >= 0xe0 && c <= 0xef ? 3
                  : c >= 0xf0 && c <= 0xf4 ? 4
                                           : 0;
    if (!size || size > left)
        return 0;
    uint8_t low = c == 0xe0   ? 0xa0
                  : c == 0xf0 ? 0x90
                              : 0x80,
            high = c == 0xed   ? 0x9f
                   : c == 0xf4 ? 0x8f
                               : 0xbf;
    if (text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < size; i++)
        if (text[i] < 0x80 || text[i] > 0xbf)
            return 0;
    return size;
}

int header_is_utf8(const uint8_t *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t step = utf8_character(text + at, size - at);
        if (!step)
            return 0;
        at += step;
    }
    return 1;
}

static int is_ascii(const uint8_t *text, size_t size)
{
    for (size_t at = 0; at < size; at++)
        if (text[at] >= 0x80)
            return 0;
    return 1;
}

/* TEXT in a field of SIZE bytes: what is not ASCII becomes a question mark a character, as
 * str.encode("ascii", "replace") has it. */
static void text_field(uint8_t *field, size_t size, const uint8_t *text, size_t length)
{
    size_t out = 0;
    for (size_t at = 0; at < length && out < size;) {
        size_t step = utf8_character(text + at, length - at);
        field[out++] = step == 1 ? text[at] : '?';
        at += step ? step : 1;
    }
}

static void octal_field(uint8_t *field, size_t size, uint64_t value)
{
    field[size - 1] = 0;
    for (size_t at = size - 1; at-- > 0; value >>= 3)
        field[at] = (uint8_t)('0' + (value & 7));
}

typedef struct ustar {
    const uint8_t *name, *target;
    size_t name_size, target_size;
    uint64_t mode, uid, gid, size, mtime;
    char type;
    int is_device;
    uint64_t device;
} ustar;

static void ustar_block(sink *s, const ustar *u)
{
    if (s->at) {
        uint8_t *block = s->at + s->size;
        memset(block, 0, TAR_BLOCK);
        text_field(block + NAME_AT, NAME_SIZE, u->name, u->name_size);
        octal_field(block + MODE_AT, ID_SIZE, u->mode);
        octal_field(block + UID_AT, ID_SIZE, u->uid);
        octal_field(block + GID_AT, ID_SIZE, u->gid);
        octal_field(block + SIZE_AT, LONG_SIZE, u->size);
        octal_field(block + MTIME_AT, LONG_SIZE, u->mtime);
        memset(block + CHECKSUM_AT, ' ', CHECKSUM_SIZE);
        block[TYPE_AT] = (uint8_t)u->type;
        text_field(block + LINK_AT, LINK_SIZE, u->target, u->target_size);
        memcpy(block + MAGIC_AT, USTAR, sizeof USTAR);
        if (u->is_device) {
            octal_field(block + MAJOR_AT, ID_SIZE, major((dev_t)u->device));
            octal_field(block + MINOR_AT, ID_SIZE, minor((dev_t)u->device));
        }
        uint64_t sum = 0;
        for (size_t i = 0; i < TAR_BLOCK; i++)
            sum += block[i];
        octal_field(block + CHECKSUM_AT, CHECKSUM_SIZE - 1, sum);
    }
    s->size += TAR_BLOCK;
}

/* VALUE in decimal digits; how many of them. (A layer's headers hold a few numbers an entry: printf
 * took 2 % of packing small files.) */
static size_t decimal(uint64_t value, char out[DECIMAL_MAX])
{
    char digits[DECIMAL_MAX];
    size_t count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    for (size_t i = 0; i < count; i++)
        out[i] = digits[count - 1 - i];
    return count;
}

/* One pax record: the length of the record, counting its own digits, then key=value. */
static void record(sink *s, const void *prefix, size_t prefix_size, const void *key,
                   size_t key_size, const void *value, size_t value_size)
{
    size_t rest = prefix_size + key_size + value_size + 3, total = rest;
    char digits[DECIMAL_MAX];
    size_t count = 0;
    while (rest + count != total || !count) {
        total = rest + count;
        count = decimal(total, digits);
    }
    put(s, digits, count);
    put(s, " ", 1);
    put(s, prefix, prefix_size);
    put(s, key, key_size);
    put(s, "=", 1);
    put(s, value, value_size);
    put(s, "\n", 1);
}

static void text_record(sink *s, const char *key, const void *value, size_t value_size)
{
    record(s, "", 0, key, strlen(key), value, value_size);
}

static void number_record(sink *s, const char *key, uint64_t value)
{
    char text[DECIMAL_MAX];
    text_record(s, key, text, decimal(value, text));
}

/* SECONDS + NANOSECONDS as the shortest exact decimal. */
static size_t format_time(int64_t seconds, uint32_t nanoseconds, char out[1 + DECIMAL_MAX + 10])
{
    int negative = seconds < 0;
    uint64_t whole = negative ? 0 - (uint64_t)seconds : (uint64_t)seconds;
    if (negative && nanoseconds) {
        /* The file system counts the fraction upwards from the second before. */
        whole--;
        nanoseconds = 1000000000u - nanoseconds;
    }
    size_t length = 0;
    if (negative)
        out[length++] = '-';
    length += decimal(whole, out + length);
    if (nanoseconds) {
        /* The one in front keeps the zeros; the point takes its place. */
        decimal(1000000000u + nanoseconds, out + length);
        out[length] = '.';
        length += 10;
        while (out[length - 1] == '0')
            length--;
    }
    return length;
}

static char type_flag(const entry *e)
{
    switch (e->mode & S_IFMT) {
    case S_IFDIR: return '5';
    case S_IFLNK: return '2';
    case S_IFCHR: return '3';
    case S_IFBLK: return '4';
    case S_IFIFO: return '6';
    default: return e->link ? '1' : '0';
    }
}

void header_time(const entry *e, const header_options *options, int64_t *seconds,
                 uint32_t *nanoseconds)
{
    int own_time = e->flags & ENTRY_OWN_TIME ||
                   (!options->has_epoch && !(options->directories_at_zero && S_ISDIR(e->mode)));
    *seconds = own_time ? e->mtime : options->has_epoch ? options->epoch : 0;
    *nanoseconds = own_time ? e->mtime_ns : 0;
}

/* -1 without memory. */
static int write_headers(header_maker *m, const entry *e, sink *s)
{
    int64_t mtime;
    uint32_t nanoseconds;
    header_time(e, m->options, &mtime, &nanoseconds);
    int is_link = S_ISREG(e->mode) && e->link;
    ustar u = {.type = type_flag(e), .mode = e->mode & 07777};
    u.name = name_make(&m->name, e, &u.name_size);
    if (!u.name)
        return -1;
    u.is_device = S_ISCHR(e->mode) || S_ISBLK(e->mode);
    u.device = e->rdev;
    if (is_link) {
        u.target = name_make(&m->target, e->link, &u.target_size);
        if (!u.target)
            return -1;
    } else if (S_ISLNK(e->mode)) {
        u.target = (const uint8_t *)e->target;
        u.target_size = e->target_size;
    }
    uint64_t size = is_link ? 0 : e->size;
    u.uid = e->uid < OCTAL_7 ? e->uid : 0;
    u.gid = e->gid < OCTAL_7 ? e->gid : 0;
    u.size = size < OCTAL_11 ? size : 0;
    /* tarfile rounds a time with a fraction to the nearest even second, and gives up where the
     * result does not fit. */
    int64_t rounded =
        mtime + (nanoseconds > 500000000u || (nanoseconds == 500000000u && mtime & 1));
    int fits = rounded >= 0 && (uint64_t)rounded < OCTAL_11;
    u.mtime = fits ? (uint64_t)rounded : 0;

    int records_digest = S_ISREG(e->mode) && !is_link && !(e->flags & ENTRY_WHITEOUT);
    int has_xattrs = e->xattrs_size && !is_link;
    int long_name = u.name_size > NAME_SIZE || !is_ascii(u.name, u.name_size);
    int long_target = u.target_size > LINK_SIZE || !is_ascii(u.target, u.target_size);
    int any = records_digest || has_xattrs || long_name || long_target || u.uid != e->uid ||
              u.gid != e->gid || u.size != size || !fits || nanoseconds;
    if (any) {
        int binary = (long_name && !header_is_utf8(u.name, u.name_size)) ||
                     (long_target && !header_is_utf8(u.target, u.target_size));
        xattr item;
        for (size_t at = 0;
             has_xattrs && !binary && xattr_next(e->xattrs, e->xattrs_size, &at, &item);)
            binary = !header_is_utf8(item.value, item.value_size);

        size_t header_at = s->size;
        s->size += TAR_BLOCK;
        size_t records_at = s->size;
        if (binary)
            put(s, "21 hdrcharset=BINARY\n", 21);
        if (records_digest) {
            char hex[HEX_DIGEST];
            hex_write_digest(e->digest, hex);
            text_record(s, DIGEST_KEY, hex, sizeof hex);
        }
        for (size_t at = 0; has_xattrs && xattr_next(e->xattrs, e->xattrs_size, &at, &item);)
            record(s, XATTR_PREFIX, sizeof XATTR_PREFIX - 1, item.name, item.name_size, item.value,
                   item.value_size);
        if (long_name)
            text_record(s, "path", u.name, u.name_size);
        if (long_target)
            text_record(s, "linkpath", u.target, u.target_size);
        if (u.uid != e->uid)
            number_record(s, "uid", e->uid);
        if (u.gid != e->gid)
            number_record(s, "gid", e->gid);
        if (u.size != size)
            number_record(s, "size", size);
        if (!fits || nanoseconds) {
            char text[1 + DECIMAL_MAX + 10];
            text_record(s, "mtime", text, format_time(mtime, nanoseconds, text));
        }
        size_t records_size = s->size - records_at;
        size_t padding = (size_t)tar_padded(records_size) - records_size;
        if (s->at)
            memset(s->at + s->size, 0, padding);
        s->size += padding;

        static const char pax_name[] = "././@PaxHeader";
        sink at_header = {.at = s->at ? s->at + header_at : NULL};
        ustar pax = {.name = (const uint8_t *)pax_name,
                     .name_size = sizeof pax_name - 1,
                     .type = 'x',
                     .size = records_size};
        ustar_block(&at_header, &pax);
    }
    ustar_block(s, &u);
    return 0;
}

uint64_t header_size(header_maker *m, const entry *e)
{
    sink s = {0};
    if (write_headers(m, e, &s))
        return 0;
    assert(s.size && s.size % TAR_BLOCK == 0);
    return s.size;
}

int header_write(header_maker *m, const entry *e, uint8_t *out)
{
    sink s = {.at = out};
    return write_headers(m, e, &s);
}

void header_maker_end(header_maker *m)
{
    name_end(&m->name);
    name_end(&m->target);
}
