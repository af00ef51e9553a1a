/*
 * The rule for archives that readers disagree about
 *
 * A file that equals the parent's is left out of the new layer, so the parent's archive must mean
 * to us what it means to the clients that unpack it: umoci, and what is built upon
 * containers/storage or moby (buildah, podman, docker). All of them read it with Go's archive/tar.
 * A member that one of them may read otherwise than we do is
 *
 *   refused, where no client agrees with us, or the name itself is in question:
 *     global pax records that count, or under a name of their own (containers/storage removes what
 *     has that name); a global header between an extended header and its member; GNU long names
 *     that differ from a pax path or linkpath; a GNU header with text in the place of ustar's prefix
 *     that Go reads as one; devices under a magic for which Go reads no device numbers; regular
 *     files whose name ends with a slash; contiguous files; xattrs that redirect an overlay;
 *     checksum records that are not the content's
 *   MEMBER_AMBIGUOUS, where the name is certain and the rest is not, so that it never counts as
 *   equal:
 *     LIBARCHIVE.xattr records without the same name under SCHILY.xattr; xattrs by which an overlay
 *     hides what is below
 *
 * lower.c holds the other half: names and directories that depend on how a client applies a layer.
 */
#include "scanner.h"

#include "block.h"
#include "records.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

enum {
    NAME_LIMIT = 64 * 1024,
    SYMLINK_LIMIT = PATH_MAX - 1,  /* no file system holds a longer target */
    WHITEOUT_LIMIT = NAME_MAX + 4, /* `.wh.` in front of the longest name: never a file on a disk */
    RECORDS_LIMIT = 1024 * 1024,   /* Go reads no more */
    KEPT = 1024 * 1024,            /* bytes of members, where they are not wanted */
    /* the end of the archive and what a writer may pad it with */
    ZEROS_LIMIT = 2 * BLOCK + 1024 * 1024,
};

/* What may stand in front of a member. */
typedef enum extension_kind {
    LONG_NAME,
    LONG_TARGET,
    RECORDS,
    GLOBAL_RECORDS,
    EXTENSION_KINDS
} extension_kind;

typedef struct extension {
    uint8_t *text;
    size_t size, capacity;
    int pending; /* waits for its member */
} extension;

/* a gap pads an extension, padding content */
typedef enum state { HEADER, EXTENSION, GAP, CONTENT, PADDING, END } state;

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
    /* of the member; of a global header, which may hold none that count */
    records records, globals;
    span name; /* of the member at hand, as it stands in the archive */
    uint8_t joined[BLOCK_NAME];
    size_t fine_times, float_times; /* with more digits than a double holds; with as many */
    int trust;                      /* believe checksum records */
    int whole;                      /* large attributes are wanted */
    int hashing;                    /* the content at hand */
    int claims;                     /* how many records say what its digest is */
    uint8_t claimed[2][SHA256_DIGEST];
    sha256_context context;
    int digesting; /* the whole archive */
    sha256_context archive;
    int forgetting; /* members that have been read */
    int digesting_headers;
    int unlike_ours; /* padding that is not zero */
    sha256_context headers;
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
            at += (size_t)snprintf(name + at, sizeof name - at,
                                   c < ' ' || c > '~' || c == '\\' || c == '\'' ? "\\x%02x" : "%c",
                                   c);
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
    return refuse(s, "the archive's members need more than %zu MiB of memory",
                  s->memory_limit >> 20);
}

/* The number WHAT of the header at hand, at most MOST. */
static int header_number(scanner *s, size_t at, size_t size, uint64_t most, const char *what,
                         uint64_t *out)
{
    int64_t value;
    if (number_field(s->block + at, size, &value) || value < 0 || (uint64_t)value > most)
        return refuse(s, "the %s in the header is not a number that it can be", what);
    *out = (uint64_t)value;
    return 0;
}

/* The record of the member at hand; empty where there is none or it was taken back. */
static span record_of(const scanner *s, record_key key)
{
    return s->records.values[key];
}

/* The number WHAT of the member at hand: from its record, else from its header. */
static int member_number(scanner *s, record_key key, size_t at, size_t size, uint64_t most,
                         const char *what, uint64_t *out)
{
    span record = record_of(s, key);
    if (!record.size)
        return header_number(s, at, size, most, what, out);
    return parse_decimal(record, most, out)
               ? refuse(s, "the %s in a pax record is not a number that it can be", what)
               : 0;
}

static int member_time(scanner *s, member *m)
{
    span record = record_of(s, RECORD_MTIME);
    if (record.size)
        return parse_time(record, &m->mtime, &m->mtime_ns)
                   ? refuse(s, "the mtime in a pax record is not a time")
                   : 0;
    return number_field(s->block + 136, 12, &m->mtime)
               ? refuse(s, "the mtime in the header is not a time")
               : 0;
}

enum { SINCE = 1 << 30, FLOAT_DIGIT = 100, SHORT_FRACTION = 100000 };

/* Since 2004, a double holds a time to 7 digits behind the point, and hardly a file's time needs
 * less than 5. */
static void see_time(scanner *s, const member *m)
{
    if (m->mtime < SINCE || !m->mtime_ns)
        return;
    s->fine_times += m->mtime_ns % FLOAT_DIGIT != 0;
    s->float_times += m->mtime_ns % FLOAT_DIGIT == 0 && m->mtime_ns % SHORT_FRACTION != 0;
}

/* Did the writer keep times as doubles? That is known only when all have been seen. */
static void mark_float_times(scanner *s)
{
    if (s->fine_times || !s->float_times)
        return;
    for (size_t i = 0; i < s->count; i++)
        if (s->members[i].mtime >= SINCE)
            s->members[i].flags |= MEMBER_FLOAT_TIME;
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
        int whiteout = at + length == raw.size && length >= 4 && !memcmp(part, ".wh.", 4);
        if (length > (whiteout ? WHITEOUT_LIMIT : NAME_MAX))
            return refuse(s,
                          "its %s has a component of %zu bytes; no file system takes more than %d",
                          what, length, NAME_MAX);
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

/* TEXT from the record KEY or from what GNU wrote in front of the member, where there is either. Go
 * takes GNU's of the two, POSIX pax's. */
static int long_text(scanner *s, record_key key, extension_kind kind, const char *what, span *text)
{
    span record = record_of(s, key), gnu = {s->extensions[kind].text, s->extensions[kind].size};
    int pending = s->extensions[kind].pending;
    if (pending && record.size && (record.size != gnu.size || memcmp(record.at, gnu.at, gnu.size)))
        return refuse(s,
                      "a pax record and a GNU header give it different %ss, and readers disagree "
                      "about which counts",
                      what);
    if (record.size)
        *text = record;
    else if (pending)
        *text = gnu;
    return 0;
}

static int member_target(scanner *s, member *m)
{
    span raw = {s->block + 157, text_field(s->block + 157, 100)};
    if (long_text(s, RECORD_LINKPATH, LONG_TARGET, "target", &raw))
        return -1;
    if (!raw.size)
        return refuse(s, "a link without a target");
    if (raw.size > NAME_LIMIT)
        return refuse(s, "a link target of %zu bytes; at most %d are accepted", raw.size,
                      NAME_LIMIT);
    if (m->flags & MEMBER_HARD_LINK) {
        if (normalise(s, raw, "link target", &m->target, &m->target_size))
            return -1;
        return m->target_size ? 0 : refuse(s, "a hard link to the root");
    }
    if (memchr(raw.at, 0, raw.size))
        return refuse(s, "its link target holds a NUL byte");
    if (raw.size > SYMLINK_LIMIT)
        return refuse(s, "a link target of %zu bytes; no file system takes more than %d", raw.size,
                      SYMLINK_LIMIT);
    m->target = arena_copy(&s->arena, raw.at, raw.size);
    m->target_size = (uint32_t)raw.size;
    return m->target ? 0 : exhausted(s);
}

/* The name as it stands in the archive. */
static int raw_name(scanner *s)
{
    s->name = (span){s->joined, block_name(s->block, s->joined)};
    if (block_prefix_misread(s->block) && !record_of(s, RECORD_PATH).size &&
        !s->extensions[LONG_NAME].pending)
        return refuse(s, "a GNU header with text where ustar has a prefix, which some readers put "
                         "in front of the name");
    return long_text(s, RECORD_PATH, LONG_NAME, "name", &s->name);
}

/* The type of the member at hand into its mode. */
static int member_type(scanner *s, member *m)
{
    int slash = s->name.at[s->name.size - 1] == '/';
    uint8_t type = s->block[156];
    switch (type) {
    case 0:
    case '0':
        /* Directories had no type of their own once. Go takes such a name for a directory's only
         * under the type NUL. */
        if (slash && !type) {
            m->mode |= S_IFDIR;
            return m->size ? refuse(s, "a directory with content") : 0;
        }
        m->mode |= S_IFREG;
        return slash ? refuse(s, "a regular file whose name ends with a slash") : 0;
    case '1':
        m->mode |= S_IFREG;
        m->flags |= MEMBER_HARD_LINK;
        break;
    case '2': m->mode |= S_IFLNK; break;
    case '3': m->mode |= S_IFCHR; break;
    case '4': m->mode |= S_IFBLK; break;
    case '5': m->mode |= S_IFDIR; break;
    case '6': m->mode |= S_IFIFO; break;
    case '7': return refuse(s, "a contiguous file, which no container client unpacks");
    default:
        return refuse(s, "the member type \\x%02x (%s) is not understood", type, type_told(type));
    }
    /* No content follows, whatever the size says: it tells of the linked file, or of what a
     * directory may hold. */
    m->size = 0;
    return 0;
}

static int append(scanner *s, const member *m)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity + s->capacity / 2 + 8;
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

/* What the records say of the content's digest, and whether it must be computed. */
static void begin_digest(scanner *s, member *m)
{
    static const record_key keys[] = {RECORD_DIGEST, RECORD_OLDER_DIGEST};
    s->claims = 0;
    for (int i = 0; i < 2; i++) {
        span record = record_of(s, keys[i]);
        s->claims += parse_digest(record.at, record.size, s->claimed[s->claims]);
    }
    s->hashing = !s->trust || !s->claims;
    if (s->hashing) {
        sha256_init(&s->context);
    } else {
        memcpy(m->digest, s->claimed[0], sizeof m->digest);
        m->flags |= MEMBER_DIGEST_KNOWN;
    }
}

static int end_digest(scanner *s)
{
    member *m = s->members + s->count - 1;
    sha256_final(s->kernel, &s->context, m->digest);
    m->flags |= MEMBER_DIGEST_KNOWN;
    s->hashing = 0;
    for (int i = 0; i < s->claims; i++)
        if (memcmp(m->digest, s->claimed[i], sizeof m->digest))
            return refuse(s,
                          "a lying record: its checksum record is not the digest of its content");
    return 0;
}

static int begin_member(scanner *s)
{
    member m = {.name = NULL, .offset = s->offset};
    uint64_t mode = 0, uid = 0, gid = 0, rdev_major = 0, rdev_minor = 0;
    if (s->forgetting && s->arena.held + s->count * sizeof *s->members > KEPT) {
        arena_release(&s->arena);
        s->count = 0;
    }
    if (raw_name(s))
        return -1;
    if (!s->name.size)
        return refuse(s, "a member without a name");
    if (s->name.size > NAME_LIMIT)
        return refuse(s, "a name of %zu bytes; at most %d are accepted", s->name.size, NAME_LIMIT);
    if (header_number(s, 100, 8, UINT32_MAX, "mode", &mode) ||
        member_number(s, RECORD_UID, 108, 8, UINT32_MAX, "uid", &uid) ||
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
        if (!block_has_devices(s->block))
            return refuse(s, "a device in a header of a format without device numbers");
        if (header_number(s, 329, 8, UINT32_MAX, "device number", &rdev_major) ||
            header_number(s, 337, 8, UINT32_MAX, "device number", &rdev_minor))
            return -1;
        m.rdev = makedev((unsigned)rdev_major, (unsigned)rdev_minor);
    }
    /* Those of a directory may be written again: a layer upon this one may need a header of its own
     * for it. */
    int whole = s->whole || S_ISDIR(m.mode);
    if (whole
            ? records_pack(&s->records, &s->arena, &m.xattrs, &m.xattrs_size)
            : records_pack_condensed(&s->records, s->kernel, &s->arena, &m.xattrs, &m.xattrs_size))
        return exhausted(s);
    if (s->records.redirects)
        return refuse(s,
                      "an extended attribute that lets an overlay show other files in its place");
    if (s->records.ambiguous)
        m.flags |= MEMBER_AMBIGUOUS;
    if (s->records.newline)
        m.flags |= MEMBER_XATTR_NEWLINE;
    if (S_ISREG(m.mode) && !(m.flags & MEMBER_HARD_LINK))
        begin_digest(s, &m);
    see_time(s, &m);
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
    uint64_t size = 0,
             most = kind == LONG_NAME || kind == LONG_TARGET ? NAME_LIMIT + 1 : RECORDS_LIMIT;
    if (header_number(s, 124, 12, INT64_MAX, "size", &size))
        return -1;
    if (size > most)
        return refuse(s,
                      "an extended header of %" PRIu64 " bytes; at most %" PRIu64 " are accepted",
                      size, most);
    if (e->pending)
        return refuse(s, "two extended headers of one kind for one member");
    e->size = 0;
    return body(s, EXTENSION, size);
}

static int add_to_extension(scanner *s, const uint8_t *data, size_t size)
{
    extension *e = s->extension;
    if (size > e->capacity - e->size) {
        /* Doubling what is there, so that memory follows what has been read and not what a header
         * claims. */
        size_t capacity = 2 * e->size > e->size + size ? 2 * e->size : e->size + size;
        if (capacity > e->size + s->left)
            capacity = e->size + (size_t)s->left;
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

static int is_pending(const scanner *s)
{
    return s->extensions[LONG_NAME].pending || s->extensions[LONG_TARGET].pending ||
           s->extensions[RECORDS].pending;
}

/* POSIX readers apply global records to all members that follow, Go's readers to none. Only such as
 * nobody applies may pass: a comment. */
static int end_globals(scanner *s)
{
    int counts = s->globals.xattrs_count || s->globals.ambiguous || s->globals.redirects;
    for (int i = 0; i < RECORD_KEYS; i++)
        counts = counts || s->globals.values[i].at;
    return counts ? refuse(s, "a global header with records that some readers apply to all members "
                              "and others to none")
                  : 0;
}

static int begin_globals(scanner *s)
{
    static const char *const names[] = {"pax_global_header", "@PaxHeader"};
    s->name = (span){s->joined, block_name(s->block, s->joined)};
    if (is_pending(s))
        return refuse(s, "a global header between an extended header and its member");
    span bare = s->name;
    for (; bare.size > 2 && bare.at[0] == '.' && bare.at[1] == '/'; bare.at += 2)
        bare.size -= 2;
    for (int i = 0; i < 2 && !block_prefix_misread(s->block); i++)
        if (bare.size == strlen(names[i]) && !memcmp(bare.at, names[i], bare.size))
            return begin_extension(s, GLOBAL_RECORDS);
    return refuse(
        s, "a global header of that name, for which some clients remove the file of that name");
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
    records_clear(&s->globals);
    if (records_parse(global ? &s->globals : &s->records, e->text, e->size, &problem))
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
        status = end_digest(s);
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

static int header(scanner *s)
{
    s->filled = 0;
    s->where = s->offset - BLOCK;
    if (is_zero(s->block, BLOCK)) {
        s->state = END;
        s->zeros = BLOCK;
        return is_pending(s)
                   ? refuse(s, "the archive ends where an extended header wants its member")
                   : 0;
    }
    if (s->digesting_headers)
        sha256_update(s->kernel, &s->headers, s->block, BLOCK);
    if (!block_checksum_holds(s->block))
        return refuse(s, "this is no tar header: its checksum does not hold");
    switch (s->block[156]) {
    case 'L': return begin_extension(s, LONG_NAME);
    case 'K': return begin_extension(s, LONG_TARGET);
    case 'x': return begin_extension(s, RECORDS);
    case 'g': return begin_globals(s);
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

/* The content's digest and the archive's, side by side where both are wanted: two cost hardly more
 * than one. */
static void hash_content(scanner *s, const uint8_t *data, size_t size)
{
    if (s->hashing && s->digesting)
        sha256_update_two(s->kernel, &s->context, data, size, &s->archive, data, size);
    else if (s->hashing || s->digesting)
        sha256_update(s->kernel, s->hashing ? &s->context : &s->archive, data, size);
}

static int content(scanner *s, const uint8_t *data, size_t size)
{
    if (s->state == EXTENSION && add_to_extension(s, data, size))
        return -1;
    if (s->state == CONTENT)
        hash_content(s, data, size);
    s->left -= size;
    return s->left ? 0 : end_body(s);
}

static size_t least(uint64_t a, size_t b)
{
    return a < b ? (size_t)a : b;
}

/* What stands at DATA takes part in the recipe, as far as the present state reaches. Blocks of
 * headers follow when they are whole. */
static void hash_headers(scanner *s, const uint8_t *data, size_t size)
{
    if (s->state == EXTENSION || s->state == GAP)
        sha256_update(s->kernel, &s->headers, data,
                      least(s->state == GAP ? s->padding : s->left, size));
    if (s->state == PADDING && !is_zero(data, least(s->padding, size)))
        s->unlike_ours = 1;
}

int scanner_feed(scanner *s, const uint8_t *data, size_t size)
{
    while (size && !s->failed) {
        size_t step = size;
        int content_hashed = s->state == CONTENT;
        if (s->digesting_headers)
            hash_headers(s, data, size);
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
        if (s->digesting && !content_hashed)
            sha256_update(s->kernel, &s->archive, data, step);
        data += step;
        size -= step;
    }
    return s->failed ? -1 : 0;
}

/* The memory that only reading takes: there may be thousands of layers. */
static void give_back(scanner *s)
{
    for (int i = 0; i < EXTENSION_KINDS; i++)
        free(s->extensions[i].text);
    memset(s->extensions, 0, sizeof s->extensions);
    records_free(&s->records);
    records_free(&s->globals);
    member *fitting = s->count ? realloc(s->members, s->count * sizeof *s->members) : NULL;
    if (fitting) {
        s->members = fitting;
        s->capacity = s->count;
    }
}

int scanner_finish(scanner *s)
{
    if (s->failed)
        return -1;
    s->where = s->offset;
    /* Some writers leave out the padding of their last member. */
    if (s->filled || (s->state != HEADER && s->state != PADDING && s->state != END))
        return refuse(s, "the archive is truncated");
    if (is_pending(s))
        return refuse(s, "the archive is truncated: an extended header wants its member");
    mark_float_times(s);
    give_back(s);
    return 0;
}

scanner *scanner_new(const sha256_kernel *kernel, size_t memory_limit, int trust)
{
    scanner *s = calloc(1, sizeof *s);
    if (s) {
        s->kernel = kernel;
        s->memory_limit = memory_limit;
        s->trust = trust;
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

void scanner_digest_archive(scanner *s)
{
    s->digesting = 1;
    sha256_init(&s->archive);
}

void scanner_archive_digest(const scanner *s, uint8_t digest[SHA256_DIGEST])
{
    sha256_final(s->kernel, &s->archive, digest);
}

void scanner_keep_whole(scanner *s)
{
    s->whole = 1;
}

void scanner_forget(scanner *s)
{
    s->forgetting = 1;
}

void scanner_digest_headers(scanner *s)
{
    s->digesting_headers = 1;
    sha256_init(&s->headers);
}

int scanner_headers_digest(const scanner *s, uint8_t digest[SHA256_DIGEST])
{
    if (!s->digesting_headers || s->unlike_ours || s->state != END || s->zeros != 2 * BLOCK)
        return 0;
    sha256_final(s->kernel, &s->headers, digest);
    return 1;
}

void scanner_free(scanner *s)
{
    if (!s)
        return;
    arena_release(&s->arena);
    give_back(s);
    free(s->members);
    free(s);
}
