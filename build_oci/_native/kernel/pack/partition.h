/*
 * Which layer holds which entry: the member lists of all layers, from one pass over the tree in tar
 * order.
 *
 * The problem: a layer must carry, before an entry, every directory that leads to it, once. A
 * question for each pair of layer and directory would cost layers x entries.
 *
 * The picture: tar order numbers the emitted entries. A directory and all that is below it are one
 * run of numbers.
 *
 *     number   0    1      2        3        4          5            6
 *     entry    ./   usr/   usr/a    usr/lib/ usr/lib/b  usr/share/   usr/share/c
 *     layer                1                 2                       1
 *
 *     layer 1: 0 1 2 5 6         layer 2: 0 1 3 4
 *
 * Invariant: `next[L]` is one more than the number of the last directory on the way to an entry of
 * layer L; it only grows. When the pass is at an entry e of layer L, an ancestor a of e is in L if,
 * and only if, number(a) < next[L]. (If: L took a directory d with number(a) <= number(d) <
 * number(e); the run of a covers all of that, so d is a or lies below it, and L took a before d.
 * Only if: taking a sets next[L].) So each step up the tree costs a header that is really written:
 * the time is O(entries + members).
 *
 * A directory that leads to nothing emitted is an entry like others and lies in the layer of its
 * owner. Entries that nobody owns, and all whiteouts, lie in the first layer that holds anything.
 * The names of one inode lie in one layer, that of the first emitted name.
 */
#ifndef BUILD_OCI_PARTITION_H
#define BUILD_OCI_PARTITION_H

#include "tree.h"

#define OWNER_NOBODY UINT32_MAX

typedef struct partition {
    tree *tree;
    entry **members; /* of all layers, one layer behind the other, each in tar order */
    /* where in `members` each layer begins; one more than there are layers, for the end of the
     * last */
    size_t *starts;
    size_t layers_count;
    int directories_last;
} partition;

/*
 * The members of LAYERS layers. OWNERS has a layer's number, or OWNER_NOBODY, for each of the COUNT
 * entries of the walk, in tar order; where it is NULL everything lies in layer 0. With
 * DIRECTORIES_LAST one more layer follows that holds every emitted directory and nothing else; then
 * a directory without entries lies there only. With PRESERVE_LINKS, files of one inode become hard
 * links to the first of them that is emitted. Unchanged entries are left out; the root is in a
 * layer in any case.
 *
 * NULL with PROBLEM set to static text where OWNERS do not fit, to NULL without memory.
 */
partition *partition_new(tree *, const uint32_t *owners, size_t count, size_t layers,
                         int directories_last, int preserve_links, const char **problem);

void partition_free(partition *);

#endif
