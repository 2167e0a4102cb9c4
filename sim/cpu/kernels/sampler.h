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

/* Scores of rows whose t is given: t + noise. */
INLINE doubles scores_all(const struct tables *tables, doubles t, uint32_t key, words row, double ln2) {
    words x = row + key;
    x ^= x >> 16;
    x *= 0x7feb352d;
    x ^= x >> 15;
    x *= 0x846ca68b;
    x ^= x >> 16;
    longs bits = __builtin_convertvector(x, longs) & 0xffffffff;
    /* The exponent of an integer and a half is that of the integer, and -1 where it is 0. */
    doubles zeros = 9 + 1023 - small_longs((longs)(small_longs(bits >> 22) + 0.5) >> 52);
    doubles v = round_all((2 * small_longs(bits & 0x3fffff) + 1) * 0x1p-24);
    doubles minus_log = mac_all(v, log1m_all(tables, v), mul_all(zeros, all(ln2)));
    return mac_all(-log_all(tables, minus_log), all(ln2), t);
}

/* Scores of `count` rows from `first` on, in place of their t; `t` has room for a whole number of vectors. */
INLINE void add_noise(const struct draw *d, int column, double *t, int count, int first) {
    words row;
    for (int k = 0; k < LANES; k++)
        row[k] = first + k;
    for (int j = 0; j < count; j += LANES, row += LANES)
        store(t + j, scores_all(d->tables, load(t + j), d->keys[column], row, d->ln2));
}

/* t of a chunk's rows (greedy: the scores), in t[CHUNK]; returns how many there are. */
INLINE int chunk_values(const struct draw *d, int column, int first, double *t) {
    int count = d->vocabulary - first < CHUNK ? d->vocabulary - first : CHUNK;
    const double *rows = d->rows + (int64_t)column * d->vocabulary + first;
    doubles scale = all(d->scale[column]), inverse = all(d->inverse_temperature);
    if (count < CHUNK) { /* so that whole vectors can be loaded */
        memset(t, 0, CHUNK * sizeof *t);
        memcpy(t, rows, count * sizeof *t);
        rows = t;
    }
    if (d->sampled)
        for (int j = 0; j < count; j += LANES)
            store(t + j, mul_all(mul_all(load(rows + j), scale), inverse));
    else
        for (int j = 0; j < count; j += LANES)
            store(t + j, mul_all(load(rows + j), scale));
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

/* Merges `more` entries in descending order into such a list, which holds at most `most`; its entries are the earlier
   ones. From the back, so that nothing is moved twice. */
INLINE int list_merge(double *values, int64_t *rows, int count, int most, const double *others,
                      const int64_t *other_rows, int more) {
    while (count + more > most) /* what does not find room */
        if (!more || (count && values[count - 1] < others[more - 1]))
            count--;
        else
            more--;
    int total = count + more;
    for (int at = total - 1; more; at--) {
        int own = count && values[count - 1] < others[more - 1], from = own ? --count : --more;
        values[at] = own ? values[from] : others[from];
        rows[at] = own ? rows[from] : other_rows[from];
    }
    return total;
}

/* Index of the largest value, the first of equal ones. */
INLINE int largest(const double *values, int count) {
    doubles lanes = all(values[0]);
    int j = 0;
    for (; j + LANES <= count; j += LANES)
        lanes = larger(load(values + j), lanes);
    double most = largest_lane(lanes);
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
            if (listed < most || t[j] > values[most - 1])
                listed = list_insert(values, rows, listed, most, t[j], first + j);
        for (; listed < most; listed++)
            rows[listed] = -1;
        return;
    }
    if (d->sampled)
        add_noise(d, column, t, count, first);
    int at = largest(t, count);
    d->best[task] = t[at];
    d->best_row[task] = first + at;
}

static void draw_column_task(void *context, int column) {
    const struct draw *d = context;
    int chunks = (d->vocabulary + CHUNK - 1) / CHUNK, most = d->top < CHUNK ? d->top : CHUNK;
    if (!d->top) {
        const double *best = d->best + (int64_t)column * chunks;
        d->next[column] = d->best_row[(int64_t)column * chunks + largest(best, chunks)];
        return;
    }
    double *t = d->list_t + (int64_t)column * d->top, *score = d->list_score + (int64_t)column * d->top;
    int64_t *row = d->list_row + (int64_t)column * d->top, from = (int64_t)column * chunks * most;
    int count = 0;
    for (int chunk = 0; chunk < chunks; chunk++, from += most) {
        int listed = most;
        while (listed && d->best_row[from + listed - 1] < 0)
            listed--;
        count = list_merge(t, row, count, d->top, d->best + from, d->best_row + from, listed);
    }
    for (int k = 0; k < count; k++)
        score[k] = scores_all(d->tables, all(t[k]), d->keys[column], (words){(uint32_t)row[k]}, d->ln2)[0];
    d->list_count[column] = count;
}

static void draw_run(struct pool *pool, int thread, int64_t loop, void *context) {
    const struct draw *d = context;
    (void)thread;
    pool_each(pool, &loop, draw_task, context, d->columns * ((d->vocabulary + CHUNK - 1) / CHUNK));
    pool_each(pool, &loop, draw_column_task, context, d->columns);
}

/* e^x for -700 <= x <= 0, but for the last bit or two; 0 below. */
INLINE doubles exp_all(doubles x) {
    static const double inverse[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320,
                                     1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0};
    doubles magic = larger(x, all(-700)) * 0x1.71547652b82fep+0 + 0x1.8p52, n = magic - 0x1.8p52;
    doubles r = (x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33, sum = all(1.0 / 6227020800);
#pragma GCC unroll 13
    for (int k = 0; k < 13; k++)
        sum = sum * r + inverse[k];
    sum *= (doubles)(((longs)magic + 1023) << 52); /* the last bits of magic are n */
    return (doubles)((longs)sum & (longs)(x >= -700));
}

/* ln of the probability of a column's target. */
static void likelihood_task(void *context, int column) {
    const struct draw *d = context;
    double t[CHUNK], top = -2 * MAX24, total = 0;
    for (int first = 0; first < d->vocabulary; first += CHUNK) {
        int count = chunk_values(d, column, first, t), at = largest(t, count);
        top = t[at] > top ? t[at] : top;
    }
    doubles sum = {0};
    for (int first = 0; first < d->vocabulary; first += CHUNK) {
        int count = chunk_values(d, column, first, t);
        for (int j = count; j % LANES; j++)
            t[j] = -INFINITY;
        for (int j = 0; j < count; j += LANES)
            sum += exp_all(load(t + j) - top);
    }
    for (int k = 0; k < LANES; k++)
        total += sum[k];
    double logit = mul24(d->rows[(int64_t)column * d->vocabulary + d->targets[column]], d->scale[column]);
    d->likelihood[column] = (logit - top) - log(total);
}

static void likelihood_run(struct pool *pool, int thread, int64_t loop, void *context) {
    const struct draw *d = context;
    (void)thread;
    pool_each(pool, &loop, likelihood_task, context, d->columns);
}

void sterna_draw(struct draw *draw) { pool_run(draw->pool, draw_run, draw, sizeof *draw); }

void sterna_likelihood(struct draw *draw) { pool_run(draw->pool, likelihood_run, draw, sizeof *draw); }

#endif
