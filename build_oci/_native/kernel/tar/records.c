#include "records.h"

#include "grow.h"

#include <stdlib.h>
#include <string.h>

static const char SCHILY[] = "SCHILY.xattr.";
static const char LIBARCHIVE[] = "LIBARCHIVE.xattr.";
static const size_t FIRST_SCHILY_RANK = SIZE_MAX / 2;
static const char OLDER_DIGEST[] = "user.checksum.sha256";

static const char *const keys[RECORD_KEYS] = {
    "path",
    "linkpath",
    "uid",
    "gid",
    "size",
    "mtime",
    "freedesktopsdk.checksum.sha256",
    "SCHILY.xattr.user.checksum.sha256",
};

static int is(span text, const char *other)
{
    return text.size == strlen(other) && !memcmp(text.at, other, text.size);
}

static int starts(span text, const char *other)
{
    size_t size = strlen(other);
    return text.size >= size && !memcmp(text.at, other, size);
}

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Undoes %XX in place; the new size, or -1. */
static ptrdiff_t decode_percent(uint8_t *text, size_t size)
{
    size_t out = 0;
    for (size_t at = 0; at < size; at++) {
        if (text[at] != '%') {
            text[out++] = text[at];
            continue;
        }
        if (size - at < 3 || hex(text[at + 1]) < 0 || hex(text[at + 2]) < 0)
            return -1;
        text[out++] = (uint8_t)(hex(text[at + 1]) << 4 | hex(text[at + 2]));
        at += 2;
    }
    return (ptrdiff_t)out;
}

static int sextet(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Undoes base64 in place, padded with '=' or not; the new size, or -1. */
static ptrdiff_t decode_base64(uint8_t *text, size_t size)
{
    for (int i = 0; i < 2 && size && text[size - 1] == '='; i++)
        size--;
    if (size % 4 == 1)
        return -1;
    size_t out = 0;
    uint32_t bits = 0;
    for (size_t at = 0; at < size; at++) {
        int value = sextet(text[at]);
        if (value < 0)
            return -1;
        bits = (bits << 6 | (uint32_t)value) & 0xffffff;
        if (at % 4)
            text[out++] = (uint8_t)(bits >> (6 - 2 * (at % 4)));
    }
    return (ptrdiff_t)out;
}

/* An overlay obeys attributes of the upper directory that a client unpacks a layer into. Left out
 * of what is compared, they still count. */
static void see_overlay(records *r, span name)
{
    static const char *const prefixes[] = {"trusted.overlay.", "user.overlay."};
    static const char *const hiding[] = {"opaque", "metacopy", "whiteout", "whiteouts"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        if (!starts(name, prefixes[i]))
            continue;
        span what = {name.at + strlen(prefixes[i]), name.size - strlen(prefixes[i])};
        r->redirects = r->redirects || is(what, "redirect");
        for (size_t j = 0; j < sizeof hiding / sizeof *hiding; j++)
            r->ambiguous = r->ambiguous || is(what, hiding[j]);
    }
}

static int add_xattr(records *r, span name, span value, int schily, const char **problem)
{
    if (!name.size || memchr(name.at, 0, name.size)) {
        *problem = "an extended attribute has no proper name";
        return -1;
    }
    if (schily)
        see_overlay(r, name);
    if (xattr_is_of_host(name.at, name.size) || is(name, OLDER_DIGEST))
        return 0;
    if (GROW(&r->xattrs, &r->xattrs_capacity, r->xattrs_count + 1))
        return -1;
    r->xattrs[r->xattrs_count] = (record_xattr){
        .item = {.name = name.at,
                 .name_size = (uint32_t)name.size,
                 .value = value.at,
                 .value_size = (uint32_t)value.size},
        .rank = r->xattrs_count + (schily ? FIRST_SCHILY_RANK : 0),
    };
    r->xattrs_count++;
    return 0;
}

static int add(records *r, span key, span value, const char **problem)
{
    for (int i = 0; i < RECORD_KEYS; i++)
        if (is(key, keys[i])) {
            r->values[i] = value;
            return 0;
        }
    if (starts(key, SCHILY)) {
        span name = {key.at + sizeof SCHILY - 1, key.size - (sizeof SCHILY - 1)};
        return add_xattr(r, name, value, 1, problem);
    }
    if (starts(key, LIBARCHIVE)) {
        span name = {key.at + sizeof LIBARCHIVE - 1, key.size - (sizeof LIBARCHIVE - 1)};
        ptrdiff_t name_size = decode_percent((uint8_t *)name.at, name.size);
        ptrdiff_t value_size = decode_base64((uint8_t *)value.at, value.size);
        if (name_size < 0 || value_size < 0) {
            *problem = "a LIBARCHIVE.xattr record is not encoded as it should be";
            return -1;
        }
        return add_xattr(r, (span){name.at, (size_t)name_size},
                         (span){value.at, (size_t)value_size}, 0, problem);
    }
    if (starts(key, "GNU.sparse.")) {
        *problem = "sparse files (GNU.sparse records) are not understood";
        return -1;
    }
    return 0;
}

int records_parse(records *r, uint8_t *text, size_t size, const char **problem)
{
    *problem = NULL;
    for (size_t start = 0; start < size;) {
        size_t at = start, length = 0;
        for (; at < size && text[at] >= '0' && text[at] <= '9' && length <= size; at++)
            length = 10 * length + (size_t)(text[at] - '0');
        if (at == start || at == size || text[at] != ' ' || length > size - start ||
            length < at - start + 2) {
            *problem = "a pax record's length is wrong";
            return -1;
        }
        uint8_t *key = text + at + 1, *end = text + start + length - 1;
        uint8_t *equals = memchr(key, '=', (size_t)(end - key));
        if (*end != '\n' || !equals || equals == key || memchr(key, 0, (size_t)(equals - key))) {
            *problem = "a pax record is not LENGTH KEY=VALUE and a newline";
            return -1;
        }
        if (add(r, (span){key, (size_t)(equals - key)},
                (span){equals + 1, (size_t)(end - equals - 1)}, problem))
            return -1;
        start += length;
    }
    return 0;
}

static int by_name_and_rank(const void *left, const void *right)
{
    const record_xattr *a = left, *b = right;
    uint32_t shorter =
        a->item.name_size < b->item.name_size ? a->item.name_size : b->item.name_size;
    int order = memcmp(a->item.name, b->item.name, shorter);
    if (!order)
        order = (a->item.name_size > b->item.name_size) - (a->item.name_size < b->item.name_size);
    return order ? order : (a->rank > b->rank) - (a->rank < b->rank);
}

int records_pack(records *r, arena *a, const uint8_t **packed, uint32_t *size)
{
    *packed = NULL;
    *size = 0;
    if (!r->xattrs_count)
        return 0;
    xattr *items = malloc(r->xattrs_count * sizeof *items);
    if (!items)
        return -1;
    /* Sorting finds the names that come twice even where an archive has a hundred thousand of them.
     */
    qsort(r->xattrs, r->xattrs_count, sizeof *r->xattrs, by_name_and_rank);
    size_t count = 0;
    for (size_t i = 0; i < r->xattrs_count; i++) {
        const xattr *item = &r->xattrs[i].item;
        if (count && items[count - 1].name_size == item->name_size &&
            !memcmp(items[count - 1].name, item->name, item->name_size))
            count--;
        items[count++] = *item;
    }
    /* Go reads the SCHILY ones alone. */
    for (size_t i = 0; i < r->xattrs_count; i++) {
        int last =
            i + 1 == r->xattrs_count ||
            r->xattrs[i + 1].item.name_size != r->xattrs[i].item.name_size ||
            memcmp(r->xattrs[i + 1].item.name, r->xattrs[i].item.name, r->xattrs[i].item.name_size);
        r->ambiguous = r->ambiguous || (last && r->xattrs[i].rank < FIRST_SCHILY_RANK);
    }
    for (size_t i = 0; i < count && !r->newline; i++)
        r->newline = memchr(items[i].value, '\n', items[i].value_size) != NULL;
    int status = xattr_pack(a, items, count, packed, size);
    free(items);
    return status;
}

uint32_t records_condense(const sha256_kernel *kernel, const uint8_t **packed, uint32_t size,
                          uint8_t out[XATTRS_CONDENSED])
{
    const uint32_t name_size = 0, value_size = SHA256_DIGEST + 4;
    if (size <= XATTRS_KEPT)
        return size;
    sha256_context context;
    sha256_init(&context);
    sha256_update(kernel, &context, *packed, size);
    memcpy(out, &name_size, 4);
    memcpy(out + 4, &value_size, 4);
    sha256_final(kernel, &context, out + 8);
    memcpy(out + 8 + SHA256_DIGEST, &size, 4);
    *packed = out;
    return XATTRS_CONDENSED;
}

int records_match(const sha256_kernel *kernel, const member *m, const uint8_t *packed,
                  uint32_t size)
{
    uint8_t condensed[XATTRS_CONDENSED];
    if (size != m->xattrs_size)
        size = records_condense(kernel, &packed, size, condensed);
    return size == m->xattrs_size && (!size || !memcmp(packed, m->xattrs, size));
}

int records_pack_condensed(records *r, const sha256_kernel *kernel, arena *a,
                           const uint8_t **packed, uint32_t *size)
{
    size_t total = 0;
    for (size_t i = 0; i < r->xattrs_count; i++)
        total += 8 + (size_t)r->xattrs[i].item.name_size + r->xattrs[i].item.value_size;
    if (total <= XATTRS_KEPT)
        return records_pack(r, a, packed, size);
    arena whole = {.chunks = NULL};
    uint8_t condensed[XATTRS_CONDENSED];
    int status = records_pack(r, &whole, packed, size);
    if (!status && *size) {
        *size = records_condense(kernel, packed, *size, condensed);
        uint8_t *kept = arena_take_bytes(a, *size);
        if (kept)
            memcpy(kept, *packed, *size);
        *packed = kept;
        status = kept ? 0 : -1;
    }
    arena_release(&whole);
    return status;
}

void records_clear(records *r)
{
    memset(r->values, 0, sizeof r->values);
    r->xattrs_count = 0;
    r->ambiguous = r->redirects = r->newline = 0;
}

void records_free(records *r)
{
    free(r->xattrs);
    *r = (records){.xattrs = NULL};
}

int records_decimal(span text, uint64_t most, uint64_t *out)
{
    uint64_t value = 0;
    if (!text.size)
        return -1;
    for (size_t at = 0; at < text.size; at++) {
        if (text.at[at] < '0' || text.at[at] > '9')
            return -1;
        uint64_t digit = (uint64_t)(text.at[at] - '0');
        if (digit > most || value > (most - digit) / 10)
            return -1;
        value = 10 * value + digit;
    }
    *out = value;
    return 0;
}

int records_time(span text, int64_t *seconds, uint32_t *nanoseconds)
{
    int negative = text.size && *text.at == '-';
    const uint8_t *start = text.at + negative;
    size_t size = text.size - (size_t)negative;
    const uint8_t *point = memchr(start, '.', size);
    uint64_t whole, fraction = 0;
    if (point) {
        size_t digits = size - (size_t)(point - start) - 1;
        for (size_t i = 0; i < digits; i++)
            if (point[1 + i] < '0' || point[1 + i] > '9')
                return -1;
        for (size_t i = 0; i < 9; i++)
            fraction = 10 * fraction + (i < digits ? (uint64_t)(point[1 + i] - '0') : 0);
    }
    uint64_t below = negative && fraction;
    /* The lowest number has no positive counterpart; a fraction is rounded down from one above it.
     */
    if (records_decimal((span){start, point ? (size_t)(point - start) : size},
                        INT64_MAX + (uint64_t)(negative && !fraction), &whole))
        return -1;
    *seconds = (int64_t)(negative ? 0 - whole - below : whole);
    *nanoseconds = (uint32_t)(below ? 1000000000u - fraction : fraction);
    return 0;
}
