/*
 * A tree held against what its parent image has: which entries are unchanged and need not be
 * emitted, and which names of the parent a whiteout must hide.
 */
#ifndef BUILD_OCI_DIFF_H
#define BUILD_OCI_DIFF_H

#include "header.h"
#include "lower.h"

/*
 * Sets ENTRY_UNCHANGED in TREE, every regular file of which must have its digest, and adds the
 * whiteouts; tells how many of both. LOWER may be shared with other calls under way. With
 * PRESERVE_LINKS the names of one inode belong together. -1 without memory.
 */
int diff_mark(tree *, const lower *, const header_options *, int preserve_links, size_t *unchanged,
              size_t *whiteouts);

/*
 * Marks what TREE adds to LOWER, as diff_mark() does, but nothing goes: no whiteouts, and a
 * directory that is there keeps its metadata (with its time, whatever the epoch), so that it is
 * emitted only for what is in it. Only what LOWER has at the REMOVED paths (components between
 * slashes, none below another one) is hidden, or replaced by what the tree has there, wholly if
 * that is a directory.
 *
 * 1 where that cannot be: *MISSING is the number of a removed path that is not there, or OUT tells
 * of an entry where LOWER has a directory and the tree has none, or the other way round.
 */
int diff_add(tree *, const lower *, const header_options *, int preserve_links,
             const char *const *removed, size_t removed_count, size_t *unchanged, size_t *whiteouts,
             size_t *missing, problem *out);

#endif
