#include "member_header.h"

#include "block.h"
#include "header.h"
#include "path_set.h"
#include "records.h"

#include <string.h>

static const char NOT_UTF8[] = "a name is not UTF-8";
static const char BAD_NUMBER[] = "a number in a header is none that every reader takes";
static const char BAD_TIME[] = "a time is outside of the years 0 to 9999";
static const char BAD_RECORD[] = "a pax record is malformed";
static const char BAD_HEADER[] = "a header is malformed";

static int is(span text, const char *other)
{
    return text.size == strlen(other) && !memcmp(text.at, other, text.size);
}

static int starts(span text, const char *other)
{
    size_t size = strlen(other);
    return text.size >= size && !memcmp(text.at, other, size);
}

int member_header_is_extension(uint8_t type)
{
    return type == 'x' || type == 'L' || type == 'K';
}

/* A number field of at least 0. */
static int unsigned_field(const uint8_t *field, size_t size, uint64_t *out)
{
    int64_t value;
    if (block_number(field, size, &value) || value < 0)
        return -1;
    *out = (uint64_t)value;
    return 0;
}

const char *member_header_extension_size(const uint8_t block[TAR_BLOCK], uint64_t *size)
{
    if (unsigned_field(block + SIZE_AT, LONG_SIZE, size))
        return BAD_NUMBER;
    return *size > EXTENSION_MOST ? "an extended header is larger than every reader takes" : NULL;
}

/* The next record of TEXT, from *AT on. 0 at the end, -1 where it is malformed. */
static int next_record(span text, size_t *at, span *key, span *value)
{
    if (*at == text.size)
        return 0;
    const uint8_t *start = text.at + *at, *space = memchr(start, ' ', text.size - *at);
    uint64_t size;
    if (!space || records_decimal((span){start, (size_t)(space - start)}, text.size - *at, &size) ||
        size < 5 || start + size <= space + 1 || start[size - 1] != '\n')
        return -1;
    const uint8_t *end = start + size - 1;
    const uint8_t *equals = memchr(space + 1, '=', (size_t)(end - space - 1));
    if (!equals || equals == space + 1)
        return -1;
    *key = (span){space + 1, (size_t)(equals - space - 1)};
    *value = (span){equals + 1, (size_t)(end - equals - 1)};
    /* A NUL is malformed in some places and cut off at in none. */
    if (memchr(key->at, 0, key->size) ||
        (!starts(*key, "SCHILY.xattr.") && memchr(value->at, 0, value->size)))
        return -1;
    *at += size;
    return 1;
}

/* What stands in front of a member. No `at`: it is not there. */
typedef struct extensions {
    span long_name, long_target, records;
} extensions;

static const char *read_extension(extensions *x, uint8_t type, span text)
{
    span *into = type == 'x' ? &x->records : type == 'L' ? &x->long_name : &x->long_target;
    if (into->at)
        return "a member has two extended headers of one kind";
    *into = text;
    if (type != 'x') {
        into->size = block_text(text.at, text.size);
        if (!into->size)
            return "an extended header holds an empty name";
    }
    return NULL;
}

typedef struct fields {
    uint8_t joined[NAME_SIZE + PREFIX_SIZE + 1];
    span name, target;
    toc_numbers numbers;
} fields;

static int is_gnu(const uint8_t *block)
{
    return !memcmp(block + MAGIC_AT, "ustar  ", 8);
}

static int is_ustar(const uint8_t *block)
{
    return !memcmp(block + MAGIC_AT, "ustar", 6);
}

/* Access and change times, which GNU tar keeps where ustar has a prefix. */
static const char *gnu_times(fields *f, const uint8_t *block)
{
    const uint8_t *fields_at[] = {block + GNU_ATIME_AT, block + GNU_CTIME_AT};
    toc_time *times[] = {&f->numbers.accessed, &f->numbers.changed};
    for (int i = 0; i < 2; i++)
        if (*fields_at[i] && block_number(fields_at[i], LONG_SIZE, &times[i]->seconds))
            return BAD_NUMBER;
    return NULL;
}

/* The numbers of any block, be it an extension's: readers look at them all. */
static const char *read_numbers(toc_numbers *n, const uint8_t *block)
{
    if (unsigned_field(block + MODE_AT, ID_SIZE, &n->mode) ||
        unsigned_field(block + UID_AT, ID_SIZE, &n->uid) ||
        unsigned_field(block + GID_AT, ID_SIZE, &n->gid) ||
        unsigned_field(block + SIZE_AT, LONG_SIZE, &n->size) ||
        block_number(block + MTIME_AT, LONG_SIZE, &n->modified.seconds))
        return BAD_NUMBER;
    if ((is_ustar(block) || is_gnu(block)) &&
        (unsigned_field(block + MAJOR_AT, ID_SIZE, &n->dev_major) ||
         unsigned_field(block + MINOR_AT, ID_SIZE, &n->dev_minor)))
        return BAD_NUMBER;
    return is_ustar(block) && !memcmp(block + XSTAR_MAGIC_AT, "tar", 4)
               ? "a header is in the format of star"
               : NULL;
}

static const char *read_block(fields *f, const uint8_t *block)
{
    const char *problem = read_numbers(&f->numbers, block);
    if (!problem && is_gnu(block))
        problem = gnu_times(f, block);
    if (problem)
        return problem;
    f->target = (span){block + LINK_AT, block_text(block + LINK_AT, LINK_SIZE)};
    size_t prefix = 0;
    if (is_ustar(block)) {
        prefix = block_text(block + PREFIX_AT, PREFIX_SIZE);
        memcpy(f->joined, block + PREFIX_AT, prefix);
        if (prefix)
            f->joined[prefix++] = '/';
    }
    size_t size = block_text(block + NAME_AT, NAME_SIZE);
    memcpy(f->joined + prefix, block + NAME_AT, size);
    f->name = (span){f->joined, prefix + size};
    return NULL;
}

/* Where N has the number that the record KEY tells; NULL: it tells none. */
static uint64_t *number_of(toc_numbers *n, span key)
{
    return is(key, "uid") ? &n->uid : is(key, "gid") ? &n->gid : is(key, "size") ? &n->size : NULL;
}

static toc_time *time_of(toc_numbers *n, span key)
{
    return is(key, "mtime")   ? &n->modified
           : is(key, "atime") ? &n->accessed
           : is(key, "ctime") ? &n->changed
                              : NULL;
}

/* Of records with one key the last one counts. One without a value leaves what the block says, of
 * which HEADER is a copy. */
static const char *apply_record(fields *f, fields *header, span key, span value)
{
    if (starts(key, "GNU.sparse."))
        return "a member is a sparse file";
    if (is(key, "path")) {
        f->name = value.size ? value : header->name;
        return NULL;
    }
    if (is(key, "linkpath")) {
        f->target = value.size ? value : header->target;
        return NULL;
    }
    uint64_t *number = number_of(&f->numbers, key);
    toc_time *time = time_of(&f->numbers, key);
    if (number && !value.size)
        *number = *number_of(&header->numbers, key);
    else if (time && !value.size)
        *time = *time_of(&header->numbers, key);
    else if ((number && records_decimal(value, INT64_MAX, number)) ||
             (time && records_time(value, &time->seconds, &time->nanoseconds)))
        return BAD_NUMBER;
    return NULL;
}

static int is_tellable(toc_time time)
{
    return time.seconds >= TOC_FIRST_SECOND && time.seconds <= TOC_LAST_SECOND;
}

static const char *type_of(uint8_t type, span name)
{
    switch (type) {
    case 0: return name.at[name.size - 1] == '/' ? "dir" : "reg";
    case '0': return "reg";
    case '1': return "hardlink";
    case '2': return "symlink";
    case '3': return "char";
    case '4': return "block";
    case '5': return "dir";
    case '6': return "fifo";
    default: return NULL;
    }
}

/* Of two with one name the later one counts, for readers of the records and of the object. */
static const char *put_xattrs(text *t, span records)
{
    static const char PREFIX[] = "SCHILY.xattr.";
    span key, value;
    int first = 1;
    for (size_t at = 0; next_record(records, &at, &key, &value) > 0;) {
        if (!starts(key, PREFIX))
            continue;
        span name = {key.at + sizeof PREFIX - 1, key.size - (sizeof PREFIX - 1)};
        if (!name.size) /* a reader of JSON takes it for the end of the object */
            return "an extended attribute has no name";
        if (!header_is_utf8(name.at, name.size))
            return NOT_UTF8;
        toc_xattr(t, name.at, name.size, value.at, value.size, first);
        first = 0;
    }
    if (!first)
        toc_xattrs_end(t);
    return NULL;
}

static const char *has_dot_dot(span name)
{
    for (size_t at = 0; at < name.size;) {
        const uint8_t *slash = memchr(name.at + at, '/', name.size - at);
        size_t end = slash ? (size_t)(slash - name.at) : name.size;
        if (end == at + 2 && !memcmp(name.at + at, "..", 2))
            return "a name has a component \"..\"";
        at = end + 1;
    }
    return NULL;
}

/* Where a client that rebuilds the archive finds no file to read the content from. */
static const char *has_no_file(span name)
{
    size_t start = name.size;
    while (start && name.at[start - 1] != '/')
        start--;
    span last = {name.at + start, name.size - start};
    if (!last.size || is(last, "."))
        return "the name of a file with a content is that of a directory";
    return starts(last, ".wh.") ? "a whiteout has a content" : NULL;
}

static const char *put(const fields *f, span records, text *t, member_header *out)
{
    int is_link = !strcmp(out->type, "hardlink") || !strcmp(out->type, "symlink");
    if (!header_is_utf8(f->name.at, f->name.size) ||
        (f->target.size && !header_is_utf8(f->target.at, f->target.size)))
        return NOT_UTF8;
    if (!is_tellable(f->numbers.modified) || !is_tellable(f->numbers.accessed) ||
        !is_tellable(f->numbers.changed))
        return BAD_TIME;
    /* Readers take no content from such, but their archive grows by the size. */
    if (f->numbers.size && strcmp(out->type, "reg"))
        return "a member that is no regular file has a size";
    if (is_link && !f->target.size)
        return "a link has no target";
    const char *problem = f->numbers.size ? has_no_file(f->name) : NULL;
    if (problem)
        return problem;
    out->content = f->numbers.size;
    out->path = path_hash(f->name.at, f->name.size);
    out->entry.at = t->size;
    toc_begin(t, out->type);
    out->name.at = t->size;
    text_put_json(t, f->name.at, f->name.size);
    out->name.size = t->size - out->name.at;
    if (f->target.size) {
        toc_target(t);
        text_put_json(t, f->target.at, f->target.size);
    }
    toc_put_numbers(t, &f->numbers);
    problem = put_xattrs(t, records);
    out->entry.size = t->size - out->entry.at;
    return problem;
}

static const char *read_fields(const uint8_t *block, const extensions *x, fields *f)
{
    const char *problem = read_block(f, block);
    fields header = *f;
    span key, value;
    int status = 0;
    size_t at = 0;
    while (!problem && (status = next_record(x->records, &at, &key, &value)) > 0)
        problem = apply_record(f, &header, key, value);
    if (problem || status)
        return problem ? problem : BAD_RECORD;
    /* Go takes GNU's names of the two. */
    if (x->long_name.size)
        f->name = x->long_name;
    if (x->long_target.size)
        f->target = x->long_target;
    return f->name.size ? has_dot_dot(f->name) : "a member has no name";
}

const char *member_header_read(const uint8_t *data, size_t size, text *t, member_header *out)
{
    extensions x = {.records = {0}};
    fields f = {.numbers = {0}};
    for (;;) {
        if (size < TAR_BLOCK || !block_checksum_holds(data))
            return BAD_HEADER;
        if (!member_header_is_extension(data[TYPE_AT]))
            break;
        uint64_t extension;
        const char *problem = member_header_extension_size(data, &extension);
        if (!problem)
            problem = read_numbers(&(toc_numbers){0}, data);
        uint64_t whole = (extension + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        if (!problem && whole > size - TAR_BLOCK)
            problem = BAD_HEADER;
        if (!problem)
            problem =
                read_extension(&x, data[TYPE_AT], (span){data + TAR_BLOCK, (size_t)extension});
        if (problem)
            return problem;
        data += TAR_BLOCK + whole;
        size -= TAR_BLOCK + (size_t)whole;
    }
    if (size != TAR_BLOCK)
        return BAD_HEADER;
    const char *problem = read_fields(data, &x, &f);
    if (problem)
        return problem;
    out->type = type_of(data[TYPE_AT], f.name);
    return out->type ? put(&f, x.records, t, out)
                     : "a member is of a type that no writer of zstd:chunked takes";
}
