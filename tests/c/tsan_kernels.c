/* The kernels as the product's threads drive them, for ThreadSanitizer: a walk, the digests, the
 * packing, and walks that are stopped. */
#include "digest.h"
#include "pack.h"
#include "walk.h"

#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 8 };

static digests *hashed;
static plan *packed;
static atomic_size_t next;

static void *run(void *w)
{
    return walk_run(w) ? w : NULL;
}

static void *hash(void *unused)
{
    (void)unused;
    problem p = {0};
    for (size_t i; (i = atomic_fetch_add(&next, 1)) < hashed->batches_count;)
        if (digests_hash(hashed, i, &p))
            return hashed;
    return NULL;
}

static void *pack(void *unused)
{
    (void)unused;
    problem p = {0};
    for (size_t i; (i = atomic_fetch_add(&next, 1)) < packed->segments_count;) {
        uint8_t *into = malloc(packed->segments[i].size + 1);
        int bad = !into ||
                  (packed->segments[i].kind == SEGMENT_HEADER && plan_digest(packed, &i, 1, &p)) ||
                  plan_fill(packed, i, into, &p);
        free(into);
        if (bad)
            return packed;
    }
    return NULL;
}

static void *stop(void *w)
{
    while (!atomic_load(&((walk *)w)->entries))
        ;
    walk_stop(w);
    return NULL;
}

/* WORK on every thread, and ASIDE, if not NULL, on one more. */
static void on_all(void *(*work)(void *), void *(*aside)(void *), void *argument)
{
    pthread_t threads[THREADS + 1];
    int count = 0, failed = 0;
    atomic_store(&next, 0);
    while (count < THREADS)
        failed |= pthread_create(threads + count++, NULL, work, argument);
    if (aside)
        failed |= pthread_create(threads + count++, NULL, aside, argument);
    for (int i = 0; i < count; i++) {
        void *bad = NULL;
        failed |= pthread_join(threads[i], &bad) || bad;
    }
    if (failed) {
        fputs("a thread failed\n", stderr);
        exit(1);
    }
}

int main(int count, char **arguments)
{
    const sha256_kernel *kernel = sha256_kernel_at(SHA256_SCALAR);
    if (count != 2)
        return 2;
    for (int round = 0; round < 10; round++) {
        walk *w = walk_new(arguments[1], &(walk_options){0});
        if (!w)
            return 1;
        on_all(run, NULL, w);
        if (w->problems)
            return 1;
        if (round % 2) {
            hashed = digests_new(&w->tree, kernel, THREADS);
            if (!hashed)
                return 1;
            on_all(hash, NULL, NULL);
            digests_finish(hashed);
            digests_free(hashed);
        }
        const char *trouble;
        partition *layers = partition_new(&w->tree, NULL, 0, 1, 0, 1, &trouble);
        if (!layers)
            return 1;
        packed = plan_new(layers, 0, &(header_options){0}, kernel, 1 << 16);
        if (!packed)
            return 1;
        on_all(pack, NULL, NULL);
        printf("%zu entries, %zu segments\n", atomic_load(&w->entries), packed->segments_count);
        plan_free(packed);
        partition_free(layers);
        walk_free(w);
        w = walk_new(arguments[1], &(walk_options){0});
        if (!w)
            return 1;
        on_all(run, stop, w);
        walk_free(w);
    }
    return 0;
}
