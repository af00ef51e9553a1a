/* What goes wrong with an entry, in the walk or later. Words are found for it in Python. */
#ifndef BUILD_OCI_PROBLEM_H
#define BUILD_OCI_PROBLEM_H

#include <errno.h>

typedef struct entry entry;

/* Where in a walk or a packing something went wrong. */
typedef enum problem_kind {
    PROBLEM_CANCELLED = 0, /* stopped from outside */
    PROBLEM_SYSTEM,        /* a call failed: `error` is the errno, `call` its name */
    PROBLEM_CHANGED,       /* the file is no longer what the walk saw */
    /* the content is longer or shorter than the size says, though nothing changed */
    PROBLEM_LENGTH,
    PROBLEM_XATTR_NAME,    /* an attribute's name contains '=' */
    PROBLEM_XATTRS_SIZE,   /* the attributes take more room than clients read */
    PROBLEM_TYPE,          /* a type that no tar can hold */
    PROBLEM_SOCKET,        /* skipped: a warning */
    PROBLEM_WHITEOUT_NAME, /* a file of the tree called .wh.…: a warning */
    /* added where the image below has a directory, or a directory where it has something else */
    PROBLEM_COVERS,
} problem_kind;

typedef struct problem {
    problem_kind kind;
    int error;
    const char *call; /* static text */
    const entry *at;  /* the entry, or, where `name` is set, the directory */
    const char *name; /* malloc'ed, or NULL */
    struct problem *next;
} problem;

/* Fills OUT; returns -1. ERROR is an errno, or 0; CALL is static text. */
static inline int problem_fill(problem_kind kind, int error, const entry *at, const char *call,
                               problem *out)
{
    *out = (problem){.kind = kind, .error = error, .call = call, .at = at};
    return -1;
}

static inline int problem_no_memory(const entry *at, problem *out)
{
    return problem_fill(PROBLEM_SYSTEM, ENOMEM, at, "malloc", out);
}

#endif
