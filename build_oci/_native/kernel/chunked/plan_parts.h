/* The parts of blocks that packing made (pack.h): their members are entries of the walked tree. */
#ifndef BUILD_OCI_PLAN_PARTS_H
#define BUILD_OCI_PLAN_PARTS_H

#include "pack.h"
#include "parts.h"

typedef enum inexpressible {
    EXPRESSIBLE,
    NAME_NOT_UTF8,         /* its own, its target's or an attribute's */
    TIME_TOO_FAR,          /* not in the years 0 to 9999 */
    WHITEOUT_WITH_CONTENT, /* clients make no file of it that they could read */
    WITHOUT_MEMORY,        /* not asked to the end */
} inexpressible;

/* Can the TOC say what E's headers say? */
inexpressible plan_parts_can_say(const entry *, const header_options *);

/* Puts the start of the TOC's entry of E, as in item.entry. *NAME is where its name stands in the
 * text. */
void plan_parts_put_entry(text *, const entry *, const header_options *, text_span *name);

/*
 * The parts of the block DATA, which holds COUNT segments of the plan from FIRST on, filled. Reads
 * up to 1 KiB of a file before and behind a piece of it. -1 with OUT filled. In any case
 * parts_free() is due.
 */
int plan_parts(parts *, plan *, size_t first, size_t count, const uint8_t *data, problem *out);

#endif
