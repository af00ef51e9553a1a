#include "lower_table.h"

#include "xattr.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char WHITEOUT[] = ".wh.";
static const char OPAQUE[] = ".wh..wh..opq";
enum { WHITEOUT_SIZE = sizeof WHITEOUT - 1 };

static int is_directory(const lower_node *node)
{
    return !node->inode->member || S_ISDIR(node->inode->member->mode);
}

static lower_inode *new_inode(lower *l, const member *m)
{
    lower_inode *inode = arena_take(&l->arena, sizeof *inode);
    if (inode)
        *inode = (lower_inode){.member = m};
    return inode;
}

static void give(lower_node *node, lower_inode *inode)
{
    if (node->inode)
        node->inode->names--;
    node->inode = inode;
    node->flags &= (uint16_t)~NODE_SHADOW;
    inode->names++;
}

/* Makes NODE a directory, described by M or by no layer, where some clients have the symbolic link
 * LINK. */
static int shadow(lower *l, lower_node *node, const member *m, const member *link)
{
    lower_shadow *s = arena_take(&l->arena, sizeof *s);
    if (!s)
        return -1;
    *s = (lower_shadow){.inode = {.member = m}, .link = link};
    give(node, &s->inode);
    node->flags |= NODE_SHADOW;
    return 0;
}

/* The symbolic link that clients may find here, or NULL. */
static const member *link_of(const lower_node *node)
{
    const member *m = node->inode->member;
    if (node->flags & NODE_SHADOW)
        return ((const lower_shadow *)(const void *)node->inode)->link;
    return m && S_ISLNK(m->mode) ? m : NULL;
}

static void doubt(lower *l, lower_node *node)
{
    node->doubted = l->sequence;
    l->doubtful = 1;
}

static int is_of_this_layer(const lower *l, const lower_node *node)
{
    return node->placed >= l->layer_start;
}

static int fail(lower *l, const char *what)
{
    snprintf(l->error, sizeof l->error, "%s: %.200s", what, l->name.at ? l->name.at : "");
    return -1;
}

static int fail_memory(lower *l)
{
    return fail(l, "more names than there is memory for");
}

/* What is left of a path: TEXT up to END, and then the rest of the path in which a symbolic link
 * stood. */
typedef struct path {
    const char *text, *end;
    const struct path *then;
} path;

/* The next component of P, or 0 at its end. */
static size_t next_component(path *p, const char **name)
{
    for (;;) {
        while (p->text >= p->end) {
            if (!p->then)
                return 0;
            *p = *p->then;
        }
        const char *slash = memchr(p->text, '/', (size_t)(p->end - p->text));
        size_t length = slash ? (size_t)(slash - p->text) : (size_t)(p->end - p->text);
        *name = p->text;
        p->text += length + 1;
        if (length && !(length == 1 && **name == '.'))
            return length;
    }
}

static int add_place(lower *l, lower_node *directory, int in_doubt, int followed)
{
    size_t i = 0;
    while (i < l->places_count && l->places[i].directory != directory)
        i++;
    if (i == LOWER_PLACES)
        return fail(l, "a name that symbolic links of the layers below lead to too many places");
    if (i == l->places_count) {
        l->places_count++;
        l->places[i].directory = directory;
        l->places[i].followed = followed;
    }
    l->places[i].in_doubt = in_doubt;
    l->places[i].followed = l->places[i].followed && followed;
    return 0;
}

/* The directory NAME in NODE that no layer describes, new or in place of what is no directory. NAME
 * need not stay. NULL without memory. */
static lower_node *implied(lower *l, lower_node *node, lower_node *below, const char *name,
                           size_t size)
{
    if (!below) {
        const char *copy = arena_copy(&l->arena, name, size);
        if (!copy || !(below = lower_add(l, node, copy, size)))
            return NULL;
    }
    lower_inode *inode = new_inode(l, NULL);
    if (!inode)
        return NULL;
    give(below, inode);
    below->flags &= (uint16_t)~NODE_NAMED;
    return below;
}

/* A whiteout leads through NODE, which is no directory. Where a layer below has put it there, the
 * overlay driver puts a directory over it. */
static void doubt_cover(lower *l, lower_node *node)
{
    if (!is_of_this_layer(l, node))
        doubt(l, node);
}

/*
 * Collects in `places` every directory that START may be for a client which begins at NODE: the one
 * that it names literally, and those that it leads to where symbolic links are followed. With
 * CREATE, directories that are missing are made, since an archive need not name the directories of
 * its files. LINKS have been followed to come here.
 *
 * Recursion goes no deeper than MOST_LINKS, and `steps` bounds the work over all members by their
 * number.
 */
static int spread(lower *l, lower_node *node, const path *start, int links, int create)
{
    enum { MOST_LINKS = 40 /* as the kernel has it */, FREE_STEPS = 1 << 20, STEPS_A_MEMBER = 32 };
    path left = *start;
    const char *name;
    int in_doubt = links > 0;
    for (size_t size; (size = next_component(&left, &name));) {
        if (links && ++l->steps > FREE_STEPS + (uint64_t)STEPS_A_MEMBER * l->sequence)
            return fail(l, "names that lead through too many symbolic links of the layers below");
        if (size == 2 && name[0] == '.' && name[1] == '.') {
            node = node->parent ? node->parent : node;
            continue;
        }
        if (size > NAME_MAX)
            return 0; /* in a link's target: leads nowhere */
        lower_node *below = lower_find(l, node, name, size);
        const member *link = below ? link_of(below) : NULL;
        if (link) {
            path target = {
                .text = link->target, .end = link->target + link->target_size, .then = &left};
            lower_node *from = *link->target == '/' ? &l->root : node;
            if (links < MOST_LINKS && spread(l, from, &target, links + 1, create))
                return -1;
            if (!create && !is_directory(below)) {
                doubt_cover(l, below);
                return 0;
            }
            in_doubt = 1;
            if (!is_directory(below)) {
                if (shadow(l, below, NULL, link))
                    return fail_memory(l);
                below->flags &= (uint16_t)~NODE_NAMED;
            }
            doubt(l, below);
        } else if (!below || !is_directory(below)) {
            if (!create || (below && links)) {
                /* nothing there to hide; or a file, in which no client can place anything */
                if (below && !links)
                    doubt_cover(l, below);
                return 0;
            }
            int stood = below != NULL;
            if (!(below = implied(l, node, below, name, size)))
                return fail_memory(l);
            if (stood || in_doubt)
                doubt(l, below);
        } else if (!(below->flags & NODE_NAMED && is_of_this_layer(l, below))) {
            below->flags |= NODE_VAGUE; /* until the layer names it */
        }
        node = below;
    }
    return add_place(l, node, in_doubt, links > 0);
}

/* Sets `places` for the member at hand, whose directory is the first SIZE bytes of its name. */
static int find_places(lower *l, size_t size, int create)
{
    const path whole = {.text = l->name.at, .end = l->name.at + size};
    l->places_count = 0;
    return spread(l, &l->root, &whole, 0, create);
}

/*
 * The directory of the next member M, the first SIZE bytes of its name, where that is the directory
 * of the member before or that member itself; else NULL. In the usual order of an archive it nearly
 * always is, and then a look-up costs the same at any depth. A walk from the root would find the
 * same and change nothing: the member before has just made it.
 */
static lower_node *near_directory(const lower *l, const member *m, size_t size)
{
    lower_node *near = size == l->itself_size ? l->itself : NULL;
    if (!near && size == l->directory_size)
        near = l->directory;
    return near && passing_name_goes_on(&l->name, m, size) ? near : NULL;
}

static void forget_near(lower *l)
{
    l->directory = l->itself = NULL;
}

static int is_whiteout(const char *name, size_t size)
{
    return size >= WHITEOUT_SIZE && !memcmp(name, WHITEOUT, WHITEOUT_SIZE);
}

/* Is a part of PATH, below which nothing can be, there and no directory? */
static int is_blocked(const lower *l, const char *path, size_t size)
{
    const lower_node *node = &l->root;
    const char *end = path + size;
    while (node && path < end) {
        const char *slash = memchr(path, '/', (size_t)(end - path));
        size_t length = slash ? (size_t)(slash - path) : (size_t)(end - path);
        node = lower_find(l, node, path, length);
        if (node && !is_directory(node))
            return 1;
        path += length + 1;
    }
    return 0;
}

/* The whiteout at hand, whose last component is the SIZE bytes of NAME. At first it removes what the layers below have; met AGAIN among the members of
 * its layer, it puts in doubt what stands before it. Where a symbolic link leads, either way, is
 * only put in doubt. */
static int hide(lower *l, const char *name, size_t size, size_t directory_size, int again)
{
    int opaque = size == sizeof OPAQUE - 1 && !memcmp(name, OPAQUE, size);
    name += WHITEOUT_SIZE;
    size -= WHITEOUT_SIZE;
    if (!size || (size == 1 && *name == '.') || (size == 2 && name[0] == '.' && name[1] == '.'))
        return fail(
            l, "a whiteout of nothing that has a name, for which clients remove the directory");
    /* containers/storage makes the directory of a whiteout where it is missing (umoci does not): so
     * it may be in the image. */
    if (find_places(l, directory_size, !is_blocked(l, l->name.at, directory_size)))
        return -1;
    for (size_t i = 0; i < l->places_count; i++) {
        lower_node *directory = l->places[i].directory;
        lower_node *hidden = opaque ? directory : lower_find(l, directory, name, size);
        if (!hidden)
            continue; /* hides nothing: allowed, and written by some builders */
        if (l->places[i].in_doubt || (again && !opaque)) {
            doubt(l, hidden);
        } else if (!again) {
            lower_drop_below(l, hidden);
            if (!opaque)
                lower_drop(l, hidden);
        }
    }
    return 0;
}

/* Are all of the extended attributes of A, packed and sorted, among those of B? */
static int are_among(const member *a, const member *b)
{
    xattr x, y;
    size_t at = 0, other = 0;
    while (xattr_next(a->xattrs, a->xattrs_size, &at, &x)) {
        do {
            if (!xattr_next(b->xattrs, b->xattrs_size, &other, &y))
                return 0;
        } while (x.name_size != y.name_size || memcmp(x.name, y.name, x.name_size));
        if (x.value_size != y.value_size || memcmp(x.value, y.value, x.value_size))
            return 0;
    }
    return 1;
}

/* Does the header of the hard link M say of the file what the file's own says? Some clients apply
 * it to the file, some do not. */
static int agrees(const member *m, const member *file)
{
    return m->uid == file->uid && m->gid == file->gid && m->mtime == file->mtime &&
           (S_ISLNK(file->mode) || ((m->mode ^ file->mode) & 07777) == 0) && are_among(m, file);
}

/* Is NODE in doubt, now, while a layer is being put on top? */
static int is_doubted(const lower_node *node)
{
    uint32_t placed = node->placed;
    for (; node->parent; node = node->parent)
        if (node->doubted && node->doubted >= placed)
            return 1;
    return 0;
}

static int is_named_like_a_global_header(const char *name, size_t size)
{
    static const char *const names[] = {"pax_global_header", "@PaxHeader"};
    for (int i = 0; i < 2; i++)
        if (size == strlen(names[i]) && !memcmp(name, names[i], size))
            return 1;
    return 0;
}

/* A name that all clients have. */
static int place_certainly(lower *l, lower_node *directory, const char *name, size_t size,
                           lower_inode *inode, const member *m)
{
    lower_node *node = lower_find(l, directory, name, size);
    int twice = node && node->flags & NODE_NAMED && is_of_this_layer(l, node);
    if (twice && is_directory(node) != S_ISDIR(m->mode))
        return fail(l, "a name that one layer has twice, once as a directory");
    if (node && !S_ISDIR(m->mode))
        lower_drop_below(l, node);
    if (!node && !(node = lower_add(l, directory, name, size)))
        return fail_memory(l);
    give(node, inode);
    node->flags = NODE_NAMED;
    node->placed = l->sequence;
    if (twice)
        doubt(l, node);
    l->itself = S_ISDIR(m->mode) ? node : NULL;
    return 0;
}

/* A name that some clients have: what the others have there stays in the table as far as something
 * can stand below it. */
static int place_in_doubt(lower *l, lower_node *directory, const char *name, size_t size,
                          lower_inode *inode, const member *m)
{
    lower_node *node = lower_find(l, directory, name, size);
    const member *link = node ? link_of(node) : NULL, *new = inode->member;
    if (!node && !(node = lower_add(l, directory, name, size)))
        return fail_memory(l);
    int there = node->inode != NULL, same = link && new && S_ISLNK(new->mode) &&
                                            link->target_size == new->target_size &&
                                            !memcmp(link->target, new->target, new->target_size);
    if (link && !same && (is_of_this_layer(l, node) || node->flags & NODE_SHADOW))
        return fail(l, "a name that is written through a symbolic link where another link may be");
    if (!there || (!is_directory(node) && !S_ISDIR(m->mode)) ||
        (is_directory(node) && S_ISDIR(m->mode) && !link)) {
        give(node, inode);
    } else if (is_directory(node) && new && S_ISLNK(new->mode) && !link) {
        if (shadow(l, node, node->inode->member, new))
            return fail_memory(l);
    } else if (!is_directory(node) && link) {
        if (shadow(l, node, m, link))
            return fail_memory(l);
    } else if (!is_directory(node)) {
        give(node, inode);
    }
    doubt(l, node);
    return 0;
}

/* Places M, whose name is at hand; NEAR is its directory, if that is known. */
static int place(lower *l, const member *m, lower_node *near)
{
    forget_near(l);
    if (!m->name_size) {
        if (S_ISDIR(m->mode))
            l->root_inode.member = m;
        if (m->flags & MEMBER_AMBIGUOUS)
            doubt(l, &l->root);
        return 0;
    }
    size_t size, directory_size;
    const char *name = member_base_name(m, &size, &directory_size);
    if (is_whiteout(name, size))
        return hide(l, name, size, directory_size, 1);
    if (size > NAME_MAX)
        return fail(l, "a name longer than any file system takes");
    lower_inode *inode;
    int vague = (m->flags & MEMBER_AMBIGUOUS) ||
                (!directory_size && is_named_like_a_global_header(name, size));
    if (m->flags & MEMBER_HARD_LINK) {
        lower_node *target = lower_look_up(l, m->target, m->target_size);
        if (!target || is_directory(target))
            return fail(l, "a hard link to a file that is not in the image");
        inode = target->inode;
        vague = vague || is_doubted(target);
        if (vague || !agrees(m, inode->member))
            inode->vague = 1;
    } else if (!(inode = new_inode(l, m))) {
        return fail_memory(l);
    }
    l->places_count = 0;
    if (near ? add_place(l, near, 0, 0) : find_places(l, directory_size, 1))
        return -1;
    assert(l->places_count && l->places_count <= LOWER_PLACES);
    for (size_t i = 0; i < l->places_count; i++) {
        lower_node *directory = l->places[i].directory;
        assert(is_directory(directory));
        /* At the literal place, clients that have it have nothing else. */
        if ((l->places[i].followed ? place_in_doubt : place_certainly)(l, directory, name, size,
                                                                       inode, m))
            return -1;
        if (vague || l->places[i].in_doubt)
            doubt(l, lower_find(l, directory, name, size));
    }
    if (l->places_count == 1 && !l->places[0].in_doubt) {
        l->directory = l->places[0].directory;
        l->directory_size = directory_size;
        l->itself_size = m->name_size;
    } else {
        forget_near(l);
    }
    return 0;
}

void lower_begin(lower *l)
{
    l->layer_start = l->sequence + 1;
    l->doubtful = 0;
    forget_near(l);
}

int lower_hide(lower *l, const member *members, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t size, directory_size;
        const char *name = member_base_name(&members[i], &size, &directory_size);
        if (!is_whiteout(name, size))
            continue;
        if (passing_name_jump(&l->name, &members[i]))
            return fail_memory(l);
        if (hide(l, name, size, directory_size, 0))
            return -1;
    }
    return 0;
}

int lower_place(lower *l, const member *members, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t size, directory_size;
        member_base_name(&members[i], &size, &directory_size);
        lower_node *near = near_directory(l, &members[i], directory_size);
        if (passing_name_next(&l->name, &members[i]))
            return fail_memory(l);
        if (l->sequence == UINT32_MAX)
            return fail(l, "more members than are counted");
        l->sequence++;
        if (place(l, &members[i], near))
            return -1;
    }
    return 0;
}

/* Lets doubt in a directory count for all below it, so that look-ups need not go up again. */
void lower_end(lower *l)
{
    lower_node *node = l->doubtful ? l->root.child : NULL;
    while (node) {
        if (node->doubted < node->parent->doubted)
            node->doubted = node->parent->doubted;
        if (node->child) {
            node = node->child;
            continue;
        }
        while (node->parent && !node->next)
            node = node->parent;
        node = node->next;
    }
}

int lower_is_certain(const lower_node *node)
{
    const lower_inode *inode = node->inode;
    return !(node->flags & NODE_VAGUE) && !inode->vague &&
           !(node->doubted && node->doubted >= node->placed) && inode->member &&
           !(inode->member->flags & MEMBER_AMBIGUOUS);
}
