/*
 * Two images compared: which names differ and in what, and what makes a layer of the new image new.
 *
 * Problem. An image is a stack of archives. Some of its layers may not have been read, because both
 * images have them. So neither image need be known as a whole, and a hard link may lead to a file
 * that nobody has read.
 *
 * Picture. One tree of names serves both images. Every name (compare_node) has, for each image, a
 * chain of occurrences: the members of that name, that of the topmost layer first. Whiteouts are
 * names like others, and they mark the name that they hide besides.
 *
 *     etc ── passwd     old: layer 2 -> layer 0      new: layer 3
 *         └─ .wh.shadow old: none                    new: layer 3
 *         └─ shadow     old: layer 0                 new: none      hidden[NEW] = 4 (layer 3)
 *
 * Invariants
 *   - Layers are numbered from 0, the lowest. A limit ("floor") is a layer's number + 1, and 0
 *     stands for none. An occurrence in layer L is hidden by a floor F if L + 1 < F: a whiteout
 *     hides what is in the layers below its own.
 *   - The layers of an image are added from the lowest to the topmost, so a chain is ordered as it
 *     is built.
 *   - The floors that a directory sets for what is in it are known when the walk has passed it:
 *     compare_walk() goes from parent to child.
 *   - Nothing recurses: a hostile archive chooses the depth of the tree.
 *
 * Names count as they stand in the archives. Symbolic links among directories are not followed.
 *
 * One thread at a time. The members must stay where they are as long as the table lives.
 */
#ifndef BUILD_OCI_COMPARE_H
#define BUILD_OCI_COMPARE_H

#include "arena.h"
#include "member.h"

enum { COMPARE_OLD, COMPARE_NEW, COMPARE_SIDES };

/* In what two members of one name differ. */
enum {
    DIFFERS_TYPE = 1,
    DIFFERS_CONTENT = 2,
    DIFFERS_TARGET = 4, /* of a symbolic link */
    DIFFERS_DEVICE = 8,
    DIFFERS_MODE = 16,
    DIFFERS_OWNER = 32,
    DIFFERS_TIME = 64,
    DIFFERS_XATTRS = 128,
    /* hard links: one is a link and the other is not, or they lead to different names */
    DIFFERS_LINK = 256,
};

/* What became of a name. The last two are said of layers alone. */
enum { NAME_SAME, NAME_ADDED, NAME_REMOVED, NAME_CHANGED, NAME_MOVED_IN, NAME_MOVED_OUT };

typedef struct compare_node compare_node;
typedef struct occurrence occurrence;

struct occurrence {
    const member *m;
    compare_node *node;
    occurrence *below; /* the same name in the next lower layer that has it */
    occurrence *next;  /* in the same layer, in the order of the archive */
    uint32_t layer;
};

struct compare_node {
    compare_node *parent, *child, *next;
    const char *name; /* base name, not terminated */
    occurrence *top[COMPARE_SIDES];
    occurrence *mark[COMPARE_SIDES]; /* in the layers that are being walked over */
    uint32_t hidden[COMPARE_SIDES];  /* floor that a whiteout of this very name sets */
    uint32_t opaque[COMPARE_SIDES];  /* floor that an opaque whiteout in this directory sets */
    uint32_t implied[COMPARE_SIDES]; /* topmost layer + 1 that has something below this name */
    uint32_t floor[COMPARE_SIDES];   /* for what is below this name; set by the walk */
    uint32_t hash, name_size;
    uint32_t is_whiteout;
};

/* One line of an answer. `old` or `new` is NULL where that side has no member of the name, or none
 * that has been read. */
typedef struct difference {
    const compare_node *node;
    const occurrence *old, *new;
    uint16_t what; /* NAME_... */
    uint16_t bits; /* DIFFERS_... */
} difference;

typedef struct compare compare;

/* COMPLETE: have all layers of that image been added? Else a whiteout alone is a difference,
 * because something unread lies below. Refuses to grow beyond about MEMORY_LIMIT bytes. NULL
 * without memory. */
compare *compare_new(size_t memory_limit, int old_complete, int new_complete);

/* Begins the next layer of an image. LAYER: its number in the image, greater than those before. -1
 * without memory. */
int compare_begin_layer(compare *, int side, uint32_t layer);

/* The next COUNT members of the layer. -1 without memory, or beyond the limit. */
int compare_add(compare *, const member *members, size_t count);

/* Starts a walk over all names of both images; EVERYTHING yields those that are the same, too. */
void compare_start(compare *, int everything);

/* Up to CAPACITY differences into OUT. Looks at a bounded number of names and sets *ENDED once it
 * has looked at all. */
size_t compare_walk(compare *, difference *out, size_t capacity, int *ended);

enum { COMPARE_NO_LAYER = 0xffffffff };

/* The old layer that the new LAYER has most in common with, by the sizes of the files that both
 * name; COMPARE_NO_LAYER if none. */
uint32_t compare_counterpart(compare *, uint32_t layer);

/* Starts a walk over what the new LAYER has otherwise than its COUNTERPART (may be
 * COMPARE_NO_LAYER). */
void compare_start_layer(compare *, uint32_t layer, uint32_t counterpart);
size_t compare_walk_layer(compare *, difference *out, size_t capacity, int *ended);

/* After a walk over a layer that found nothing: do the two archives name their members in the same
 * order? */
int compare_same_order(const compare *);

/* The path of NODE into OUT if that is not NULL, without a leading slash; its length. */
size_t compare_path(const compare_node *, char *out);

void compare_free(compare *);

#endif
