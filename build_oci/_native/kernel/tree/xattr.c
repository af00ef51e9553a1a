#include "xattr.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int xattr_next(const uint8_t *packed, size_t size, size_t *at, xattr *out)
{
    if (*at >= size)
        return 0;
    memcpy(&out->name_size, packed + *at, 4);
    memcpy(&out->value_size, packed + *at + 4, 4);
    out->name = packed + *at + 8;
    out->value = out->name + out->name_size;
    *at += 8 + (size_t)out->name_size + out->value_size;
    assert(*at <= size);
    return 1;
}

static int by_name(const void *left, const void *right)
{
    const xattr *a = left, *b = right;
    size_t shorter = a->name_size < b->name_size ? a->name_size : b->name_size;
    int order = memcmp(a->name, b->name, shorter);
    return order ? order : (a->name_size > b->name_size) - (a->name_size < b->name_size);
}

int xattr_pack(arena *a, xattr *items, size_t count, const uint8_t **packed, uint32_t *size)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += 8 + (size_t)items[i].name_size + items[i].value_size;
    *packed = NULL;
    *size = 0;
    if (!total)
        return 0;
    uint8_t *out = total <= UINT32_MAX ? arena_take_bytes(a, total) : NULL;
    if (!out)
        return -1;
    qsort(items, count, sizeof *items, by_name);
    *packed = out;
    *size = (uint32_t)total;
    for (size_t i = 0; i < count; i++) {
        assert(!i || by_name(&items[i - 1], &items[i]) < 0); /* no name twice */
        memcpy(out, &items[i].name_size, 4);
        memcpy(out + 4, &items[i].value_size, 4);
        memcpy(out + 8, items[i].name, items[i].name_size);
        if (items[i].value_size)
            memcpy(out + 8 + items[i].name_size, items[i].value, items[i].value_size);
        out += 8 + (size_t)items[i].name_size + items[i].value_size;
    }
    return 0;
}

int xattr_is_of_host(const void *name, size_t size)
{
    static const char *const prefixes[] = {"trusted.overlay.", "user.overlay."};
    static const char *const names[] = {"security.selinux", "system.nfs4_acl"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (size == strlen(names[i]) && !memcmp(name, names[i], size))
            return 1;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (size >= strlen(prefixes[i]) && !memcmp(name, prefixes[i], strlen(prefixes[i])))
            return 1;
    return 0;
}

int xattr_is_instruction(const xattr *item)
{
    static const char *const names[] = {"user.component", "user.update-interval"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (item->name_size == strlen(names[i]) && !memcmp(item->name, names[i], item->name_size))
            return 1;
    return 0;
}
