/* SHA-256 (FIPS 180-4): kernels for the CPU at hand, streaming, and whole batches in as many lanes
 * as a kernel has.
 *
 * Nothing here needs Python, allocates, or keeps state between calls: any number of threads may
 * call it, without the GIL.
 */
#ifndef BUILD_OCI_SHA256_H
#define BUILD_OCI_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_DIGEST = 32, SHA256_BLOCK = 64 };

/* Every extension that hashes carries a copy of this code; none may see another's. */
#pragma GCC visibility push(hidden)

/* How one CPU compresses blocks of 64 bytes. Data may stand at any alignment; `blocks` may be 0. */
typedef struct sha256_kernel {
    const char *name;
    void (*one)(uint32_t state[8], const uint8_t *data, size_t blocks);
    /* Two independent messages, `blocks` of each, for instructions whose latency one message alone
     * waits for; or NULL. */
    void (*two)(uint32_t a[8], const uint8_t *da, uint32_t b[8], const uint8_t *db, size_t blocks);
    /* As many of them as there are `lanes`, one in each lane of a vector; or NULL. It takes as long
     * for fewer, and is worth it for `least` and more. */
    void (*many)(uint32_t *const *states, const uint8_t *const *data, size_t blocks);
    size_t lanes, least;
} sha256_kernel;

/* A later one is faster. */
enum {
    SHA256_SCALAR,
    SHA256_AVX2,
    SHA256_AVX512,
    SHA256_SHA_NI,
    SHA256_SHA_NI_AVX512,
    SHA256_ARMV8,
    SHA256_KERNELS
};

/* Messages that a kernel hashes side by side, at most. */
enum { SHA256_MOST_LANES = 16 };

/* For a buffer that files are read into to be hashed. Some CPUs copy at a quarter of their speed to
 * where an address lies a few bytes behind that of the source, both taken modulo a page: files
 * begin at a page, and what malloc gets from mmap 16 bytes behind one. */
enum { SHA256_PIECES_ALIGNED = 64 };

size_t sha256_lanes(const sha256_kernel *kernel);

/* How many of the COUNT messages of these SIZES, the largest first, are best hashed side by side by
 * one of several threads, whose part of all the bytes that are left is SHARE. Where the kernel has
 * no `two`: as many as there are lanes. Else as many where they end at about the same time and have
 * no more bytes than SHARE, so that the other threads have something to do; else two. At least 1,
 * but 0 of none. */
size_t sha256_together(const sha256_kernel *kernel, const uint64_t *sizes, size_t count,
                       uint64_t share);

/* The kernel of that number, or NULL when there is none or this CPU lacks it. Scalar is always
 * there, and is what the others must equal. Asks the CPU each time, which traps under a hypervisor:
 * call it once a batch, not once a file. */
const sha256_kernel *sha256_kernel_at(int id);

/* The number of the fastest kernel this CPU has. */
int sha256_kernel_best(void);

/* A message that comes in pieces. */
typedef struct sha256_context {
    uint32_t state[8];
    uint64_t size;              /* bytes so far */
    uint8_t rest[SHA256_BLOCK]; /* the last size % 64 of them */
} sha256_context;

void sha256_init(sha256_context *context);
/* `data` may be NULL when `size` is 0. */
void sha256_update(const sha256_kernel *kernel, sha256_context *context, const uint8_t *data,
                   size_t size);
/* Two messages, or two pieces of them, side by side as far as both reach. */
void sha256_update_two(const sha256_kernel *kernel, sha256_context *a, const uint8_t *data_a,
                       size_t size_a, sha256_context *b, const uint8_t *data_b, size_t size_b);
/* Pieces of SIZE bytes each of so many messages, at most as many as the kernel has lanes. */
void sha256_update_lanes(const sha256_kernel *kernel, sha256_context *const *contexts,
                         const uint8_t *const *data, size_t count, size_t size);
/* A message whose bytes come in pieces: of the last one, LEFT bytes from `at` on are not hashed. */
typedef struct sha256_stream {
    sha256_context context;
    const uint8_t *at;
    size_t left;
} sha256_stream;

/* Hashes so many streams, at most as many as the kernel has lanes, as far as all of them have
 * bytes. */
void sha256_update_streams(const sha256_kernel *kernel, sha256_stream *const *streams,
                           size_t count);
/* Leaves the context as it was: copying is not needed to go on with the message. */
void sha256_final(const sha256_kernel *kernel, const sha256_context *context,
                  uint8_t digest[SHA256_DIGEST]);

/* A whole message and where its digest goes. `data` may be NULL when `size` is 0. */
typedef struct sha256_job {
    const uint8_t *data;
    size_t size;
    uint8_t *digest; /* 32 bytes, written */
} sha256_job;

/* Digests every job. The kernel's lanes run side by side and each pulls the next job, in order,
 * when its own ends: jobs of any sizes keep all busy. Only those that end last run alone, from
 * where the others ended, so a much larger job is better placed first. */
void sha256_many(const sha256_kernel *kernel, const sha256_job *jobs, size_t count);

/* Between the sources of this kernel only. */
extern const uint32_t sha256_rounds[64];
void sha256_scalar_one(uint32_t state[8], const uint8_t *data, size_t blocks);
/* NULL when this CPU lacks the instructions; on x86-64 only */
const sha256_kernel *sha256_kernel_avx2(void);
const sha256_kernel *sha256_kernel_avx512(void);
const sha256_kernel *sha256_kernel_x86(void);
const sha256_kernel *sha256_kernel_x86_avx512(void);
/* `many` of the kernel for AVX-512. */
void sha256_avx512_sixteen(uint32_t *const *states, const uint8_t *const *data, size_t blocks);
const sha256_kernel *sha256_kernel_arm(void); /* the same; on little-endian AArch64 Linux only */

#if defined(__x86_64__)
#define SHA256_HAVE_X86 1
#endif
/* Clang before 17 declares the intrinsics only where the whole file is compiled for them. */
#if defined(__AARCH64EL__) && defined(__linux__) && (!defined(__clang__) || __clang_major__ >= 17)
#define SHA256_HAVE_ARM 1
#endif

#pragma GCC visibility pop

#endif
