#include "claims.h"

#include "grow.h"

#include <stdlib.h>
#include <sys/stat.h>

static int is_directory(const lower_node *node)
{
    return !node->inode->member || S_ISDIR(node->inode->member->mode);
}

typedef struct pair {
    const lower_node *left, *right;
} pair;

int claims_in_both(const lower *left, const lower *right, const lower_node **named, size_t most,
                   size_t *count)
{
    size_t waiting = 1, capacity = 64;
    pair *pairs = malloc(capacity * sizeof *pairs);
    *count = 0;
    if (!pairs)
        return -1;
    pairs[0] = (pair){&left->root, &right->root};
    while (waiting) {
        pair directories = pairs[--waiting];
        for (const lower_node *node = directories.right->child; node; node = node->next) {
            const lower_node *other =
                lower_find(left, directories.left, node->name, node->name_size);
            if (!other)
                continue;
            if (!is_directory(node) || !is_directory(other)) {
                if (*count < most)
                    named[*count] = node;
                ++*count;
                continue;
            }
            if (GROW(&pairs, &capacity, waiting + 1)) {
                free(pairs);
                return -1;
            }
            pairs[waiting++] = (pair){other, node};
        }
    }
    free(pairs);
    return 0;
}
