/* What makes a layer of the new image new: the walk over one layer and its counterpart. */
#include "compare_state.h"

#include <stdlib.h>
#include <string.h>

/* What NODE has in the LAYER that the walk has marked last on this side, or NULL. */
static const occurrence *marked(const compare_node *node, int side, uint32_t layer)
{
    const occurrence *o = node->mark[side];
    return o && o->layer == layer ? o : NULL;
}

static const layer_list *layer_of(const compare *c, int side, uint32_t layer)
{
    static const layer_list none;
    return layer < c->layers_count[side] ? &c->layers[side][layer] : &none;
}

uint32_t compare_counterpart(compare *c, uint32_t layer)
{
    /* Every layer may have the directories that lead to its files, so one file weighs more than any
     * number of them. */
    enum { FILE_WEIGHT = 1 << 10 };
    size_t count = c->layers_count[COMPARE_OLD];
    uint64_t *weights = realloc(c->weights, (count ? count : 1) * sizeof *weights);
    if (!weights)
        return COMPARE_NO_LAYER;
    c->weights = weights;
    memset(weights, 0, count * sizeof *weights);
    const occurrence *first = layer_of(c, COMPARE_NEW, layer)->first;
    int only_directories = 1;
    for (const occurrence *o = first; o && only_directories; o = o->next)
        only_directories = compare_is_directory(o);
    for (const occurrence *o = first; o; o = o->next) {
        if (compare_is_directory(o) && !only_directories)
            continue; /* every layer may have the directories that lead to its files */
        uint64_t weight = compare_is_directory(o)
                              ? 1
                              : FILE_WEIGHT + (o->m->size < 1ull << 40 ? o->m->size : 1ull << 40);
        const occurrence *old = o->node->top[COMPARE_OLD];
        for (int i = 0; old && i < MOST_CHAIN; i++, old = old->below)
            weights[old->layer] += weight;
    }
    uint32_t best = COMPARE_NO_LAYER;
    for (size_t i = 0; i < count; i++)
        if (weights[i] && (best == COMPARE_NO_LAYER || weights[i] > weights[best]))
            best = (uint32_t)i;
    return best;
}

void compare_start_layer(compare *c, uint32_t layer, uint32_t counterpart)
{
    c->new_layer = layer;
    c->old_layer = counterpart;
    c->at_new = layer_of(c, COMPARE_NEW, layer)->first;
    c->at_old = c->to_mark = layer_of(c, COMPARE_OLD, counterpart)->first;
}

static int judge_new(compare *c, const occurrence *new, difference *out)
{
    const occurrence *any = new->node->top[COMPARE_OLD],
                     *old = marked(new->node, COMPARE_OLD, c->old_layer);
    *out = (difference){.node = new->node, .old = old ? old : any, .new = new};
    if (!any) {
        out->what = NAME_ADDED;
        return 1;
    }
    out->bits = compare_members(c, out->old, new);
    out->what = !old ? NAME_MOVED_IN : out->bits ? NAME_CHANGED : NAME_SAME;
    return out->what != NAME_SAME;
}

static int judge_old(compare *c, const occurrence *old, difference *out)
{
    const occurrence *any = old->node->top[COMPARE_NEW];
    if (marked(old->node, COMPARE_NEW, c->new_layer))
        return 0;
    *out = (difference){
        .node = old->node, .old = old, .new = any, .what = any ? NAME_MOVED_OUT : NAME_REMOVED};
    return 1;
}

size_t compare_walk_layer(compare *c, difference *out, size_t capacity, int *ended)
{
    size_t count = 0;
    int looks = 0;
    for (; c->to_mark && looks < LOOKS; looks++, c->to_mark = c->to_mark->next)
        c->to_mark->node->mark[COMPARE_OLD] = c->to_mark;
    for (; !c->to_mark && c->at_new && count < capacity && looks < LOOKS;
         looks++, c->at_new = c->at_new->next) {
        c->at_new->node->mark[COMPARE_NEW] = c->at_new;
        count += (size_t)judge_new(c, c->at_new, &out[count]);
    }
    for (; !c->at_new && c->at_old && count < capacity && looks < LOOKS;
         looks++, c->at_old = c->at_old->next)
        count += (size_t)judge_old(c, c->at_old, &out[count]);
    *ended = !c->to_mark && !c->at_new && !c->at_old;
    return count;
}

int compare_same_order(const compare *c)
{
    const occurrence *new = layer_of(c, COMPARE_NEW, c->new_layer)->first,
                     *old = layer_of(c, COMPARE_OLD, c->old_layer)->first;
    while (new && old && new->node == old->node) {
        new = new->next;
        old = old->next;
    }
    return !new && !old;
}
