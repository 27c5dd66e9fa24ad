/* exp, log, softplus, sigmoid over vec.h, to a few ulp. NaN in gives NaN out. */
#ifndef ITERA_SIMD_MATH_H
#define ITERA_SIMD_MATH_H

/* e^x: x = n ln2 + r, |r| <= ln2/2, with a degree-7 Taylor-like polynomial in r (error below 1 ulp of the
 * result in exact arithmetic), then 2^n by the exponent bits in two halves, so that results down
 * to the subnormals and up to the largest float are right. Overflows to infinity above 88.73,
 * gives 0 below -104. */
static inline vf vf_exp(vf x)
{
    vf low = vf_set(-104.0f), high = vf_set(88.8f);
    /* min and max return the second operand for NaN: x stays NaN through both. */
    vf c = vf_max(low, vf_min(high, x));
    vf n = vf_round(vf_mul(c, vf_set(1.44269504088896f)));
    vf r = vf_fnma(n, vf_set(0.693359375f), c);
    r = vf_fnma(n, vf_set(-2.12194440e-4f), r);
    vf p = vf_set(1.0f / 5040.0f);
    p = vf_fma(p, r, vf_set(1.0f / 720.0f));
    p = vf_fma(p, r, vf_set(1.0f / 120.0f));
    p = vf_fma(p, r, vf_set(1.0f / 24.0f));
    p = vf_fma(p, r, vf_set(1.0f / 6.0f));
    p = vf_fma(p, r, vf_set(0.5f));
    p = vf_fma(p, vf_mul(r, r), vf_add(r, vf_set(1.0f)));
    vi k = vf_to_vi(n);
    vi half = vi_sar(k, 1);
    vi rest = vi_sub(k, half);
    vf s1 = vi_as_vf(vi_shl(vi_add(half, vi_set(127)), 23));
    vf s2 = vi_as_vf(vi_shl(vi_add(rest, vi_set(127)), 23));
    return vf_mul(vf_mul(p, s1), s2);
}

/* ln x for normal positive x (callers guarantee it): m in [sqrt(1/2), sqrt(2)), then
 * ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.172. */
static inline vf vf_log_normal(vf x)
{
    vi bits = vf_bits(x);
    vi e = vi_sub(vi_shr(bits, 23), vi_set(127));
    vf m = vi_as_vf(vi_or(vi_and(bits, vi_set(0x007fffff)), vi_set(0x3f800000)));
    vm big = vf_lt(vf_set(1.41421356f), m);
    m = vf_select(big, vf_mul(m, vf_set(0.5f)), m);
    vf ef = vi_to_vf(e);
    ef = vf_select(big, vf_add(ef, vf_set(1.0f)), ef);
    vf f = vf_sub(m, vf_set(1.0f));
    vf s = vf_div(f, vf_add(m, vf_set(1.0f)));
    vf z = vf_mul(s, s);
    vf p = vf_set(2.0f / 9.0f);
    p = vf_fma(p, z, vf_set(2.0f / 7.0f));
    p = vf_fma(p, z, vf_set(2.0f / 5.0f));
    p = vf_fma(p, z, vf_set(2.0f / 3.0f));
    /* 2s = f - s f exactly in real numbers; this form keeps f's bits for m near 1. */
    vf r = vf_fma(vf_mul(s, z), p, vf_mul(s, vf_set(2.0f)));
    r = vf_fma(ef, vf_set(-2.12194440e-4f), r);
    return vf_fma(ef, vf_set(0.693359375f), r);
}

/* ln(1 + u) for u in [0, 1]: the rounding of 1 + u is put back in first order. */
static inline vf vf_log1p_unit(vf u)
{
    vf one = vf_set(1.0f);
    vf w = vf_add(one, u);
    vf lost = vf_sub(u, vf_sub(w, one));
    return vf_add(vf_log_normal(w), vf_div(lost, w));
}

/* ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|) */
static inline vf vf_softplus(vf x)
{
    vf u = vf_exp(vf_neg(vf_abs(x)));
    return vf_add(vf_max(vf_zero(), x), vf_log1p_unit(u));
}

/* 1 / (1 + e^-x) */
static inline vf vf_sigmoid(vf x)
{
    vf one = vf_set(1.0f);
    return vf_div(one, vf_add(one, vf_exp(vf_neg(x))));
}

static inline vf vf_silu(vf x)
{
    return vf_div(x, vf_add(vf_set(1.0f), vf_exp(vf_neg(x))));
}

#endif
