#include "scanner.h"

#include "block.h"
#include "records.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

enum {
    NAME_LIMIT = 64 * 1024,
    RECORDS_LIMIT = 4 * 1024 * 1024,
    ZEROS_LIMIT = 2 * BLOCK + 1024 * 1024, /* the end of the archive and what a writer may pad it with */
};

/* What may stand in front of a member. */
typedef enum extension_kind { LONG_NAME, LONG_TARGET, RECORDS, GLOBAL_RECORDS, EXTENSION_KINDS } extension_kind;

typedef struct extension {
    uint8_t *text;
    size_t size, capacity;
    int pending; /* waits for its member */
} extension;

typedef enum state { HEADER, EXTENSION, GAP, CONTENT, PADDING, END } state; /* a gap pads an extension, padding content */

struct scanner {
    const sha256_kernel *kernel;
    size_t memory_limit;
    arena arena;
    member *members;
    size_t count, capacity;
    state state;
    uint64_t offset; /* bytes taken in */
    uint64_t where;  /* of the header at hand */
    uint64_t left;   /* of the content or the extension */
    uint64_t zeros;  /* at the end */
    size_t padding, filled;
    uint8_t block[BLOCK];
    extension extensions[EXTENSION_KINDS], *extension;
    records records, globals, parsed; /* of the member; of all that follow, copied; scratch for the latter */
    span name;                        /* of the member at hand, as it stands in the archive */
    uint8_t joined[BLOCK_NAME];
    int hashing;
    sha256_context context;
    int failed;
    char error[640];
};

static int exhausted(scanner *s)
{
    s->failed = 1;
    s->error[0] = 0;
    return -1;
}

__attribute__((format(printf, 2, 3))) static int refuse(scanner *s, const char *format, ...)
{
    enum { SHOWN = 100 };
    char name[4 * SHOWN + 8] = "";
    size_t at = 0;
    if (s->name.size) {
        size_t shown = s->name.size < SHOWN ? s->name.size : SHOWN;
        name[at++] = '\'';
        for (size_t i = 0; i < shown; i++) {
            uint8_t c = s->name.at[i];
            at += (size_t)snprintf(name + at, sizeof name - at, c < ' ' || c > '~' || c == '\\' || c == '\'' ? "\\x%02x" : "%c", c);
        }
        snprintf(name + at, sizeof name - at, "%s': ", shown < s->name.size ? "..." : "");
    }
    int length = snprintf(s->error, sizeof s->error, "at byte %" PRIu64 ": %s", s->where, name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(s->error + length, sizeof s->error - (size_t)length, format, arguments);
    va_end(arguments);
    s->failed = 1;
    return -1;
}

size_t scanner_held(const scanner *s)
{
    return s->arena.held + s->capacity * sizeof *s->members;
}

static int refuse_memory(scanner *s)
{
    return refuse(s, "the archive's members need more than %zu MiB of memory", s->memory_limit >> 20);
}

/* The number WHAT of the header at hand, at most MOST. */
static int header_number(scanner *s, size_t at, size_t size, uint64_t most, const char *what, uint64_t *out)
{
    int64_t value;
    if (number_field(s->block + at, size, &value) || value < 0 || (uint64_t)value > most)
        return refuse(s, "the %s in the header is not a number that it can be", what);
    *out = (uint64_t)value;
    return 0;
}

/* The record of the member, else the global one; empty where there is none or it was taken back. */
static span record_of(const scanner *s, record_key key)
{
    return s->records.values[key].at ? s->records.values[key] : s->globals.values[key];
}

/* The number WHAT of the member at hand: from its record, else from its header. */
static int member_number(scanner *s, record_key key, size_t at, size_t size, uint64_t most, const char *what, uint64_t *out)
{
    span record = record_of(s, key);
    if (!record.size)
        return header_number(s, at, size, most, what, out);
    return parse_decimal(record, most, out) ? refuse(s, "the %s in a pax record is not a number that it can be", what) : 0;
}

static int member_time(scanner *s, member *m)
{
    span record = record_of(s, RECORD_MTIME);
    if (record.size)
        return parse_time(record, &m->mtime, &m->mtime_ns) ? refuse(s, "the mtime in a pax record is not a time") : 0;
    return number_field(s->block + 136, 12, &m->mtime) ? refuse(s, "the mtime in the header is not a time") : 0;
}

/* RAW without leading and closing slashes, empty and "." components. */
static int normalise(scanner *s, span raw, const char *what, const char **out, uint32_t *out_size)
{
    if (memchr(raw.at, 0, raw.size))
        return refuse(s, "its %s holds a NUL byte", what);
    char *to = arena_take_bytes(&s->arena, raw.size + 1);
    if (!to)
        return exhausted(s);
    size_t used = 0;
    for (size_t at = 0, length; at < raw.size; at += length + 1) {
        const uint8_t *part = raw.at + at, *slash = memchr(part, '/', raw.size - at);
        length = slash ? (size_t)(slash - part) : raw.size - at;
        if (!length || (length == 1 && *part == '.'))
            continue;
        if (length == 2 && part[0] == '.' && part[1] == '.')
            return refuse(s, "its %s has a component \"..\"", what);
        if (used)
            to[used++] = '/';
        memcpy(to + used, part, length);
        used += length;
    }
    to[used] = 0;
    *out = to;
    *out_size = (uint32_t)used;
    return 0;
}

static int member_target(scanner *s, member *m)
{
    span record = record_of(s, RECORD_LINKPATH), raw = {s->block + 157, text_field(s->block + 157, 100)};
    if (record.size)
        raw = record;
    else if (s->extensions[LONG_TARGET].pending)
        raw = (span){s->extensions[LONG_TARGET].text, s->extensions[LONG_TARGET].size};
    if (!raw.size)
        return refuse(s, "a link without a target");
    if (raw.size > NAME_LIMIT)
        return refuse(s, "a link target of %zu bytes; at most %d are accepted", raw.size, NAME_LIMIT);
    if (m->flags & MEMBER_HARD_LINK) {
        if (normalise(s, raw, "link target", &m->target, &m->target_size))
            return -1;
        return m->target_size ? 0 : refuse(s, "a hard link to the root");
    }
    if (memchr(raw.at, 0, raw.size))
        return refuse(s, "its link target holds a NUL byte");
    m->target = arena_copy(&s->arena, raw.at, raw.size);
    m->target_size = (uint32_t)raw.size;
    return m->target ? 0 : exhausted(s);
}

/* The name as it stands in the archive. */
static span raw_name(scanner *s)
{
    span record = record_of(s, RECORD_PATH);
    if (record.size)
        return record;
    if (s->extensions[LONG_NAME].pending)
        return (span){s->extensions[LONG_NAME].text, s->extensions[LONG_NAME].size};
    return (span){s->joined, block_name(s->block, s->joined)};
}

/* The type of the member at hand into its mode. */
static int member_type(scanner *s, member *m)
{
    int slash = s->name.at[s->name.size - 1] == '/';
    uint8_t type = s->block[156];
    switch (type) {
    case 0:
    case '0':
    case '7':
        /* Directories had no type of their own once. Where they have one, readers disagree about such a name. */
        if (slash && type != '7' && (!type || is_old_format(s->block))) {
            m->mode |= S_IFDIR;
            return m->size ? refuse(s, "a directory with content") : 0;
        }
        m->mode |= S_IFREG;
        return slash ? refuse(s, "a regular file whose name ends with a slash") : 0;
    case '1': m->mode |= S_IFREG; m->flags |= MEMBER_HARD_LINK; break;
    case '2': m->mode |= S_IFLNK; break;
    case '3': m->mode |= S_IFCHR; break;
    case '4': m->mode |= S_IFBLK; break;
    case '5': m->mode |= S_IFDIR; break;
    case '6': m->mode |= S_IFIFO; break;
    default: return refuse(s, "the member type \\x%02x (%s) is not understood", type, type_told(type));
    }
    /* No content follows, whatever the size says: it tells of the linked file, or of what a directory may hold. */
    m->size = 0;
    return 0;
}

static int append(scanner *s, const member *m)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity + s->capacity / 2 + 64;
        member *moved = realloc(s->members, capacity * sizeof *m);
        if (!moved)
            return exhausted(s);
        s->members = moved;
        s->capacity = capacity;
    }
    s->members[s->count++] = *m;
    return scanner_held(s) > s->memory_limit ? refuse_memory(s) : 0;
}

static int body(scanner *, state kind, uint64_t size);

static int begin_member(scanner *s)
{
    member m = {.name = NULL};
    uint64_t mode = 0, uid = 0, gid = 0, rdev_major = 0, rdev_minor = 0;
    s->name = raw_name(s);
    if (!s->name.size)
        return refuse(s, "a member without a name");
    if (s->name.size > NAME_LIMIT)
        return refuse(s, "a name of %zu bytes; at most %d are accepted", s->name.size, NAME_LIMIT);
    if (header_number(s, 100, 8, UINT32_MAX, "mode", &mode) || member_number(s, RECORD_UID, 108, 8, UINT32_MAX, "uid", &uid) ||
        member_number(s, RECORD_GID, 116, 8, UINT32_MAX, "gid", &gid) ||
        member_number(s, RECORD_SIZE, 124, 12, INT64_MAX, "size", &m.size) || member_time(s, &m))
        return -1;
    m.mode = mode & 07777;
    m.uid = (uint32_t)uid;
    m.gid = (uint32_t)gid;
    if (member_type(s, &m) || normalise(s, s->name, "name", &m.name, &m.name_size))
        return -1;
    if (!m.name_size && !S_ISDIR(m.mode))
        return refuse(s, "the root is no directory");
    if ((m.flags & MEMBER_HARD_LINK || S_ISLNK(m.mode)) && member_target(s, &m))
        return -1;
    if (S_ISCHR(m.mode) || S_ISBLK(m.mode)) {
        if (header_number(s, 329, 8, UINT32_MAX, "device number", &rdev_major) ||
            header_number(s, 337, 8, UINT32_MAX, "device number", &rdev_minor))
            return -1;
        m.rdev = makedev((unsigned)rdev_major, (unsigned)rdev_minor);
    }
    if (!(m.flags & MEMBER_HARD_LINK) && records_pack(&s->records, &s->arena, &m.xattrs, &m.xattrs_size))
        return exhausted(s);
    if (S_ISREG(m.mode) && !(m.flags & MEMBER_HARD_LINK)) {
        span digest = record_of(s, RECORD_DIGEST), older = record_of(s, RECORD_OLDER_DIGEST);
        if (parse_digest(digest.at, digest.size, m.digest) || parse_digest(older.at, older.size, m.digest))
            m.flags |= MEMBER_DIGEST_KNOWN;
        s->hashing = !(m.flags & MEMBER_DIGEST_KNOWN);
        if (s->hashing)
            sha256_init(&s->context);
    }
    if (append(s, &m))
        return -1;
    for (int i = 0; i < EXTENSION_KINDS; i++)
        s->extensions[i].pending = 0;
    records_clear(&s->records);
    return body(s, CONTENT, m.size);
}

static int begin_extension(scanner *s, extension_kind kind)
{
    extension *e = s->extension = s->extensions + kind;
    uint64_t size = 0, most = kind == LONG_NAME || kind == LONG_TARGET ? NAME_LIMIT + 1 : RECORDS_LIMIT;
    if (header_number(s, 124, 12, INT64_MAX, "size", &size))
        return -1;
    if (size > most)
        return refuse(s, "an extended header of %" PRIu64 " bytes; at most %" PRIu64 " are accepted", size, most);
    if (e->pending)
        return refuse(s, "two extended headers of one kind for one member");
    e->size = 0;
    return body(s, EXTENSION, size);
}

static int add_to_extension(scanner *s, const uint8_t *data, size_t size)
{
    extension *e = s->extension;
    if (size > e->capacity - e->size) {
        /* Doubling what is there, so that memory follows what has been read and not what a header claims. */
        size_t capacity = 2 * e->size > e->size + size ? 2 * e->size : e->size + size;
        uint8_t *moved = realloc(e->text, capacity);
        if (!moved)
            return exhausted(s);
        e->text = moved;
        e->capacity = capacity;
    }
    memcpy(e->text + e->size, data, size);
    e->size += size;
    return 0;
}

static int end_globals(scanner *s)
{
    for (int i = 0; i < RECORD_KEYS; i++)
        if (s->parsed.values[i].at) {
            span value = s->parsed.values[i];
            value.at = (uint8_t *)arena_copy(&s->arena, value.at, value.size);
            if (!value.at)
                return exhausted(s);
            s->globals.values[i] = value;
        }
    if (s->parsed.xattrs_count)
        return refuse(s, "extended attributes for all members (in a global header) are not understood");
    return scanner_held(s) > s->memory_limit ? refuse_memory(s) : 0;
}

static int end_extension(scanner *s)
{
    extension *e = s->extension;
    if (e == s->extensions + LONG_NAME || e == s->extensions + LONG_TARGET) {
        while (e->size && !e->text[e->size - 1])
            e->size--;
        if (!e->size)
            return refuse(s, "an extended header with an empty name");
        e->pending = 1;
        return 0;
    }
    int global = e == s->extensions + GLOBAL_RECORDS;
    const char *problem;
    records_clear(&s->parsed);
    if (records_parse(global ? &s->parsed : &s->records, e->text, e->size, &problem))
        return problem ? refuse(s, "%s", problem) : exhausted(s);
    e->pending = !global;
    return global ? end_globals(s) : 0;
}

static int end_body(scanner *s)
{
    int status = 0;
    state behind = s->state == EXTENSION ? GAP : PADDING;
    if (s->state == EXTENSION) {
        status = end_extension(s);
    } else if (s->hashing) {
        member *m = s->members + s->count - 1;
        sha256_final(s->kernel, &s->context, m->digest);
        m->flags |= MEMBER_DIGEST_KNOWN;
        s->hashing = 0;
    }
    s->state = s->padding ? behind : HEADER;
    return status;
}

/* SIZE bytes of content or extension follow, padded to whole blocks. */
static int body(scanner *s, state kind, uint64_t size)
{
    s->state = kind;
    s->left = size;
    s->padding = (size_t)(0 - size) & (BLOCK - 1);
    return size ? 0 : end_body(s);
}

static int is_pending(const scanner *s)
{
    return s->extensions[LONG_NAME].pending || s->extensions[LONG_TARGET].pending || s->extensions[RECORDS].pending;
}

static int header(scanner *s)
{
    s->filled = 0;
    s->where = s->offset - BLOCK;
    if (is_zero(s->block, BLOCK)) {
        s->state = END;
        s->zeros = BLOCK;
        return is_pending(s) ? refuse(s, "the archive ends where an extended header wants its member") : 0;
    }
    if (!block_checksum_holds(s->block))
        return refuse(s, "this is no tar header: its checksum does not hold");
    switch (s->block[156]) {
    case 'L': return begin_extension(s, LONG_NAME);
    case 'K': return begin_extension(s, LONG_TARGET);
    case 'x': return begin_extension(s, RECORDS);
    case 'g': return begin_extension(s, GLOBAL_RECORDS);
    default: return begin_member(s);
    }
}

static int end(scanner *s, const uint8_t *data, size_t size)
{
    size_t zeros = 0, most = ZEROS_LIMIT - (size_t)s->zeros;
    if (is_zero(data, size))
        zeros = size;
    while (zeros < size && !data[zeros])
        zeros++;
    /* Told by where it is in the archive, not by how the archive was cut. */
    s->where = s->offset - size + (zeros < most ? zeros : most);
    s->zeros += zeros;
    if (zeros > most)
        return refuse(s, "more than %d zero bytes at the end of the archive", ZEROS_LIMIT);
    return zeros < size ? refuse(s, "data after the end of the archive") : 0;
}

static int content(scanner *s, const uint8_t *data, size_t size)
{
    if (s->state == EXTENSION && add_to_extension(s, data, size))
        return -1;
    if (s->hashing && s->state == CONTENT)
        sha256_update(s->kernel, &s->context, data, size);
    s->left -= size;
    return s->left ? 0 : end_body(s);
}

static size_t least(uint64_t a, size_t b)
{
    return a < b ? (size_t)a : b;
}

int scanner_feed(scanner *s, const uint8_t *data, size_t size)
{
    while (size && !s->failed) {
        size_t step = size;
        switch (s->state) {
        case HEADER:
            if (!s->filled)
                s->name = (span){NULL, 0};
            step = least(size, BLOCK - s->filled);
            memcpy(s->block + s->filled, data, step);
            s->filled += step;
            s->offset += step;
            if (s->filled == BLOCK)
                header(s);
            break;
        case EXTENSION:
        case CONTENT:
            step = least(s->left, size);
            s->offset += step;
            content(s, data, step);
            break;
        case GAP:
        case PADDING:
            step = least(s->padding, size);
            s->offset += step;
            s->padding -= step;
            if (!s->padding)
                s->state = HEADER;
            break;
        case END:
            s->offset += step;
            end(s, data, step);
            break;
        }
        data += step;
        size -= step;
    }
    return s->failed ? -1 : 0;
}

int scanner_finish(scanner *s)
{
    if (s->failed)
        return -1;
    s->where = s->offset;
    /* Some writers leave out the padding of their last member. */
    if (s->filled || (s->state != HEADER && s->state != PADDING && s->state != END))
        return refuse(s, "the archive is truncated");
    return is_pending(s) ? refuse(s, "the archive is truncated: an extended header wants its member") : 0;
}

scanner *scanner_new(const sha256_kernel *kernel, size_t memory_limit)
{
    scanner *s = calloc(1, sizeof *s);
    if (s) {
        s->kernel = kernel;
        s->memory_limit = memory_limit;
    }
    return s;
}

const member *scanner_members(const scanner *s, size_t *count)
{
    *count = s->count;
    return s->members;
}

const char *scanner_error(const scanner *s)
{
    return *s->error ? s->error : NULL;
}

void scanner_free(scanner *s)
{
    if (!s)
        return;
    arena_release(&s->arena);
    for (int i = 0; i < EXTENSION_KINDS; i++)
        free(s->extensions[i].text);
    records_free(&s->records);
    records_free(&s->parsed);
    free(s->members);
    free(s);
}
