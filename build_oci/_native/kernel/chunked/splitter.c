#include "splitter.h"

#include "block.h"
#include "grow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MOST = 3 * (EXTENSION_MOST + 2 * TAR_BLOCK), END_LINE = 1 << 20 };

static void refuse(splitter *s, const char *problem)
{
    s->problem = problem;
}

static void exhausted(splitter *s)
{
    s->without_memory = 1;
}

static int is_stopped(const splitter *s)
{
    return s->problem || s->without_memory || s->full || s->is_waiting;
}

/* ---- blocks */

static void begin_piece(splitter *s)
{
    piece *new = parts_add_piece(&s->block);
    if (!new) {
        exhausted(s);
        return;
    }
    new->item = s->block.items_count - 1;
    new->start = s->size;
    new->offset = s->offset;
    s->block.items[new->item].piece = s->block.pieces_count - 1;
}

static void end_piece(splitter *s, uint64_t size, int is_last)
{
    piece *last = &s->block.pieces[s->block.pieces_count - 1];
    last->size = size;
    last->is_last = is_last;
}

static item *add_item(splitter *s, item_kind kind)
{
    item *new = parts_add_item(&s->block);
    if (!new) {
        exhausted(s);
        return NULL;
    }
    new->kind = kind;
    new->position = s->position;
    new->headers = s->run;
    new->headers_size = s->size - s->run;
    return new;
}

static void end_content(splitter *s)
{
    s->run = s->size;
    s->left = (0 - s->content) & (TAR_BLOCK - 1);
    s->state = s->left ? SPLIT_PADDING : SPLIT_HEADER;
    s->content = 0;
}

/* The member whose headers are complete goes into the block at hand. */
static void add_member(splitter *s)
{
    const member_header *m = &s->member;
    item *new = add_item(s, m->content ? ITEM_CONTENT : ITEM_EMPTY);
    if (!new)
        return;
    new->size = m->content;
    new->entry = m->entry;
    new->name = m->name;
    s->position += 2;
    s->run = s->size;
    s->state = SPLIT_HEADER;
    if (m->content) {
        s->state = SPLIT_CONTENT;
        s->content = s->left = m->content;
        s->offset = 0;
        begin_piece(s);
        /* Where the headers alone fill the block, some of the content belongs to it as well. */
        if (s->size + TAR_BLOCK > s->cut)
            s->cut = s->size + TAR_BLOCK;
    } else if (s->size >= s->cut) {
        s->full = s->size;
    }
}

static void end_headers(splitter *s)
{
    const char *problem =
        member_header_read(s->headers, s->headers_size, &s->block.texts, &s->member);
    s->headers_size = 0;
    if (problem) {
        refuse(s, problem);
        return;
    }
    switch (path_set_add(&s->paths, s->member.path)) {
    case PATH_NEW: break;
    case PATH_TWICE: refuse(s, "a name stands twice in the archive"); return;
    case PATH_WITHOUT_MEMORY: exhausted(s); return;
    }
    if (s->run && s->size + s->member.content > s->cut) {
        s->is_waiting = 1;
        s->full = s->run;
    } else {
        add_member(s);
    }
}

/*
 * The archive has come to its end. Clients read each line of the tar-split like the start of an
 * archive, behind what a content before it has to get. So lines behind the first one, which has the
 * end in it, begin where a block does.
 */
static void begin_end(splitter *s)
{
    s->state = SPLIT_END;
    s->end_line = END_LINE + ((s->size - s->run) & (TAR_BLOCK - 1));
}

/* Bytes that belong to no member, from `run` on. */
static void add_end(splitter *s)
{
    if (s->size == s->run || !add_item(s, ITEM_BYTES))
        return;
    s->has_end = 1;
    s->end_line = END_LINE;
    s->position++;
    s->run = s->size;
    if (s->size >= s->cut)
        s->full = s->size;
}

/* ---- the archive */

static void keep_header(splitter *s, const uint8_t *data, size_t size)
{
    if (GROW(&s->headers, &s->headers_capacity, s->headers_size + size)) {
        exhausted(s);
        return;
    }
    memcpy(s->headers + s->headers_size, data, size);
    s->headers_size += size;
}

/* The last block of `headers` is complete. */
static void end_header_block(splitter *s)
{
    const uint8_t *block = s->headers + s->headers_size - TAR_BLOCK;
    s->header_filled = 0;
    if (block_is_zero(block, TAR_BLOCK)) {
        if (s->headers_size > TAR_BLOCK)
            refuse(s, "the archive ends where an extended header wants its member");
        s->headers_size = 0;
        if (++s->zeros == 2)
            begin_end(s);
        return;
    }
    if (s->zeros) {
        refuse(s, "the archive goes on behind a block of zeros");
        return;
    }
    if (!member_header_is_extension(block[TYPE_AT])) {
        end_headers(s);
        return;
    }
    const char *problem = member_header_extension_size(block, &s->left);
    if (problem) {
        refuse(s, problem);
        return;
    }
    s->left = (s->left + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
    s->state = s->left ? SPLIT_EXTENSION : SPLIT_HEADER;
    if (s->headers_size + s->left > HEADERS_MOST)
        refuse(s, "a member has two extended headers of one kind");
}

static size_t feed_header(splitter *s, const uint8_t *data, size_t size)
{
    size_t step = TAR_BLOCK - s->header_filled < size ? TAR_BLOCK - s->header_filled : size;
    keep_header(s, data, step);
    if (s->without_memory)
        return 0;
    s->size += step;
    s->header_filled += step;
    if (s->header_filled == TAR_BLOCK)
        end_header_block(s);
    return step;
}

/* Takes in STEP bytes of what has `left`; is that the last of it? */
static int pass(splitter *s, size_t step)
{
    s->size += step;
    s->left -= step;
    return !s->left;
}

static size_t least(uint64_t a, size_t b)
{
    return a < b ? (size_t)a : b;
}

static size_t feed_content(splitter *s, size_t size)
{
    /* Of a content that reaches beyond the block, take in as much as its next chunk depends on. */
    uint64_t end = s->size + s->left, beyond = end > s->cut ? end - s->cut : 0;
    uint64_t wanted = beyond ? s->cut + least(beyond, HOLE_MIN) - s->size : s->left;
    size_t step = least(wanted, size);
    int is_end = pass(s, step);
    if (step < wanted)
        return step;
    if (beyond) {
        s->full = s->cut;
    } else {
        assert(is_end);
        (void)is_end;
        end_piece(s, s->content - s->offset, 1);
        end_content(s);
    }
    return step;
}

/* What stands behind the first line of the end is the end of an archive to clients, too. */
static size_t feed_end(splitter *s, const uint8_t *data, size_t size)
{
    size_t step = least(s->end_line - (s->size - s->run), size);
    if (s->has_end && !block_is_zero(data, step)) {
        refuse(s, "something stands far behind the end of the archive");
        return 0;
    }
    s->size += step;
    if (s->size - s->run == s->end_line)
        add_end(s);
    return step;
}

size_t splitter_feed(splitter *s, const uint8_t *data, size_t size)
{
    size_t at = 0;
    while (at < size && !is_stopped(s)) {
        size_t step = 0;
        switch (s->state) {
        case SPLIT_HEADER: step = feed_header(s, data + at, size - at); break;
        case SPLIT_EXTENSION:
            step = least(s->left, size - at);
            keep_header(s, data + at, step);
            if (pass(s, step))
                s->state = SPLIT_HEADER;
            break;
        case SPLIT_CONTENT: step = feed_content(s, size - at); break;
        case SPLIT_PADDING:
            step = least(s->left, size - at);
            if (pass(s, step))
                s->state = SPLIT_HEADER;
            break;
        case SPLIT_END: step = feed_end(s, data + at, size - at); break;
        }
        at += step;
    }
    return at;
}

void splitter_finish(splitter *s)
{
    if (is_stopped(s))
        return;
    uint64_t line = s->size - s->run;
    int at_end = 0;
    switch (s->state) {
    case SPLIT_HEADER: at_end = !s->headers_size; break;
    case SPLIT_PADDING: at_end = !line; break; /* all of it or nothing, for clients */
    case SPLIT_END:
        /* A client looks for two blocks, or none. */
        at_end = !s->has_end || line >= 2 * TAR_BLOCK || line % TAR_BLOCK == 0;
        break;
    case SPLIT_EXTENSION:
    case SPLIT_CONTENT: break;
    }
    if (!at_end) {
        refuse(s, "the archive is truncated");
        return;
    }
    if (!s->position && !s->size)
        refuse(s, "the archive is empty");
    add_end(s);
    s->full = s->size;
}

/* The last bytes of the content that the block cuts off, which the next one needs. */
static void keep_before(splitter *s, const uint8_t *data, const piece *cut)
{
    size_t own = least(cut->size, HOLE_MIN), earlier = 0;
    if (cut->offset)
        earlier = least(HOLE_MIN - own, s->before_size);
    memmove(s->before, s->before + s->before_size - earlier, earlier);
    memcpy(s->before + earlier, data + s->full - own, own);
    s->before_size = earlier + own;
}

/* The block ended within a content, of which some bytes behind it were taken in as well. */
static void continue_content(splitter *s, uint64_t behind)
{
    s->run = 0;
    s->size = 0;
    item *new = add_item(s, ITEM_CONTENT);
    if (!new)
        return;
    new->position -= 2; /* of the member whose headers came before */
    new->size = s->content;
    begin_piece(s);
    s->size = behind;
    if (!s->left && !s->without_memory) {
        end_piece(s, s->content - s->offset, 1);
        end_content(s);
    }
}

/* The texts of the member that waits move into the new block's. */
static void move_text(splitter *s, const parts *from)
{
    member_header *m = &s->member;
    size_t before_name = m->name.at - m->entry.at;
    text_put(&s->block.texts, from->texts.at + m->entry.at, m->entry.size);
    m->entry.at = 0;
    m->name.at = before_name;
}

void splitter_take(splitter *s, const uint8_t *data, parts *out, surroundings *around)
{
    uint64_t behind = s->size - s->full;
    int is_cut = s->state == SPLIT_CONTENT && !s->is_waiting;
    memcpy(around->before, s->before, s->before_size);
    around->before_size = s->before_size;
    around->after_size = 0;
    s->before_size = 0;
    if (is_cut) {
        piece *cut = &s->block.pieces[s->block.pieces_count - 1];
        around->after_size = least(behind, HOLE_MIN);
        memcpy(around->after, data + s->full, around->after_size);
        end_piece(s, s->full - cut->start, 0);
        s->before_size = around->before_size;
        keep_before(s, data, cut);
        s->offset += cut->size;
    }

    *out = s->block;
    s->block = (parts){0};
    s->full = 0;
    s->cut = s->limit;
    if (s->is_waiting) {
        s->is_waiting = 0;
        move_text(s, out);
        s->run = 0;
        s->size = behind;
        add_member(s);
    } else if (is_cut) {
        continue_content(s, behind);
    } else {
        assert(!behind);
        s->run = s->size = 0;
    }
}

int splitter_read_surroundings(void *of, const piece *c, uint8_t *before, size_t *before_size,
                               uint8_t *after, size_t *after_size)
{
    const surroundings *around = of;
    *before_size = c->offset ? around->before_size : 0;
    *after_size = c->is_last ? 0 : around->after_size;
    memcpy(before, around->before, *before_size);
    memcpy(after, around->after, *after_size);
    return 0;
}

void splitter_begin(splitter *s, uint64_t limit)
{
    *s = (splitter){.limit = limit, .cut = limit};
}

void splitter_free(splitter *s)
{
    parts_free(&s->block);
    free(s->headers);
    path_set_free(&s->paths);
    *s = (splitter){0};
}
