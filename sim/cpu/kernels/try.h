/* Single functions of the kernels on arrays, so that each can be held against the golden model's by itself. */
#ifndef TRY_H
#define TRY_H

#include "rows.h"
#include "sampler.h"

/* out[k] = function `what` of a[k], b[k] and c[k], for a multiple of SUMS. */
void sterna_try(int what, const struct tables *tables, const double *a, const double *b, const double *c, double *out,
                int count) {
    for (int k = 0; k < count; k += LANES) {
        doubles x = load(a + k), y = load(b + k), z = load(c + k), found = x;
        switch (what) {
        case 0: found = round_all(x); break;
        case 1: found = mul_all(x, y); break;
        case 2: found = mac_all(x, y, z); break;
        case 3: found = sigmoid_all(tables, x); break;
        case 4: found = log_all(tables, x); break;
        case 5: found = log1m_all(tables, x); break;
        case 6: found = exp_all(x); break;
        }
        store(out + k, found);
        for (int j = 0; j < LANES; j++)
            switch (what) {
            case 7: out[k + j] = round24(x[j]); break;
            case 8: out[k + j] = recip24(tables, x[j]); break;
            case 9: out[k + j] = rsqrt24(tables, x[j]); break;
            case 10: out[k + j] = rsq24(tables, x[j]); break;
            }
    }
    if (what == 11)
        out[0] = sumsq24(a, count);
    if (what == 12)
        out[0] = sumsq_product24(a, b, count);
    if (what == 13)
        out[0] = peak24(a, count);
    if (what == 14)
        out[count] = product_peak24(out, a, b, count);
    if (what == 15) {
        int8_t *codes = calloc(count > 0 ? count : 1, 1);
        int sum = codes24(codes, a, b[0], count);
        for (int k = 0; k < count; k++)
            out[k] = codes[k];
        out[count] = sum;
        free(codes);
    }
}

/* Products of `columns` tokens' codes [columns, width] with packed trits: int32 [columns, 32] of block `block`. */
void sterna_try_rows(int32_t *sums, const uint8_t *matrix, int block, const int8_t *codes, int width, int columns) {
    matrix_rows(sums, matrix, block, codes, width, width, columns);
}

/* Of a packed table: the products of its row rows[0] with `count` tokens' codes [count, padded columns], or, if it
   `gathers`, the sums [pieces, LINE_COLUMNS] of its rows rows[0..count - 1], each times its code, a multiple of 4. */
void sterna_try_table(int gathers, int32_t *sums, const uint8_t *table, int columns, const int32_t *rows,
                      const int8_t *codes, int count) {
    int pieces = row_pieces(columns);
    int64_t bytes = (int64_t)pieces * LINE;
    if (!gathers)
        row_sums(sums, table + rows[0] * bytes, codes, padded(columns), pieces, count);
    else
        for (int piece = 0; piece < pieces; piece++)
            gather_line(sums + piece * LINE_COLUMNS, table + piece * LINE, bytes, rows, codes, count);
}

#endif
