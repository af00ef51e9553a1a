#include "layer_recipe.h"

#include "member_name.h"
#include "records.h"

#include <string.h>

static int needs_digest(const entry *e)
{
    return S_ISREG(e->mode) && !e->link && !(e->flags & ENTRY_WHITEOUT);
}

/* Is the path of E the NAME of SIZE bytes? */
static int has_path(const entry *e, const char *name, size_t size)
{
    for (; e->parent; e = e->parent) {
        size_t part = e->name_size;
        if (part > size || memcmp(name + size - part, e->name, part))
            return 0;
        size -= part;
        if (e->parent->parent) {
            if (!size || name[--size] != '/')
                return 0;
        }
    }
    return !size;
}

/* Is the path of E the name of M, which stands in its array? From the end, as the name is kept. */
static int has_name(const entry *e, const member *m)
{
    size_t size = m->name_size;
    for (; e->parent; e = e->parent) {
        size_t part = e->name_size;
        while (size && m->shared >= size)
            m--;
        if (part > size || size - part < m->shared ||
            memcmp(m->tail + (size - part - m->shared), e->name, part))
            return 0;
        size -= part;
        if (!e->parent->parent)
            break;
        while (size && m->shared >= size)
            m--;
        if (!size || m->tail[--size - m->shared] != '/')
            return 0;
    }
    return !size;
}

static int has_target(const entry *e, const member *m)
{
    if (S_ISLNK(e->mode))
        return e->target_size == m->target_size && !memcmp(e->target, m->target, m->target_size);
    return has_path(e->link, m->target, m->target_size);
}

/* In what E and M differ, which have one name. */
static difference compare(const plan *p, const entry *e, const member *m)
{
    const entry *link = S_ISREG(e->mode) ? e->link : NULL;
    int64_t seconds;
    uint32_t nanoseconds;
    header_time(e, &p->options, &seconds, &nanoseconds);
    if ((e->mode & S_IFMT) != (m->mode & S_IFMT) || !link != !(m->flags & MEMBER_HARD_LINK))
        return DIFFERENCE_TYPE;
    if ((link || S_ISLNK(e->mode)) && !has_target(e, m))
        return DIFFERENCE_TARGET;
    if (needs_digest(e) && (e->size != m->size || (m->flags & MEMBER_DIGEST_KNOWN &&
                                                   memcmp(e->digest, m->digest, sizeof e->digest))))
        return DIFFERENCE_CONTENT;
    if ((S_ISCHR(e->mode) || S_ISBLK(e->mode)) && e->rdev != m->rdev)
        return DIFFERENCE_DEVICE;
    if ((e->mode & 07777) != (m->mode & 07777))
        return DIFFERENCE_MODE;
    if (e->uid != m->uid || e->gid != m->gid)
        return DIFFERENCE_OWNER;
    if (!records_match(p->kernel, m, e->xattrs, link ? 0 : e->xattrs_size))
        return DIFFERENCE_XATTR;
    return seconds != m->mtime || nanoseconds != m->mtime_ns ? DIFFERENCE_MTIME : DIFFERENCE_NONE;
}

/* Names differ at this place: does the plan have the member's name further on? Then the entry here
 * is new, else the member is gone. */
static difference new_or_gone(const plan *p, const member *m, size_t from)
{
    for (size_t i = from; i < p->members_count; i++)
        if (has_name(p->members[i], m))
            return DIFFERENCE_NEW;
    return DIFFERENCE_GONE;
}

difference layer_recipe_difference(const plan *p, const member *members, size_t count, int ended,
                                   size_t *at)
{
    for (; *at < count; ++*at) {
        const member *m = members + *at;
        if (*at == p->members_count)
            return DIFFERENCE_GONE;
        const entry *e = p->members[*at];
        /* A whiteout has the name of an entry, .wh. and what it hides. */
        difference found = has_name(e, m) ? compare(p, e, m) : new_or_gone(p, m, *at);
        if (found != DIFFERENCE_NONE)
            return found;
    }
    return ended && *at < p->members_count ? DIFFERENCE_NEW : DIFFERENCE_NONE;
}
