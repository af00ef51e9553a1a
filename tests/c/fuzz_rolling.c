/*
 * libFuzzer target of the cuts and the JSON of zstd:chunked. The content of a file is cut without a
 * gap where the plain rule cuts it, however it comes in pieces. Names become JSON without a control
 * character.
 *
 * An input: a byte that scales what follows up (a hole takes 1 KiB), a byte that says where the
 * content is cut into two pieces, the content.
 */
#include "rolling.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

/* Does a chunk of data end after the byte at AT? The sum is made anew, as rolling.c says it. */
static int ends_after(const uint8_t *data, size_t at)
{
    uint32_t second = 64 * 63 * 31;
    for (uint32_t age = 1; age <= ROLLING_WINDOW && age <= at + 1; age++)
        second += age * data[at + 1 - age];
    return (second & 0xffff) == 0xffff;
}

static void check(const uint8_t *data, size_t size, const cuts *found)
{
    size_t at = 0;
    for (size_t i = 0; i < found->count; i++) {
        const cut *one = &found->items[i];
        if (one->start != at || !one->size || one->size > size - at)
            abort();
        at += one->size;
        for (size_t j = one->start; one->is_hole && j < at; j++)
            if (data[j])
                abort();
    }
    if (at != size)
        abort();
}

/* Chunks of the two pieces begin where those of the whole begin. STARTS: one begins at the
 * BORDER. */
static void check_pieces(const cuts *whole, const cuts *first, const cuts *second, size_t border,
                         int starts)
{
    size_t at = 0;
    for (size_t i = 0; i < first->count; i++, at++)
        if (at == whole->count || whole->items[at].start != first->items[i].start)
            abort();
    for (size_t i = !starts; i < second->count; i++, at++)
        if (at == whole->count || whole->items[at].start != border + second->items[i].start)
            abort();
    if (at != whole->count)
        abort();
}

static void look_at_text(const uint8_t *data, size_t size)
{
    text t = {0};
    text_put_json(&t, data, size);
    text_put_base64(&t, size % 5, data, size);
    if (t.failed || t.size < 2 + size)
        abort();
    for (size_t i = 0; i < t.size; i++)
        if ((uint8_t)t.at[i] < ' ')
            abort();
    free(t.at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t times = 1 + data[0] % 8u, length = (size - 2) * times;
    uint8_t *content = malloc(length + 1);
    if (!content)
        abort();
    for (size_t i = 0; i < length; i++)
        content[i] = data[2 + i / times];
    size_t border = length * data[1] / 256;
    size_t near = border < HOLE_MIN ? border : HOLE_MIN,
           far = length - border < HOLE_MIN ? length - border : HOLE_MIN;
    cuts whole = {0}, first = {0}, second = {0};
    int starts, starts_first;
    if (length && rolling_cut(&whole, content, length, NULL, 0, NULL, 0, &starts))
        abort();
    check(content, length, &whole);
    size_t at = 0;
    for (size_t i = 0; i < whole.count; i++) {
        const cut *one = &whole.items[i];
        if (one->is_hole && one->size < HOLE_MIN)
            abort();
        /* Within a chunk of data the rule ends none; at its end it does, or a hole or nothing
         * follows. */
        for (size_t j = at; !one->is_hole && j + 1 < at + one->size; j++)
            if (ends_after(content, j))
                abort();
        at += one->size;
        if (!one->is_hole && i + 1 < whole.count && !whole.items[i + 1].is_hole &&
            !ends_after(content, at - 1))
            abort();
    }
    if (border && border < length) {
        uint8_t *before = malloc(border), *after = malloc(length - border);
        if (!before || !after)
            abort();
        memcpy(before, content, border);
        memcpy(after, content + border, length - border);
        if (rolling_cut(&first, before, border, NULL, 0, after, far, &starts_first) ||
            rolling_cut(&second, after, length - border, before + border - near, near, NULL, 0,
                        &starts))
            abort();
        check(before, border, &first);
        check(after, length - border, &second);
        check_pieces(&whole, &first, &second, border, starts);
        free(before);
        free(after);
    }
    look_at_text(data + 2, size - 2);
    free(whole.items);
    free(first.items);
    free(second.items);
    free(content);
    return 0;
}
