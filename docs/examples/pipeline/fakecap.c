/*
 * A shim for LD_PRELOAD that gives files the capabilities that a build sandbox cannot set.
 *
 * FAKECAP_DB names a file of lines `HEX PATH`: the value of security.capability in hexadecimal
 * digits, and a path below the directory FAKECAP_ROOT. The files are known by device and inode, so
 * it does not matter by which path a program asks. Programs that ask by a file descriptor or
 * without the C library see the disk alone.
 *
 *     cc -shared -fPIC -O2 -o fakecap.so fakecap.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

#define ATTRIBUTE "security.capability"
#define LARGEST 64 /* bytes of a value; the kernel writes 20 or 24 */

struct entry {
    dev_t device;
    ino_t inode;
    unsigned char value[LARGEST];
    size_t size;
};

static ssize_t (*real_list)(const char *, char *, size_t);
static ssize_t (*real_get)(const char *, const char *, void *, size_t);
static struct entry *entries;
static size_t count;

static void fail(const char *what, const char *subject)
{
    fprintf(stderr, "fakecap: %s: %s\n", subject, what);
    exit(1);
}

static void add(const char *root, char *line)
{
    line[strcspn(line, "\n")] = 0;
    size_t digits = strspn(line, "0123456789abcdef");
    if (!digits || digits % 2 || digits > 2 * LARGEST || line[digits] != ' ')
        fail("not a line `HEX PATH`", line);
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", root, line + digits + 1) >= (int)sizeof path)
        fail("too long", line);
    struct stat status;
    if (lstat(path, &status))
        fail(strerror(errno), path);
    entries = realloc(entries, (count + 1) * sizeof *entries);
    if (!entries)
        abort();
    struct entry *entry = &entries[count++];
    entry->device = status.st_dev;
    entry->inode = status.st_ino;
    entry->size = digits / 2;
    for (size_t i = 0; i < entry->size; i++)
        sscanf(line + 2 * i, "%2hhx", &entry->value[i]);
}

/* Reads the data base once, before the program has threads. */
__attribute__((constructor)) static void load(void)
{
    real_list = (ssize_t (*)(const char *, char *, size_t))dlsym(RTLD_NEXT, "llistxattr");
    real_get =
        (ssize_t (*)(const char *, const char *, void *, size_t))dlsym(RTLD_NEXT, "lgetxattr");
    const char *root = getenv("FAKECAP_ROOT"), *name = getenv("FAKECAP_DB");
    if (!root || !name)
        return;
    FILE *file = fopen(name, "r");
    if (!file)
        fail(strerror(errno), name);
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, file) > 0)
        add(root, line);
    free(line);
    fclose(file);
}

static const struct entry *find(const char *path)
{
    struct stat status;
    if (!count || lstat(path, &status))
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (entries[i].inode == status.st_ino && entries[i].device == status.st_dev)
            return &entries[i];
    return NULL;
}

ssize_t llistxattr(const char *path, char *list, size_t size)
{
    /* What the disk has, without the attribute; then the attribute. */
    ssize_t used = real_list(path, list, size);
    const struct entry *entry = find(path);
    if (!entry)
        return used;
    if (used < 0 && errno != ENOTSUP)
        return used;
    used = used < 0 ? 0 : used;
    if (!size)
        return used + (ssize_t)sizeof ATTRIBUTE;
    for (ssize_t at = 0; at < used; at += (ssize_t)strlen(list + at) + 1)
        if (!strcmp(list + at, ATTRIBUTE))
            return used;
    if ((size_t)used + sizeof ATTRIBUTE > size) {
        errno = ERANGE;
        return -1;
    }
    memcpy(list + used, ATTRIBUTE, sizeof ATTRIBUTE);
    return used + (ssize_t)sizeof ATTRIBUTE;
}

ssize_t lgetxattr(const char *path, const char *name, void *value, size_t size)
{
    const struct entry *entry = strcmp(name, ATTRIBUTE) ? NULL : find(path);
    if (!entry)
        return real_get(path, name, value, size);
    if (size && size < entry->size) {
        errno = ERANGE;
        return -1;
    }
    if (size)
        memcpy(value, entry->value, entry->size);
    return (ssize_t)entry->size;
}
