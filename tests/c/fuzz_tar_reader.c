/*
 * libFuzzer target of the tar reader (contract: promise-hostile-input): whatever the bytes, no
 * undefined behaviour, bounded memory, and the same outcome however they are cut into pieces.
 */
#include "member_name.h"
#include "reader.h"
#include "tar_mutator.h"
#include "xattr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MEMORY = 8 << 20 };

static tar_reader *new_reader(int alone)
{
    tar_reader *r = tar_reader_new(sha256_kernel_at(SHA256_SCALAR), MEMORY, 0);
    if (!r)
        abort();
    if (alone)
        tar_reader_headers_alone(r);
    return r;
}

static tar_reader *read_cut(const uint8_t *data, size_t size, unsigned seed, int alone)
{
    tar_reader *r = new_reader(alone);
    for (size_t at = 0; at < size;) {
        seed = seed * 1103515245 + 12345;
        size_t step = seed & 0x80000000 ? 1 + (seed >> 16) % 31 : 1 + (seed >> 16) % 2000;
        if (step > size - at)
            step = size - at;
        /* A copy of its own, so that reading past a piece is seen. */
        uint8_t *piece = malloc(step);
        memcpy(piece, data + at, step);
        int refused = tar_reader_feed(r, piece, step);
        free(piece);
        at += step;
        if (refused)
            break;
    }
    tar_reader_finish(r);
    return r;
}

static int same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static int same_bytes(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    return a_size == b_size && (!a_size || !memcmp(a, b, a_size));
}

/* NAME is that of M. */
static void check(const member *m, const char *name)
{
    if (strlen(name) != m->name_size || (m->target && strlen(m->target) != m->target_size))
        abort();
    if (*name == '/' || strstr(name, "//") || !strcmp(name, "..") || !strncmp(name, "../", 3) ||
        strstr(name, "/../"))
        abort();
    size_t size, directory_size;
    const char *base = member_base_name(m, &size, &directory_size), *slash = strrchr(name, '/');
    if (strcmp(base, slash ? slash + 1 : name) || size != strlen(base) ||
        directory_size != (slash ? (size_t)(slash - name) : 0))
        abort();
    if (m->mtime_ns >= 1000000000 ||
        ((m->mode & S_IFMT) == S_IFLNK) != (m->target && !(m->flags & MEMBER_HARD_LINK)))
        abort();
    xattr item, last = {.name_size = 0};
    for (size_t at = 0; xattr_next(m->xattrs, m->xattrs_size, &at, &item); last = item) {
        size_t shorter = item.name_size < last.name_size ? item.name_size : last.name_size;
        int order = last.name_size ? memcmp(last.name, item.name, shorter) : -1;
        if (order > 0 || (!order && last.name_size >= item.name_size) ||
            xattr_is_of_host(item.name, item.name_size))
            abort();
    }
}

/* ALONE: as a header list. */
static void read_as(const uint8_t *data, size_t size, int alone)
{
    tar_reader *whole = new_reader(alone), *cut = read_cut(data, size, (unsigned)size, alone);
    tar_reader_feed(whole, data, size);
    tar_reader_finish(whole);
    size_t count, cut_count;
    const member *a = tar_reader_members(whole, &count), *b = tar_reader_members(cut, &cut_count);
    int refused = tar_reader_feed(whole, NULL, 0);
    if (count != cut_count || refused != tar_reader_feed(cut, NULL, 0) ||
        (refused && !same_text(tar_reader_error(whole), tar_reader_error(cut))))
        abort();
    passing_name name = {NULL, 0, 0}, cut_name = {NULL, 0, 0};
    for (size_t i = 0; i < count; i++) {
        if (passing_name_next(&name, a + i) || passing_name_jump(&cut_name, b + i))
            abort();
        check(a + i, name.at);
        if (!same_text(name.at, cut_name.at) || !same_text(a[i].target, b[i].target) ||
            a[i].size != b[i].size || a[i].mode != b[i].mode || a[i].mtime != b[i].mtime ||
            memcmp(a[i].digest, b[i].digest, 32) ||
            !same_bytes(a[i].xattrs, a[i].xattrs_size, b[i].xattrs, b[i].xattrs_size))
            abort();
    }
    free(name.at);
    free(cut_name.at);
    tar_reader_free(whole);
    tar_reader_free(cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_as(data, size, 0);
    read_as(data, size, 1);
    return 0;
}
