/* Trees of neurons on a batch of vectors, reading only the rows that are visited (docs/fff-cpu.md).

   Row k nodes + n of a table of nodes = 2^levels - 1 rows a tree is node n of tree k; its children are 2n + 1 and
   2n + 2. In every tree the walk takes a = <in[row], x>, adds silu(a) out[row] to y, and goes to the right child if
   a > 0. With one level (KxD = Kx0) this is a dense layer of K neurons.

   What takes the time is waiting for rows. Walks of a batch go level by level, sorted by node: the rows that come are
   known and asked for ahead, and walks at one node find its row in the first cache. A sample by itself goes through
   all of its trees level by level, too. A walk by itself has nothing ahead; there the branch is a real one, so that the processor guesses it and reads a child while the sum of the
   parent is under way. That was faster than asking for both children, which doubles what is read. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "pool.h"

#if defined(__AVX512F__) && !defined(STERNA_PLAIN)
#define WIDTH 16
#define PATH "AVX-512"
#elif defined(__AVX2__) && defined(__FMA__) && !defined(STERNA_PLAIN)
#define WIDTH 8
#define PATH "AVX2"
#else
#define WIDTH 4
#define PATH "plain C"
#endif

typedef float vector __attribute__((vector_size(4 * WIDTH), aligned(4)));
typedef uint32_t bits __attribute__((vector_size(4 * WIDTH), aligned(4)));

enum {
    HIDDEN = 768,
    AT_ONCE = 8,  /* vectors of y in registers */
    ROWS = 12,    /* rows added to them in one go */
    ASKED = 512,  /* bytes from one line asked for to the next: the processor finds the others by itself */
    AHEAD = 4,    /* walks of a batch */
    PART = 512,   /* walks side by side: their x and y fit the second cache */
    LONE = 2,     /* walks that go one after the other */
};

/* A layer and a batch. `path` and `value` have room for trees * levels * batch elements, `order` for 2 * batch. Rows
   of x and of y lie `stride` elements apart: HIDDEN, or 0 for one of the published faults (faults.py). */
struct cmm {
    const void *in, *out;
    const float *x;
    float *y;
    int32_t *path, *order;
    float *value;
    struct pool *pool;
    int32_t half, trees, levels, batch, stride; /* half: tables of bfloat16, see `two` */
};

/* Elements at to at + 2 WIDTH - 1 of a row. Of bfloat16 a word holds element k in its low half and k + WIDTH in the
   high one: a shift and a mask make two vectors of it. */
INLINE void two(vector out[2], const char *row, int at, int half) {
    if (!half) {
        out[0] = *(const vector *)(row + 4 * at);
        out[1] = *(const vector *)(row + 4 * (at + WIDTH));
        return;
    }
    bits pair = *(const bits *)(row + 2 * at);
    out[0] = (vector)(pair << 16);
    out[1] = (vector)(pair & 0xffff0000u);
}

INLINE const char *row_at(const void *table, int64_t row, int half) {
    return (const char *)table + row * HIDDEN * (half ? 2 : 4);
}

INLINE void ask(const char *row, int half) {
    for (int at = 0; at < HIDDEN * (half ? 2 : 4); at += ASKED)
        __builtin_prefetch(row + at, 0, 2); /* into the second cache */
}

/* The sum of a vector's elements, by halves: one after the other would wait for each addition. */
INLINE float total(vector v) {
    float element[WIDTH];
    memcpy(element, &v, sizeof v);
    for (int count = WIDTH / 2; count; count /= 2)
        for (int k = 0; k < count; k++)
            element[k] += element[k + count];
    return element[0];
}

INLINE float dot(const char *row, const float *x, int half) {
    vector sum[4] = {{0}, {0}, {0}, {0}}, w[2];
    for (int at = 0; at < HIDDEN; at += 4 * WIDTH)
        for (int k = 0; k < 4; k += 2) {
            two(w, row, at + k * WIDTH, half);
            sum[k] += w[0] * *(const vector *)(x + at + k * WIDTH);
            sum[k + 1] += w[1] * *(const vector *)(x + at + (k + 1) * WIDTH);
        }
    return total((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

INLINE float silu(float a) { return a / (1 + expf(-a)); }

/* y plus (in place of, if `first`) the sum of `count` rows, each times its value. */
INLINE void add_rows(float *y, const char *const *row, const float *value, int count, int first, int half) {
    for (int at = 0; at < HIDDEN; at += AT_ONCE * WIDTH) {
        vector sum[AT_ONCE], w[2];
        for (int k = 0; k < AT_ONCE; k++)
            sum[k] = first ? (vector){0} : *(vector *)(y + at + k * WIDTH);
        for (int i = 0; i < count; i++)
            for (int k = 0; k < AT_ONCE; k += 2) {
                two(w, row[i], at + k * WIDTH, half);
                sum[k] += w[0] * value[i];
                sum[k + 1] += w[1] * value[i];
            }
        for (int k = 0; k < AT_ONCE; k++)
            *(vector *)(y + at + k * WIDTH) = sum[k];
    }
}

/* y of one walk, whose path and values are known. */
INLINE void add_path(const struct cmm *c, int s, int half) {
    const char *row[ROWS];
    float value[ROWS];
    int visits = c->trees * c->levels;
    for (int i = 0; i < visits; i += ROWS) {
        int count = visits - i < ROWS ? visits - i : ROWS;
        for (int k = 0; k < count; k++) {
            int64_t at = (int64_t)(i + k) * c->batch + s;
            row[k] = row_at(c->out, c->path[at], half);
            value[k] = c->value[at];
        }
        add_rows(c->y + (int64_t)s * c->stride, row, value, count, i == 0, half);
    }
}

/* All trees of sample s, side by side. */
INLINE void walk_trees(const struct cmm *c, int s, int half) {
    const float *x = c->x + (int64_t)s * c->stride;
    int64_t nodes = ((int64_t)1 << c->levels) - 1, tree = (int64_t)c->levels * c->batch;
    for (int k = 0; k < c->trees; k++)
        c->path[k * tree + s] = k * nodes;
    for (int d = 0; d < c->levels; d++)
        for (int k = 0; k < c->trees; k++) {
            int64_t at = k * tree + (int64_t)d * c->batch + s, row = c->path[at];
            if (k + AHEAD < c->trees)
                ask(row_at(c->in, c->path[at + AHEAD * tree], half), half);
            float a = dot(row_at(c->in, row, half), x, half);
            c->value[at] = silu(a);
            if (d + 1 < c->levels)
                c->path[at + c->batch] = k * nodes + 2 * (row - k * nodes) + 1 + (a > 0);
        }
    add_path(c, s, half);
}

/* All trees of sample s, one after the other. */
INLINE void walk_alone(const struct cmm *c, int s, int half) {
    const float *x = c->x + (int64_t)s * c->stride;
    int64_t nodes = ((int64_t)1 << c->levels) - 1, at = s;
    for (int64_t root = 0; root < c->trees * nodes; root += nodes) {
        int64_t n = 0;
        for (int d = 0; d < c->levels; d++, at += c->batch) {
            float a = dot(row_at(c->in, root + n, half), x, half);
            c->path[at] = root + n;
            n = 2 * n + 1;
            /* Opaque, so that the compiler leaves the branch in. */
            __asm__ volatile("" : "+r"(n));
            if (a > 0) {
                n++;
                __asm__ volatile("" : "+r"(n));
            }
            if (d + 1 < c->levels)
                ask(row_at(c->in, root + n, half), half);
            c->value[at] = silu(a);
        }
    }
    add_path(c, s, half);
}

/* One level of `count` walks in their order. */
INLINE void level(const struct cmm *c, const int32_t *order, int count, const int32_t *path, float *value, int half) {
    for (int i = 0; i < count; i++) {
        if (i + AHEAD < count)
            ask(row_at(c->in, path[order[i + AHEAD]], half), half);
        value[order[i]] = dot(row_at(c->in, path[order[i]], half), c->x + (int64_t)order[i] * c->stride, half);
    }
}

/* The children of walks sorted by node, and their order sorted by child: of every node the left ones come first. */
INLINE void descend(int32_t *sorted, int32_t *below, const int32_t *order, int count, const int32_t *path,
                    const float *value, int64_t root) {
    int to = 0;
    for (int i = 0, end; i < count; i = end) {
        int32_t node = path[order[i]];
        for (end = i; end < count && path[order[end]] == node; end++)
            if (!(value[order[end]] > 0))
                sorted[to++] = order[end];
        for (int k = i; k < end; k++)
            if (value[order[k]] > 0)
                sorted[to++] = order[k];
        for (int k = i; k < end; k++)
            below[order[k]] = root + 2 * (node - root) + 1 + (value[order[k]] > 0);
    }
}

/* Walks first to last - 1, side by side. */
INLINE void walk_together(const struct cmm *c, int first, int last, int half) {
    int64_t nodes = ((int64_t)1 << c->levels) - 1;
    int32_t *order = c->order + first, *other = c->order + c->batch + first;
    int count = last - first;
    for (int k = 0; k < c->trees; k++) {
        int64_t at = (int64_t)k * c->levels * c->batch;
        for (int i = 0; i < count; i++) {
            order[i] = first + i;
            c->path[at + first + i] = k * nodes;
        }
        for (int d = 0; d < c->levels; d++, at += c->batch) {
            level(c, order, count, c->path + at, c->value + at, half);
            if (d + 1 == c->levels)
                break;
            descend(other, c->path + at + c->batch, order, count, c->path + at, c->value + at, k * nodes);
            int32_t *swap = order;
            order = other;
            other = swap;
        }
    }
    for (int64_t at = 0; at < (int64_t)c->trees * c->levels * c->batch; at += c->batch)
        for (int s = first; s < last; s++)
            c->value[at + s] = silu(c->value[at + s]);
    for (int i = 0; i < count; i++)
        add_path(c, order[i], half);
}

INLINE void walks(const struct cmm *c, int first, int last, int half) {
    if (last - first <= LONE)
        for (int s = first; s < last; s++)
            if (c->trees > AHEAD)
                walk_trees(c, s, half);
            else
                walk_alone(c, s, half);
    else
        for (int at = first; at < last; at += PART)
            walk_together(c, at, at + PART < last ? at + PART : last, half);
}

static void task(void *context, int number) {
    const struct cmm *c = context;
    int parts = c->pool->threads;
    int first = (int64_t)c->batch * number / parts, last = (int64_t)c->batch * (number + 1) / parts;
    if (c->half)
        walks(c, first, last, 1);
    else
        walks(c, first, last, 0);
}

static void share(struct pool *pool, int thread, int64_t loop, void *context) {
    (void)thread;
    pool_each(pool, &loop, task, context, pool->threads);
}

/* y of the whole batch. Walks are shared out to the threads, so a batch of one has one of them. */
void sterna_cmm(struct cmm *c) {
    if (c->batch > 1)
        pool_run(c->pool, share, c, sizeof *c);
    else if (c->half)
        walks(c, 0, 1, 1);
    else
        walks(c, 0, 1, 0);
}

const char *sterna_cmm_path(void) { return PATH; }

int sterna_cmm_width(void) { return WIDTH; }

int sterna_cmm_size(void) { return sizeof(struct cmm); }

struct pool *sterna_cmm_pool(int threads) { return pool_new(threads); }

int sterna_cmm_threads(const struct pool *pool) { return pool->threads; }

void sterna_cmm_pool_free(struct pool *pool) { pool_free(pool); }
