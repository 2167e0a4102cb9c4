/* Next tokens and likelihoods from the head's rows (docs/numerics.md, section 8). */
#ifndef SAMPLER_H
#define SAMPLER_H

#include "fp24.h"
#include "pool.h"

enum { CHUNK = 1024 }; /* rows of a task */

/* Rows of several columns, and what is wanted of them. */
struct draw {
    const struct tables *tables;
    struct pool *pool;
    int columns, vocabulary, sampled, top;
    double inverse_temperature, ln2;
    const double *rows, *scale; /* rows [columns, vocabulary] */
    const uint32_t *keys;
    double *best; /* [columns, chunks], as best_row; with a list `most` of each, most = min(top, CHUNK) */
    int64_t *best_row;
    int64_t *next;      /* [columns] */
    double *list_t;     /* [columns, top] of the list, as the two below */
    double *list_score;
    int64_t *list_row;
    int32_t *list_count; /* [columns] */
    const int64_t *targets;
    double *likelihood; /* [columns] ln of the targets' probabilities */
};

INLINE uint32_t mix32(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352d;
    x ^= x >> 15;
    x *= 0x846ca68b;
    return x ^ x >> 16;
}

/* t + noise of a row. */
INLINE double score24(const struct tables *restrict tables, double t, uint32_t key, uint32_t row, double ln2) {
    uint32_t bits = mix32(key + row);
    /* The exponent of an integer and a half is that of the integer, and -1 where it is 0. */
    int zeros = 9 - exponent_of((int)(bits >> 22) + 0.5);
    double v = round24((2 * (int)(bits & 0x3fffff) + 1) * 0x1p-24);
    double x = mac24(v, log1m24(tables, v), mul24(zeros, ln2));
    return mac24(-log24(tables, x), ln2, t);
}

/* t of a chunk's rows (greedy: the scores), in `t`; returns how many there are. */
INLINE int chunk_values(const struct draw *d, int column, int first, double *restrict t) {
    int count = d->vocabulary - first < CHUNK ? d->vocabulary - first : CHUNK;
    const double *restrict rows = d->rows + (int64_t)column * d->vocabulary + first;
    double scale = d->scale[column], inverse = d->inverse_temperature;
    if (d->sampled)
        for (int j = 0; j < count; j++)
            t[j] = mul24(mul24(rows[j], scale), inverse);
    else
        for (int j = 0; j < count; j++)
            t[j] = mul24(rows[j], scale);
    return count;
}

/* Puts a row into a list of at most `most` in descending order; of equal values the earlier stays in front. */
INLINE int list_insert(double *values, int64_t *rows, int count, int most, double value, int64_t row) {
    if (count == most && !(value > values[count - 1]))
        return count;
    int at = count < most ? count++ : count - 1;
    for (; at > 0 && value > values[at - 1]; at--) {
        values[at] = values[at - 1];
        rows[at] = rows[at - 1];
    }
    values[at] = value;
    rows[at] = row;
    return count;
}

INLINE int largest(const double *values, int count) {
    double lanes[8], most;
    int j = 0;
    for (int k = 0; k < 8; k++)
        lanes[k] = values[0];
    for (; j + 8 <= count; j += 8)
        for (int k = 0; k < 8; k++)
            lanes[k] = values[j + k] > lanes[k] ? values[j + k] : lanes[k];
    most = lanes[0];
    for (int k = 1; k < 8; k++)
        most = lanes[k] > most ? lanes[k] : most;
    for (; j < count; j++)
        most = values[j] > most ? values[j] : most;
    for (j = 0; values[j] != most; j++) {
    }
    return j;
}

static void draw_task(void *context, int task) {
    const struct draw *d = context;
    int chunks = (d->vocabulary + CHUNK - 1) / CHUNK, column = task / chunks, first = task % chunks * CHUNK;
    int most = d->top < CHUNK ? d->top : CHUNK;
    double t[CHUNK];
    int count = chunk_values(d, column, first, t);
    if (d->top) {
        double *values = d->best + (int64_t)task * most;
        int64_t *rows = d->best_row + (int64_t)task * most;
        int listed = 0;
        for (int j = 0; j < count; j++)
            listed = list_insert(values, rows, listed, most, t[j], first + j);
        for (; listed < most; listed++)
            rows[listed] = -1;
        return;
    }
    if (d->sampled)
        for (int j = 0; j < count; j++)
            t[j] = score24(d->tables, t[j], d->keys[column], first + j, d->ln2);
    int at = largest(t, count);
    d->best[task] = t[at];
    d->best_row[task] = first + at;
}

static void draw_column(const struct draw *d, int column) {
    int chunks = (d->vocabulary + CHUNK - 1) / CHUNK, most = d->top < CHUNK ? d->top : CHUNK;
    if (!d->top) {
        const double *best = d->best + (int64_t)column * chunks;
        d->next[column] = d->best_row[(int64_t)column * chunks + largest(best, chunks)];
        return;
    }
    double *t = d->list_t + (int64_t)column * d->top, *score = d->list_score + (int64_t)column * d->top;
    int64_t *row = d->list_row + (int64_t)column * d->top, from = (int64_t)column * chunks * most;
    int count = 0;
    for (int k = 0; k < chunks * most; k++)
        if (d->best_row[from + k] >= 0)
            count = list_insert(t, row, count, d->top, d->best[from + k], d->best_row[from + k]);
    for (int k = 0; k < count; k++)
        score[k] = score24(d->tables, t[k], d->keys[column], (uint32_t)row[k], d->ln2);
    d->list_count[column] = count;
}

static void draw_run(struct pool *pool, int thread, void *context) {
    const struct draw *d = context;
    pool_each(pool, draw_task, context, d->columns * ((d->vocabulary + CHUNK - 1) / CHUNK));
    if (thread == 0)
        for (int column = 0; column < d->columns; column++)
            draw_column(d, column);
}

/* e^x for x <= 0, to the last bit or two; 0 below -700. */
INLINE double exp_of(double x) {
    double at = x < -700 ? -700 : x;
    double n = (at * 0x1.71547652b82fep+0 + 0x1.8p52) - 0x1.8p52;
    double r = (at - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
    double sum = 1.0 / 6227020800;
    static const double inverse[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                                     1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0};
#pragma GCC unroll 13
    for (int k = 0; k < 13; k++)
        sum = sum * r + inverse[k];
    sum *= of_bits((int64_t)((int)n + 1023) << 52);
    return x < -700 ? 0.0 : sum;
}

/* The largest logit and the sum of e^(logit - largest) of a column. */
static void likelihood_task(void *context, int column) {
    const struct draw *d = context;
    double t[CHUNK], top = -MAX24 * 2, sum[8] = {0}, total = 0;
    for (int first = 0; first < d->vocabulary; first += CHUNK) {
        int count = chunk_values(d, column, first, t), at = largest(t, count);
        top = t[at] > top ? t[at] : top;
    }
    for (int first = 0; first < d->vocabulary; first += CHUNK) {
        int count = chunk_values(d, column, first, t), j = 0;
        for (; j + 8 <= count; j += 8)
            for (int k = 0; k < 8; k++)
                sum[k] += exp_of(t[j + k] - top);
        for (; j < count; j++)
            total += exp_of(t[j] - top);
    }
    for (int k = 0; k < 8; k++)
        total += sum[k];
    double logit = mul24(d->rows[(int64_t)column * d->vocabulary + d->targets[column]], d->scale[column]);
    d->likelihood[column] = (logit - top) - log(total);
}

static void likelihood_run(struct pool *pool, int thread, void *context) {
    const struct draw *d = context;
    (void)thread;
    pool_each(pool, likelihood_task, context, d->columns);
}

void sterna_draw(struct draw *draw) { pool_run(draw->pool, draw_run, draw); }

void sterna_likelihood(struct draw *draw) { pool_run(draw->pool, likelihood_run, draw); }

#endif
