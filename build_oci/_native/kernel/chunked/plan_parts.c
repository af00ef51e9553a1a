#include "plan_parts.h"

#include "metadata.h"
#include "rolling.h"
#include "xattr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { DEVICE_FIELD = 07777777 }; /* of a header: seven octal digits */

static void put_name(text *t, const entry *e)
{
    name_buffer b = {0};
    size_t size;
    const uint8_t *name = name_make(&b, e, &size);
    if (name)
        text_put_json(t, name, size);
    else
        t->failed = 1;
    name_end(&b);
}

/* Is the name of E UTF-8? -1 without memory. */
static int is_name_utf8(const entry *e)
{
    name_buffer b = {0};
    size_t size;
    const uint8_t *name = name_make(&b, e, &size);
    int found = name ? header_is_utf8(name, size) : -1;
    name_end(&b);
    return found;
}

static int is_link(const entry *e)
{
    return S_ISREG(e->mode) && e->link;
}

inexpressible plan_parts_can_say(const entry *e, const header_options *options)
{
    uint32_t nanoseconds;
    int64_t seconds;
    header_time(e, options, &seconds, &nanoseconds);
    if (seconds < TOC_FIRST_SECOND || seconds > TOC_LAST_SECOND)
        return TIME_TOO_FAR;
    if (entry_has_content(e) && !strncmp(e->name, ".wh.", 4))
        return WHITEOUT_WITH_CONTENT;
    /* The components above were looked at with their own entries, but are they emitted? */
    int fits = is_name_utf8(e);
    if (fits > 0 && S_ISLNK(e->mode))
        fits = header_is_utf8((const uint8_t *)e->target, e->target_size);
    if (fits > 0 && is_link(e))
        fits = is_name_utf8(e->link);
    if (fits < 0)
        return WITHOUT_MEMORY;
    xattr item;
    for (size_t at = 0; fits && !is_link(e) && xattr_next(e->xattrs, e->xattrs_size, &at, &item);)
        fits = header_is_utf8(item.name, item.name_size);
    return fits ? EXPRESSIBLE : NAME_NOT_UTF8;
}

static const char *type_of(const entry *e)
{
    switch (e->mode & S_IFMT) {
    case S_IFDIR: return "dir";
    case S_IFLNK: return "symlink";
    case S_IFCHR: return "char";
    case S_IFBLK: return "block";
    case S_IFIFO: return "fifo";
    default: return e->link ? "hardlink" : "reg";
    }
}

static void put_xattrs(text *t, const entry *e)
{
    xattr item;
    int first = 1;
    for (size_t at = 0; xattr_next(e->xattrs, e->xattrs_size, &at, &item); first = 0)
        toc_xattr(t, item.name, item.name_size, item.value, item.value_size, first);
    toc_xattrs_end(t);
}

void plan_parts_put_entry(text *t, const entry *e, const header_options *options, text_span *name)
{
    int is_device = S_ISCHR(e->mode) || S_ISBLK(e->mode);
    toc_numbers numbers = {
        .mode = e->mode & 07777,
        .size = entry_has_content(e) ? e->size : 0,
        .uid = e->uid,
        .gid = e->gid,
        .dev_major = is_device ? major((dev_t)e->rdev) & DEVICE_FIELD : 0,
        .dev_minor = is_device ? minor((dev_t)e->rdev) & DEVICE_FIELD : 0,
    };
    header_time(e, options, &numbers.modified.seconds, &numbers.modified.nanoseconds);
    toc_begin(t, type_of(e));
    name->at = t->size;
    put_name(t, e);
    name->size = t->size - name->at;
    if (is_link(e)) {
        toc_target(t);
        put_name(t, e->link);
    } else if (S_ISLNK(e->mode)) {
        toc_target(t);
        text_put_json(t, (const uint8_t *)e->target, e->target_size);
    }
    toc_put_numbers(t, &numbers);
    if (e->xattrs_size && !is_link(e))
        put_xattrs(t, e);
}

/* An item of MEMBER, with its place in the TOC if AND_ENTRY. */
static item *add_item(parts *p, const plan *from, size_t member, int and_entry)
{
    item *new = parts_add_item(p);
    if (!new)
        return NULL;
    const entry *e = from->members[member];
    new->kind = entry_has_content(e) ? ITEM_CONTENT : ITEM_EMPTY;
    new->position = 2 * (uint64_t)member;
    new->size = entry_has_content(e) ? e->size : 0;
    if (and_entry) {
        size_t at = p->texts.size;
        plan_parts_put_entry(&p->texts, e, &from->options, &new->name);
        new->entry = (text_span){at, p->texts.size - at};
    }
    return new;
}

static void add_headers(item *to, const plan *from, size_t member, uint64_t at, uint64_t size)
{
    const entry *previous = member ? from->members[member - 1] : NULL;
    to->headers = at;
    to->headers_size = size;
    if (previous && entry_has_content(previous))
        to->padding = (size_t)(tar_padded(previous->size) - previous->size);
}

static int add_piece(parts *p, const plan *from, size_t member, uint64_t start, uint64_t offset,
                     uint64_t size)
{
    const entry *e = from->members[member];
    piece *new = parts_add_piece(p);
    if (!new)
        return -1;
    new->item = p->items_count - 1;
    new->start = start;
    new->size = size;
    new->offset = offset;
    new->is_last = offset + size == e->size;
    new->is_digested = 1;
    memcpy(new->digest, e->digest, sizeof new->digest);
    p->items[new->item].piece = p->pieces_count - 1;
    return 0;
}

/* A slice of a large file that begins at AT of the block: more of the piece that the slice before
 * began, or another one. */
static int find_slice(parts *p, const plan *from, const segment *s, uint64_t at)
{
    uint64_t left = from->members[s->first]->size - s->offset;
    uint64_t size = left < s->size ? left : s->size;
    piece *last = p->pieces_count ? &p->pieces[p->pieces_count - 1] : NULL;
    if (last && p->items[last->item].position == 2 * (uint64_t)s->first) {
        last->size += size;
        last->is_last = size == left;
        return 0;
    }
    return !add_item(p, from, s->first, !s->offset) ||
           add_piece(p, from, s->first, at, s->offset, size);
}

/* The members of a batch that begins at AT of the block. */
static int find_members(parts *p, const plan *from, const segment *s, uint64_t at,
                        header_maker *maker)
{
    for (size_t i = s->first; i < s->first + s->count; i++) {
        const entry *e = from->members[i];
        uint64_t headers = header_size(maker, e);
        item *new = headers ? add_item(p, from, i, 1) : NULL;
        if (!new)
            return -1;
        add_headers(new, from, i, at, headers);
        if (entry_has_content(e) && add_piece(p, from, i, at + headers, 0, e->size))
            return -1;
        at += headers + (entry_has_content(e) ? tar_padded(e->size) : 0);
    }
    return 0;
}

/* One segment that begins at AT of the block. */
static int find_items(parts *p, const plan *from, const segment *s, uint64_t at)
{
    if (s->kind == SEGMENT_SLICE)
        return find_slice(p, from, s, at);
    if (s->kind == SEGMENT_END) {
        item *new = parts_add_item(p);
        if (!new)
            return -1;
        new->kind = ITEM_BYTES;
        new->position = 2 * (uint64_t)from->members_count;
        add_headers(new, from, from->members_count, at, s->size);
        return 0;
    }
    if (s->kind == SEGMENT_HEADER) {
        item *new = add_item(p, from, s->first, 1);
        if (!new)
            return -1;
        add_headers(new, from, s->first, at, s->size);
        return 0;
    }
    header_maker maker = {.options = &from->options};
    int status = find_members(p, from, s, at, &maker);
    header_maker_end(&maker);
    return status;
}

typedef struct files {
    const plan *from;
    const parts *parts;
    reader reader;
    problem *out;
} files;

static int read_file_around(void *of, const piece *c, uint8_t *before, size_t *before_size,
                            uint8_t *after, size_t *after_size)
{
    files *f = of;
    const entry *e = f->from->members[f->parts->items[c->item].position / 2];
    uint64_t end = c->offset + c->size;
    *before_size = c->offset < HOLE_MIN ? (size_t)c->offset : HOLE_MIN;
    *after_size = e->size - end < HOLE_MIN ? (size_t)(e->size - end) : HOLE_MIN;
    int fd = reader_open(&f->reader, e, f->out);
    if (fd < 0)
        return -1;
    int status = content_read(fd, e, c->offset - *before_size, before, *before_size, f->out);
    if (!status)
        status = content_read(fd, e, end, after, *after_size, f->out);
    close(fd);
    return status;
}

int plan_parts(parts *p, plan *from, size_t first, size_t count, const uint8_t *data, problem *out)
{
    uint64_t size = 0;
    for (size_t i = first; i < first + count; size += from->segments[i++].size)
        if (find_items(p, from, &from->segments[i], size))
            return problem_no_memory(&from->tree->root, out);
    files f = {.from = from, .parts = p, .out = out};
    reader_begin(&f.reader, from->tree);
    int status = parts_cut(p, from->kernel, data, size, read_file_around, &f);
    reader_end(&f.reader);
    return status == CUT_WITHOUT_MEMORY ? problem_no_memory(&from->tree->root, out) : status;
}
