#include "parts.h"

#include "crc64.h"
#include "metadata.h"
#include "rolling.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Room for one more of the SIZE bytes each that ITEMS holds; NULL without memory. */
static void *one_more(void **items, size_t *count, size_t *capacity, size_t size)
{
    if (*count == *capacity) {
        size_t more = *capacity ? 2 * *capacity : 64;
        void *moved = realloc(*items, more * size);
        if (!moved)
            return NULL;
        *items = moved;
        *capacity = more;
    }
    return (char *)*items + size * (*count)++;
}

#define ONE_MORE(p, what) \
    one_more((void **)&(p)->what, &(p)->what##_count, &(p)->what##_capacity, sizeof *(p)->what)

static int no_memory(problem *out, const entry *at)
{
    *out = (problem){.kind = PROBLEM_SYSTEM, .error = ENOMEM, .call = "malloc", .at = at};
    return -1;
}

static int add_item(parts *p, size_t member, uint64_t headers, uint64_t size, size_t of_piece)
{
    item *new = ONE_MORE(p, items);
    if (!new)
        return -1;
    *new = (item){member, headers, size, of_piece};
    return 0;
}

static int add_piece(parts *p, const plan *from, size_t member, uint64_t start, uint64_t offset,
                     uint64_t size)
{
    piece *new = ONE_MORE(p, pieces);
    if (!new)
        return -1;
    *new = (piece){.member = member,
                   .start = start,
                   .size = size,
                   .offset = offset,
                   .is_last = offset + size == from->members[member]->size};
    return 0;
}

int is_whole(const piece *c)
{
    return !c->offset && c->is_last;
}

/* One segment that begins at AT of the block. */
static int find_items(parts *p, const plan *from, const segment *s, uint64_t at)
{
    if (s->kind == SEGMENT_HEADER || s->kind == SEGMENT_END)
        return add_item(p, s->first, at, s->size, NO_PIECE);
    if (s->kind == SEGMENT_SLICE) {
        uint64_t left = from->members[s->first]->size - s->offset,
                 size = left < s->size ? left : s->size;
        piece *last = p->pieces_count ? &p->pieces[p->pieces_count - 1] : NULL;
        if (last && last->member == s->first) {
            last->size += size;
            last->is_last = size == left;
            return 0;
        }
        return add_piece(p, from, s->first, at, s->offset, size) ||
               add_item(p, s->first, 0, 0, p->pieces_count - 1);
    }
    for (size_t i = s->first; i < s->first + s->count; i++) {
        const entry *e = from->members[i];
        uint64_t headers = header_size(e, &from->options);
        size_t of_piece = has_content(e) ? p->pieces_count : NO_PIECE;
        if (!headers || (has_content(e) && add_piece(p, from, i, at + headers, 0, e->size)) ||
            add_item(p, i, at, headers, of_piece))
            return -1;
        at += headers + (has_content(e) ? padded(e->size) : 0);
    }
    return 0;
}

static int add_frame(parts *p, uint64_t start, uint64_t size)
{
    frame *new = ONE_MORE(p, frames);
    if (!new)
        return -1;
    *new = (frame){start, size};
    return 0;
}

/* What stands around a piece in its file, as far as it matters for the cuts. */
static int read_around(plan *from, reader *r, const piece *c, uint8_t *before, size_t *before_size,
                       uint8_t *after, size_t *after_size, problem *out)
{
    const entry *e = from->members[c->member];
    uint64_t end = c->offset + c->size;
    *before_size = c->offset < HOLE_MIN ? (size_t)c->offset : HOLE_MIN;
    *after_size = e->size - end < HOLE_MIN ? (size_t)(e->size - end) : HOLE_MIN;
    if (!*before_size && !*after_size)
        return 0;
    int fd = reader_open(r, e, out);
    if (fd < 0)
        return -1;
    int status = content_read(fd, e, c->offset - *before_size, before, *before_size, out);
    if (!status)
        status = content_read(fd, e, end, after, *after_size, out);
    close(fd);
    return status;
}

static int find_chunks(parts *p, plan *from, reader *r, piece *c, const uint8_t *data, cuts *found,
                       problem *out)
{
    uint8_t before[HOLE_MIN], after[HOLE_MIN];
    size_t before_size, after_size;
    const entry *e = from->members[c->member];
    if (read_around(from, r, c, before, &before_size, after, &after_size, out))
        return -1;
    found->count = 0;
    if (rolling_cut(found, data + c->start, (size_t)c->size, before, before_size, after, after_size,
                    &c->starts_chunk))
        return no_memory(out, e);
    c->checksum = crc64_update(0, data + c->start, (size_t)c->size);
    c->first = p->chunks_count;
    c->count = found->count;
    for (size_t i = 0; i < found->count; i++) {
        const cut *one = &found->items[i];
        chunk *new = ONE_MORE(p, chunks);
        if (!new || add_frame(p, c->start + one->start, one->size))
            return no_memory(out, e);
        int goes_on = (!i && !c->starts_chunk) || (i + 1 == found->count && !c->is_last);
        *new = (chunk){.frame = p->frames_count - 1,
                       .is_hole = one->is_hole,
                       .is_digested = !goes_on && !(is_whole(c) && found->count == 1)};
    }
    return 0;
}

static int digest_chunks(parts *p, const plan *from, const uint8_t *data)
{
    sha256_job *jobs = malloc((p->chunks_count + 1) * sizeof *jobs);
    if (!jobs)
        return -1;
    size_t count = 0;
    for (size_t i = 0; i < p->chunks_count; i++)
        if (p->chunks[i].is_digested) {
            const frame *f = &p->frames[p->chunks[i].frame];
            jobs[count++] = (sha256_job){
                .data = data + f->start, .size = (size_t)f->size, .digest = p->chunks[i].digest};
        }
    sha256_many(from->kernel, jobs, count);
    free(jobs);
    return 0;
}

int parts_find(parts *p, plan *from, size_t first, size_t count, const uint8_t *data, problem *out)
{
    uint64_t size = 0, at = 0;
    for (size_t i = first; i < first + count; size += from->segments[i++].size)
        if (find_items(p, from, &from->segments[i], size))
            return no_memory(out, &from->tree->root);

    reader r;
    reader_begin(&r, from->tree);
    cuts found = {0};
    int status = 0;
    for (size_t i = 0; !status && i < p->pieces_count; i++) {
        piece *c = &p->pieces[i];
        if (c->start > at && add_frame(p, at, c->start - at))
            status = no_memory(out, from->members[c->member]);
        else
            status = find_chunks(p, from, &r, c, data, &found, out);
        at = c->start + c->size;
    }
    free(found.items);
    reader_end(&r);
    if (!status && ((size > at && add_frame(p, at, size - at)) || digest_chunks(p, from, data)))
        status = no_memory(out, &from->tree->root);
    return status;
}

void parts_free(parts *p)
{
    free(p->frames);
    free(p->chunks);
    free(p->pieces);
    free(p->items);
    *p = (parts){0};
}

static void put_chunks(const parts *p, const plan *from, const piece *c, const uint64_t *packed,
                       uint64_t offset, text *out)
{
    const entry *e = from->members[c->member];
    size_t frame_of_first = p->chunks[c->first].frame;
    uint64_t end = offset;
    for (size_t i = 0; i < c->count; i++)
        end += packed[frame_of_first + i];
    uint64_t place = 0;
    for (size_t i = 0; i < c->count; i++) {
        const chunk *one = &p->chunks[c->first + i];
        uint64_t size = p->frames[one->frame].size;
        if (!i)
            toc_file(out, e, &from->options, offset, end);
        else
            toc_chunk(out, e, offset, place);
        if (c->count > 1)
            toc_chunk_keys(out, size, one->digest, one->is_hole);
        text_put(out, "}", 1);
        place += size;
        offset += packed[one->frame];
    }
}

void parts_toc(const parts *p, const plan *from, const uint64_t *packed, uint64_t offset, text *out)
{
    size_t next = 0; /* frame that OFFSET is the start of */
    for (size_t i = 0; i < p->items_count; i++) {
        const item *one = &p->items[i];
        if (one->member == from->members_count)
            continue;
        const entry *e = from->members[one->member];
        if (one->piece != NO_PIECE) {
            const piece *c = &p->pieces[one->piece];
            if (!is_whole(c))
                continue;
            for (; next < p->chunks[c->first].frame; next++)
                offset += packed[next];
            put_chunks(p, from, c, packed, offset, out);
        } else if (!has_content(e)) {
            toc_entry(out, e, &from->options);
            text_put(out, "}", 1);
        }
    }
}

void parts_tar_split(const parts *p, const plan *from, const uint8_t *data, text *out)
{
    for (size_t i = 0; i < p->items_count; i++) {
        const item *one = &p->items[i];
        size_t member = one->member;
        if (one->headers_size) {
            const entry *previous = member ? from->members[member - 1] : NULL;
            size_t padding = previous && has_content(previous)
                                 ? (size_t)(padded(previous->size) - previous->size)
                                 : 0;
            tar_split_bytes(out, padding, data + one->headers, (size_t)one->headers_size,
                            2 * (uint64_t)member);
        }
        if (member == from->members_count)
            continue;
        const entry *e = from->members[member];
        if (one->piece != NO_PIECE) {
            const piece *c = &p->pieces[one->piece];
            if (is_whole(c))
                tar_split_content(out, e, c->checksum, 2 * (uint64_t)member + 1);
        } else if (!has_content(e)) {
            tar_split_content(out, e, 0, 2 * (uint64_t)member + 1);
        }
    }
}
