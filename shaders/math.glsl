// Activations and their slopes on floats; kernels_cl/math.clh holds the same. The polynomials are
// those of cpu_fallback/simd/math.h. Nothing overflows on the way to a finite result.
#ifndef ITERA_MATH_GLSL
#define ITERA_MATH_GLSL

float sigmoid_of(float x)
{
    float e = exp(-abs(x));
    return (x >= 0.0 ? 1.0 : e) / (1.0 + e);
}

float silu_of(float x)
{
    return x * sigmoid_of(x);
}

float silu_slope(float x)
{
    float s = sigmoid_of(x);
    return s * (1.0 + x * (1.0 - s));
}

// ln(1 + u) for u in [0, 1] = 2 atanh(s), s = u / (2 + u): small u keep all their bits.
float log1p_unit(float u)
{
    float s = u / (u + 2.0), z = s * s;
    float p = 0.280249894;
    p = p * z + 0.279990078;
    p = p * z + 0.400217086;
    p = p * z + 0.666664124;
    return s * z * p + 2.0 * s;
}

// 1 - e^-y: the series up to y^8 / 8! where the difference would lose bits
float one_minus_exp_neg(float y)
{
    float p = -1.0 / 40320.0;
    p = p * y + 1.0 / 5040.0;
    p = p * y - 1.0 / 720.0;
    p = p * y + 1.0 / 120.0;
    p = p * y - 1.0 / 24.0;
    p = p * y + 1.0 / 6.0;
    p = p * y - 0.5;
    return abs(y) < 0.5 ? y * (p * y + 1.0) : 1.0 - exp(-y);
}

float softplus_of(float x)
{
    return max(x, 0.0) + log1p_unit(exp(-abs(x)));
}

// sigmoid(x) from y = softplus(x)
float softplus_slope_of_y(float y)
{
    return one_minus_exp_neg(y);
}

// e^(a^2) erfc(a) for a in [0, 10]; beyond, e^(-a^2), always its companion, is 0.
float erfcx_of(float a)
{
    float t = 1.0 / (a * 0.4 + 1.0);
    float p = 0.0417934507;
    p = p * t - 0.142963365;
    p = p * t + 0.0894861817;
    p = p * t + 0.0816326588;
    p = p * t + 0.0841589645;
    p = p * t + 0.191505879;
    p = p * t + 0.202373371;
    p = p * t + 0.226374656;
    p = p * t + 0.22563827;
    return p * t;
}

// The standard normal distribution function
float normal_cdf(float x)
{
    float a = abs(x);
    float tail = 0.5 * exp(-0.5 * a * a) * erfcx_of(a * 0.707106781);
    return x < 0.0 ? tail : 1.0 - tail;
}

float gelu_of(float x)
{
    return x * normal_cdf(x);
}

float gelu_slope(float x)
{
    return normal_cdf(x) + x * exp(-0.5 * x * x) * 0.398942280;
}

// act: enum itera_act
float activate(float x, uint act)
{
    switch (act) {
    case 1:
        return silu_of(x);
    case 2:
        return gelu_of(x);
    case 3:
        return softplus_of(x);
    default:
        return x;
    }
}

#endif
