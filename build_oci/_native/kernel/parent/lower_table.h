/* The table of names below lower.c: open addressing by (parent, name), with tombstones. */
#ifndef BUILD_OCI_LOWER_TABLE_H
#define BUILD_OCI_LOWER_TABLE_H

#include "lower.h"

/* A new child NAME of PARENT, without an inode. NAME must stay where it is. SIZE is at most NAME_MAX: the tar reader and
 * spread() see to it. NULL without memory. */
lower_node *lower_add(lower *, lower_node *parent, const char *name, size_t size);

/* Takes one node, without children, out of the table. */
void lower_drop(lower *, lower_node *);

/* Takes out everything below TOP. */
void lower_drop_below(lower *, lower_node *top);

/* The name PATH, whose components are separated by single slashes; NULL where it is not there. */
lower_node *lower_look_up(lower *, const char *path, size_t size);

#endif
