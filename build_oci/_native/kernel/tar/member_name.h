/*
 * The names of members, of which each holds only what the member before has not.
 *
 * The problem: a tree of 10,000 levels has names of some 10,000 bytes on the average, 100 MB in
 * all, and every name but for its end is that of the directory around it.
 *
 * The picture, of members that follow each other in the array:
 *
 *     name             shared   tail
 *     usr              0        usr
 *     usr/bin          0        usr/bin
 *     usr/bin/true     4        bin/true
 *     usr/bin/yes      8        yes
 *     usr/lib          4        lib
 *
 * Invariants: `shared` ends behind a slash or is 0, and the last component stands in the tail as a
 * whole. Every MEMBERS_TO_WHOLE_NAME-th member, and so the first, shares nothing: a name is found
 * in a bounded number of steps, wherever one begins.
 */
#ifndef BUILD_OCI_MEMBER_NAME_H
#define BUILD_OCI_MEMBER_NAME_H

#include "grow.h"
#include "member.h"

#include <assert.h>
#include <string.h>

enum { MEMBERS_TO_WHOLE_NAME = 64 };

/* The name of M, which stands in its array, into OUT, with a NUL behind it. */
static inline void member_name(const member *m, char *out)
{
    size_t known = m->name_size; /* from there on the name is complete */
    out[known] = 0;
    for (; known; m--) {
        if (m->shared >= known)
            continue;
        memcpy(out + m->shared, m->tail, known - m->shared);
        known = m->shared;
    }
}

/* The last component of the name of M, and the sizes of it and of what stands before it without the
 * slash. */
static inline const char *member_base_name(const member *m, size_t *size, size_t *directory_size)
{
    size_t tail = m->name_size - m->shared;
    const char *slash = tail ? memrchr(m->tail, '/', tail) : NULL,
               *base = slash ? slash + 1 : m->tail;
    *size = tail - (size_t)(base - m->tail);
    size_t before = m->name_size - *size;
    *directory_size = before ? before - 1 : 0;
    return base;
}

/* The whole name of one member after another. All zero: of none yet; free `at` in the end. */
typedef struct passing_name {
    char *at; /* NUL-terminated; NULL before the first */
    size_t size, capacity;
} passing_name;

/* Goes on to M, the next member or the first of all. -1 without memory. */
static inline int passing_name_next(passing_name *n, const member *m)
{
    if (GROW(&n->at, &n->capacity, (size_t)m->name_size + 1))
        return -1;
    assert(m->shared <= n->size && m->shared <= m->name_size);
    memcpy(n->at + m->shared, m->tail, m->name_size - m->shared);
    n->at[m->name_size] = 0;
    n->size = m->name_size;
    return 0;
}

/* Goes to M wherever it stands. -1 without memory. */
static inline int passing_name_jump(passing_name *n, const member *m)
{
    if (GROW(&n->at, &n->capacity, (size_t)m->name_size + 1))
        return -1;
    member_name(m, n->at);
    n->size = m->name_size;
    return 0;
}

/* Does the name of the next member M begin with the same SIZE bytes? Both are at least as long. */
static inline int passing_name_goes_on(const passing_name *n, const member *m, size_t size)
{
    assert(size <= n->size && size <= m->name_size);
    return m->shared >= size || !memcmp(n->at + m->shared, m->tail, size - m->shared);
}

#endif
