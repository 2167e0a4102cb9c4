/* Vectors of doubles in the width of this machine, and fp24 on them. */
#ifndef VECTOR_H
#define VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__i386__) && !defined(__SSE2_MATH__)
#error "the x87 rounds doubles twice: compile with -mfpmath=sse"
#endif

#if defined(STERNA_PLAIN)
enum { LANES = 2 };
#define VECTOR_BYTES 16
#elif defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define VECTOR_AVX512
enum { LANES = 8 };
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_AVX2
enum { LANES = 4 };
#define VECTOR_BYTES 32
#else
enum { LANES = 2 };
#define VECTOR_BYTES 16
#endif
#if defined(VECTOR_AVX512) || defined(VECTOR_AVX2)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define MAX24 0x1.fffep+128
#define MIN24 0x1p-126
#define EXPONENT_BITS INT64_C(0x7ff0000000000000)
#define PUSH (1.5 * 0x1p37)

typedef double doubles __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t longs __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t ints __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef uint32_t words __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef int8_t bytes __attribute__((vector_size(VECTOR_BYTES / 8)));

INLINE doubles load(const double *at) {
    doubles v;
    memcpy(&v, at, sizeof v);
    return v;
}

INLINE void store(double *at, doubles v) { memcpy(at, &v, sizeof v); }

INLINE doubles all(double x) { return x - (doubles){0}; }

INLINE doubles of_ints(const int32_t *at) {
    ints v;
    memcpy(&v, at, sizeof v);
    return __builtin_convertvector(v, doubles);
}

/* a where the mask has ones, b where it has zeros. */
INLINE doubles choose(longs mask, doubles a, doubles b) { return (doubles)(((longs)a & mask) | ((longs)b & ~mask)); }

INLINE doubles size_of(doubles x) { return (doubles)((longs)x & INT64_MAX); }

INLINE doubles smaller(doubles a, doubles b) {
#if defined(VECTOR_AVX512)
    return (doubles)_mm512_min_pd((__m512d)a, (__m512d)b);
#elif defined(VECTOR_AVX2)
    return (doubles)_mm256_min_pd((__m256d)a, (__m256d)b);
#else
    return choose(a < b, a, b);
#endif
}

INLINE doubles larger(doubles a, doubles b) {
#if defined(VECTOR_AVX512)
    return (doubles)_mm512_max_pd((__m512d)a, (__m512d)b);
#elif defined(VECTOR_AVX2)
    return (doubles)_mm256_max_pd((__m256d)a, (__m256d)b);
#else
    return choose(a > b, a, b);
#endif
}

/* MAX24 with the sign of x where |x| is larger. */
INLINE doubles saturated(doubles x) {
#if defined(VECTOR_AVX512)
    return (doubles)_mm512_range_pd((__m512d)x, _mm512_set1_pd(MAX24), 2);
#else
    return larger(smaller(x, all(MAX24)), all(-MAX24));
#endif
}

/* +0 where |x| < MIN24. */
INLINE doubles flushed(doubles x) {
#if defined(VECTOR_AVX512)
    __mmask8 kept = _mm512_cmp_pd_mask((__m512d)size_of(x), _mm512_set1_pd(MIN24), _CMP_GE_OQ);
    return (doubles)_mm512_maskz_mov_pd(kept, (__m512d)x);
#else
    return (doubles)((longs)x & (longs)(size_of(x) >= all(MIN24)));
#endif
}

/* round24 of fp24.h; -0 becomes +0 on the way. */
INLINE doubles round_all(doubles x) {
    x = saturated(x);
    doubles push = (doubles)((longs)x & EXPONENT_BITS) * PUSH;
    return flushed((x + push) - push);
}

INLINE doubles mul_all(doubles a, doubles b) { return round_all(a * b); }

INLINE doubles mac_all(doubles a, doubles b, doubles c) { return round_all(mul_all(a, b) + c); }

INLINE doubles gather(const double *table, ints index) {
#if defined(VECTOR_AVX512)
    return (doubles)_mm512_i32gather_pd((__m256i)index, table, 8);
#elif defined(VECTOR_AVX2)
    return (doubles)_mm256_i32gather_pd(table, (__m128i)index, 8);
#else
    doubles out;
    for (int k = 0; k < LANES; k++)
        out[k] = table[index[k]];
    return out;
#endif
}

/* Small integers >= 0 as doubles: they stand in the fraction of 2^52. */
INLINE doubles small_longs(longs n) { return (doubles)(n | INT64_C(0x4330000000000000)) - 0x1p52; }

#endif
