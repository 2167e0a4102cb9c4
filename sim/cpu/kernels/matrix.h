/* Products of int8 codes with trits of 2 bits (docs/numerics.md, section 4), exact in int32.

   A matrix lies in bands of 16 rows, a band in pieces of 16 columns, a piece in 64 bytes: byte 4 i + j has the trits
   of row i in columns j, 4 + j, 8 + j and 12 + j, from bit 0 up, each as trit + 1. Rows and columns that are not
   there, up to a multiple of 64, are zeros. So four columns of 16 rows are one operand of a dot product of bytes
   (VNNI), the codes of these columns are the same 32 bits for every row, and the sums of 16 rows stand side by side.
   What the "+ 1" adds is the sum of the codes, which is subtracted in the end. */
#ifndef MATRIX_H
#define MATRIX_H

#include "fp24.h"

#if defined(STERNA_PLAIN)
#define MATRIX_PATH "plain"
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define MATRIX_PATH "avx512vnni"
#define MATRIX_AVX512
#elif defined(__AVX2__)
#define MATRIX_PATH "avx2"
#define MATRIX_AVX2
#else
#define MATRIX_PATH "plain"
#endif

#if defined(MATRIX_AVX512) || defined(MATRIX_AVX2)
#include <immintrin.h>
#endif

enum { BAND = 16, PIECE = 16, PIECE_BYTES = 64, ROWS = 32, TILE = 12 };

INLINE int64_t matrix_bytes(int rows, int columns) {
    return (int64_t)padded(rows) * padded(columns) / 4;
}

/* Packs int8 trits [rows, columns] into `out`. */
static void matrix_pack(uint8_t *restrict out, const int8_t *restrict trits, int rows, int columns) {
    int width = padded(columns), height = padded(rows);
    int8_t line[SUMS];
    for (int band = 0; band < height; band += BAND)
        for (int first = 0; first < width; first += SUMS) {
            uint8_t *at = out + ((int64_t)band * width + (int64_t)first * BAND) / 4;
            for (int i = 0; i < BAND; i++) {
                int there = columns - first < SUMS ? columns - first : SUMS;
                memset(line, 0, sizeof line);
                if (band + i < rows && there > 0)
                    memcpy(line, trits + (int64_t)(band + i) * columns + first, there);
                for (int piece = 0; piece < SUMS / PIECE; piece++)
                    for (int j = 0; j < 4; j++) {
                        const int8_t *four = line + piece * PIECE + j;
                        at[piece * PIECE_BYTES + 4 * i + j] =
                            (uint8_t)((four[0] + 1) | (four[4] + 1) << 2 | (four[8] + 1) << 4 | (four[12] + 1) << 6);
                    }
            }
        }
}

/* sums[t][0..31] = the products of 32 rows at `weights` with the codes of `count` <= TILE tokens, which lie `stride`
   bytes apart; `width` columns, a multiple of SUMS. */
#if defined(MATRIX_AVX512)

INLINE __m512i broadcast4(const int8_t *code) {
    int32_t four;
    memcpy(&four, code, 4);
    return _mm512_set1_epi32(four);
}

/* One token: the groups of two bits are left where they are, and the sums divided instead. */
static void rows_of_one(int32_t *restrict sums, const uint8_t *restrict weights, const int8_t *restrict code,
                        int width) {
    const __m512i m0 = _mm512_set1_epi8(0x03), m1 = _mm512_set1_epi8(0x0c);
    const __m512i m2 = _mm512_set1_epi8(0x30), m3 = _mm512_set1_epi8((char)0xc0);
    const uint8_t *other = weights + (int64_t)width * BAND / 4;
    __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
    for (int at = 0; at < width; at += PIECE) {
        _mm_prefetch((const char *)weights + 4 * at + 1024, _MM_HINT_T0);
        _mm_prefetch((const char *)other + 4 * at + 1024, _MM_HINT_T0);
        __m512i a = _mm512_loadu_si512(weights + 4 * at), b = _mm512_loadu_si512(other + 4 * at);
        __m512i c0 = broadcast4(code + at), c1 = broadcast4(code + at + 4);
        __m512i c2 = broadcast4(code + at + 8), c3 = broadcast4(code + at + 12);
        a0 = _mm512_dpbusd_epi32(a0, _mm512_and_si512(a, m0), c0);
        b0 = _mm512_dpbusd_epi32(b0, _mm512_and_si512(b, m0), c0);
        a1 = _mm512_dpbusd_epi32(a1, _mm512_and_si512(a, m1), c1);
        b1 = _mm512_dpbusd_epi32(b1, _mm512_and_si512(b, m1), c1);
        a2 = _mm512_dpbusd_epi32(a2, _mm512_and_si512(a, m2), c2);
        b2 = _mm512_dpbusd_epi32(b2, _mm512_and_si512(b, m2), c2);
        a3 = _mm512_dpbusd_epi32(a3, _mm512_and_si512(a, m3), c3);
        b3 = _mm512_dpbusd_epi32(b3, _mm512_and_si512(b, m3), c3);
    }
    a0 = _mm512_add_epi32(_mm512_add_epi32(a0, _mm512_srai_epi32(a1, 2)),
                          _mm512_add_epi32(_mm512_srai_epi32(a2, 4), _mm512_srai_epi32(a3, 6)));
    b0 = _mm512_add_epi32(_mm512_add_epi32(b0, _mm512_srai_epi32(b1, 2)),
                          _mm512_add_epi32(_mm512_srai_epi32(b2, 4), _mm512_srai_epi32(b3, 6)));
    _mm512_storeu_si512(sums, a0);
    _mm512_storeu_si512(sums + BAND, b0);
}

INLINE void rows_of(int32_t *restrict sums, const uint8_t *restrict weights, const int8_t *restrict code,
                    int64_t stride, int width, const int count) {
    const __m512i mask = _mm512_set1_epi8(3);
    const uint8_t *other = weights + (int64_t)width * BAND / 4;
    __m512i a[TILE], b[TILE];
    for (int t = 0; t < count; t++)
        a[t] = b[t] = _mm512_setzero_si512();
    for (int at = 0; at < width; at += PIECE) {
        __m512i first = _mm512_loadu_si512(weights + 4 * at), second = _mm512_loadu_si512(other + 4 * at);
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) {
            __m512i one = _mm512_and_si512(_mm512_srli_epi16(first, 2 * g), mask);
            __m512i two = _mm512_and_si512(_mm512_srli_epi16(second, 2 * g), mask);
#pragma GCC unroll 12
            for (int t = 0; t < count; t++) {
                __m512i c = broadcast4(code + t * stride + at + 4 * g);
                a[t] = _mm512_dpbusd_epi32(a[t], one, c);
                b[t] = _mm512_dpbusd_epi32(b[t], two, c);
            }
        }
    }
    for (int t = 0; t < count; t++) {
        _mm512_storeu_si512(sums + t * ROWS, a[t]);
        _mm512_storeu_si512(sums + t * ROWS + BAND, b[t]);
    }
}

#elif defined(MATRIX_AVX2)

/* Products of pairs are at most 2 * 2 * 127, so that sums of 16 bits hold those of 64 of them. */
INLINE void half_of(int32_t *restrict sums, const uint8_t *restrict weights, const int8_t *restrict code,
                    int64_t stride, int width, const int count) {
    const __m256i mask = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    __m256i total[4];
    for (int t = 0; t < count; t++)
        total[t] = _mm256_setzero_si256();
    for (int block = 0; block < width; block += 16 * PIECE) {
        int end = block + 16 * PIECE < width ? block + 16 * PIECE : width;
        __m256i small[4];
        for (int t = 0; t < count; t++)
            small[t] = _mm256_setzero_si256();
        for (int at = block; at < end; at += PIECE) {
            __m256i all = _mm256_loadu_si256((const __m256i *)(weights + 4 * at));
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++) {
                __m256i one = _mm256_and_si256(_mm256_srli_epi16(all, 2 * g), mask);
#pragma GCC unroll 4
                for (int t = 0; t < count; t++) {
                    int32_t four;
                    memcpy(&four, code + t * stride + at + 4 * g, 4);
                    small[t] = _mm256_add_epi16(small[t], _mm256_maddubs_epi16(one, _mm256_set1_epi32(four)));
                }
            }
        }
        for (int t = 0; t < count; t++)
            total[t] = _mm256_add_epi32(total[t], _mm256_madd_epi16(small[t], ones));
    }
    for (int t = 0; t < count; t++)
        _mm256_storeu_si256((__m256i *)(sums + t * ROWS), total[t]);
}

INLINE void rows_of(int32_t *restrict sums, const uint8_t *restrict weights, const int8_t *restrict code,
                    int64_t stride, int width, const int count) {
    for (int band = 0; band < ROWS; band += BAND)
        for (int half = 0; half < 2; half++) {
            const uint8_t *at = weights + (int64_t)width * band / 4 + 32 * half;
            for (int t = 0; t < count; t += 4) {
                int32_t *to = sums + t * ROWS + band + 8 * half;
                const int8_t *from = code + t * stride;
                switch (count - t) {
                case 1: half_of(to, at, from, stride, width, 1); break;
                case 2: half_of(to, at, from, stride, width, 2); break;
                case 3: half_of(to, at, from, stride, width, 3); break;
                default: half_of(to, at, from, stride, width, 4);
                }
            }
        }
}

static void rows_of_one(int32_t *restrict sums, const uint8_t *restrict weights, const int8_t *restrict code,
                        int width) {
    rows_of(sums, weights, code, 0, width, 1);
}

#else

INLINE void rows_of(int32_t *restrict sums, const uint8_t *restrict weights, const int8_t *restrict code,
                    int64_t stride, int width, const int count) {
    for (int t = 0; t < count; t++)
        for (int band = 0; band < ROWS; band += BAND) {
            const uint8_t *at = weights + (int64_t)width * band / 4;
            int32_t wide[PIECE_BYTES] = {0};
            for (int column = 0; column < width; column += PIECE, at += PIECE_BYTES) {
                const int8_t *four = code + t * stride + column;
                for (int k = 0; k < PIECE_BYTES; k++) {
                    int byte = at[k], j = k & 3;
                    wide[k] += (byte & 3) * four[j] + (byte >> 2 & 3) * four[4 + j] + (byte >> 4 & 3) * four[8 + j]
                               + (byte >> 6) * four[12 + j];
                }
            }
            for (int i = 0; i < BAND; i++)
                sums[t * ROWS + band + i] = wide[4 * i] + wide[4 * i + 1] + wide[4 * i + 2] + wide[4 * i + 3];
        }
}

static void rows_of_one(int32_t *restrict sums, const uint8_t *restrict weights, const int8_t *restrict code,
                        int width) {
    rows_of(sums, weights, code, 0, width, 1);
}

#endif

/* sums[t][0..31] of any number of tokens: block `block` of 32 rows of a matrix. */
static void matrix_rows(int32_t *restrict sums, const uint8_t *matrix, int block, const int8_t *code, int64_t stride,
                        int width, int count) {
    const uint8_t *weights = matrix + (int64_t)block * ROWS * width / 4;
    if (count == 1) {
        rows_of_one(sums, weights, code, width);
        return;
    }
    while (count > 0) {
        switch (count) {
        case 1: rows_of(sums, weights, code, stride, width, 1); break;
        case 2: rows_of(sums, weights, code, stride, width, 2); break;
        case 3: rows_of(sums, weights, code, stride, width, 3); break;
        case 4: rows_of(sums, weights, code, stride, width, 4); break;
        case 5: rows_of(sums, weights, code, stride, width, 5); break;
        case 6: rows_of(sums, weights, code, stride, width, 6); break;
        case 7: rows_of(sums, weights, code, stride, width, 7); break;
        case 8: rows_of(sums, weights, code, stride, width, 8); break;
        case 9: rows_of(sums, weights, code, stride, width, 9); break;
        case 10: rows_of(sums, weights, code, stride, width, 10); break;
        case 11: rows_of(sums, weights, code, stride, width, 11); break;
        default: rows_of(sums, weights, code, stride, width, TILE);
        }
        sums += TILE * ROWS;
        code += TILE * stride;
        count -= TILE;
    }
}

#endif
