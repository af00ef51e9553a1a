/* What the two halves of a comparison share: compare.c, names and images, and compare_layer.c. */
#ifndef BUILD_OCI_COMPARE_STATE_H
#define BUILD_OCI_COMPARE_STATE_H

#include "compare.h"
#include "member_name.h"

#include <sys/stat.h>

enum {
    LOOKS = 1 << 14, /* names that one call of a walk looks at */
    /* occurrences of one name that are looked through; images have at most some hundred layers */
    MOST_CHAIN = 4096,
};

/* The layers of one side that have been added: the first and the last occurrence of each, and how
 * many there are. */
typedef struct layer_list {
    occurrence *first, *last;
    size_t count;
} layer_list;

struct compare {
    compare_node root;
    arena arena;
    /* open addressing by (parent, name); NULL is free; nothing is ever removed */
    compare_node **slots;
    size_t mask, used, memory_limit;
    layer_list *layers[COMPARE_SIDES];
    size_t layers_count[COMPARE_SIDES], layers_capacity[COMPARE_SIDES];
    uint64_t *weights; /* for compare_counterpart(): one for each old layer */
    int complete[COMPARE_SIDES];
    int side; /* of the layer that is being added */
    uint32_t layer;
    /* the directory of the member before: members of one directory follow each other */
    passing_name name;
    size_t directory_size;
    compare_node *directory;
    /* the walk over all names */
    compare_node *at;
    int everything;
    /* the walk over a layer: it marks what the counterpart has, then tells what the layer has, then
     * what the counterpart has besides */
    occurrence *to_mark, *at_new;
    const occurrence *at_old;
    uint32_t new_layer, old_layer;
};

static inline int compare_is_directory(const occurrence *o)
{
    return S_ISDIR(o->m->mode);
}

/* In what two members of one name differ: DIFFERS_... */
uint16_t compare_members(compare *, const occurrence *old, const occurrence *new);

#endif
