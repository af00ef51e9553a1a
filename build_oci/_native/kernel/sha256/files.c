#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { PIECES = 256 * 1024 }; /* of all lanes; they stay in a core's own cache */

typedef struct lane {
    hashed_file *file; /* NULL when there is no more work */
    uint8_t *piece;
    sha256_stream stream;
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
    while (!l->stream.left) {
        if (!l->file) {
            if (*next == end)
                return;
            l->file = (*next)++;
            l->file->size = 0;
            l->file->error = 0;
            sha256_init(&l->stream.context);
        }
        l->stream.at = l->piece;
        l->stream.left = read_piece(l, room);
        l->file->size += l->stream.left;
        atomic_fetch_add_explicit(done, l->stream.left, memory_order_relaxed);
        if (!l->stream.left) {
            sha256_final(kernel, &l->stream.context, l->file->digest);
            l->file = NULL;
        }
    }
}

int sha256_files(const sha256_kernel *kernel, hashed_file *files, size_t count,
                 files_progress *progress)
{
    size_t used = sha256_lanes(kernel), room = PIECES / used;
    uint8_t *pieces = aligned_alloc(SHA256_PIECES_ALIGNED, PIECES);
    if (!pieces)
        return -1;
    lane lanes[SHA256_MOST_LANES] = {{0}};
    for (size_t i = 0; i < used; i++)
        lanes[i].piece = pieces + i * room;
    hashed_file *next = files;
    int status = 0;
    for (;;) {
        sha256_stream *busy[SHA256_MOST_LANES];
        size_t still = 0;
        if ((status = atomic_load_explicit(&progress->cancelled, memory_order_relaxed) != 0))
            break;
        for (size_t i = 0; i < used; i++) {
            advance(&lanes[i], kernel, &next, files + count, room, &progress->done);
            if (lanes[i].file)
                busy[still++] = &lanes[i].stream;
        }
        if (!still)
            break;
        sha256_update_streams(kernel, busy, still);
    }
    free(pieces);
    return status;
}
