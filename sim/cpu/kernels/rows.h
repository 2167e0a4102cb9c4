/* Tables of which single rows are taken, for trees of neurons (docs/numerics.md, section 7); exact in int32.

   A row lies in pieces of 256 columns, a piece in 64 bytes, a line of the cache: byte b has the trits of columns b,
   64 + b, 128 + b and 192 + b, from bit 0 up, each as trit + 1. Columns that are not there are zeros up to a multiple
   of SUMS, and behind it -1, whose two bits are 0: so whatever stands there for a code counts nothing. What the
   "+ 1" adds is the sum of the codes, which is subtracted in the end. */
#ifndef ROWS_H
#define ROWS_H

#include "matrix.h"

enum { LINE = 64, LINE_COLUMNS = 256, TOGETHER = 8 };

INLINE int row_pieces(int columns) { return (padded(columns) + LINE_COLUMNS - 1) / LINE_COLUMNS; }

INLINE int64_t table_bytes(int rows, int columns) { return (int64_t)rows * row_pieces(columns) * LINE; }

/* Packs int8 trits [rows, columns] into `out`. */
static void table_pack(uint8_t *restrict out, const int8_t *restrict trits, int rows, int columns) {
    int pieces = row_pieces(columns), width = padded(columns);
    int8_t line[LINE_COLUMNS];
    for (int row = 0; row < rows; row++, trits += columns)
        for (int piece = 0; piece < pieces; piece++, out += LINE) {
            for (int k = 0; k < LINE_COLUMNS; k++) {
                int column = piece * LINE_COLUMNS + k;
                line[k] = column < columns ? trits[column] + 1 : column < width;
            }
            for (int b = 0; b < LINE; b++)
                out[b] = line[b] | line[64 + b] << 2 | line[128 + b] << 4 | line[192 + b] << 6;
        }
}

INLINE void prefetch_row(const uint8_t *row, int pieces) {
    for (int k = 0; k < pieces; k++)
        __builtin_prefetch(row + k * LINE);
}

/* `row_sums`: sums[t] = the product of a row with the codes of `count` <= TOGETHER tokens, which lie `stride` bytes
   apart.
   `gather_line`: sums[0..255] = those of one piece of `count` rows, a multiple of 4, each times its code; `at` is the
   piece of row 0 of the table, whose rows are `bytes` apart. */
#if defined(MATRIX_AVX512)

/* Groups of two bits are left where they are, and the sums divided instead. */
static int32_t row_sum(const uint8_t *restrict row, const int8_t *restrict code, int pieces) {
    const __m512i m0 = _mm512_set1_epi8(0x03), m1 = _mm512_set1_epi8(0x0c);
    const __m512i m2 = _mm512_set1_epi8(0x30), m3 = _mm512_set1_epi8((char)0xc0);
    __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
    for (int piece = 0; piece < pieces; piece++, row += LINE, code += LINE_COLUMNS) {
        __m512i a = _mm512_loadu_si512(row);
        a0 = _mm512_dpbusd_epi32(a0, _mm512_and_si512(a, m0), _mm512_loadu_si512(code));
        a1 = _mm512_dpbusd_epi32(a1, _mm512_and_si512(a, m1), _mm512_loadu_si512(code + 64));
        a2 = _mm512_dpbusd_epi32(a2, _mm512_and_si512(a, m2), _mm512_loadu_si512(code + 128));
        a3 = _mm512_dpbusd_epi32(a3, _mm512_and_si512(a, m3), _mm512_loadu_si512(code + 192));
    }
    a0 = _mm512_add_epi32(_mm512_add_epi32(a0, _mm512_srai_epi32(a1, 2)),
                          _mm512_add_epi32(_mm512_srai_epi32(a2, 4), _mm512_srai_epi32(a3, 6)));
    return _mm512_reduce_add_epi32(a0);
}

INLINE void some_sums(int32_t *restrict sums, const uint8_t *restrict row, const int8_t *restrict code,
                      int64_t stride, int pieces, const int count) {
    const __m512i mask = _mm512_set1_epi8(3);
    __m512i total[TOGETHER];
    for (int t = 0; t < count; t++)
        total[t] = _mm512_setzero_si512();
    for (int piece = 0; piece < pieces; piece++, row += LINE, code += LINE_COLUMNS) {
        __m512i all = _mm512_loadu_si512(row);
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) {
            __m512i one = _mm512_and_si512(_mm512_srli_epi16(all, 2 * g), mask);
#pragma GCC unroll 8
            for (int t = 0; t < count; t++)
                total[t] = _mm512_dpbusd_epi32(total[t], one, _mm512_loadu_si512(code + t * stride + 64 * g));
        }
    }
    for (int t = 0; t < count; t++)
        sums[t] = _mm512_reduce_add_epi32(total[t]);
}

/* Four rows at a time: their bytes side by side are one operand of a dot product, their four codes the other. */
static void gather_line(int32_t *restrict sums, const uint8_t *at, int64_t bytes, const int32_t *rows,
                        const int8_t *code, int count) {
    const __m512i mask[4] = {_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c), _mm512_set1_epi8(0x30),
                             _mm512_set1_epi8((char)0xc0)};
    __m512i total[4][4];
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++)
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++)
            total[g][q] = _mm512_setzero_si512();
    for (int k = 0; k < count; k += 4) {
        __m512i a = _mm512_loadu_si512(at + rows[k] * bytes), b = _mm512_loadu_si512(at + rows[k + 1] * bytes);
        __m512i c = _mm512_loadu_si512(at + rows[k + 2] * bytes), d = _mm512_loadu_si512(at + rows[k + 3] * bytes);
        if (k + 12 <= count)
            for (int ahead = k + 8; ahead < k + 12; ahead++)
                __builtin_prefetch(at + rows[ahead] * bytes);
        __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
        __m512i ab_high = _mm512_unpackhi_epi8(a, b), cd_high = _mm512_unpackhi_epi8(c, d);
        __m512i four = broadcast4(code + k);
        const __m512i quad[4] = {_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd),
                                 _mm512_unpacklo_epi16(ab_high, cd_high), _mm512_unpackhi_epi16(ab_high, cd_high)};
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++)
#pragma GCC unroll 4
            for (int q = 0; q < 4; q++)
                total[g][q] = _mm512_dpbusd_epi32(total[g][q], _mm512_and_si512(quad[q], mask[g]), four);
    }
    /* Lane l of total[g][q] has columns 64 g + 16 l + 4 q and the three behind it. */
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++)
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            int32_t *to = sums + 64 * g + 4 * q;
            __m512i v = _mm512_srai_epi32(total[g][q], 2 * g);
            _mm_storeu_si128((__m128i *)to, _mm512_extracti32x4_epi32(v, 0));
            _mm_storeu_si128((__m128i *)(to + 16), _mm512_extracti32x4_epi32(v, 1));
            _mm_storeu_si128((__m128i *)(to + 32), _mm512_extracti32x4_epi32(v, 2));
            _mm_storeu_si128((__m128i *)(to + 48), _mm512_extracti32x4_epi32(v, 3));
        }
}

#elif defined(MATRIX_AVX2)

/* Products of pairs are at most 2 * 2 * 127, so that sums of 16 bits hold those of 64 of them. */
INLINE void some_sums(int32_t *restrict sums, const uint8_t *restrict row, const int8_t *restrict code,
                      int64_t stride, int pieces, const int count) {
    const __m256i mask = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    __m256i total[TOGETHER], small[TOGETHER];
    for (int t = 0; t < count; t++)
        total[t] = _mm256_setzero_si256();
    for (int first = 0; first < pieces; first += 8) {
        int end = first + 8 < pieces ? first + 8 : pieces;
        for (int t = 0; t < count; t++)
            small[t] = _mm256_setzero_si256();
        for (int piece = first; piece < end; piece++)
            for (int half = 0; half < 2; half++) {
                __m256i all = _mm256_loadu_si256((const __m256i *)(row + piece * LINE + 32 * half));
                const int8_t *from = code + piece * LINE_COLUMNS + 32 * half;
#pragma GCC unroll 4
                for (int g = 0; g < 4; g++) {
                    __m256i one = _mm256_and_si256(_mm256_srli_epi16(all, 2 * g), mask);
#pragma GCC unroll 4
                    for (int t = 0; t < count; t++) {
                        __m256i c = _mm256_loadu_si256((const __m256i *)(from + t * stride + 64 * g));
                        small[t] = _mm256_add_epi16(small[t], _mm256_maddubs_epi16(one, c));
                    }
                }
            }
        for (int t = 0; t < count; t++)
            total[t] = _mm256_add_epi32(total[t], _mm256_madd_epi16(small[t], ones));
    }
    for (int t = 0; t < count; t++) {
        int32_t lanes[8];
        _mm256_storeu_si256((__m256i *)lanes, total[t]);
        sums[t] = lanes[0] + lanes[1] + lanes[2] + lanes[3] + lanes[4] + lanes[5] + lanes[6] + lanes[7];
    }
}

static int32_t row_sum(const uint8_t *restrict row, const int8_t *restrict code, int pieces) {
    int32_t sum;
    some_sums(&sum, row, code, 0, pieces, 1);
    return sum;
}

/* Two rows at a time, half a piece at a time. */
static void gather_line(int32_t *restrict sums, const uint8_t *at, int64_t bytes, const int32_t *rows,
                        const int8_t *code, int count) {
    const __m256i mask = _mm256_set1_epi8(3);
    memset(sums, 0, LINE_COLUMNS * sizeof *sums);
    for (int half = 0; half < 2; half++)
        for (int first = 0; first < count; first += 128) {
            int end = first + 128 < count ? first + 128 : count;
            __m256i small[4][2];
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++)
                small[g][0] = small[g][1] = _mm256_setzero_si256();
            for (int k = first; k < end; k += 2) {
                __m256i a = _mm256_loadu_si256((const __m256i *)(at + rows[k] * bytes + 32 * half));
                __m256i b = _mm256_loadu_si256((const __m256i *)(at + rows[k + 1] * bytes + 32 * half));
                __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
                int16_t two;
                memcpy(&two, code + k, sizeof two);
                __m256i c = _mm256_set1_epi16(two);
#pragma GCC unroll 4
                for (int g = 0; g < 4; g++) {
                    __m256i one = _mm256_and_si256(_mm256_srli_epi16(low, 2 * g), mask);
                    __m256i other = _mm256_and_si256(_mm256_srli_epi16(high, 2 * g), mask);
                    small[g][0] = _mm256_add_epi16(small[g][0], _mm256_maddubs_epi16(one, c));
                    small[g][1] = _mm256_add_epi16(small[g][1], _mm256_maddubs_epi16(other, c));
                }
            }
            /* Lane l of small[g][u] has columns 64 g + 32 half + 16 l + 8 u and the seven behind it. */
            for (int g = 0; g < 4; g++)
                for (int u = 0; u < 2; u++) {
                    int16_t values[16];
                    _mm256_storeu_si256((__m256i *)values, small[g][u]);
                    for (int e = 0; e < 16; e++)
                        sums[64 * g + 32 * half + 2 * (e & 8) + 8 * u + (e & 7)] += values[e];
                }
        }
}

#else

static int32_t row_sum(const uint8_t *restrict row, const int8_t *restrict code, int pieces) {
    int32_t wide[LINE] = {0}, sum = 0;
    for (int piece = 0; piece < pieces; piece++, row += LINE, code += LINE_COLUMNS)
        for (int b = 0; b < LINE; b++)
            wide[b] += (row[b] & 3) * code[b] + (row[b] >> 2 & 3) * code[64 + b] + (row[b] >> 4 & 3) * code[128 + b]
                       + (row[b] >> 6) * code[192 + b];
    for (int b = 0; b < LINE; b++)
        sum += wide[b];
    return sum;
}

INLINE void some_sums(int32_t *restrict sums, const uint8_t *restrict row, const int8_t *restrict code,
                      int64_t stride, int pieces, const int count) {
    for (int t = 0; t < count; t++)
        sums[t] = row_sum(row, code + t * stride, pieces);
}

static void gather_line(int32_t *restrict sums, const uint8_t *at, int64_t bytes, const int32_t *rows,
                        const int8_t *code, int count) {
    memset(sums, 0, LINE_COLUMNS * sizeof *sums);
    for (int k = 0; k < count; k++) {
        const uint8_t *row = at + rows[k] * bytes;
        for (int b = 0; b < LINE; b++) {
            sums[b] += (row[b] & 3) * code[k];
            sums[64 + b] += (row[b] >> 2 & 3) * code[k];
            sums[128 + b] += (row[b] >> 4 & 3) * code[k];
            sums[192 + b] += (row[b] >> 6) * code[k];
        }
    }
}

#endif

static void row_sums(int32_t *restrict sums, const uint8_t *row, const int8_t *code, int64_t stride, int pieces,
                     int count) {
    switch (count) {
    case 1: sums[0] = row_sum(row, code, pieces); break;
    case 2: some_sums(sums, row, code, stride, pieces, 2); break;
    case 3: some_sums(sums, row, code, stride, pieces, 3); break;
    case 4: some_sums(sums, row, code, stride, pieces, 4); break;
    case 5: some_sums(sums, row, code, stride, pieces, 5); break;
    case 6: some_sums(sums, row, code, stride, pieces, 6); break;
    case 7: some_sums(sums, row, code, stride, pieces, 7); break;
    default: some_sums(sums, row, code, stride, pieces, TOGETHER);
    }
}

#endif
