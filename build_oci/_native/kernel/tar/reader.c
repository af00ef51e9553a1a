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

int tar_reader_exhausted(tar_reader *r)
{
    r->failed = 1;
    r->error[0] = 0;
    return -1;
}

int tar_reader_refuse(tar_reader *r, const char *format, ...)
{
    enum { SHOWN = 100 };
    char name[4 * SHOWN + 8] = "";
    size_t at = 0;
    if (r->name.size) {
        size_t shown = r->name.size < SHOWN ? r->name.size : SHOWN;
        name[at++] = '\'';
        for (size_t i = 0; i < shown; i++) {
            uint8_t c = r->name.at[i];
            at += (size_t)snprintf(name + at, sizeof name - at,
                                   c < ' ' || c > '~' || c == '\\' || c == '\'' ? "\\x%02x" : "%c",
                                   c);
        }
        snprintf(name + at, sizeof name - at, "%s': ", shown < r->name.size ? "..." : "");
    }
    int length = snprintf(r->error, sizeof r->error, "at byte %" PRIu64 ": %s", r->where, name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->error + length, sizeof r->error - (size_t)length, format, arguments);
    va_end(arguments);
    r->failed = 1;
    return -1;
}

size_t tar_reader_held(const tar_reader *r)
{
    return r->arena.held + r->capacity * sizeof *r->members + (r->whole_names ? r->shared : 0);
}

static int body(tar_reader *, state kind, uint64_t size);

static int begin_extension(tar_reader *r, extension_kind kind)
{
    extension *e = r->extension = r->extensions + kind;
    uint64_t size = 0,
             most = kind == LONG_NAME || kind == LONG_TARGET ? NAME_LIMIT + 1 : RECORDS_LIMIT;
    if (tar_reader_number(r, SIZE_AT, LONG_SIZE, INT64_MAX, "size", &size))
        return -1;
    if (size > most)
        return tar_reader_refuse(
            r, "an extended header of %" PRIu64 " bytes; at most %" PRIu64 " are accepted", size,
            most);
    if (e->pending)
        return tar_reader_refuse(r, "two extended headers of one kind for one member");
    e->size = 0;
    return body(r, EXTENSION, size);
}

static int add_to_extension(tar_reader *r, const uint8_t *data, size_t size)
{
    extension *e = r->extension;
    /* Memory follows what has been read, and not what a header claims. */
    if (GROW(&e->text, &e->capacity, e->size + size))
        return tar_reader_exhausted(r);
    assert(size <= r->left && e->size + size <= e->capacity);
    memcpy(e->text + e->size, data, size);
    e->size += size;
    return 0;
}

static int is_pending(const tar_reader *r)
{
    return r->extensions[LONG_NAME].pending || r->extensions[LONG_TARGET].pending ||
           r->extensions[RECORDS].pending;
}

/* POSIX readers apply global records to all members that follow, Go's readers to none. Only such as
 * nobody applies may pass: a comment. */
static int end_globals(tar_reader *r)
{
    int counts = r->globals.xattrs_count || r->globals.ambiguous || r->globals.redirects;
    for (int i = 0; i < RECORD_KEYS; i++)
        counts = counts || r->globals.values[i].at;
    return counts ? tar_reader_refuse(
                        r, "a global header with records that some readers apply to all members "
                           "and others to none")
                  : 0;
}

static int begin_globals(tar_reader *r)
{
    static const char *const names[] = {"pax_global_header", "@PaxHeader"};
    r->name = (span){r->joined, block_name(r->block, r->joined)};
    if (is_pending(r))
        return tar_reader_refuse(r, "a global header between an extended header and its member");
    span bare = r->name;
    for (; bare.size > 2 && bare.at[0] == '.' && bare.at[1] == '/'; bare.at += 2)
        bare.size -= 2;
    for (int i = 0; i < 2 && !block_prefix_misread(r->block); i++)
        if (bare.size == strlen(names[i]) && !memcmp(bare.at, names[i], bare.size))
            return begin_extension(r, GLOBAL_RECORDS);
    return tar_reader_refuse(
        r, "a global header of that name, for which some clients remove the file of that name");
}

static int end_extension(tar_reader *r)
{
    extension *e = r->extension;
    if (e == r->extensions + LONG_NAME || e == r->extensions + LONG_TARGET) {
        while (e->size && !e->text[e->size - 1])
            e->size--;
        if (!e->size)
            return tar_reader_refuse(r, "an extended header with an empty name");
        e->pending = 1;
        return 0;
    }
    int global = e == r->extensions + GLOBAL_RECORDS;
    const char *problem;
    records_clear(&r->globals);
    if (records_parse(global ? &r->globals : &r->records, e->text, e->size, &problem))
        return problem ? tar_reader_refuse(r, "%s", problem) : tar_reader_exhausted(r);
    e->pending = !global;
    return global ? end_globals(r) : 0;
}

static int end_body(tar_reader *r)
{
    int status = 0;
    state behind = r->state == EXTENSION ? GAP : PADDING;
    if (r->state == EXTENSION) {
        status = end_extension(r);
    } else if (r->hashing) {
        status = tar_reader_end_digest(r);
    }
    r->state = r->padding ? behind : HEADER;
    return status;
}

/* SIZE bytes of content or extension follow, padded to whole blocks. */
static int body(tar_reader *r, state kind, uint64_t size)
{
    r->state = kind;
    r->left = size;
    r->padding = (size_t)(0 - size) & (TAR_BLOCK - 1);
    assert((kind == EXTENSION || kind == CONTENT) && (size + r->padding) % TAR_BLOCK == 0);
    return size ? 0 : end_body(r);
}

static int begin_member(tar_reader *r)
{
    uint64_t size;
    if (tar_reader_begin_member(r, &size))
        return -1;
    if (r->alone && r->hashing && size)
        return tar_reader_refuse(r, "no checksum record, in a list of headers without contents");
    return body(r, CONTENT, r->alone ? 0 : size);
}

static int header(tar_reader *r)
{
    r->filled = 0;
    r->where = r->offset - TAR_BLOCK;
    if (block_is_zero(r->block, TAR_BLOCK)) {
        r->state = END;
        r->zeros = TAR_BLOCK;
        if (r->alone)
            return tar_reader_refuse(r, "zeros, in a list of headers");
        return is_pending(r) ? tar_reader_refuse(
                                   r, "the archive ends where an extended header wants its member")
                             : 0;
    }
    if (r->digesting_headers)
        sha256_update(r->kernel, &r->headers, r->block, TAR_BLOCK);
    if (!block_checksum_holds(r->block))
        return tar_reader_refuse(r, "this is no tar header: its checksum does not hold");
    switch (r->block[TYPE_AT]) {
    case 'L': return begin_extension(r, LONG_NAME);
    case 'K': return begin_extension(r, LONG_TARGET);
    case 'x': return begin_extension(r, RECORDS);
    case 'g': return begin_globals(r);
    default: return begin_member(r);
    }
}

static int end(tar_reader *r, const uint8_t *data, size_t size)
{
    size_t zeros = 0, most = ZEROS_LIMIT - (size_t)r->zeros;
    if (block_is_zero(data, size))
        zeros = size;
    while (zeros < size && !data[zeros])
        zeros++;
    /* Told by where it is in the archive, not by how the archive was cut. */
    r->where = r->offset - size + (zeros < most ? zeros : most);
    r->zeros += zeros;
    if (zeros > most)
        return tar_reader_refuse(r, "more than %d zero bytes at the end of the archive",
                                 ZEROS_LIMIT);
    return zeros < size ? tar_reader_refuse(r, "data after the end of the archive") : 0;
}

/* The content's digest and the archive's, side by side where both are wanted: two cost hardly more
 * than one. */
static void hash_content(tar_reader *r, const uint8_t *data, size_t size)
{
    if (r->hashing && r->digesting)
        sha256_update_two(r->kernel, &r->context, data, size, &r->archive, data, size);
    else if (r->hashing || r->digesting)
        sha256_update(r->kernel, r->hashing ? &r->context : &r->archive, data, size);
}

static int content(tar_reader *r, const uint8_t *data, size_t size)
{
    if (r->state == EXTENSION && add_to_extension(r, data, size))
        return -1;
    if (r->state == CONTENT)
        hash_content(r, data, size);
    r->left -= size;
    return r->left ? 0 : end_body(r);
}

static size_t least(uint64_t a, size_t b)
{
    return a < b ? (size_t)a : b;
}

/* What stands at DATA takes part in the recipe, as far as the present state reaches. Blocks of
 * headers follow when they are whole. */
static void hash_headers(tar_reader *r, const uint8_t *data, size_t size)
{
    if (r->state == EXTENSION || r->state == GAP)
        sha256_update(r->kernel, &r->headers, data,
                      least(r->state == GAP ? r->padding : r->left, size));
    if (r->state == PADDING && !block_is_zero(data, least(r->padding, size)))
        r->unlike_ours = 1;
}

int tar_reader_feed(tar_reader *r, const uint8_t *data, size_t size)
{
    while (size && !r->failed) {
        size_t step = size;
        int content_hashed = r->state == CONTENT;
        if (r->digesting_headers)
            hash_headers(r, data, size);
        switch (r->state) {
        case HEADER:
            if (!r->filled)
                r->name = (span){NULL, 0};
            step = least(size, TAR_BLOCK - r->filled);
            memcpy(r->block + r->filled, data, step);
            r->filled += step;
            r->offset += step;
            assert(r->filled <= TAR_BLOCK);
            if (r->filled == TAR_BLOCK)
                header(r);
            break;
        case EXTENSION:
        case CONTENT:
            step = least(r->left, size);
            r->offset += step;
            content(r, data, step);
            break;
        case GAP:
        case PADDING:
            assert(r->padding && r->padding < TAR_BLOCK && !r->left);
            step = least(r->padding, size);
            r->offset += step;
            r->padding -= step;
            if (!r->padding)
                r->state = HEADER;
            break;
        case END:
            r->offset += step;
            end(r, data, step);
            break;
        }
        assert(r->failed || step); /* every round takes something in */
        if (r->digesting && !content_hashed)
            sha256_update(r->kernel, &r->archive, data, step);
        data += step;
        size -= step;
    }
    return r->failed ? -1 : 0;
}

/* Goes over what follows and is not wanted, content whose digest is known, but no more than MOST
 * bytes. Returns how many that were. */
static uint64_t skip(tar_reader *r, uint64_t most)
{
    if (r->failed || r->state != CONTENT || r->hashing || r->digesting || r->digesting_headers)
        return 0;
    uint64_t size = r->left < most ? r->left : most;
    r->offset += size;
    r->left -= size;
    if (!r->left)
        end_body(r);
    return size;
}

int tar_reader_seek_through(tar_reader *r, int fd, uint64_t start, uint64_t size, uint64_t *at,
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
        if (tar_reader_feed(r, piece, (size_t)got))
            return -1;
        *at += skip(r, size - *at);
    }
    return 0;
}

/* The memory that only reading takes: there may be thousands of layers. */
static void give_back(tar_reader *r)
{
    for (int i = 0; i < EXTENSION_KINDS; i++)
        free(r->extensions[i].text);
    memset(r->extensions, 0, sizeof r->extensions);
    records_free(&r->records);
    records_free(&r->globals);
    free(r->last.at);
    free(r->next.at);
    r->last = r->next = (passing_name){NULL, 0, 0};
    member *fitting = r->count ? realloc(r->members, r->count * sizeof *r->members) : NULL;
    if (fitting) {
        r->members = fitting;
        r->capacity = r->count;
    }
}

int tar_reader_finish(tar_reader *r)
{
    if (r->failed)
        return -1;
    r->where = r->offset;
    /* Some writers leave out the padding of their last member. */
    if (r->filled || (r->state != HEADER && r->state != PADDING && r->state != END))
        return tar_reader_refuse(r, "the archive is truncated");
    if (is_pending(r))
        return tar_reader_refuse(r,
                                 "the archive is truncated: an extended header wants its member");
    tar_reader_mark_float_times(r);
    give_back(r);
    return 0;
}

tar_reader *tar_reader_new(const sha256_kernel *kernel, size_t memory_limit, int trust)
{
    tar_reader *r = calloc(1, sizeof *r);
    if (r) {
        r->kernel = kernel;
        r->memory_limit = memory_limit;
        r->trust = trust;
    }
    return r;
}

const member *tar_reader_members(const tar_reader *r, size_t *count)
{
    *count = r->count;
    return r->members;
}

const char *tar_reader_error(const tar_reader *r)
{
    return *r->error ? r->error : NULL;
}

void tar_reader_digest_archive(tar_reader *r)
{
    r->digesting = 1;
    sha256_init(&r->archive);
}

void tar_reader_archive_digest(const tar_reader *r, uint8_t digest[SHA256_DIGEST])
{
    sha256_final(r->kernel, &r->archive, digest);
}

void tar_reader_keep_whole(tar_reader *r)
{
    r->whole = 1;
}

void tar_reader_count_whole_names(tar_reader *r)
{
    r->whole_names = 1;
}

void tar_reader_forget(tar_reader *r)
{
    r->forgetting = 1;
}

void tar_reader_headers_alone(tar_reader *r)
{
    r->alone = r->trust = 1;
}

void tar_reader_digest_headers(tar_reader *r)
{
    r->digesting_headers = 1;
    sha256_init(&r->headers);
}

int tar_reader_headers_digest(const tar_reader *r, uint8_t digest[SHA256_DIGEST])
{
    if (!r->digesting_headers || r->unlike_ours || r->state != END || r->zeros != 2 * TAR_BLOCK)
        return 0;
    sha256_final(r->kernel, &r->headers, digest);
    return 1;
}

void tar_reader_free(tar_reader *r)
{
    if (!r)
        return;
    arena_release(&r->arena);
    give_back(r);
    free(r->members);
    free(r);
}
