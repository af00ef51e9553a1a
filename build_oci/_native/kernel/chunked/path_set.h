/* The names of members, a hash each, to find one that stands twice. Clients take no layer in which
 * one does: be it `a`, `./a` or `a/`. */
#ifndef BUILD_OCI_PATH_SET_H
#define BUILD_OCI_PATH_SET_H

#include <stddef.h>
#include <stdint.h>

typedef struct path_set {
    uint64_t *slots; /* open addressing; 0: free */
    size_t count, capacity;
} path_set;

typedef enum path_added { PATH_NEW, PATH_TWICE, PATH_WITHOUT_MEMORY } path_added;

/* A hash of the components of NAME. That two paths share one by chance makes a plain layer. */
uint64_t path_hash(const uint8_t *name, size_t size);

path_added path_set_add(path_set *, uint64_t hash);
void path_set_free(path_set *);

#endif
