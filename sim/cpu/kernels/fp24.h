/* fp24 on doubles that hold only fp24 values (docs/numerics.md, sections 1 to 3), as sim/golden/fp24.py has it.

   Everything is free of branches, so that a compiler makes vectors of the loops around it. It must not fuse a
   multiplication and an addition (-ffp-contract=off): each rounds. */
#ifndef FP24_H
#define FP24_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define MAX24 0x1.fffep+128
#define MIN24 0x1p-126
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
    double push = of_bits(bits_of(x) & 0x7ff0000000000000) * (1.5 * 0x1p37);
    x = (x + push) - push;
    return __builtin_fabs(x) < MIN24 ? 0.0 : x;
}

INLINE double mul24(double a, double b) { return round24(a * b); }

INLINE double mac24(double a, double b, double c) { return round24(mul24(a, b) + c); }

/* ---- The table functions (section 2); `tables` is that of sim/golden/tables.py in the order of the ROM. ---- */

enum { RECIP = 256, RSQRT = 288, LOG2 = 352, LOG1M = 416, WORDS = 512, SIGMOIDS = 514 };

struct tables {
    double slope[WORDS], intercept[WORDS];
    double sigmoid_slope[SIGMOIDS], sigmoid_intercept[SIGMOIDS]; /* 257 (a >= 0) + min(256, floor(16 |a|)) */
};

INLINE double sigmoid24(const struct tables *restrict tables, double a) {
    double size = __builtin_fabs(a), at = size * 16;
    int index = (int)(at > 256 ? 256 : at) + (a >= 0 ? 257 : 0);
    return mac24(tables->sigmoid_slope[index], size, tables->sigmoid_intercept[index]);
}

INLINE int exponent_of(double a) { return (int)(bits_of(a) >> 52 & 0x7ff) - 1023; }

INLINE int fraction_of(double a) { return (int)(bits_of(a) >> 37 & 0x7fff); }

INLINE double power_of_two(int exponent) { return of_bits((int64_t)(exponent + 1023) << 52); }

INLINE double entry24(const struct tables *tables, int index, double d, int shift) {
    double scale = power_of_two(-shift);
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

/* log2 of a > 0 or a = 0, LOG2 and EXPONENT together: ADD(EXPONENT(a), LOG2(a)). */
INLINE double log24(const struct tables *restrict tables, double a) {
    double one = a == 0 ? 1.0 : a;
    int fraction = fraction_of(one), index = LOG2 + (fraction >> 9);
    double log = mac24(tables->slope[index], 1 + fraction * 0x1p-15, tables->intercept[index]);
    return round24((a == 0 ? -127.0 : (double)exponent_of(one)) + log);
}

INLINE double log1m24(const struct tables *restrict tables, double d) {
    double at = d * 128;
    int index = LOG1M + (int)(at > 63 ? 63 : at);
    return mac24(tables->slope[index], d, tables->intercept[index]);
}

/* ---- Reductions (section 3) over `count` elements, a multiple of SUMS. ---- */

INLINE double tree24(double *sums) {
    for (int width = SUMS / 2; width; width /= 2)
        for (int k = 0; k < width; k++)
            sums[k] = round24(sums[k] + sums[k + width]);
    return sums[0];
}

static double sumsq24(const double *restrict v, int count) {
    double sums[SUMS] = {0};
    for (int j = 0; j < count; j += SUMS)
        for (int k = 0; k < SUMS; k++)
            sums[k] = mac24(v[j + k], v[j + k], sums[k]);
    return tree24(sums);
}

/* SUMSQ of v * w. */
static double sumsq_product24(const double *restrict v, const double *restrict w, int count) {
    double sums[SUMS] = {0};
    for (int j = 0; j < count; j += SUMS)
        for (int k = 0; k < SUMS; k++) {
            double y = mul24(v[j + k], w[j + k]);
            sums[k] = mac24(y, y, sums[k]);
        }
    return tree24(sums);
}

/* The largest |v|, in as many lanes as a vector may have. */
static double peak24(const double *restrict v, int count) {
    double peaks[SUMS] = {0}, most = 0;
    for (int j = 0; j < count; j += SUMS)
        for (int k = 0; k < SUMS; k++) {
            double size = __builtin_fabs(v[j + k]);
            peaks[k] = size > peaks[k] ? size : peaks[k];
        }
    for (int k = 0; k < SUMS; k++)
        most = peaks[k] > most ? peaks[k] : most;
    return most;
}

/* u = v * w, and its peak. */
static double product_peak24(double *restrict u, const double *restrict v, const double *restrict w, int count) {
    for (int j = 0; j < count; j++)
        u[j] = mul24(v[j], w[j]);
    return peak24(u, count);
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
static int codes24(int8_t *restrict code, const double *restrict u, double qm, int count) {
    int sum = 0;
    for (int j = 0; j < count; j++) {
        double z = u[j] * qm;
        z += __builtin_copysign(0.5, z);
        z = z > 127 ? 127 : z;
        z = z < -127 ? -127 : z;
        int one = (int)z;
        code[j] = (int8_t)one;
        sum += one;
    }
    return sum;
}

#endif
