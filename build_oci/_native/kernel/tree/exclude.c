#include "exclude.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

typedef enum component_kind {
    COMPONENT_LITERAL,
    COMPONENT_GLOB,
    COMPONENT_ANY_DEPTH, /* ** */
} component_kind;

typedef struct component {
    const uint8_t *text;
    size_t size;
    uint32_t pattern;
    component_kind kind;
    int last; /* of its pattern */
} component;

/* The end of the character that starts at AT: a byte, or a byte and the continuations of UTF-8
 * behind it. */
static size_t after_character(const uint8_t *name, size_t size, size_t at)
{
    if (name[at++] >= 0xc0)
        while (at < size && (name[at] & 0xc0) == 0x80)
            at++;
    return at;
}

/* The bracket that starts at TEXT[0]: its size, and in *HOLDS whether it stands for C. 0 if it is
 * never closed. */
static size_t bracket(const uint8_t *text, size_t size, uint8_t c, int *holds)
{
    size_t at = 1;
    int negated = at < size && (text[at] == '!' || text[at] == '^'), found = 0;
    at += (size_t)negated;
    for (size_t first = at; at < size && (text[at] != ']' || at == first);) {
        uint8_t low, high;
        at += text[at] == '\\' && at + 1 < size;
        low = high = text[at++];
        if (at + 1 < size && text[at] == '-' && text[at + 1] != ']') {
            at++;
            at += text[at] == '\\' && at + 1 < size;
            high = text[at++];
        }
        found |= low <= c && c <= high;
    }
    *holds = found != negated;
    return at < size ? at + 1 : 0;
}

/* Whether NAME is what the component stands for. One star at a time is tried anew, so the cost is
 * at most the product of the sizes. */
static int matches(const component *c, const uint8_t *name, size_t size)
{
    const uint8_t *text = c->text;
    size_t at = 0, in = 0, star = SIZE_MAX, star_in = 0;
    if (c->kind == COMPONENT_LITERAL)
        return size == c->size && !memcmp(name, text, size);
    while (in < size || at < c->size) {
        int holds = 0;
        size_t step = 1;
        if (at < c->size && text[at] == '*') {
            star = at++;
            star_in = in;
            continue;
        }
        if (at < c->size && in < size) {
            if (text[at] == '?') {
                at++;
                in = after_character(name, size, in);
                continue;
            }
            if (text[at] == '[' && (step = bracket(text + at, c->size - at, name[in], &holds))) {
                if (holds) {
                    at += step;
                    in = after_character(name, size, in);
                    continue;
                }
            } else {
                size_t plain = at + (text[at] == '\\' && at + 1 < c->size);
                if (text[plain] == name[in]) {
                    at = plain + 1;
                    in++;
                    continue;
                }
            }
        }
        if (star == SIZE_MAX || star_in >= size)
            return 0;
        at = star + 1;
        in = ++star_in;
    }
    return 1;
}

static void reach(const exclusion *x, exclude_stepper *s, uint32_t place)
{
    /* A `**` also stands for nothing: what is behind it is reached with it. */
    for (;; place++) {
        assert(place < x->components_count);
        if (s->seen[place] == s->step)
            return;
        s->seen[place] = s->step;
        s->found[s->found_count++] = place;
        if (x->components[place].kind != COMPONENT_ANY_DEPTH || x->components[place].last)
            return;
    }
}

static int begin_step(const exclusion *x, exclude_stepper *s)
{
    if (!s->seen) {
        s->seen = calloc(x->components_count + (size_t)1, sizeof *s->seen);
        s->found = calloc(x->components_count + (size_t)1, sizeof *s->found);
        if (!s->seen || !s->found)
            return -1;
    }
    if (!++s->step) {
        memset(s->seen, 0, x->components_count * sizeof *s->seen);
        s->step = 1;
    }
    s->found_count = 0;
    return 0;
}

int exclude_step(exclusion *x, exclude_stepper *s, const exclude_places *places, const char *name,
                 size_t size)
{
    int excluded = 0;
    if (begin_step(x, s))
        return -1;
    for (uint32_t i = 0; i < places->count; i++) {
        uint32_t place = places->at[i];
        const component *c = &x->components[place];
        if (c->kind != COMPONENT_ANY_DEPTH && !matches(c, (const uint8_t *)name, size))
            continue;
        if (c->last) {
            excluded = 1;
            atomic_store_explicit(&x->used[c->pattern], 1, memory_order_relaxed);
        } else {
            reach(x, s, c->kind == COMPONENT_ANY_DEPTH ? place : place + 1);
        }
    }
    /* What goes on below a directory that is left out might have matched there. */
    for (uint32_t i = 0; excluded && i < s->found_count; i++)
        if (x->components[s->found[i]].kind != COMPONENT_ANY_DEPTH && s->found[i] &&
            x->components[s->found[i] - 1].kind != COMPONENT_ANY_DEPTH)
            atomic_store_explicit(&x->used[x->components[s->found[i]].pattern], 1,
                                  memory_order_relaxed);
    return excluded;
}

const exclude_places *exclude_keep(const exclude_stepper *s, arena *a, const exclude_places *places,
                                   int *failed)
{
    if (!s->found_count)
        return NULL;
    if (places && s->found_count == places->count &&
        !memcmp(s->found, places->at, s->found_count * sizeof *s->found))
        return places;
    exclude_places *kept = arena_take(a, sizeof *kept + s->found_count * sizeof *kept->at);
    if (!kept) {
        *failed = 1;
        return NULL;
    }
    kept->count = s->found_count;
    memcpy(kept->at, s->found, s->found_count * sizeof *kept->at);
    return kept;
}

void exclude_stepper_end(exclude_stepper *s)
{
    free(s->found);
    free(s->seen);
    s->found = s->seen = NULL;
}

/* Cuts TEXT, one pattern, at its slashes into components from OUT on; returns how many. */
static uint32_t cut(char *text, uint32_t pattern, component *out)
{
    uint32_t count = 0;
    for (char *at = text; at;) {
        char *slash = strchr(at, '/');
        size_t size = slash ? (size_t)(slash - at) : strlen(at);
        component_kind kind =
            size == 2 && !memcmp(at, "**", 2) ? COMPONENT_ANY_DEPTH : COMPONENT_LITERAL;
        for (size_t i = 0; !kind && i < size; i++)
            if (memchr("*?[\\", at[i], 4))
                kind = COMPONENT_GLOB;
        out[count++] = (component){
            .text = (uint8_t *)at, .size = size, .pattern = pattern, .kind = kind, .last = !slash};
        at = slash ? slash + 1 : NULL;
    }
    return count;
}

exclusion *exclusion_new(const char *const *patterns, size_t count)
{
    exclusion *x = calloc(1, sizeof *x);
    size_t size = 0, most = count;
    if (!x)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size += strlen(patterns[i]) + 1;
        for (const char *at = patterns[i]; (at = strchr(at, '/')); at++)
            most++;
    }
    x->patterns_count = count;
    x->text = malloc(size + 1);
    x->used = calloc(count + 1, sizeof *x->used);
    x->components = calloc(most + 1, sizeof *x->components);
    exclude_stepper s = {0};
    int failed = most >= UINT32_MAX || !x->text || !x->used || !x->components;
    char *at = x->text;
    for (size_t i = 0; !failed && i < count; i++) {
        strcpy(at, patterns[i]);
        x->components_count += cut(at, (uint32_t)i, x->components + x->components_count);
        at += strlen(patterns[i]) + 1;
    }
    failed = failed || begin_step(x, &s);
    for (uint32_t i = 0; !failed && i < x->components_count; i++)
        if (!i || x->components[i - 1].last)
            reach(x, &s, i);
    if (!failed)
        x->start = exclude_keep(&s, &x->arena, NULL, &failed);
    exclude_stepper_end(&s);
    if (failed) {
        exclusion_free(x);
        return NULL;
    }
    return x;
}

void exclusion_free(exclusion *x)
{
    if (!x)
        return;
    arena_release(&x->arena);
    free(x->components);
    free(x->used);
    free(x->text);
    free(x);
}
