/* Memory that is given out piece by piece and given back all at once. Not safe for threads: one
 * arena a thread. */
#ifndef BUILD_OCI_ARENA_H
#define BUILD_OCI_ARENA_H

#include <stddef.h>

typedef struct arena_chunk arena_chunk;

typedef struct arena {
    arena_chunk *chunks; /* newest first; all zero is a valid empty arena */
    size_t held;         /* bytes asked of malloc */
} arena;

/* SIZE bytes, aligned for any type; NULL when memory is exhausted. They stay where they are until
 * arena_release(). */
void *arena_take(arena *, size_t size);

/* SIZE bytes without alignment, for text. */
void *arena_take_bytes(arena *, size_t size);

/* A copy of SIZE bytes of DATA with a NUL behind it. */
char *arena_copy(arena *, const void *data, size_t size);

void arena_release(arena *);

#endif
