/* A model and a call of its kernels, as Python lays them out (sim/cpu/structures.py). */
#ifndef CALL_H
#define CALL_H

#include "fp24.h"
#include "pool.h"

enum { F, I, G, O, GATE, VALUE, DOWN, MATRICES };

struct layer {
    const uint8_t *matrix[MATRICES];
    double ws[MATRICES];
    const uint8_t *tree_in, *tree_out; /* tables of rows.h, in place of gate, value and down; NULL: no trees */
    double ws_tree_in, ws_tree_out;
    const double *attn_outer, *w_f, *w_i, *w_g_in, *keep, *g_norm, *o_in, *mlp_outer, *w_gate, *w_down, *w_tree;
};

struct model {
    int hidden, inner, layers, vocabulary; /* as they are; of trees, `inner` is what a token visits */
    int wide, inner_wide;                  /* hidden and inner with their padding */
    int trees, levels, always;             /* of a layer; trees is 0 where it has none */
    struct constants constants;
    const struct tables *tables;
    const struct layer *layer;
    const int8_t *embedding;
    const double *embedding_scale;
    const double *final_outer, *w_head;
    const uint8_t *head;
    double ws_head;
    struct pool *pool;
};

/* A call, and the vectors that it works on: of each column, `wide` or `inner_wide` elements. */
struct call {
    const struct model *model;
    int columns, first, last; /* layers first to last - 1 */
    int embeds;               /* whether x comes from `tokens` */
    const int64_t *tokens;
    const int32_t *slots;
    double *state;
    int64_t layer_stride, slot_stride; /* of the state, in elements */
    double *x, *u[3], *t, *v;          /* u, t and v have room for inner_wide */
    int8_t *code[3];
    double *scalars; /* of a column: s1, s2, three peaks */
    double *scale;   /* of a column: S of up to three matrices */
    int32_t *code_sum;
    int32_t *sum, *path; /* of the neurons that a token visits: sums and rows of the tables */
    int heads; /* columns with a head */
    const int32_t *head_columns;
    double *rows, *head_scale; /* rows [heads, vocabulary] */
    /* Of the loop under way. */
    int layer;
    const double *outer, *folded[3];
    double ws[3];
    int matrices;
};

enum { S1, S2, PEAKS, SCALARS = 5 };

static const struct layer *layer_of(const struct call *call) { return &call->model->layer[call->layer]; }

/* FROMINT of the sums of LANES rows. */
INLINE doubles rows_at(const int32_t *sums, int32_t code_sum) {
    ints v;
    memcpy(&v, sums, sizeof v);
    return round_all(__builtin_convertvector(v - code_sum, doubles));
}

#endif
