#include "digest.h"

#include "inodes.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    /* of the large files that are hashed side by side; they stay in a core's own cache */
    PIECES = 256 * 1024,
    SMALL = 64 * 1024, /* up to this size files are read whole */
    BATCH_BYTES = 1024 * 1024,
    BATCH_FILES = 256,
};

static int digest_small(reader *r, const sha256_kernel *kernel, entry *const *files, size_t count,
                        problem *out)
{
    sha256_job jobs[BATCH_FILES] = {{0}};
    size_t bytes = 0, used = 0;
    for (size_t i = 0; i < count; i++)
        bytes += (size_t)files[i]->size;
    uint8_t *content = malloc(bytes + 1);
    if (!content)
        return problem_no_memory(files[0], out);
    int status = 0;
    for (size_t i = 0; !status && i < count; i++) {
        status = content_read_whole(r, files[i], content + used, out);
        if (!status && files[i]->fingerprints &&
            !tree_same_content(r->tree, files[i], content + used))
            status = problem_fill(PROBLEM_CHANGED, 0, files[i], "read", out);
        jobs[i] = (sha256_job){
            .data = content + used, .size = (size_t)files[i]->size, .digest = files[i]->digest};
        used += (size_t)files[i]->size;
    }
    if (!status) {
        sha256_many(kernel, jobs, count);
        for (size_t i = 0; i < count; i++)
            files[i]->flags |= ENTRY_DIGEST_KNOWN;
    }
    free(content);
    return status;
}

/* One of the streams that are hashed side by side. */
typedef struct lane {
    entry *file; /* NULL when there is no more work */
    int fd;
    uint64_t offset;      /* of what is read next */
    uint64_t fingerprint; /* of the slice that it lies in, up to there */
    uint8_t *piece;
    size_t room; /* bytes of the piece */
    sha256_stream stream;
} lane;

/* Fingerprints the SIZE bytes that were read at the lane's offset; 0 if a slice that ends there was
 * packed with other bytes. */
static int compare_slices(lane *l, const tree *t, size_t size)
{
    for (size_t done = 0; done < size;) {
        uint64_t offset = l->offset + done, left = t->slice_size - offset % t->slice_size;
        size_t part = left < size - done ? (size_t)left : size - done;
        l->fingerprint = fingerprint_add(&t->key, l->fingerprint, l->piece + done, part);
        done += part;
        if (part == left || offset + part == l->file->size) {
            if (!tree_same_slice(t, l->file, offset, l->fingerprint))
                return 0;
            l->fingerprint = 0;
        }
    }
    return 1;
}

/* Lets an idle lane take the next file, and a lane without data the next piece. A file that has
 * come to its end is settled. */
static int advance(lane *l, reader *r, const sha256_kernel *kernel, entry *const **next,
                   entry *const *end, problem *out)
{
    for (;;) {
        if (l->stream.left)
            return 0;
        if (l->file && l->offset == l->file->size) {
            if (content_unchanged(l->fd, l->file, out))
                return -1;
            uint8_t digest[SHA256_DIGEST];
            sha256_final(kernel, &l->stream.context, digest);
            if (l->file->flags & ENTRY_IN_ARCHIVE &&
                memcmp(digest, l->file->digest, sizeof digest)) {
                return problem_fill(PROBLEM_CHANGED, 0, l->file, "read", out);
            }
            memcpy(l->file->digest, digest, sizeof digest);
            l->file->flags |= ENTRY_DIGEST_KNOWN;
            close(l->fd);
            l->fd = -1;
            l->file = NULL;
        }
        if (!l->file) {
            if (*next == end)
                return 0;
            l->file = *(*next)++;
            l->offset = l->fingerprint = 0;
            sha256_init(&l->stream.context);
            if ((l->fd = reader_open(r, l->file, out)) < 0)
                return -1;
            posix_fadvise(l->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
            continue;
        }
        assert(l->offset < l->file->size);
        uint64_t rest = l->file->size - l->offset;
        size_t size = rest < l->room ? (size_t)rest : l->room;
        if (content_read(l->fd, l->file, l->offset, l->piece, size, out))
            return -1;
        if (l->file->fingerprints && !compare_slices(l, r->tree, size)) {
            return problem_fill(PROBLEM_CHANGED, 0, l->file, "read", out);
        }
        l->stream.at = l->piece;
        l->stream.left = size;
        l->offset += size;
    }
}

static int digest_large(reader *r, const sha256_kernel *kernel, entry *const *files, size_t count,
                        const atomic_int *cancelled, problem *out)
{
    size_t used = sha256_lanes(kernel), piece = PIECES / used;
    uint8_t *pieces = aligned_alloc(SHA256_PIECES_ALIGNED, PIECES);
    if (!pieces)
        return problem_no_memory(files[0], out);
    lane lanes[SHA256_MOST_LANES] = {{0}};
    for (size_t i = 0; i < used; i++)
        lanes[i] = (lane){.fd = -1, .piece = pieces + i * piece, .room = piece};
    entry *const *next = files, *const *end = files + count;
    int failed = 0;
    for (;;) {
        sha256_stream *busy[SHA256_MOST_LANES];
        size_t still = 0;
        if (atomic_load_explicit(cancelled, memory_order_relaxed)) {
            failed = problem_fill(PROBLEM_CANCELLED, 0, files[0], NULL, out);
            break;
        }
        for (size_t i = 0; !failed && i < used; i++) {
            failed = advance(&lanes[i], r, kernel, &next, end, out);
            if (lanes[i].file)
                busy[still++] = &lanes[i].stream;
        }
        if (failed || !still)
            break;
        sha256_update_streams(kernel, busy, still);
    }
    for (size_t i = 0; i < used; i++)
        if (lanes[i].fd >= 0)
            close(lanes[i].fd);
    free(pieces);
    return failed;
}

int digest_files(const tree *t, const sha256_kernel *kernel, entry *const *files, size_t count,
                 const atomic_int *cancelled, problem *out)
{
    reader r;
    reader_begin(&r, t);
    int status = 0;
    for (size_t i = 0; !status && i < count;) {
        size_t from = i;
        int small = files[i]->size <= SMALL;
        uint64_t bytes = 0;
        while (i < count && (files[i]->size <= SMALL) == small &&
               (!small || (i - from < BATCH_FILES && bytes <= BATCH_BYTES)))
            bytes += files[i++]->size;
        status = small ? digest_small(&r, kernel, files + from, i - from, out)
                       : digest_large(&r, kernel, files + from, i - from, cancelled, out);
    }
    reader_end(&r);
    return status;
}

static int larger_first(const void *left, const void *right)
{
    const entry *a = *(entry *const *)left, *b = *(entry *const *)right;
    return (a->size < b->size) - (a->size > b->size);
}

/* Large files first and by size, so that equals run side by side; small ones stay in tar order, so
 * that one directory's come together. */
static void arrange(entry **files, size_t count)
{
    entry **small = malloc((count + 1) * sizeof *small);
    if (!small)
        return; /* any order is right */
    size_t large = 0, rest = 0;
    for (size_t i = 0; i < count; i++) {
        if (files[i]->size > SMALL)
            files[large++] = files[i];
        else
            small[rest++] = files[i];
    }
    memcpy(files + large, small, rest * sizeof *small);
    qsort(files, large, sizeof *files, larger_first);
    free(small);
}

/* How many of the large files from I on are best hashed side by side; see sha256_together(). */
static size_t together(const digests *d, size_t i, uint64_t share)
{
    uint64_t sizes[SHA256_MOST_LANES];
    size_t count = 0;
    for (; count < SHA256_MOST_LANES && i < d->files_count && d->files[i]->size > SMALL; i++)
        sizes[count++] = d->files[i]->size;
    return sha256_together(d->kernel, sizes, count, share);
}

static int cut(digests *d, size_t threads)
{
    d->batches = malloc((d->files_count + 1) * sizeof *d->batches);
    if (!d->batches)
        return -1;
    uint64_t bytes = 0, left = 0; /* in the batch; in this file and those behind it */
    size_t beside = 0;            /* files that are hashed side by side with the one before */
    for (size_t i = 0; i < d->files_count; i++)
        left += d->files[i]->size;
    for (size_t i = 0; i < d->files_count; i++) {
        int large = d->files[i]->size > SMALL;
        size_t count = d->batches_count ? i - d->batches[d->batches_count - 1] : 0;
        if (!d->batches_count || (!beside && (bytes >= BATCH_BYTES || count >= BATCH_FILES ||
                                              (!large && i && d->files[i - 1]->size > SMALL)))) {
            d->batches[d->batches_count++] = i;
            bytes = 0;
        }
        if (large)
            beside = (beside ? beside : together(d, i, left / threads)) - 1;
        bytes += d->files[i]->size;
        left -= d->files[i]->size;
    }
    d->batches[d->batches_count] = d->files_count;
    for (size_t i = 0; i < d->batches_count; i++)
        assert(d->batches[i] < d->batches[i + 1]); /* no batch is empty */
    return 0;
}

digests *digests_new(tree *t, const sha256_kernel *kernel, size_t threads)
{
    digests *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->tree = t;
    d->kernel = kernel;
    size_t count, files = 0;
    entry **order = tree_order(t, &count);
    inode_table inodes = {0};
    for (size_t i = 0; order && i < count; i++)
        files += S_ISREG(order[i]->mode);
    d->files = malloc((files + 1) * sizeof *d->files);
    d->others = malloc((files + 1) * sizeof *d->others);
    int failed = !order || !d->files || !d->others || inodes_begin(&inodes, order, count);
    for (size_t i = 0; !failed && i < count; i++) {
        entry *e = order[i];
        if (!S_ISREG(e->mode) || e->flags & ENTRY_DIGEST_KNOWN)
            continue;
        e->link = inodes_first(&inodes, e);
        if (e->link)
            d->others[d->others_count++] = e;
        else
            d->files[d->files_count++] = e;
        failed = !e->link && e->size && tree_take_fingerprints(t, e);
    }
    free(order);
    inodes_end(&inodes);
    if (!failed)
        arrange(d->files, d->files_count);
    if (failed || cut(d, threads)) {
        digests_free(d);
        return NULL;
    }
    return d;
}

int digests_hash(digests *d, size_t batch, problem *out)
{
    if (atomic_load_explicit(&d->cancelled, memory_order_relaxed)) {
        return problem_fill(PROBLEM_CANCELLED, 0, &d->tree->root, NULL, out);
    }
    size_t first = d->batches[batch], end = d->batches[batch + 1];
    return digest_files(d->tree, d->kernel, d->files + first, end - first, &d->cancelled, out);
}

void digests_finish(digests *d)
{
    for (size_t i = 0; i < d->others_count; i++) {
        entry *e = d->others[i];
        memcpy(e->digest, e->link->digest, sizeof e->digest);
        e->fingerprints = e->link->fingerprints;
        e->flags |= ENTRY_DIGEST_KNOWN;
        e->link = NULL;
    }
}

void digests_free(digests *d)
{
    free(d->files);
    free(d->others);
    free(d->batches);
    free(d);
}
