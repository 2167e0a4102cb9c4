/* Reads memory and does next to nothing with it: what this machine delivers. */
#ifndef STREAM_H
#define STREAM_H

#include <stddef.h>
#include <stdint.h>

enum { STREAM_LANES = 64 }; /* sums side by side, so that no addition waits for another */

/* The sum modulo 2^64 of `count` words, a multiple of STREAM_LANES, which are read `times` times. */
uint64_t sterna_stream(const uint64_t *words, size_t count, size_t times) {
    uint64_t total = 0;
    for (size_t k = 0; k < times; k++) {
        uint64_t sums[STREAM_LANES] = {0};
        for (size_t at = 0; at < count; at += STREAM_LANES)
            for (size_t lane = 0; lane < STREAM_LANES; lane++)
                sums[lane] += words[at + lane];
        total = 0;
        for (size_t lane = 0; lane < STREAM_LANES; lane++)
            total += sums[lane];
        /* For all that the compiler knows, the words have changed now: so it reads them again. */
        __asm__ volatile("" ::: "memory");
    }
    return total;
}

#endif
