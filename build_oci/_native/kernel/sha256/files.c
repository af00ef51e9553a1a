#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { PIECES = 256 * 1024 }; /* of all lanes; they stay in a core's own cache */

typedef struct lane {
    hashed_file *file; /* NULL when there is no more work */
    uint8_t *piece, *at;
    size_t left; /* bytes of the piece, from `at` on, that are not hashed yet */
    sha256_context context;
} lane;

/* The next piece of the lane's file; 0 at its end. */
static size_t read_piece(lane *l, size_t room)
{
    uint64_t left = l->file->most - l->file->size;
    ssize_t got;
    if (left < room)
        room = (size_t)left;
    do
        got = pread(l->file->fd, l->piece, room, (off_t)(l->file->start + l->file->size));
    while (got < 0 && errno == EINTR);
    if (got < 0)
        l->file->error = errno;
    return got < 0 ? 0 : (size_t)got;
}

/* Lets a lane without data take the next piece, of the next file where one has come to its end. */
static void advance(lane *l, const sha256_kernel *kernel, hashed_file **next,
                    const hashed_file *end, size_t room, atomic_ullong *done)
{
    while (!l->left) {
        if (!l->file) {
            if (*next == end)
                return;
            l->file = (*next)++;
            l->file->size = 0;
            l->file->error = 0;
            sha256_init(&l->context);
        }
        l->at = l->piece;
        l->left = read_piece(l, room);
        l->file->size += l->left;
        atomic_fetch_add_explicit(done, l->left, memory_order_relaxed);
        if (!l->left) {
            sha256_final(kernel, &l->context, l->file->digest);
            l->file = NULL;
        }
    }
}

/* As far as all of COUNT lanes have data. */
static void hash_lanes(const sha256_kernel *kernel, lane *const *lanes, size_t count)
{
    sha256_context *contexts[SHA256_MOST_LANES];
    const uint8_t *data[SHA256_MOST_LANES];
    size_t size = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        contexts[i] = &lanes[i]->context;
        data[i] = lanes[i]->at;
        if (lanes[i]->left < size)
            size = lanes[i]->left;
    }
    sha256_update_lanes(kernel, contexts, data, count, size);
    for (size_t i = 0; i < count; i++) {
        lanes[i]->at += size;
        lanes[i]->left -= size;
    }
}

int sha256_files(const sha256_kernel *kernel, hashed_file *files, size_t count,
                 files_progress *progress)
{
    size_t used = sha256_lanes(kernel), room = PIECES / used;
    uint8_t *pieces = malloc(PIECES);
    if (!pieces)
        return -1;
    lane lanes[SHA256_MOST_LANES] = {{0}};
    for (size_t i = 0; i < used; i++)
        lanes[i].piece = pieces + i * room;
    hashed_file *next = files;
    int status = 0;
    for (;;) {
        lane *busy[SHA256_MOST_LANES];
        size_t still = 0;
        if ((status = atomic_load_explicit(&progress->cancelled, memory_order_relaxed) != 0))
            break;
        for (size_t i = 0; i < used; i++) {
            advance(&lanes[i], kernel, &next, files + count, room, &progress->done);
            if (lanes[i].file)
                busy[still++] = &lanes[i];
        }
        if (!still)
            break;
        hash_lanes(kernel, busy, still);
    }
    free(pieces);
    return status;
}
