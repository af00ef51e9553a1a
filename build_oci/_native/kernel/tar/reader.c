#include "reader_state.h"

#include "grow.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RECORDS_LIMIT = 1024 * 1024, /* Go reads no more */
    /* the end of the archive and what a writer may pad it with */
    ZEROS_LIMIT = 2 * TAR_BLOCK + 1024 * 1024,
};

int tar_reader_exhausted(tar_reader *s)
{
    s->failed = 1;
    s->error[0] = 0;
    return -1;
}

int tar_reader_refuse(tar_reader *s, const char *format, ...)
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

size_t tar_reader_held(const tar_reader *s)
{
    return s->arena.held + s->capacity * sizeof *s->members;
}

static int body(tar_reader *, state kind, uint64_t size);

static int begin_extension(tar_reader *s, extension_kind kind)
{
    extension *e = s->extension = s->extensions + kind;
    uint64_t size = 0,
             most = kind == LONG_NAME || kind == LONG_TARGET ? NAME_LIMIT + 1 : RECORDS_LIMIT;
    if (tar_reader_number(s, SIZE_AT, LONG_SIZE, INT64_MAX, "size", &size))
        return -1;
    if (size > most)
        return tar_reader_refuse(
            s, "an extended header of %" PRIu64 " bytes; at most %" PRIu64 " are accepted", size,
            most);
    if (e->pending)
        return tar_reader_refuse(s, "two extended headers of one kind for one member");
    e->size = 0;
    return body(s, EXTENSION, size);
}

static int add_to_extension(tar_reader *s, const uint8_t *data, size_t size)
{
    extension *e = s->extension;
    /* Memory follows what has been read, and not what a header claims. */
    if (GROW(&e->text, &e->capacity, e->size + size))
        return tar_reader_exhausted(s);
    assert(size <= s->left && e->size + size <= e->capacity);
    memcpy(e->text + e->size, data, size);
    e->size += size;
    return 0;
}

static int is_pending(const tar_reader *s)
{
    return s->extensions[LONG_NAME].pending || s->extensions[LONG_TARGET].pending ||
           s->extensions[RECORDS].pending;
}

/* POSIX readers apply global records to all members that follow, Go's readers to none. Only such as
 * nobody applies may pass: a comment. */
static int end_globals(tar_reader *s)
{
    int counts = s->globals.xattrs_count || s->globals.ambiguous || s->globals.redirects;
    for (int i = 0; i < RECORD_KEYS; i++)
        counts = counts || s->globals.values[i].at;
    return counts ? tar_reader_refuse(
                        s, "a global header with records that some readers apply to all members "
                           "and others to none")
                  : 0;
}

static int begin_globals(tar_reader *s)
{
    static const char *const names[] = {"pax_global_header", "@PaxHeader"};
    s->name = (span){s->joined, block_name(s->block, s->joined)};
    if (is_pending(s))
        return tar_reader_refuse(s, "a global header between an extended header and its member");
    span bare = s->name;
    for (; bare.size > 2 && bare.at[0] == '.' && bare.at[1] == '/'; bare.at += 2)
        bare.size -= 2;
    for (int i = 0; i < 2 && !block_prefix_misread(s->block); i++)
        if (bare.size == strlen(names[i]) && !memcmp(bare.at, names[i], bare.size))
            return begin_extension(s, GLOBAL_RECORDS);
    return tar_reader_refuse(
        s, "a global header of that name, for which some clients remove the file of that name");
}

static int end_extension(tar_reader *s)
{
    extension *e = s->extension;
    if (e == s->extensions + LONG_NAME || e == s->extensions + LONG_TARGET) {
        while (e->size && !e->text[e->size - 1])
            e->size--;
        if (!e->size)
            return tar_reader_refuse(s, "an extended header with an empty name");
        e->pending = 1;
        return 0;
    }
    int global = e == s->extensions + GLOBAL_RECORDS;
    const char *problem;
    records_clear(&s->globals);
    if (records_parse(global ? &s->globals : &s->records, e->text, e->size, &problem))
        return problem ? tar_reader_refuse(s, "%s", problem) : tar_reader_exhausted(s);
    e->pending = !global;
    return global ? end_globals(s) : 0;
}

static int end_body(tar_reader *s)
{
    int status = 0;
    state behind = s->state == EXTENSION ? GAP : PADDING;
    if (s->state == EXTENSION) {
        status = end_extension(s);
    } else if (s->hashing) {
        status = tar_reader_end_digest(s);
    }
    s->state = s->padding ? behind : HEADER;
    return status;
}

/* SIZE bytes of content or extension follow, padded to whole blocks. */
static int body(tar_reader *s, state kind, uint64_t size)
{
    s->state = kind;
    s->left = size;
    s->padding = (size_t)(0 - size) & (TAR_BLOCK - 1);
    assert((kind == EXTENSION || kind == CONTENT) && (size + s->padding) % TAR_BLOCK == 0);
    return size ? 0 : end_body(s);
}

static int begin_member(tar_reader *s)
{
    uint64_t size;
    return tar_reader_begin_member(s, &size) ? -1 : body(s, CONTENT, size);
}

static int header(tar_reader *s)
{
    s->filled = 0;
    s->where = s->offset - TAR_BLOCK;
    if (block_is_zero(s->block, TAR_BLOCK)) {
        s->state = END;
        s->zeros = TAR_BLOCK;
        return is_pending(s) ? tar_reader_refuse(
                                   s, "the archive ends where an extended header wants its member")
                             : 0;
    }
    if (s->digesting_headers)
        sha256_update(s->kernel, &s->headers, s->block, TAR_BLOCK);
    if (!block_checksum_holds(s->block))
        return tar_reader_refuse(s, "this is no tar header: its checksum does not hold");
    switch (s->block[TYPE_AT]) {
    case 'L': return begin_extension(s, LONG_NAME);
    case 'K': return begin_extension(s, LONG_TARGET);
    case 'x': return begin_extension(s, RECORDS);
    case 'g': return begin_globals(s);
    default: return begin_member(s);
    }
}

static int end(tar_reader *s, const uint8_t *data, size_t size)
{
    size_t zeros = 0, most = ZEROS_LIMIT - (size_t)s->zeros;
    if (block_is_zero(data, size))
        zeros = size;
    while (zeros < size && !data[zeros])
        zeros++;
    /* Told by where it is in the archive, not by how the archive was cut. */
    s->where = s->offset - size + (zeros < most ? zeros : most);
    s->zeros += zeros;
    if (zeros > most)
        return tar_reader_refuse(s, "more than %d zero bytes at the end of the archive",
                                 ZEROS_LIMIT);
    return zeros < size ? tar_reader_refuse(s, "data after the end of the archive") : 0;
}

/* The content's digest and the archive's, side by side where both are wanted: two cost hardly more
 * than one. */
static void hash_content(tar_reader *s, const uint8_t *data, size_t size)
{
    if (s->hashing && s->digesting)
        sha256_update_two(s->kernel, &s->context, data, size, &s->archive, data, size);
    else if (s->hashing || s->digesting)
        sha256_update(s->kernel, s->hashing ? &s->context : &s->archive, data, size);
}

static int content(tar_reader *s, const uint8_t *data, size_t size)
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
static void hash_headers(tar_reader *s, const uint8_t *data, size_t size)
{
    if (s->state == EXTENSION || s->state == GAP)
        sha256_update(s->kernel, &s->headers, data,
                      least(s->state == GAP ? s->padding : s->left, size));
    if (s->state == PADDING && !block_is_zero(data, least(s->padding, size)))
        s->unlike_ours = 1;
}

int tar_reader_feed(tar_reader *s, const uint8_t *data, size_t size)
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
            step = least(size, TAR_BLOCK - s->filled);
            memcpy(s->block + s->filled, data, step);
            s->filled += step;
            s->offset += step;
            assert(s->filled <= TAR_BLOCK);
            if (s->filled == TAR_BLOCK)
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
            assert(s->padding && s->padding < TAR_BLOCK && !s->left);
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
        assert(s->failed || step); /* every round takes something in */
        if (s->digesting && !content_hashed)
            sha256_update(s->kernel, &s->archive, data, step);
        data += step;
        size -= step;
    }
    return s->failed ? -1 : 0;
}

/* Goes over what follows and is not wanted, content whose digest is known, but no more than MOST
 * bytes. Returns how many that were. */
static uint64_t skip(tar_reader *s, uint64_t most)
{
    if (s->failed || s->state != CONTENT || s->hashing || s->digesting || s->digesting_headers)
        return 0;
    uint64_t size = s->left < most ? s->left : most;
    s->offset += size;
    s->left -= size;
    if (!s->left)
        end_body(s);
    return size;
}

int tar_reader_seek_through(tar_reader *s, int fd, uint64_t start, uint64_t size, uint64_t *at,
                            size_t most, int *error)
{
    /* Headers of a member or two, and the small files between them. */
    uint8_t piece[8 * 1024];
    for (size_t reads = 0; reads < most && *at < size; reads++) {
        ssize_t got = pread(fd, piece, least(size - *at, sizeof piece), (off_t)(start + *at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            *error = got ? errno : 0;
            return 1;
        }
        *at += (uint64_t)got;
        if (tar_reader_feed(s, piece, (size_t)got))
            return -1;
        *at += skip(s, size - *at);
    }
    return 0;
}

/* The memory that only reading takes: there may be thousands of layers. */
static void give_back(tar_reader *s)
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

int tar_reader_finish(tar_reader *s)
{
    if (s->failed)
        return -1;
    s->where = s->offset;
    /* Some writers leave out the padding of their last member. */
    if (s->filled || (s->state != HEADER && s->state != PADDING && s->state != END))
        return tar_reader_refuse(s, "the archive is truncated");
    if (is_pending(s))
        return tar_reader_refuse(s,
                                 "the archive is truncated: an extended header wants its member");
    tar_reader_mark_float_times(s);
    give_back(s);
    return 0;
}

tar_reader *tar_reader_new(const sha256_kernel *kernel, size_t memory_limit, int trust)
{
    tar_reader *s = calloc(1, sizeof *s);
    if (s) {
        s->kernel = kernel;
        s->memory_limit = memory_limit;
        s->trust = trust;
    }
    return s;
}

const member *tar_reader_members(const tar_reader *s, size_t *count)
{
    *count = s->count;
    return s->members;
}

const char *tar_reader_error(const tar_reader *s)
{
    return *s->error ? s->error : NULL;
}

void tar_reader_digest_archive(tar_reader *s)
{
    s->digesting = 1;
    sha256_init(&s->archive);
}

void tar_reader_archive_digest(const tar_reader *s, uint8_t digest[SHA256_DIGEST])
{
    sha256_final(s->kernel, &s->archive, digest);
}

void tar_reader_keep_whole(tar_reader *s)
{
    s->whole = 1;
}

void tar_reader_forget(tar_reader *s)
{
    s->forgetting = 1;
}

void tar_reader_digest_headers(tar_reader *s)
{
    s->digesting_headers = 1;
    sha256_init(&s->headers);
}

int tar_reader_headers_digest(const tar_reader *s, uint8_t digest[SHA256_DIGEST])
{
    if (!s->digesting_headers || s->unlike_ours || s->state != END || s->zeros != 2 * TAR_BLOCK)
        return 0;
    sha256_final(s->kernel, &s->headers, digest);
    return 1;
}

void tar_reader_free(tar_reader *s)
{
    if (!s)
        return;
    arena_release(&s->arena);
    give_back(s);
    free(s->members);
    free(s);
}
