/* SHA-256: the scalar kernel, the choice of a kernel, streaming, and the schedule of lanes. See
 * sha256.h. */
#include "sha256.h"
#include "sha256_rounds.h"

#include <string.h>

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
_Alignas(64) const uint32_t sha256_rounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The same of the square roots of the first 8 primes. */
static const uint32_t INITIAL[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/* Byte by byte, so that neither alignment nor byte order matters; compilers make one instruction of
 * each. */
static inline uint32_t load_be32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static inline void store_be32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

/* The scalar kernel. */

void sha256_scalar_one(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (; blocks; blocks--, data += SHA256_BLOCK) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        uint32_t w[16]; /* the last sixteen words of the message schedule */
        for (int i = 0; i < 16; i++)
            w[i] = load_be32(data + 4 * i);
        for (int t = 0;; t += 16) {
            EIGHT_ROUNDS(t, 0);
            EIGHT_ROUNDS(t, 8);
            if (t == 48)
                break;
            for (int i = 0; i < 16; i++) {
                uint32_t early = w[(i + 1) & 15], late = w[(i + 14) & 15];
                NEXT_WORD(i, early, late);
            }
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

static const sha256_kernel SCALAR = {.name = "scalar", .one = sha256_scalar_one};

/* The choice of a kernel. */

const sha256_kernel *sha256_kernel_at(int id)
{
    switch (id) {
    case SHA256_SCALAR: return &SCALAR;
#ifdef SHA256_HAVE_X86
    case SHA256_AVX2: return sha256_kernel_avx2();
    case SHA256_AVX512: return sha256_kernel_avx512();
    case SHA256_SHA_NI: return sha256_kernel_x86();
    case SHA256_SHA_NI_AVX512: return sha256_kernel_x86_avx512();
#endif
#ifdef SHA256_HAVE_ARM
    case SHA256_ARMV8: return sha256_kernel_arm();
#endif
    default: return NULL;
    }
}

int sha256_kernel_best(void)
{
    int id = SHA256_KERNELS - 1;
    while (!sha256_kernel_at(id))
        id--;
    return id;
}

size_t sha256_lanes(const sha256_kernel *kernel)
{
    return kernel->many ? kernel->lanes : kernel->two ? 2 : 1;
}

size_t sha256_together(const sha256_kernel *kernel, const uint64_t *sizes, size_t count,
                       uint64_t share)
{
    size_t most = sha256_lanes(kernel);
    uint64_t sum = 0;
    if (count > most)
        count = most;
    for (size_t i = 0; i < count; i++)
        sum += sizes[i];
    if (!kernel->two || count <= 2)
        return count;
    /* Half of the bytes at least are hashed before the first of the messages ends. */
    int end_together = sizes[count - 1] >= sum / 2 / count;
    return count >= kernel->least && end_together && sum <= share ? count : 2;
}

/* BLOCKS of each of COUNT messages, of those at least one and at most as many as there are lanes.
 */
static void compress(const sha256_kernel *kernel, uint32_t *const *states,
                     const uint8_t *const *data, size_t count, size_t blocks)
{
    if (kernel->many && count >= kernel->least) {
        /* A lane that has no message of its own goes through the first one's data, for nothing. */
        uint32_t idle[8] = {0}, *all_states[SHA256_MOST_LANES];
        const uint8_t *all_data[SHA256_MOST_LANES];
        for (size_t i = 0; i < kernel->lanes; i++) {
            all_states[i] = i < count ? states[i] : idle;
            all_data[i] = i < count ? data[i] : data[0];
        }
        kernel->many(all_states, all_data, blocks);
        return;
    }
    size_t done = 0;
    for (; kernel->two && count - done > 1; done += 2)
        kernel->two(states[done], data[done], states[done + 1], data[done + 1], blocks);
    for (; done < count; done++)
        kernel->one(states[done], data[done], blocks);
}

/* What ends a message. */

/* Fills TAIL with REST, the last SIZE % 64 bytes of a message of SIZE bytes, and with the padding.
 * Returns the blocks of it, 1 or 2. */
static size_t pad(uint8_t tail[2 * SHA256_BLOCK], const uint8_t *rest, uint64_t size)
{
    size_t fill = size % SHA256_BLOCK;
    size_t blocks = fill + 1 + 8 <= SHA256_BLOCK ? 1 : 2;
    uint8_t *length = tail + blocks * SHA256_BLOCK - 8;
    if (fill)
        memcpy(tail, rest, fill);
    tail[fill] = 0x80;
    memset(tail + fill + 1, 0, (size_t)(length - (tail + fill + 1)));
    store_be32(length, (uint32_t)(size >> 29));
    store_be32(length + 4, (uint32_t)(size << 3));
    return blocks;
}

static void store_digest(uint8_t digest[SHA256_DIGEST], const uint32_t state[8])
{
    for (int i = 0; i < 8; i++)
        store_be32(digest + 4 * i, state[i]);
}

/* Streaming. */

void sha256_init(sha256_context *context)
{
    memcpy(context->state, INITIAL, sizeof INITIAL);
    context->size = 0;
}

void sha256_update(const sha256_kernel *kernel, sha256_context *context, const uint8_t *data,
                   size_t size)
{
    size_t fill = context->size % SHA256_BLOCK;
    if (!size)
        return;
    context->size += size;
    if (fill) {
        size_t part = SHA256_BLOCK - fill < size ? SHA256_BLOCK - fill : size;
        memcpy(context->rest + fill, data, part);
        if (fill + part < SHA256_BLOCK)
            return;
        kernel->one(context->state, context->rest, 1);
        data += part;
        size -= part;
    }
    kernel->one(context->state, data, size / SHA256_BLOCK);
    memcpy(context->rest, data + size / SHA256_BLOCK * SHA256_BLOCK, size % SHA256_BLOCK);
}

/* Takes in what completes the block that CONTEXT is in the midst of. */
static void complete_block(const sha256_kernel *kernel, sha256_context *context,
                           const uint8_t **data, size_t *size)
{
    size_t missing = -context->size % SHA256_BLOCK;
    if (missing > *size)
        missing = *size;
    sha256_update(kernel, context, *data, missing);
    *data += missing;
    *size -= missing;
}

void sha256_update_lanes(const sha256_kernel *kernel, sha256_context *const *contexts,
                         const uint8_t *const *data, size_t count, size_t size)
{
    uint32_t *states[SHA256_MOST_LANES];
    const uint8_t *at[SHA256_MOST_LANES];
    size_t blocks = size / SHA256_BLOCK, left[SHA256_MOST_LANES];
    for (size_t i = 0; i < count; i++) {
        at[i] = data[i];
        left[i] = size;
        complete_block(kernel, contexts[i], &at[i], &left[i]);
        states[i] = contexts[i]->state;
        if (left[i] / SHA256_BLOCK < blocks)
            blocks = left[i] / SHA256_BLOCK;
    }
    if (count && blocks)
        compress(kernel, states, at, count, blocks);
    for (size_t i = 0; i < count; i++) {
        contexts[i]->size += blocks * SHA256_BLOCK;
        sha256_update(kernel, contexts[i], at[i] + blocks * SHA256_BLOCK,
                      left[i] - blocks * SHA256_BLOCK);
    }
}

void sha256_update_two(const sha256_kernel *kernel, sha256_context *a, const uint8_t *data_a,
                       size_t size_a, sha256_context *b, const uint8_t *data_b, size_t size_b)
{
    sha256_context *contexts[2] = {a, b};
    const uint8_t *data[2] = {data_a, data_b};
    size_t both = size_a < size_b ? size_a : size_b;
    sha256_update_lanes(kernel, contexts, data, 2, both);
    sha256_update(kernel, a, data_a + both, size_a - both);
    sha256_update(kernel, b, data_b + both, size_b - both);
}

void sha256_update_streams(const sha256_kernel *kernel, sha256_stream *const *streams, size_t count)
{
    sha256_context *contexts[SHA256_MOST_LANES];
    const uint8_t *data[SHA256_MOST_LANES];
    size_t size = SIZE_MAX;
    if (!count)
        return;
    for (size_t i = 0; i < count; i++) {
        contexts[i] = &streams[i]->context;
        data[i] = streams[i]->at;
        if (streams[i]->left < size)
            size = streams[i]->left;
    }
    sha256_update_lanes(kernel, contexts, data, count, size);
    for (size_t i = 0; i < count; i++) {
        streams[i]->at += size;
        streams[i]->left -= size;
    }
}

void sha256_final(const sha256_kernel *kernel, const sha256_context *context,
                  uint8_t digest[SHA256_DIGEST])
{
    uint32_t state[8];
    uint8_t tail[2 * SHA256_BLOCK];
    memcpy(state, context->state, sizeof state);
    kernel->one(state, tail, pad(tail, context->rest, context->size));
    store_digest(digest, state);
}

/* Lanes. */

typedef struct queue {
    const sha256_job *next, *end;
} queue;

/* A job under way. It is read in two runs: the whole blocks where they stand, then the padded end.
 */
typedef struct lane {
    uint32_t state[8];
    const uint8_t *run;
    size_t blocks;  /* left in this run; 0 = the queue is empty and the lane idle */
    size_t padding; /* blocks of the second run; 0 = it has begun */
    uint8_t *digest;
    uint8_t tail[2 * SHA256_BLOCK];
} lane;

static void lane_pad(lane *lane)
{
    lane->run = lane->tail;
    lane->blocks = lane->padding;
    lane->padding = 0;
}

static void lane_start(lane *lane, queue *queue)
{
    lane->blocks = 0;
    if (queue->next == queue->end)
        return;
    const sha256_job *job = queue->next++;
    memcpy(lane->state, INITIAL, sizeof INITIAL);
    lane->run = job->data;
    lane->blocks = job->size / SHA256_BLOCK;
    lane->digest = job->digest;
    lane->padding = pad(
        lane->tail, lane->blocks ? job->data + lane->blocks * SHA256_BLOCK : job->data, job->size);
    if (!lane->blocks)
        lane_pad(lane);
}

/* BLOCKS of the run are done: goes on to what comes next in this lane. */
static void lane_advance(lane *lane, size_t blocks, queue *queue)
{
    lane->run += blocks * SHA256_BLOCK;
    lane->blocks -= blocks;
    if (lane->blocks)
        return;
    if (lane->padding) {
        lane_pad(lane);
        return;
    }
    store_digest(lane->digest, lane->state);
    lane_start(lane, queue);
}

void sha256_many(const sha256_kernel *kernel, const sha256_job *jobs, size_t count)
{
    queue queue = {jobs, count ? jobs + count : jobs};
    lane lanes[SHA256_MOST_LANES], *busy[SHA256_MOST_LANES];
    size_t used = sha256_lanes(kernel);
    for (size_t i = 0; i < used; i++) {
        busy[i] = &lanes[i];
        lane_start(busy[i], &queue);
    }
    for (;;) {
        uint32_t *states[SHA256_MOST_LANES];
        const uint8_t *data[SHA256_MOST_LANES];
        size_t blocks = SIZE_MAX, still = 0;
        for (size_t i = 0; i < used; i++) {
            if (!busy[i]->blocks)
                continue;
            if (busy[i]->blocks < blocks)
                blocks = busy[i]->blocks;
            states[still] = busy[i]->state;
            data[still] = busy[i]->run;
            busy[still++] = busy[i];
        }
        used = still;
        if (!used)
            return;
        compress(kernel, states, data, used, blocks);
        for (size_t i = 0; i < used; i++)
            lane_advance(busy[i], blocks, &queue);
    }
}
