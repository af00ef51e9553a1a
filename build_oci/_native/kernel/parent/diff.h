/*
 * A tree held against what its parent image has: which entries are unchanged and need not be emitted, and which names of the parent a
 * whiteout must hide.
 */
#ifndef BUILD_OCI_DIFF_H
#define BUILD_OCI_DIFF_H

#include "header.h"
#include "lower.h"

/*
 * Sets ENTRY_UNCHANGED in TREE, every regular file of which must have its digest, and adds the whiteouts; tells how many of both. LOWER
 * may be shared with other calls under way. With PRESERVE_LINKS the names of one inode belong together. -1 without memory.
 */
int diff_mark(tree *, const lower *, const header_options *, int preserve_links, size_t *unchanged, size_t *whiteouts);

#endif
