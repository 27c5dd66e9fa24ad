/* exp, log1p, softplus, sigmoid, silu, gelu over vec.h, to a few ulp. NaN in gives NaN out.
 * The polynomials are minimax fits (iteratively reweighted least squares, 30 digits) made for this
 * file; each says its error before rounding. */
#ifndef ITERA_SIMD_MATH_H
#define ITERA_SIMD_MATH_H

/* x = n ln2 + r with |r| <= ln2 / 2, for |x| < 100. Adding 1.5 * 2^23 rounds to an integer and
 * leaves n in the low bits of *bits, which a shift by 23 turns into an exponent. */
static inline vf vf_reduce_ln2(vf x, vi *bits)
{
    vf magic = vf_set(12582912.0f);
    vf t = vf_fma(x, vf_set(1.44269504088896f), magic);
    vf n = vf_sub(t, magic);
    *bits = vf_bits(t);
    /* ln2 in two parts; n times the first is exact */
    vf r = vf_fnma(n, vf_set(0.693359375f), x);
    return vf_fnma(n, vf_set(-2.12194440e-4f), r);
}

/* (e^r - 1 - r) / r^2, |r| <= ln2 / 2; 3.3e-9 of e^r */
static inline vf vf_exp_tail(vf r)
{
    vf p = vf_set(0.00138132216f);
    p = vf_fma(p, r, vf_set(0.00836941879f));
    p = vf_fma(p, r, vf_set(0.041668456f));
    p = vf_fma(p, r, vf_set(0.166665152f));
    return vf_fma(p, r, vf_set(0.49999994f));
}

/* e^x. Infinity above 88.72; 0 below -86.99 (where the result is 1.6e-38: nothing subnormal comes
 * out, which would slow down whatever multiplies it next). */
static inline vf vf_exp(vf x)
{
    /* min and max return the second operand for NaN: x stays NaN through both. At the low end n is
     * -126, whose exponent field is 0. */
    vf c = vf_max(vf_set(-87.3f), vf_min(vf_set(88.8f), x));
    vi bits;
    vf r = vf_reduce_ln2(c, &bits);
    vf p = vf_fma(vf_exp_tail(r), vf_mul(r, r), vf_add(r, vf_set(1.0f)));
    /* 2p * 2^(n-1), so that n = 128 is reached */
    vf s = vi_as_vf(vi_shl(vi_add(bits, vi_set(126)), 23));
    return vf_mul(vf_add(p, p), s);
}

/* e^x - 1 for x <= 0, to a few ulp also where it is small */
static inline vf vf_expm1_neg(vf x)
{
    vi bits;
    vf r = vf_reduce_ln2(vf_max(vf_set(-80.0f), x), &bits);
    vf q = vf_fma(vf_exp_tail(r), vf_mul(r, r), r);
    vf s = vi_as_vf(vi_shl(vi_add(bits, vi_set(127)), 23));
    return vf_fma(q, s, vf_sub(s, vf_set(1.0f)));
}

/* ln(1 + u) for u in [0, 1] = 2 atanh(s), s = u / (2 + u) <= 1/3; 4.5e-9. No exponent to take
 * apart, and small u keep all their bits. */
static inline vf vf_log1p_unit(vf u)
{
    vf s = vf_div(u, vf_add(u, vf_set(2.0f)));
    vf z = vf_mul(s, s);
    vf p = vf_set(2 * 0.140124947f);
    p = vf_fma(p, z, vf_set(2 * 0.139995039f));
    p = vf_fma(p, z, vf_set(2 * 0.200108543f));
    p = vf_fma(p, z, vf_set(2 * 0.333332062f));
    return vf_fma(vf_mul(s, z), p, vf_add(s, s));
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

/* d silu / dx, given s = sigmoid(x) */
static inline vf vf_silu_slope(vf x, vf s)
{
    vf one = vf_set(1.0f);
    return vf_mul(s, vf_fma(x, vf_sub(one, s), one));
}

/* e^(a^2) erfc(a) for a >= 0, as a polynomial in t = 1 / (1 + 0.4 a); 6.4e-8 relative up to a = 10,
 * beyond which e^(-a^2), always its companion, is 0 in f32 */
static inline vf vf_erfcx(vf a)
{
    vf one = vf_set(1.0f);
    vf t = vf_div(one, vf_fma(a, vf_set(0.4f), one));
    vf p = vf_set(0.0417934507f);
    p = vf_fma(p, t, vf_set(-0.142963365f));
    p = vf_fma(p, t, vf_set(0.0894861817f));
    p = vf_fma(p, t, vf_set(0.0816326588f));
    p = vf_fma(p, t, vf_set(0.0841589645f));
    p = vf_fma(p, t, vf_set(0.191505879f));
    p = vf_fma(p, t, vf_set(0.202373371f));
    p = vf_fma(p, t, vf_set(0.226374656f));
    p = vf_fma(p, t, vf_set(0.22563827f));
    return vf_mul(p, t);
}

/* The standard normal distribution function at x, to a few ulp in the lower tail as well;
 * *bell = e^(-x^2 / 2). */
static inline vf vf_normal_cdf(vf x, vf *bell)
{
    vf a = vf_abs(x);
    vf e = vf_exp(vf_mul(vf_mul(a, a), vf_set(-0.5f)));
    vf tail = vf_mul(vf_mul(e, vf_set(0.5f)), vf_erfcx(vf_mul(a, vf_set(0.707106781f))));
    *bell = e;
    return vf_select(vf_lt(x, vf_zero()), tail, vf_sub(vf_set(1.0f), tail));
}

/* x Phi(x) = x (1 + erf(x / sqrt 2)) / 2 */
static inline vf vf_gelu(vf x)
{
    vf bell;
    return vf_mul(x, vf_normal_cdf(x, &bell));
}

/* d gelu / dx = Phi(x) + x phi(x) */
static inline vf vf_gelu_slope(vf x)
{
    vf bell;
    vf cdf = vf_normal_cdf(x, &bell);
    return vf_fma(vf_mul(x, bell), vf_set(0.398942280f), cdf);
}

#endif
