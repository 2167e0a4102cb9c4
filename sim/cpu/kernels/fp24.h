/* fp24 on doubles that hold only fp24 values (docs/numerics.md, sections 1 to 6), as sim/golden has it.

   Nothing branches on the numbers. The compiler must not fuse a multiplication and an addition (-ffp-contract=off):
   each rounds. */
#ifndef FP24_H
#define FP24_H

#include "vector.h"

#define SUMS 64 /* partial sums of a reduction; every vector is padded to a multiple of it with zeros */

INLINE int padded(int count) { return (count + SUMS - 1) / SUMS * SUMS; }

INLINE int64_t bits_of(double x) {
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE double of_bits(int64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x to 16 significant bits, ties to even; flushed below 2^-126, saturated at MAX24; never -0.

   With push = 1.5 2^(E+37) the last bit of x + push weighs 2^(E-15), the unit of fp24, and push is an even number of
   such units. */
INLINE double round24(double x) {
    x = x > MAX24 ? MAX24 : x;
    x = x < -MAX24 ? -MAX24 : x;
    double push = of_bits(bits_of(x) & EXPONENT_BITS) * PUSH;
    x = (x + push) - push;
    return __builtin_fabs(x) < MIN24 ? 0.0 : x;
}

INLINE double mul24(double a, double b) { return round24(a * b); }

INLINE double mac24(double a, double b, double c) { return round24(mul24(a, b) + c); }

/* ---- The table functions (section 2); the ROM in the order of sim/golden/tables.py. ---- */

enum { RECIP = 256, RSQRT = 288, LOG2 = 352, LOG1M = 416, WORDS = 512, SIGMOIDS = 514 };

struct tables {
    double slope[WORDS], intercept[WORDS];
    double sigmoid_slope[SIGMOIDS], sigmoid_intercept[SIGMOIDS]; /* 257 (a >= 0) + min(256, floor(16 |a|)) */
};

INLINE doubles sigmoid_all(const struct tables *tables, doubles a) {
    doubles size = size_of(a);
    doubles at = smaller(size * 16, all(256)) + (doubles)((longs)(a >= 0) & (longs)all(257));
    ints index = __builtin_convertvector(at, ints);
    return mac_all(gather(tables->sigmoid_slope, index), size, gather(tables->sigmoid_intercept, index));
}

INLINE int exponent_of(double a) { return (int)(bits_of(a) >> 52 & 0x7ff) - 1023; }

INLINE int fraction_of(double a) { return (int)(bits_of(a) >> 37 & 0x7fff); }

INLINE double entry24(const struct tables *tables, int index, double d, int shift) {
    double scale = of_bits((int64_t)(1023 - shift) << 52);
    return mac24(round24(tables->slope[index] * scale), d, round24(tables->intercept[index] * scale));
}

INLINE double recip24(const struct tables *tables, double a) {
    int fraction = fraction_of(a);
    return a == 0 ? MAX24 : entry24(tables, RECIP + (fraction >> 10), 1 + fraction * 0x1p-15, exponent_of(a));
}

INLINE double rsqrt24(const struct tables *tables, double a) {
    int fraction = fraction_of(a), exponent = exponent_of(a), odd = exponent & 1;
    double d = (1 + fraction * 0x1p-15) * (1 + odd);
    return a == 0 ? MAX24 : entry24(tables, RSQRT + 32 * odd + (fraction >> 10), d, (exponent - odd) / 2);
}

/* ADD(EXPONENT(a), LOG2(a)) for a >= 0. */
INLINE doubles log_all(const struct tables *tables, doubles a) {
    longs bits = (longs)a, zero = a == 0;
    longs fraction = bits >> 37 & 0x7fff;
    ints index = __builtin_convertvector((fraction >> 9) + LOG2, ints);
    doubles d = 1 + small_longs(fraction) * 0x1p-15;
    doubles log = mac_all(gather(tables->slope, index), d, gather(tables->intercept, index));
    doubles exponent = small_longs(bits >> 52) - 1023;
    return round_all(choose(zero, all(-127), exponent) + log);
}

INLINE doubles log1m_all(const struct tables *tables, doubles d) {
    ints index = __builtin_convertvector(smaller(d * 128, all(63)), ints) + LOG1M;
    return mac_all(gather(tables->slope, index), d, gather(tables->intercept, index));
}

/* ---- Reductions (section 3) over `count` elements, a multiple of SUMS. ---- */

enum { PARTS = SUMS / LANES };

INLINE double tree24(const doubles *parts) {
    double sums[SUMS];
    memcpy(sums, parts, sizeof sums);
    for (int width = SUMS / 2; width; width /= 2)
        for (int k = 0; k < width; k++)
            sums[k] = round24(sums[k] + sums[k + width]);
    return sums[0];
}

static double sumsq24(const double *v, int count) {
    doubles sums[PARTS] = {{0}};
    for (int j = 0; j < count; j += SUMS)
#pragma GCC unroll 8
        for (int k = 0; k < PARTS; k++) {
            doubles x = load(v + j + k * LANES);
            sums[k] = mac_all(x, x, sums[k]);
        }
    return tree24(sums);
}

/* SUMSQ of v * w. */
static double sumsq_product24(const double *v, const double *w, int count) {
    doubles sums[PARTS] = {{0}};
    for (int j = 0; j < count; j += SUMS)
#pragma GCC unroll 8
        for (int k = 0; k < PARTS; k++) {
            doubles y = mul_all(load(v + j + k * LANES), load(w + j + k * LANES));
            sums[k] = mac_all(y, y, sums[k]);
        }
    return tree24(sums);
}

INLINE double largest_lane(doubles v) {
    double most = v[0];
    for (int k = 1; k < LANES; k++)
        most = v[k] > most ? v[k] : most;
    return most;
}

/* The largest |v|. */
static double peak24(const double *v, int count) {
    doubles a = {0}, b = {0};
    for (int j = 0; j < count; j += 2 * LANES) {
        a = larger(size_of(load(v + j)), a);
        b = larger(size_of(load(v + j + LANES)), b);
    }
    return largest_lane(larger(a, b));
}

/* u = v * w, and its peak. */
static double product_peak24(double *u, const double *v, const double *w, int count) {
    doubles most = {0};
    for (int j = 0; j < count; j += LANES) {
        doubles x = mul_all(load(v + j), load(w + j));
        store(u + j, x);
        most = larger(size_of(x), most);
    }
    return largest_lane(most);
}

/* ---- Scalars (section 6) and the quantiser (section 4). ---- */

struct constants {
    double outer_eps, per_hidden, per_inner, inner_eps, floor, large;
};

static double rsq24(const struct tables *tables, double t) {
    double y = rsqrt24(tables, t);
    double b = mul24(mul24(y, y), t);
    return mul24(y, mac24(-b, 0.5, 1.5));
}

static double two_norms24(const struct tables *tables, const struct constants *c, double s1, double s2) {
    double e1 = mac24(s1, c->per_hidden, c->outer_eps);
    return rsq24(tables, mac24(e1, c->inner_eps, mul24(s2, c->per_hidden)));
}

static double one_norm24(const struct tables *tables, const struct constants *c, double s) {
    return rsq24(tables, mac24(s, c->per_inner, c->inner_eps));
}

/* S, and in *qm the quantiser's factor, from the peak of u, the norm's r and the matrix scale. */
static double matrix_scalars24(const struct tables *tables, const struct constants *c, double peak, double r,
                               double ws, double *qm) {
    double size = mul24(peak, r), z = recip24(tables, peak);
    double scale = mul24(size > c->floor ? size : c->floor, ws);
    z = mul24(z, mac24(-peak, z, 2.0));
    double fine = mul24(z, 127.0), most = mul24(r, c->large);
    *qm = fine < most ? fine : most;
    return scale;
}

/* code(u, qm) of `count` elements; returns their sum. */
static int codes24(int8_t *code, const double *u, double qm, int count) {
    ints sum = {0};
    longs sign = (longs)all(-0.0);
    for (int j = 0; j < count; j += LANES) {
        doubles z = load(u + j) * qm;
        z += (doubles)(((longs)z & sign) | (longs)all(0.5));
        z = larger(smaller(z, all(127)), all(-127));
        ints one = __builtin_convertvector(z, ints);
        bytes narrow = __builtin_convertvector(one, bytes);
        memcpy(code + j, &narrow, sizeof narrow);
        sum += one;
    }
    int total = 0;
    for (int k = 0; k < LANES; k++)
        total += sum[k];
    return total;
}

#endif
