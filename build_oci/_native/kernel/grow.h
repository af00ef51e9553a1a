/* How arrays grow: by half of what they hold, so that an item costs a bounded number of copies. */
#ifndef BUILD_OCI_GROW_H
#define BUILD_OCI_GROW_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Room for NEEDED items in the array that the pointer ITEMS leads to, which has *CAPACITY. -1
 * without memory; then nothing has changed. The caller frees the array. */
#define GROW(items, capacity, needed) grow_array((items), (capacity), (needed), sizeof **(items))

static inline int grow_array(void *items, size_t *capacity, size_t needed, size_t size)
{
    enum { FIRST = 8 };
    if (needed <= *capacity)
        return 0;
    size_t more = *capacity + *capacity / 2 + FIRST;
    if (more < needed)
        more = needed;
    if (more < *capacity || more > SIZE_MAX / size)
        return -1;
    void *array;
    memcpy(&array, items, sizeof array); /* a pointer to any type */
    array = realloc(array, more * size);
    if (!array)
        return -1;
    memcpy(items, &array, sizeof array);
    *capacity = more;
    return 0;
}

#endif
