/*
 * Names that the walk leaves out: patterns of components, matched on the way down, so that an
 * excluded directory is never read.
 *
 * A pattern is a run of components between slashes; it starts at the root. `*` and `?` stand for
 * any characters and for one, `[a-z]` and `[!a-z]` for one of a set or out of it, a backslash takes
 * away a special meaning; a component `**` stands for any number of directories, none included.
 * What a directory carries is the set of places in the patterns that its path has reached (as in a
 * non-deterministic automaton): a name costs one comparison for each of them, whatever the patterns
 * are, and there is no backtracking between components.
 */
#ifndef BUILD_OCI_EXCLUDE_H
#define BUILD_OCI_EXCLUDE_H

#include "arena.h"

#include <stdatomic.h>
#include <stdint.h>

typedef struct exclusion {
    struct component *components; /* of all patterns, one after the other */
    uint32_t components_count;
    char *text;
    size_t patterns_count;
    /* by pattern: it left something out, or might have below a directory that was left out */
    atomic_uchar *used;
    const struct exclude_places *start; /* those of the root */
    arena arena;
} exclusion;

/* Places in ascending order of their discovery; the same for every thread. */
typedef struct exclude_places {
    uint32_t count;
    uint32_t at[];
} exclude_places;

/* What one thread needs to step; free() what it holds with exclude_stepper_end(). All zero is
 * valid. */
typedef struct exclude_stepper {
    uint32_t *found, *seen; /* places; for each place the step that found it last */
    uint32_t found_count, step;
} exclude_stepper;

/* COUNT patterns, each of components without a slash at either end. NULL without memory. */
exclusion *exclusion_new(const char *const *patterns, size_t count);
void exclusion_free(exclusion *);

/* 1 if NAME, in a directory that has reached PLACES, is left out; else 0, and the stepper knows
 * what NAME reaches. -1 without memory. */
int exclude_step(exclusion *, exclude_stepper *, const exclude_places *places, const char *name,
                 size_t size);

/* What the last step found, for a directory whose parent has PLACES; NULL with *FAILED set without
 * memory, NULL too where nothing can match. */
const exclude_places *exclude_keep(const exclude_stepper *, arena *, const exclude_places *places,
                                   int *failed);

void exclude_stepper_end(exclude_stepper *);

#endif
