#include "checksum.h"
#include "walk_worker.h"

#include "grow.h"
#include "hex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

enum {
    VALUE_MAX = 64 * 1024, /* XATTR_SIZE_MAX of the kernel */
    /* Asked for first: the kernel allocates and clears as much as the caller has room for. */
    LIST_FIRST = 512,
    VALUE_FIRST = 256,
    /* bytes of pax records of one member that Go's archive/tar reads, and so every client */
    RECORDS_MOST = 1 << 20,
    OTHER_RECORDS = 72 * 1024, /* of them: the longest name, a target, numbers */
    /* of a record with an attribute: “LENGTH SCHILY.xattr.NAME=VALUE\n” without NAME and VALUE */
    RECORD_FRAME = 24,
};

/*
 * Room for one more attribute and for a value of any size behind USED bytes of values. -1 without
 * memory.
 */
static int reserve(walk_worker *worker, size_t count, size_t used)
{
    return GROW(&worker->attributes, &worker->attributes_capacity, count + 1) ||
                   GROW(&worker->values, &worker->values_capacity, used + VALUE_MAX)
               ? -1
               : 0;
}

/* Gives the first COUNT of worker->attributes to E. */
static int pack_xattrs(walk *w, walk_worker *worker, entry *e, size_t count)
{
    xattr taken[2]; /* a name is listed once; a third one stays an attribute like others */
    size_t taken_count = 0, kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (w->options.flags & WALK_TAKE_INSTRUCTIONS && taken_count < 2 &&
            xattr_is_instruction(&worker->attributes[i]))
            taken[taken_count++] = worker->attributes[i];
        else
            worker->attributes[kept++] = worker->attributes[i];
    }
    if (xattr_pack(&worker->arena, worker->attributes, kept, &e->xattrs, &e->xattrs_size) ||
        xattr_pack(&worker->arena, taken, taken_count, &e->instructions, &e->instructions_size))
        return walk_exhausted(w);
    return 0;
}

/* Is the file PATH on a FUSE file system? Asked once for each device. */
static int is_on_fuse(walk *w, walk_worker *worker, const entry *e, const char *path)
{
    if (worker->device_known && worker->device.dev == e->dev)
        return worker->device.is_fuse;
    int is_fuse = -1;
    pthread_mutex_lock(&w->lock);
    for (size_t i = 0; is_fuse < 0 && i < w->devices_count; i++)
        if (w->devices[i].dev == e->dev)
            is_fuse = w->devices[i].is_fuse;
    if (is_fuse < 0) {
        struct statfs fs;
        is_fuse = !statfs(path, &fs) && (uint32_t)fs.f_type == FUSE_MAGIC;
        if (!GROW(&w->devices, &w->devices_capacity, w->devices_count + 1))
            w->devices[w->devices_count++] = (walk_device){.dev = e->dev, .is_fuse = is_fuse};
    }
    pthread_mutex_unlock(&w->lock);
    worker->device = (walk_device){.dev = e->dev, .is_fuse = is_fuse};
    worker->device_known = 1;
    return is_fuse;
}

/* As llistxattr, into worker->list. */
static ssize_t list_names(walk_worker *worker, const char *path)
{
    ssize_t size = llistxattr(path, worker->list, LIST_FIRST);
    return size < 0 && errno == ERANGE ? llistxattr(path, worker->list, LIST_MAX) : size;
}

/* As lgetxattr, INTO having room for VALUE_MAX bytes. */
static ssize_t get_value(const char *path, const char *attribute, uint8_t *into)
{
    ssize_t size = lgetxattr(path, attribute, into, VALUE_FIRST);
    return size < 0 && errno == ERANGE ? lgetxattr(path, attribute, into, VALUE_MAX) : size;
}

/* Reports a problem with NAME in DIRECTORY, unless nothing is sure yet. -1: stop; else 1. */
static int refuse(walk *w, const walk_worker *worker, problem_kind kind, const char *call,
                  int error, const entry *directory, const char *name)
{
    if (worker->ahead)
        return 1;
    return walk_report(w, kind, call, error, directory, name) ? -1 : 1;
}

/* Reads the attributes that PATH lists into worker->attributes and worker->values. *LISTED: is the
 * checksum among them? -1: stop; 1: refused. */
static int read_list(walk *w, walk_worker *worker, entry *e, const char *path, int believe,
                     const entry *directory, const char *name, int *listed, size_t *count)
{
    size_t used = 0;
    ssize_t size = list_names(worker, path);
    if (size < 0) {
        if (errno == ENOTSUP || errno == ENOSYS)
            return 0;
        return refuse(w, worker, errno == ENOENT ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "llistxattr",
                      errno, directory, name);
    }
    worker->list[size] = 0;
    for (const char *attribute = worker->list; attribute < worker->list + size;
         attribute += strlen(attribute) + 1) {
        if (!*attribute || xattr_is_of_host(attribute, strlen(attribute)))
            continue;
        int checksum = !strcmp(attribute, CHECKSUM);
        *listed |= checksum;
        if (checksum && !believe)
            continue;
        if (strchr(attribute, '='))
            return refuse(w, worker, PROBLEM_XATTR_NAME, "llistxattr", 0, directory, name);
        if (reserve(worker, *count, used))
            return walk_exhausted(w);
        ssize_t got = get_value(path, attribute, worker->values + used);
        if (got < 0) {
            int vanished = errno == ENODATA || errno == ENOENT;
            return refuse(w, worker, vanished ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "lgetxattr",
                          errno, directory, name);
        }
        if (checksum) {
            if (hex_parse_digest(worker->values + used, (size_t)got, e->digest))
                e->flags |= ENTRY_DIGEST_KNOWN | ENTRY_BELIEVED;
            continue;
        }
        worker->attributes[(*count)++] = (xattr){.name = (const uint8_t *)attribute,
                                                 .name_size = (uint32_t)strlen(attribute),
                                                 .value_size = (uint32_t)got};
        used += (size_t)got;
    }
    /* Only now do the values stay where they are. */
    used = 0;
    size_t records = 0;
    for (size_t i = 0; i < *count; i++) {
        worker->attributes[i].value = worker->values + used;
        used += worker->attributes[i].value_size;
        records += RECORD_FRAME + (size_t)worker->attributes[i].name_size +
                   worker->attributes[i].value_size;
    }
    if (records > RECORDS_MOST - OTHER_RECORDS)
        return refuse(w, worker, PROBLEM_XATTRS_SIZE, "llistxattr", 0, directory, name);
    return 0;
}

/* Reads the attributes of E by its PATH, and gives them to it. -1: stop; 1: refused. */
static int read_attributes(walk *w, walk_worker *worker, entry *e, const char *path,
                           const entry *directory, const char *name)
{
    const unsigned trust = WALK_TRUST_CHECKSUMS | WALK_TRUST_ON_FUSE;
    int skip = (w->options.flags & WALK_SKIP_XATTRS) != 0;
    int fuse = S_ISREG(e->mode) && w->options.flags & trust && is_on_fuse(w, worker, e, path);
    int believe = fuse || (S_ISREG(e->mode) && w->options.flags & WALK_TRUST_CHECKSUMS);
    int listed = 0;
    size_t count = 0;
    if (skip && !fuse)
        return 0;
    worker->read_by_path = 1;
    if (!skip) {
        int status = read_list(w, worker, e, path, believe, directory, name, &listed, &count);
        if (status)
            return status;
    }
    if (fuse && !listed) {
        /* BuildStream's file system answers by name and lists nothing. A failure of any kind: the
         * file is hashed. */
        uint8_t value[65];
        ssize_t got = lgetxattr(path, CHECKSUM, value, sizeof value);
        if (got > 0 && hex_parse_digest(value, (size_t)got, e->digest))
            e->flags |= ENTRY_DIGEST_KNOWN | ENTRY_BELIEVED;
    }
    return pack_xattrs(w, worker, e, count);
}

int walk_read_xattrs(walk *w, walk_worker *worker, entry *e, const char *path,
                     const entry *directory, const char *name)
{
    int status = read_attributes(w, worker, e, path, directory, name);
    if (status)
        return status < 0 ? -1 : 0;
    if (e->xattrs_size || e->instructions_size || e->flags & ENTRY_BELIEVED) {
        struct stat st;
        if (lstat(path, &st))
            return walk_report(
                w, errno == ENOENT || errno == ENOTDIR ? PROBLEM_CHANGED : PROBLEM_SYSTEM, "lstat",
                errno, directory, name);
        if (!entry_is(e, &st))
            return walk_report(w, PROBLEM_CHANGED, "lstat", 0, directory, name);
    }
    return 0;
}

int walk_read_xattrs_ahead(walk *w, walk_worker *worker, entry *e, const char *path,
                           const entry *directory, const char *name)
{
    worker->ahead = 1;
    int status = read_attributes(w, worker, e, path, directory, name);
    worker->ahead = 0;
    return status;
}
