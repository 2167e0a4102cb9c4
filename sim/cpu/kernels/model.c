/* The token of docs/numerics.md, section 7, for several tokens at once: slots side by side, or one behind the other.

   Column c of a call is a token of slot `slots[c]`; the columns of a slot follow one another in the order of its
   text. All work is in loops over tasks (pool.h): blocks of 32 rows for the matrices and what follows them row by
   row, and parts of a column for the norms. */
#include <sys/mman.h>
#include <stddef.h>

#include "call.h"
#include "matrix.h"
#include "sampler.h"
#include "stream.h"
#include "trees.h"
#include "try.h"

/* ---- Norms: sums and peaks, then scalars and codes. ---- */

static void embed_task(void *context, int column) {
    const struct call *call = context;
    const struct model *m = call->model;
    const int8_t *code = m->embedding + call->tokens[column] * m->hidden;
    double scale = m->embedding_scale[call->tokens[column]], *x = call->x + (int64_t)column * m->wide;
    for (int j = 0; j < m->hidden; j++)
        x[j] = mul24(code[j], scale);
    memset(x + m->hidden, 0, (m->wide - m->hidden) * sizeof *x);
}

/* Parts of a column: SUMSQ(x), SUMSQ(y), and u with its peak for each matrix. */
static void enter_task(void *context, int task) {
    const struct call *call = context;
    const struct model *m = call->model;
    int column = task % call->columns, part = task / call->columns;
    const double *x = call->x + (int64_t)column * m->wide;
    double *scalars = call->scalars + SCALARS * column;
    if (part < call->matrices)
        scalars[PEAKS + part] = product_peak24(call->u[part] + (int64_t)column * m->wide, x, call->folded[part],
                                               m->wide);
    else if (part == call->matrices)
        scalars[S2] = sumsq_product24(x, call->outer, m->wide);
    else
        scalars[S1] = sumsq24(x, m->wide);
}

static void quantise(const struct call *call, int column, int part, double r, int width) {
    const struct model *m = call->model;
    double qm;
    call->scale[3 * column + part] = matrix_scalars24(m->tables, &m->constants,
        call->scalars[SCALARS * column + PEAKS + part], r, call->ws[part], &qm);
    call->code_sum[3 * column + part] = codes24(call->code[part] + (int64_t)column * width,
                                                call->u[part] + (int64_t)column * width, qm, width);
}

static void enter_codes_task(void *context, int task) {
    const struct call *call = context;
    const struct model *m = call->model;
    int column = task % call->columns, part = task / call->columns;
    const double *scalars = call->scalars + SCALARS * column;
    quantise(call, column, part, two_norms24(m->tables, &m->constants, scalars[S1], scalars[S2]), m->wide);
}

static void enter(struct pool *pool, int64_t *loop, struct call *call) {
    pool_each(pool, loop, enter_task, call, call->columns * (call->matrices + 2));
    pool_each(pool, loop, enter_codes_task, call, call->columns * call->matrices);
}

/* ---- Attention: rows of f, i and g with the recurrence, then the norm behind it, then rows of o. ---- */

static void mix_task(void *context, int block) {
    const struct call *call = context;
    const struct model *m = call->model;
    const struct layer *w = layer_of(call);
    const struct tables *tables = m->tables;
    int first = block * ROWS, left = m->hidden - first, there = left < 0 ? 0 : left < ROWS ? left : ROWS;
    for (int base = 0; base < call->columns; base += TILE) {
        int count = call->columns - base < TILE ? call->columns - base : TILE;
        int32_t sums[3][TILE * ROWS];
        for (int k = 0; k < 3; k++)
            matrix_rows(sums[k], w->matrix[F + k], block, call->code[k] + (int64_t)base * m->wide, m->wide, m->wide,
                        count);
        for (int t = 0; t < count; t++) {
            int column = base + t;
            const double *scale = call->scale + 3 * column;
            const int32_t *code_sum = call->code_sum + 3 * column;
            const int32_t *sf = sums[F] + t * ROWS, *si = sums[I] + t * ROWS, *sg = sums[G] + t * ROWS;
            double *state = call->state + call->layer * call->layer_stride + call->slots[column] * call->slot_stride
                            + first;
            int64_t at = (int64_t)column * m->wide + first;
            double *tt = call->t + at, *vv = call->v + at, *uu = call->u[0] + at;
            double h[ROWS] = {0};
            doubles s_f = all(-scale[F]), s_i = all(scale[I]), s_g = all(scale[G]);
            memcpy(h, state, there * sizeof *h);
            for (int j = 0; j < ROWS; j += LANES) {
                doubles k = mul_all(rows_at(sf + j, code_sum[F]), s_f);
                k = mul_all(sigmoid_all(tables, k), load(w->keep + first + j));
                doubles z = mul_all(rows_at(si + j, code_sum[I]), s_i), old = load(h + j);
                doubles d = mac_all(z, sigmoid_all(tables, z), -old);
                doubles now = mac_all(k, d, old);
                doubles a = mul_all(now, sigmoid_all(tables, now));
                doubles g = mul_all(rows_at(sg + j, code_sum[G]), s_g);
                doubles v = mul_all(mul_all(g, a), load(w->g_norm + first + j));
                store(h + j, now);
                store(tt + j, g);
                store(vv + j, v);
                store(uu + j, mul_all(v, load(w->o_in + first + j)));
            }
            memcpy(state, h, there * sizeof *h);
        }
    }
}

static void mixed_task(void *context, int task) {
    const struct call *call = context;
    const struct model *m = call->model;
    int column = task % call->columns, part = task / call->columns;
    int64_t at = (int64_t)column * m->wide;
    double *scalars = call->scalars + SCALARS * column;
    if (part == 0)
        scalars[PEAKS] = peak24(call->u[0] + at, m->wide);
    else if (part == 1)
        scalars[S1] = sumsq24(call->t + at, m->wide);
    else
        scalars[S2] = sumsq24(call->v + at, m->wide);
}

/* x = mac(row, S, x) for 32 rows of a matrix with `width` columns. */
static void add_rows(const struct call *call, int block, int which, int width) {
    const struct model *m = call->model;
    for (int base = 0; base < call->columns; base += TILE) {
        int count = call->columns - base < TILE ? call->columns - base : TILE;
        int32_t sums[TILE * ROWS];
        matrix_rows(sums, layer_of(call)->matrix[which], block, call->code[0] + (int64_t)base * width, width, width,
                    count);
        for (int t = 0; t < count; t++) {
            int column = base + t;
            doubles scale = all(call->scale[3 * column]);
            double *x = call->x + (int64_t)column * m->wide + block * ROWS;
            int32_t code_sum = call->code_sum[3 * column];
            const int32_t *sum = sums + t * ROWS;
            for (int j = 0; j < ROWS; j += LANES)
                store(x + j, mac_all(rows_at(sum + j, code_sum), scale, load(x + j)));
        }
    }
}

static void o_task(void *context, int block) {
    const struct call *call = context;
    add_rows(call, block, O, call->model->wide);
}

/* ---- The gated part: rows of gate and value, the norm behind them, rows of down. ---- */

static void gate_task(void *context, int block) {
    const struct call *call = context;
    const struct model *m = call->model;
    const struct layer *w = layer_of(call);
    const struct tables *tables = m->tables;
    int first = block * ROWS;
    for (int base = 0; base < call->columns; base += TILE) {
        int count = call->columns - base < TILE ? call->columns - base : TILE;
        int32_t gates[TILE * ROWS], values[TILE * ROWS];
        const int8_t *code = call->code[0] + (int64_t)base * m->wide;
        matrix_rows(gates, w->matrix[GATE], block, code, m->wide, m->wide, count);
        matrix_rows(values, w->matrix[VALUE], block, code, m->wide, m->wide, count);
        for (int t = 0; t < count; t++) {
            int column = base + t;
            doubles scale = all(call->scale[3 * column]);
            int32_t code_sum = call->code_sum[3 * column];
            int64_t at = (int64_t)column * m->inner_wide + first;
            const int32_t *gate = gates + t * ROWS, *value = values + t * ROWS;
            double *yy = call->t + at, *uu = call->v + at;
            for (int j = 0; j < ROWS; j += LANES) {
                doubles z = mul_all(rows_at(gate + j, code_sum), scale);
                z = mul_all(z, sigmoid_all(tables, z));
                doubles y = mul_all(mul_all(rows_at(value + j, code_sum), scale), z);
                store(yy + j, y);
                store(uu + j, mul_all(y, load(w->w_down + first + j)));
            }
        }
    }
}

static void gated_task(void *context, int task) {
    const struct call *call = context;
    const struct model *m = call->model;
    int column = task % call->columns;
    int64_t at = (int64_t)column * m->inner_wide;
    double *scalars = call->scalars + SCALARS * column;
    if (task / call->columns == 0)
        scalars[PEAKS] = peak24(call->v + at, m->inner_wide);
    else
        scalars[S1] = sumsq24(call->t + at, m->inner_wide);
}

static void gated_codes_task(void *context, int column) {
    struct call *call = context;
    const struct model *m = call->model;
    double *scalars = call->scalars + SCALARS * column, qm;
    double r = one_norm24(m->tables, &m->constants, scalars[S1]);
    call->scale[3 * column] = matrix_scalars24(m->tables, &m->constants, scalars[PEAKS], r, call->ws[0], &qm);
    call->code_sum[3 * column] = codes24(call->code[0] + (int64_t)column * m->inner_wide,
                                         call->v + (int64_t)column * m->inner_wide, qm, m->inner_wide);
}

static void down_task(void *context, int block) {
    const struct call *call = context;
    add_rows(call, block, DOWN, call->model->inner_wide);
}

/* ---- The head. ---- */

static void head_task(void *context, int block) {
    const struct call *call = context;
    const struct model *m = call->model;
    int first = block * ROWS, there = m->vocabulary - first < ROWS ? m->vocabulary - first : ROWS;
    for (int base = 0; base < call->columns; base += TILE) {
        int count = call->columns - base < TILE ? call->columns - base : TILE;
        int32_t sums[TILE * ROWS];
        matrix_rows(sums, m->head, block, call->code[0] + (int64_t)base * m->wide, m->wide, m->wide, count);
        for (int t = 0; t < count; t++) {
            double *rows = call->rows + (int64_t)(base + t) * m->vocabulary + first, all_rows[ROWS];
            int32_t code_sum = call->code_sum[3 * (base + t)];
            double *to = there == ROWS ? rows : all_rows;
            for (int j = 0; j < ROWS; j += LANES)
                store(to + j, rows_at(sums + t * ROWS + j, code_sum));
            if (there < ROWS)
                memcpy(rows, all_rows, there * sizeof *rows);
        }
    }
}

/* ---- A call, run by every thread on its own copy: only what it points to is shared. ---- */

static void set_norm(struct call *call, const double *outer, int matrices, const double *const *folded,
                     const double *ws) {
    call->outer = outer;
    call->matrices = matrices;
    for (int k = 0; k < matrices; k++) {
        call->folded[k] = folded[k];
        call->ws[k] = ws[k];
    }
}

/* Columns of x that have a head come to the front. */
static void gather_task(void *context, int task) {
    const struct call *call = context;
    int64_t wide = call->model->wide;
    (void)task;
    for (int k = 0; k < call->heads; k++)
        if (call->head_columns[k] != k)
            memcpy(call->x + k * wide, call->x + call->head_columns[k] * wide, wide * sizeof *call->x);
}

static void call_run(struct pool *pool, int thread, int64_t loop, void *context) {
    struct call *call = context;
    const struct model *m = call->model;
    int blocks = m->wide / ROWS, inner_blocks = m->inner_wide / ROWS, n = call->columns;
    if (call->embeds)
        pool_each(pool, &loop, embed_task, call, n);
    for (call->layer = call->first; call->layer < call->last; call->layer++) {
        const struct layer *w = layer_of(call);
        set_norm(call, w->attn_outer, 3, (const double *const[]){w->w_f, w->w_i, w->w_g_in}, w->ws);
        enter(pool, &loop, call);
        pool_each(pool, &loop, mix_task, call, blocks);
        pool_each(pool, &loop, mixed_task, call, 3 * n);
        set_norm(call, NULL, 1, (const double *const[]){NULL}, &w->ws[O]);
        pool_each(pool, &loop, enter_codes_task, call, n);
        pool_each(pool, &loop, o_task, call, blocks);
        if (m->trees) {
            set_norm(call, w->mlp_outer, 1, &w->w_tree, &w->ws_tree_in);
            enter(pool, &loop, call);
            pool_each(pool, &loop, walk_task, call, walk_tasks(call));
            pool_each(pool, &loop, visited_task, call, n);
            pool_each(pool, &loop, tree_out_task, call, gather_tasks(call));
            continue;
        }
        set_norm(call, w->mlp_outer, 1, &w->w_gate, &w->ws[GATE]);
        enter(pool, &loop, call);
        pool_each(pool, &loop, gate_task, call, inner_blocks);
        pool_each(pool, &loop, gated_task, call, 2 * n);
        call->ws[0] = w->ws[DOWN];
        pool_each(pool, &loop, gated_codes_task, call, n);
        pool_each(pool, &loop, down_task, call, blocks);
    }
    if (!call->heads)
        return;
    pool_each(pool, &loop, gather_task, call, 1);
    call->columns = call->heads;
    set_norm(call, m->final_outer, 1, &m->w_head, &m->ws_head);
    enter(pool, &loop, call);
    pool_each(pool, &loop, head_task, call, (m->vocabulary + ROWS - 1) / ROWS);
    if (thread == 0)
        for (int k = 0; k < call->heads; k++)
            call->head_scale[k] = call->scale[3 * k];
}

/* ---- What Python calls. ---- */

const char *sterna_path(void) { return MATRIX_PATH; }

int sterna_sizes(int which) {
    const int sizes[] = {sizeof(struct layer), sizeof(struct model), sizeof(struct call), sizeof(struct tables),
                         sizeof(struct draw)};
    return sizes[which];
}

void *sterna_pool(int threads) { return pool_new(threads); }

int sterna_threads(const struct pool *pool) { return pool->threads; }

void sterna_pool_free(struct pool *pool) { pool_free(pool); }

void sterna_run(struct call *call) { pool_run(call->model->pool, call_run, call, sizeof *call); }

_Static_assert(sizeof(struct call) <= CONTEXT_BYTES && sizeof(struct draw) <= CONTEXT_BYTES, "no room for a call");

void sterna_pack(uint8_t *out, const int8_t *trits, int rows, int columns) { matrix_pack(out, trits, rows, columns); }

int64_t sterna_matrix_bytes(int rows, int columns) { return matrix_bytes(rows, columns); }

void sterna_pack_table(uint8_t *out, const int8_t *trits, int rows, int columns) {
    table_pack(out, trits, rows, columns);
}

int64_t sterna_table_bytes(int rows, int columns) { return table_bytes(rows, columns); }

/* Memory for matrices, in large pages where there are any, as reading it in order then misses no translations. NULL:
   none. */
void *sterna_map(int64_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(at, bytes, MADV_HUGEPAGE);
#endif
    return at;
}

void sterna_unmap(void *at, int64_t bytes) { munmap(at, bytes); }
