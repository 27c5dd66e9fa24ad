// Powers in integers, the same to the last bit on every device and far beyond the precision of f32;
// kernels_cl/wide.clh holds the same. "Q1.63" is a number in units of 2^-63. 64-bit numbers are
// uvec2, (low, high).
#ifndef ITERA_WIDE_GLSL
#define ITERA_WIDE_GLSL

// 2^(-i / 16) and 2^(-i / 256) in Q1.63
const uvec2 sixteenths[16] = {
    uvec2(0x00000000, 0x80000000), uvec2(0x92436616, 0x7a92be8a), uvec2(0xee921c97, 0x75606373),
    uvec2(0x154a7089, 0x70666f76), uvec2(0x6b4eb57a, 0x6ba27e65), uvec2(0x8fc24072, 0x6712460a),
    uvec2(0xaa836d6f, 0x62b39508), uvec2(0xac061b5f, 0x5e8451cf), uvec2(0xfcef3242, 0x5a827999),
    uvec2(0x2150a563, 0x56ac1f75), uvec2(0xd8a89c75, 0x52ff6b54), uvec2(0x48d088d7, 0x4f7a9930),
    uvec2(0xc6dc54b8, 0x4c1bf828), uvec2(0xd588e19b, 0x48e1e9b9), uvec2(0xf545eb73, 0x45cae0f1),
    uvec2(0xe6243d8a, 0x42d561b3)};
const uvec2 fine_sixteenths[16] = {
    uvec2(0x00000000, 0x80000000), uvec2(0xa88f6453, 0x7fa765ac), uvec2(0x3dc7c426, 0x7f4f08ae),
    uvec2(0x4b544f9a, 0x7ef6e8da), uvec2(0x7a4360ba, 0x7e9f0606), uvec2(0x90f223de, 0x7e476008),
    uvec2(0x72f84e24, 0x7deff6b6), uvec2(0x2113e1fa, 0x7d98c9e6), uvec2(0xb915019d, 0x7d41d96d),
    uvec2(0x75c9cf9b, 0x7ceb2523), uvec2(0xaeea5d3a, 0x7c94acdd), uvec2(0xd904a6ce, 0x7c3e7072),
    uvec2(0x85689ddc, 0x7be86fb9), uvec2(0x6214411c, 0x7b92aa88), uvec2(0x399fc237, 0x7b3d20b6),
    uvec2(0xf329b948, 0x7ae7d219)};

uvec2 add_wide(uvec2 a, uvec2 b)
{
    uint carry, low = uaddCarry(a.x, b.x, carry);
    return uvec2(low, a.y + b.y + carry);
}

uvec2 subtract_wide(uvec2 a, uvec2 b)
{
    uint borrow, low = usubBorrow(a.x, b.x, borrow);
    return uvec2(low, a.y - b.y - borrow);
}

bool less_wide(uvec2 a, uvec2 b)
{
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// n < 64
uvec2 left_wide(uvec2 a, uint n)
{
    if (n >= 32)
        return uvec2(0, a.x << (n - 32));
    return n == 0 ? a : uvec2(a.x << n, a.y << n | a.x >> (32 - n));
}

uvec2 right_wide(uvec2 a, uint n)
{
    if (n >= 32)
        return uvec2(a.y >> (n - 32), 0);
    return n == 0 ? a : uvec2(a.x >> n | a.y << (32 - n), a.y >> n);
}

uint multiply_high(uint a, uint b)
{
    uint high, low;
    umulExtended(a, b, high, low);
    return high;
}

// The whole product of 32-bit numbers.
uvec2 multiply_wide(uint a, uint b)
{
    uint high, low;
    umulExtended(a, b, high, low);
    return uvec2(low, high);
}

// The upper half of a product of 64-bit numbers.
uvec2 multiply_high_wide(uvec2 a, uvec2 b)
{
    uvec2 crossed = add_wide(multiply_wide(a.x, b.y), uvec2(multiply_high(a.x, b.x), 0));
    uvec2 other = add_wide(multiply_wide(a.y, b.x), uvec2(crossed.x, 0));
    return add_wide(multiply_wide(a.y, b.y), add_wide(uvec2(crossed.y, 0), uvec2(other.y, 0)));
}

// The product of two Q1.63, at most 1.
uvec2 product_q63(uvec2 a, uvec2 b)
{
    return left_wide(multiply_high_wide(a, b), 1);
}

// 2^-f in Q1.63, f in units of 2^-64; off by less than 2^-48. Eight bits come from tables, the rest
// y / 256 from the series 1 - k1 y + k2 y^2 - k3 y^3 + k4 y^4, k_i = (ln 2 / 256)^i / i!
uvec2 power_of_half(uvec2 f)
{
    uvec2 y = left_wide(f, 8);
    // k4 to k2 in units of 2^-50, k1 of 2^-72
    uint inner = 4127059964u - multiply_high(y.y, 3724818u - multiply_high(y.y, 2521u));
    uvec2 slope = subtract_wide(uvec2(0xd1cf79acu, 0xb17217f7u),
                                left_wide(uvec2(multiply_high(y.y, inner), 0), 22));
    uvec2 rest =
        subtract_wide(uvec2(0, 0x80000000u), right_wide(multiply_high_wide(y, slope), 9));
    return product_q63(product_q63(sixteenths[f.y >> 28], fine_sixteenths[(f.y >> 24) & 15]),
                       rest);
}

#endif
