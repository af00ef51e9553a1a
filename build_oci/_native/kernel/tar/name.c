#include "name.h"

#include "grow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { DOT_SLASH = 2 };

/* Room for SIZE bytes. -1 without memory. */
static int reserve(name_buffer *b, size_t size)
{
    return GROW(&b->text, &b->capacity, size);
}

/* E with a slash behind it, at the end of what the buffer holds. -1 without memory. */
static int append(name_buffer *b, const entry *e)
{
    if (reserve(b, b->size + e->name_size + 1))
        return -1;
    memcpy(b->text + b->size, e->name, e->name_size);
    b->size += e->name_size;
    b->text[b->size++] = '/';
    return 0;
}

/* Lets the buffer hold the path of DIRECTORY. -1 without memory, and then it holds none. */
static int enter(name_buffer *b, const entry *directory)
{
    const entry *at = b->directory;
    size_t size = b->size;
    while (at && at != directory && at != directory->parent) {
        size -= at->parent ? at->name_size + (size_t)1 : 0;
        at = at->parent;
    }
    b->directory = NULL;
    if (at) {
        b->size = size;
        if (at != directory && append(b, directory))
            return -1;
    } else {
        size_t path = entry_path(directory, NULL);
        if (reserve(b, DOT_SLASH + path + 2))
            return -1;
        memcpy(b->text, "./", DOT_SLASH);
        entry_path(directory, (char *)b->text + DOT_SLASH);
        b->size = DOT_SLASH + path;
        if (path)
            b->text[b->size++] = '/';
    }
    b->directory = directory;
    return 0;
}

const uint8_t *name_make(name_buffer *b, const entry *e, size_t *size)
{
    assert(e->parent || S_ISDIR(e->mode));
    if (!e->parent) {
        *size = DOT_SLASH;
        return enter(b, e) ? NULL : b->text;
    }
    if (b->directory != e->parent && enter(b, e->parent))
        return NULL;
    if (reserve(b, b->size + e->name_size + 1))
        return NULL;
    memcpy(b->text + b->size, e->name, e->name_size);
    size_t end = b->size + e->name_size;
    int is_directory = S_ISDIR(e->mode);
    if (is_directory)
        b->text[end++] = '/';
    size_t start = e->parent->parent || is_directory ? DOT_SLASH : 0;
    *size = end - start;
    return b->text + start;
}

void name_end(name_buffer *b)
{
    free(b->text);
    *b = (name_buffer){0};
}
