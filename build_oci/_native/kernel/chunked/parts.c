#include "parts.h"

#include "crc64.h"
#include "grow.h"
#include "metadata.h"
#include "rolling.h"

#include <stdlib.h>
#include <string.h>

/* One more of the parts WHAT, all zero; NULL without memory. */
#define ONE_MORE(p, what)                                           \
    (GROW(&(p)->what, &(p)->what##_capacity, (p)->what##_count + 1) \
         ? NULL                                                     \
         : memset(&(p)->what[(p)->what##_count++], 0, sizeof *(p)->what))

item *parts_add_item(parts *p)
{
    item *new = ONE_MORE(p, items);
    if (new)
        new->piece = NO_PIECE;
    return new;
}

piece *parts_add_piece(parts *p)
{
    return ONE_MORE(p, pieces);
}

void parts_free(parts *p)
{
    free(p->frames);
    free(p->chunks);
    free(p->pieces);
    free(p->items);
    free(p->texts.at);
    *p = (parts){0};
}

int piece_is_whole(const piece *c)
{
    return !c->offset && c->is_last;
}

static int add_frame(parts *p, uint64_t start, uint64_t size)
{
    frame *new = ONE_MORE(p, frames);
    if (!new)
        return -1;
    *new = (frame){start, size};
    return 0;
}

static int find_chunks(parts *p, piece *c, const uint8_t *data, read_around *around, void *of,
                       cuts *found)
{
    uint8_t before[HOLE_MIN], after[HOLE_MIN];
    size_t before_size = 0, after_size = 0;
    if (!piece_is_whole(c) && around(of, c, before, &before_size, after, &after_size))
        return CUT_UNREADABLE;
    found->count = 0;
    if (rolling_cut(found, data + c->start, (size_t)c->size, before, before_size, after, after_size,
                    &c->starts_chunk))
        return CUT_WITHOUT_MEMORY;
    c->checksum = crc64_update(0, data + c->start, (size_t)c->size);
    c->first = p->chunks_count;
    c->count = found->count;
    for (size_t i = 0; i < found->count; i++) {
        const cut *one = &found->items[i];
        chunk *new = ONE_MORE(p, chunks);
        if (!new || add_frame(p, c->start + one->start, one->size))
            return CUT_WITHOUT_MEMORY;
        int goes_on = (!i && !c->starts_chunk) || (i + 1 == found->count && !c->is_last);
        *new = (chunk){.frame = p->frames_count - 1,
                       .is_hole = one->is_hole,
                       .is_digested = !goes_on && !(piece_is_whole(c) && found->count == 1)};
    }
    return 0;
}

/* Digests of chunks, and of whole files where they are not known yet. */
static int digest(parts *p, const sha256_kernel *kernel, const uint8_t *data)
{
    sha256_job *jobs = malloc((p->chunks_count + p->pieces_count + 1) * sizeof *jobs);
    if (!jobs)
        return CUT_WITHOUT_MEMORY;
    size_t count = 0;
    for (size_t i = 0; i < p->pieces_count; i++) {
        piece *c = &p->pieces[i];
        if (piece_is_whole(c) && !c->is_digested)
            jobs[count++] = (sha256_job){data + c->start, (size_t)c->size, c->digest};
    }
    for (size_t i = 0; i < p->chunks_count; i++)
        if (p->chunks[i].is_digested) {
            const frame *f = &p->frames[p->chunks[i].frame];
            jobs[count++] = (sha256_job){data + f->start, (size_t)f->size, p->chunks[i].digest};
        }
    sha256_many(kernel, jobs, count);
    free(jobs);
    return 0;
}

int parts_cut(parts *p, const sha256_kernel *kernel, const uint8_t *data, uint64_t size,
              read_around *around, void *of)
{
    uint64_t at = 0;
    cuts found = {0};
    int status = p->texts.failed ? CUT_WITHOUT_MEMORY : 0;
    for (size_t i = 0; !status && i < p->pieces_count; i++) {
        piece *c = &p->pieces[i];
        if (c->start > at && add_frame(p, at, c->start - at))
            status = CUT_WITHOUT_MEMORY;
        else
            status = find_chunks(p, c, data, around, of, &found);
        at = c->start + c->size;
    }
    free(found.items);
    if (!status && size > at && add_frame(p, at, size - at))
        status = CUT_WITHOUT_MEMORY;
    return status ? status : digest(p, kernel, data);
}

static void put_span(const parts *p, text_span span, text *out)
{
    if (span.size)
        text_put(out, p->texts.at + span.at, span.size);
}

static void put_chunks(const parts *p, const item *one, const piece *c, const uint64_t *packed,
                       uint64_t offset, text *out)
{
    const char *texts = p->texts.at;
    size_t frame_of_first = p->chunks[c->first].frame;
    uint64_t end = offset;
    for (size_t i = 0; i < c->count; i++)
        end += packed[frame_of_first + i];
    uint64_t place = 0;
    for (size_t i = 0; i < c->count; i++) {
        const chunk *part = &p->chunks[c->first + i];
        uint64_t size = p->frames[part->frame].size;
        if (!i) {
            put_span(p, one->entry, out);
            toc_content(out, c->digest, offset, end);
        } else {
            toc_chunk(out, texts + one->name.at, one->name.size, offset, place);
        }
        if (c->count > 1)
            toc_chunk_keys(out, size, part->digest, part->is_hole);
        text_put(out, "}", 1);
        place += size;
        offset += packed[part->frame];
    }
}

void parts_toc(const parts *p, const uint64_t *packed, uint64_t offset, text *out)
{
    size_t next = 0; /* frame that OFFSET is the start of */
    for (size_t i = 0; i < p->items_count; i++) {
        const item *one = &p->items[i];
        if (one->kind == ITEM_EMPTY) {
            put_span(p, one->entry, out);
            text_put(out, "}", 1);
        } else if (one->piece != NO_PIECE && piece_is_whole(&p->pieces[one->piece])) {
            const piece *c = &p->pieces[one->piece];
            for (; next < p->chunks[c->first].frame; next++)
                offset += packed[next];
            put_chunks(p, one, c, packed, offset, out);
        }
    }
}

void parts_tar_split(const parts *p, const uint8_t *data, text *out)
{
    for (size_t i = 0; i < p->items_count; i++) {
        const item *one = &p->items[i];
        const piece *c = one->piece == NO_PIECE ? NULL : &p->pieces[one->piece];
        const char *name = one->name.size ? p->texts.at + one->name.at : "";
        if (one->headers_size)
            tar_split_bytes(out, one->padding, data + one->headers, (size_t)one->headers_size,
                            one->position);
        if (one->kind == ITEM_EMPTY)
            tar_split_content(out, name, one->name.size, 0, 0, one->position + 1);
        else if (c && piece_is_whole(c))
            tar_split_content(out, name, one->name.size, one->size, c->checksum, one->position + 1);
    }
}

const item *parts_opened(const parts *p)
{
    for (size_t i = p->items_count; i-- > 0;) {
        const item *one = &p->items[i];
        if (one->kind == ITEM_CONTENT && one->headers_size) {
            /* The pieces of a large file follow its headers, as one piece, in the same item or the
             * next. */
            const piece *c = p->pieces_count ? &p->pieces[p->pieces_count - 1] : NULL;
            return c && c->item >= i && piece_is_whole(c) ? NULL : one;
        }
    }
    return NULL;
}
