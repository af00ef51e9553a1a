/*
 * The rule for archives that readers disagree about.
 *
 * A file that equals the parent's is left out of the new layer, so the parent's archive must mean
 * to us what it means to the clients that unpack it: umoci, and what is built upon
 * containers/storage or moby (buildah, podman, docker). All of them read it with Go's archive/tar.
 * A member that one of them may read otherwise than we do is refused or marked.
 *
 * Refused, because no client agrees with us, or the name itself is in question:
 * - global pax records that count, or under a name of their own (containers/storage removes what
 *   has that name)
 * - a global header between an extended header and its member
 * - GNU long names that differ from a pax path or linkpath
 * - a GNU header with text in the place of ustar's prefix that Go reads as one
 * - devices under a magic for which Go reads no device numbers
 * - regular files whose name ends with a slash
 * - contiguous files
 * - xattrs that redirect an overlay
 * - checksum records that are not the content's
 *
 * Marked MEMBER_AMBIGUOUS, because the name is certain and the rest is not, so that it never counts
 * as equal:
 * - LIBARCHIVE.xattr records without the same name under SCHILY.xattr
 * - xattrs by which an overlay hides what is below
 *
 * lower.c holds the other half: names and directories that depend on how a client applies a layer.
 */
#include "reader_state.h"

#include "grow.h"
#include "hex.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum {
    SYMLINK_LIMIT = PATH_MAX - 1,  /* no file system holds a longer target */
    WHITEOUT_LIMIT = NAME_MAX + 4, /* `.wh.` in front of the longest name: never a file on a disk */
    KEPT = 1024 * 1024,            /* bytes of members, where they are not wanted */
};

int tar_reader_number(tar_reader *r, size_t at, size_t size, uint64_t most, const char *what,
                      uint64_t *out)
{
    int64_t value;
    if (block_number(r->block + at, size, &value) || value < 0 || (uint64_t)value > most)
        return tar_reader_refuse(r, "the %s in the header is not a number that it can be", what);
    *out = (uint64_t)value;
    return 0;
}

/* The record of the member at hand; empty where there is none or it was taken back. */
static span record_of(const tar_reader *r, record_key key)
{
    return r->records.values[key];
}

/* The number WHAT of the member at hand: from its record, else from its header. */
static int member_number(tar_reader *r, record_key key, size_t at, size_t size, uint64_t most,
                         const char *what, uint64_t *out)
{
    span record = record_of(r, key);
    if (!record.size)
        return tar_reader_number(r, at, size, most, what, out);
    return records_decimal(record, most, out)
               ? tar_reader_refuse(r, "the %s in a pax record is not a number that it can be", what)
               : 0;
}

static int member_time(tar_reader *r, member *m)
{
    span record = record_of(r, RECORD_MTIME);
    if (record.size)
        return records_time(record, &m->mtime, &m->mtime_ns)
                   ? tar_reader_refuse(r, "the mtime in a pax record is not a time")
                   : 0;
    return block_number(r->block + MTIME_AT, LONG_SIZE, &m->mtime)
               ? tar_reader_refuse(r, "the mtime in the header is not a time")
               : 0;
}

enum { SINCE = 1 << 30, FLOAT_DIGIT = 100, SHORT_FRACTION = 100000 };

/* Since 2004, a double holds a time to 7 digits behind the point, and hardly a file's time needs
 * less than 5. */
static void see_time(tar_reader *r, const member *m)
{
    if (m->mtime < SINCE || !m->mtime_ns)
        return;
    r->fine_times += m->mtime_ns % FLOAT_DIGIT != 0;
    r->float_times += m->mtime_ns % FLOAT_DIGIT == 0 && m->mtime_ns % SHORT_FRACTION != 0;
}

void tar_reader_mark_float_times(tar_reader *r)
{
    if (r->fine_times || !r->float_times)
        return;
    for (size_t i = 0; i < r->count; i++)
        if (r->members[i].mtime >= SINCE)
            r->members[i].flags |= MEMBER_FLOAT_TIME;
}

/* RAW without leading and closing slashes, empty and "." components, into TO, which has room for
 * it and a NUL. */
static int normalise(tar_reader *r, span raw, const char *what, char *to, size_t *size)
{
    if (memchr(raw.at, 0, raw.size))
        return tar_reader_refuse(r, "its %s holds a NUL byte", what);
    size_t used = 0;
    for (size_t at = 0, length; at < raw.size; at += length + 1) {
        const uint8_t *part = raw.at + at, *slash = memchr(part, '/', raw.size - at);
        length = slash ? (size_t)(slash - part) : raw.size - at;
        if (!length || (length == 1 && *part == '.'))
            continue;
        if (length == 2 && part[0] == '.' && part[1] == '.')
            return tar_reader_refuse(r, "its %s has a component \"..\"", what);
        int whiteout = at + length == raw.size && length >= 4 && !memcmp(part, ".wh.", 4);
        if (length > (whiteout ? WHITEOUT_LIMIT : NAME_MAX))
            return tar_reader_refuse(
                r, "its %s has a component of %zu bytes; no file system takes more than %d", what,
                length, NAME_MAX);
        if (used)
            to[used++] = '/';
        memcpy(to + used, part, length);
        used += length;
    }
    assert(used <= raw.size && (!used || to[0] != '/') && (!used || to[used - 1] != '/'));
    to[used] = 0;
    *size = used;
    return 0;
}

/* How many bytes of whole directories A and B have in common, with their slashes, of all but the
 * last component of B. */
static size_t common_directories(const passing_name *a, const passing_name *b)
{
    size_t most = a->size < b->size ? a->size : b->size, same = 0;
    if (most > UINT16_MAX)
        most = UINT16_MAX;
    while (same < most && a->at[same] == b->at[same])
        same++;
    const char *slash = same ? memrchr(b->at, '/', same) : NULL;
    return slash ? (size_t)(slash - b->at) + 1 : 0;
}

/* The normalised name of the member at hand, which becomes the next in the array. */
static int member_own_name(tar_reader *r, member *m)
{
    if (GROW(&r->next.at, &r->next.capacity, r->name.size + 1))
        return tar_reader_exhausted(r);
    if (normalise(r, r->name, "name", r->next.at, &r->next.size))
        return -1;
    size_t shared = r->count % MEMBERS_TO_WHOLE_NAME ? common_directories(&r->last, &r->next) : 0;
    m->tail = arena_copy(&r->arena, r->next.at + shared, r->next.size - shared);
    if (!m->tail)
        return tar_reader_exhausted(r);
    m->name_size = (uint32_t)r->next.size;
    m->shared = (uint16_t)shared;
    r->shared += shared;
    passing_name last = r->last;
    r->last = r->next;
    r->next = last;
    return 0;
}

/* TEXT from the record KEY or from what GNU wrote in front of the member, where there is either. Go
 * takes GNU's of the two, POSIX pax's. */
static int long_text(tar_reader *r, record_key key, extension_kind kind, const char *what,
                     span *text)
{
    span record = record_of(r, key), gnu = {r->extensions[kind].text, r->extensions[kind].size};
    int pending = r->extensions[kind].pending;
    if (pending && record.size && (record.size != gnu.size || memcmp(record.at, gnu.at, gnu.size)))
        return tar_reader_refuse(
            r,
            "a pax record and a GNU header give it different %ss, and readers disagree "
            "about which counts",
            what);
    if (record.size)
        *text = record;
    else if (pending)
        *text = gnu;
    return 0;
}

static int member_target(tar_reader *r, member *m)
{
    span raw = {r->block + LINK_AT, block_text(r->block + LINK_AT, LINK_SIZE)};
    if (long_text(r, RECORD_LINKPATH, LONG_TARGET, "target", &raw))
        return -1;
    if (!raw.size)
        return tar_reader_refuse(r, "a link without a target");
    if (raw.size > NAME_LIMIT)
        return tar_reader_refuse(r, "a link target of %zu bytes; at most %d are accepted", raw.size,
                                 NAME_LIMIT);
    if (m->flags & MEMBER_HARD_LINK) {
        char *target = arena_take_bytes(&r->arena, raw.size + 1);
        size_t size;
        if (!target)
            return tar_reader_exhausted(r);
        if (normalise(r, raw, "link target", target, &size))
            return -1;
        m->target = target;
        m->target_size = (uint32_t)size;
        return m->target_size ? 0 : tar_reader_refuse(r, "a hard link to the root");
    }
    if (memchr(raw.at, 0, raw.size))
        return tar_reader_refuse(r, "its link target holds a NUL byte");
    if (raw.size > SYMLINK_LIMIT)
        return tar_reader_refuse(r, "a link target of %zu bytes; no file system takes more than %d",
                                 raw.size, SYMLINK_LIMIT);
    m->target = arena_copy(&r->arena, raw.at, raw.size);
    m->target_size = (uint32_t)raw.size;
    return m->target ? 0 : tar_reader_exhausted(r);
}

/* The name as it stands in the archive. */
static int raw_name(tar_reader *r)
{
    r->name = (span){r->joined, block_name(r->block, r->joined)};
    if (block_prefix_misread(r->block) && !record_of(r, RECORD_PATH).size &&
        !r->extensions[LONG_NAME].pending)
        return tar_reader_refuse(
            r, "a GNU header with text where ustar has a prefix, which some readers put "
               "in front of the name");
    return long_text(r, RECORD_PATH, LONG_NAME, "name", &r->name);
}

/* The type of the member at hand into its mode. */
static int member_type(tar_reader *r, member *m)
{
    int slash = r->name.at[r->name.size - 1] == '/';
    uint8_t type = r->block[TYPE_AT];
    switch (type) {
    case 0:
    case '0':
        /* Directories had no type of their own once. Go takes such a name for a directory's only
         * under the type NUL. */
        if (slash && !type) {
            m->mode |= S_IFDIR;
            return m->size ? tar_reader_refuse(r, "a directory with content") : 0;
        }
        m->mode |= S_IFREG;
        return slash ? tar_reader_refuse(r, "a regular file whose name ends with a slash") : 0;
    case '1':
        m->mode |= S_IFREG;
        m->flags |= MEMBER_HARD_LINK;
        break;
    case '2': m->mode |= S_IFLNK; break;
    case '3': m->mode |= S_IFCHR; break;
    case '4': m->mode |= S_IFBLK; break;
    case '5': m->mode |= S_IFDIR; break;
    case '6': m->mode |= S_IFIFO; break;
    case '7': return tar_reader_refuse(r, "a contiguous file, which no container client unpacks");
    default:
        return tar_reader_refuse(r, "the member type \\x%02x (%s) is not understood", type,
                                 block_type_name(type));
    }
    /* No content follows, whatever the size says: it tells of the linked file, or of what a
     * directory may hold. */
    m->size = 0;
    return 0;
}

static int refuse_memory(tar_reader *r)
{
    return tar_reader_refuse(r, "the archive's members need more than %zu MiB of memory",
                             r->memory_limit >> 20);
}

static int append(tar_reader *r, const member *m)
{
    if (GROW(&r->members, &r->capacity, r->count + 1))
        return tar_reader_exhausted(r);
    r->members[r->count++] = *m;
    return tar_reader_held(r) > r->memory_limit ? refuse_memory(r) : 0;
}

/* What the records say of the content's digest, and whether it must be computed. */
static void begin_digest(tar_reader *r, member *m)
{
    static const record_key keys[] = {RECORD_DIGEST, RECORD_OLDER_DIGEST};
    r->claims = 0;
    for (int i = 0; i < 2; i++) {
        span record = record_of(r, keys[i]);
        r->claims += hex_parse_digest(record.at, record.size, r->claimed[r->claims]);
    }
    r->hashing = !r->trust || !r->claims;
    if (r->hashing) {
        sha256_init(&r->context);
    } else {
        memcpy(m->digest, r->claimed[0], sizeof m->digest);
        m->flags |= MEMBER_DIGEST_KNOWN;
    }
}

int tar_reader_end_digest(tar_reader *r)
{
    assert(r->count && r->hashing);
    member *m = r->members + r->count - 1;
    sha256_final(r->kernel, &r->context, m->digest);
    m->flags |= MEMBER_DIGEST_KNOWN;
    r->hashing = 0;
    for (int i = 0; i < r->claims; i++)
        if (memcmp(m->digest, r->claimed[i], sizeof m->digest))
            return tar_reader_refuse(
                r, "a lying record: its checksum record is not the digest of its content");
    return 0;
}

int tar_reader_begin_member(tar_reader *r, uint64_t *content_size)
{
    member m = {.offset = r->offset};
    uint64_t mode = 0, uid = 0, gid = 0, rdev_major = 0, rdev_minor = 0;
    if (r->forgetting && r->arena.held + r->count * sizeof *r->members > KEPT) {
        arena_release(&r->arena);
        r->count = r->shared = 0;
    }
    if (raw_name(r))
        return -1;
    if (!r->name.size)
        return tar_reader_refuse(r, "a member without a name");
    if (r->name.size > NAME_LIMIT)
        return tar_reader_refuse(r, "a name of %zu bytes; at most %d are accepted", r->name.size,
                                 NAME_LIMIT);
    if (tar_reader_number(r, MODE_AT, ID_SIZE, UINT32_MAX, "mode", &mode) ||
        member_number(r, RECORD_UID, UID_AT, ID_SIZE, UINT32_MAX, "uid", &uid) ||
        member_number(r, RECORD_GID, GID_AT, ID_SIZE, UINT32_MAX, "gid", &gid) ||
        member_number(r, RECORD_SIZE, SIZE_AT, LONG_SIZE, INT64_MAX, "size", &m.size) ||
        member_time(r, &m))
        return -1;
    m.mode = mode & 07777;
    m.uid = (uint32_t)uid;
    m.gid = (uint32_t)gid;
    if (member_type(r, &m) || member_own_name(r, &m))
        return -1;
    if (!m.name_size && !S_ISDIR(m.mode))
        return tar_reader_refuse(r, "the root is no directory");
    if ((m.flags & MEMBER_HARD_LINK || S_ISLNK(m.mode)) && member_target(r, &m))
        return -1;
    if (S_ISCHR(m.mode) || S_ISBLK(m.mode)) {
        if (!block_has_devices(r->block))
            return tar_reader_refuse(r, "a device in a header of a format without device numbers");
        if (tar_reader_number(r, MAJOR_AT, ID_SIZE, UINT32_MAX, "device number", &rdev_major) ||
            tar_reader_number(r, MINOR_AT, ID_SIZE, UINT32_MAX, "device number", &rdev_minor))
            return -1;
        m.rdev = makedev((unsigned)rdev_major, (unsigned)rdev_minor);
    }
    /* Those of a directory may be written again: a layer upon this one may need a header of its own
     * for it. */
    int whole = r->whole || S_ISDIR(m.mode);
    if (whole
            ? records_pack(&r->records, &r->arena, &m.xattrs, &m.xattrs_size)
            : records_pack_condensed(&r->records, r->kernel, &r->arena, &m.xattrs, &m.xattrs_size))
        return tar_reader_exhausted(r);
    if (r->records.redirects)
        return tar_reader_refuse(
            r, "an extended attribute that lets an overlay show other files in its place");
    if (r->records.ambiguous)
        m.flags |= MEMBER_AMBIGUOUS;
    if (r->records.newline)
        m.flags |= MEMBER_XATTR_NEWLINE;
    if (S_ISREG(m.mode) && !(m.flags & MEMBER_HARD_LINK))
        begin_digest(r, &m);
    see_time(r, &m);
    if (append(r, &m))
        return -1;
    for (int i = 0; i < EXTENSION_KINDS; i++)
        r->extensions[i].pending = 0;
    records_clear(&r->records);
    *content_size = m.size;
    return 0;
}
