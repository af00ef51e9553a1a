/* The mutator of the fuzzers that take an archive, with TAR_MUTATOR_SKIP bytes in front of it. */
#ifndef BUILD_OCI_TAR_MUTATOR_H
#define BUILD_OCI_TAR_MUTATOR_H

#include <stdint.h>
#include <stdio.h>

#ifndef TAR_MUTATOR_SKIP
#define TAR_MUTATOR_SKIP 0
#endif

enum { MUTATED_BLOCK = 512 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

/* Mutates, then makes most checksums hold again: without that, nearly every input would end at its
 * first header. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, most);
    for (size_t at = TAR_MUTATOR_SKIP; seed % 16 && at + MUTATED_BLOCK <= size;) {
        uint8_t *block = data + at;
        unsigned sum = 8 * ' ';
        for (size_t i = 0; i < MUTATED_BLOCK; i++)
            sum += i >= 148 && i < 156 ? 0 : block[i];
        at += MUTATED_BLOCK;
        if (sum == 8 * ' ')
            continue;
        snprintf((char *)block + 148, 8, "%06o", sum);
        block[155] = ' ';
        size_t content = 0;
        for (size_t i = 124; i < 136 && block[i] >= '0' && block[i] <= '7'; i++)
            content = 8 * content + block[i] - '0';
        if ((block[156] < '1' || block[156] > '6') && content < size)
            at += (content + MUTATED_BLOCK - 1) / MUTATED_BLOCK * MUTATED_BLOCK;
    }
    return size;
}

#endif
