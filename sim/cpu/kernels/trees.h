/* Trees of neurons (docs/numerics.md, section 7) in a call's tasks: walk, what stands between, gather.

   A chain is a tree for a column. A task of the walk takes some chains side by side, a level at a time: while the
   rows of the others are multiplied, the memory brings the next row of each. Chains of a tree follow one another, so
   their root is read once, and several columns are multiplied with it at a time; so are the rows that every token
   visits.

   Numbers of the visited rows are in call->path, `inner_wide` of a column, and their sums in call->sum. */
#ifndef TREES_H
#define TREES_H

#include "call.h"
#include "rows.h"

enum {
    CHAINS = 16,          /* most side by side: what their next rows take of a cache of the first level */
    FEW_CHAINS = 4,       /* with fewer of them both children are asked for before the branch is known */
    ALWAYS_ROWS = 32,     /* of a task */
    NEAR_BYTES = 1 << 20, /* output rows are asked for during the walk, if all of them are no more than this */
};

/* Chains of a task: so many that each thread has two, but not so few that none waits beside another. */
static int chains_of_task(const struct call *call) {
    const struct model *m = call->model;
    int each = m->trees * call->columns / (2 * m->pool->threads);
    return each < FEW_CHAINS ? FEW_CHAINS : each < CHAINS ? each : CHAINS;
}

static int always_tasks(const struct call *call) { return (call->model->always + ALWAYS_ROWS - 1) / ALWAYS_ROWS; }

static int walk_tasks(const struct call *call) {
    int each = chains_of_task(call);
    return always_tasks(call) + (call->model->trees * call->columns + each - 1) / each;
}

/* The visit of row `row`, number `index` of `count` columns' visits, from `column` on; whether the sums are above 0
   goes to `above`. */
INLINE void visit(const struct call *call, int row, int index, int column, int count, int *above) {
    const struct model *m = call->model;
    int pieces = row_pieces(m->hidden);
    int32_t sums[TOGETHER];
    row_sums(sums, layer_of(call)->tree_in + row * (int64_t)pieces * LINE, call->code[0] + (int64_t)column * m->wide,
             m->wide, pieces, count);
    for (int t = 0; t < count; t++) {
        int64_t at = (int64_t)(column + t) * m->inner_wide + index;
        call->path[at] = row;
        call->sum[at] = sums[t] - call->code_sum[3 * (column + t)];
        above[t] = call->sum[at] > 0;
    }
}

static void always_task(const struct call *call, int task) {
    int first = task * ALWAYS_ROWS, left = call->model->always - first;
    int rows = left < ALWAYS_ROWS ? left : ALWAYS_ROWS;
    int ignored[TOGETHER];
    for (int row = first; row < first + rows; row++)
        for (int column = 0; column < call->columns; column += TOGETHER)
            visit(call, row, row, column, call->columns - column < TOGETHER ? call->columns - column : TOGETHER,
                  ignored);
}

static void walk_task(void *context, int task) {
    const struct call *call = context;
    const struct model *m = call->model;
    const struct layer *w = layer_of(call);
    int before = always_tasks(call), each = chains_of_task(call), pieces = row_pieces(m->hidden);
    if (task < before) {
        always_task(call, task);
        return;
    }
    int first = (task - before) * each, left = m->trees * call->columns - first, count = left < each ? left : each;
    int nodes = (int)((1u << m->levels) - 1), node[CHAINS], above[CHAINS];
    int64_t bytes = (int64_t)pieces * LINE;
    int near = (int64_t)call->columns * m->inner * bytes <= NEAR_BYTES;
    for (int k = 0; k < count; k++) {
        node[k] = 0;
        prefetch_row(w->tree_in + (m->always + (first + k) / call->columns * nodes) * bytes, pieces);
    }
    for (int level = 0; level < m->levels; level++)
        for (int k = 0, same = 1; k < count; k += same) {
            int tree = (first + k) / call->columns, column = (first + k) % call->columns;
            int root = m->always + tree * nodes, row = root + node[k];
            same = 1;
            while (!level && same < TOGETHER && k + same < count && column + same < call->columns)
                same++;
            if (near)
                prefetch_row(w->tree_out + row * bytes, pieces);
            if (count < FEW_CHAINS && level + 1 < m->levels)
                prefetch_row(w->tree_in + (root + 2 * node[k] + 1) * bytes, 2 * pieces);
            visit(call, row, m->always + level * m->trees + tree, column, same, above);
            for (int t = 0; t < same; t++) {
                node[k + t] = 2 * node[k + t] + 1 + above[t];
                if (level + 1 < m->levels)
                    prefetch_row(w->tree_in + (root + node[k + t]) * bytes, pieces);
            }
        }
}

/* Of a column: SiLU of what was visited, the norm behind it, codes. */
static void visited_task(void *context, int column) {
    const struct call *call = context;
    const struct model *m = call->model;
    int64_t at = (int64_t)column * m->inner_wide;
    doubles scale = all(call->scale[3 * column]);
    double *z = call->v + at, qm;
    /* What stands behind the visited ones is never written: sums of 0, and row 0 with a code of 0. */
    for (int j = 0; j < m->inner_wide; j += LANES) {
        doubles t = mul_all(rows_at(call->sum + at + j, 0), scale);
        store(z + j, mul_all(t, sigmoid_all(m->tables, t)));
    }
    double r = one_norm24(m->tables, &m->constants, sumsq24(z, m->inner_wide));
    call->scale[3 * column] = matrix_scalars24(m->tables, &m->constants, peak24(z, m->inner_wide), r,
                                               layer_of(call)->ws_tree_out, &qm);
    call->code_sum[3 * column] = codes24(call->code[0] + at, z, qm, m->inner_wide);
}

static int gather_tasks(const struct call *call) { return row_pieces(call->model->hidden) * call->columns; }

/* x = mac(Y, S, x) of a piece of a column. */
static void tree_out_task(void *context, int task) {
    const struct call *call = context;
    const struct model *m = call->model;
    int piece = task / call->columns, column = task % call->columns, first = piece * LINE_COLUMNS;
    int there = m->wide - first < LINE_COLUMNS ? m->wide - first : LINE_COLUMNS;
    int64_t at = (int64_t)column * m->inner_wide;
    int32_t sums[LINE_COLUMNS], code_sum = call->code_sum[3 * column];
    doubles scale = all(call->scale[3 * column]);
    double *x = call->x + (int64_t)column * m->wide + first;
    gather_line(sums, layer_of(call)->tree_out + piece * LINE, (int64_t)row_pieces(m->hidden) * LINE, call->path + at,
                call->code[0] + at, (m->inner + 3) / 4 * 4);
    for (int j = 0; j < there; j += LANES)
        store(x + j, mac_all(rows_at(sums + j, code_sum), scale, load(x + j)));
}

#endif
