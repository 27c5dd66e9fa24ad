// f16 as bits in 32-bit words, exact on every device: rounding to nearest even, subnormals kept
// (packHalf2x16 leaves both to the driver), and no 16-bit storage needed. Element i of a buffer of
// halves is in word i / 2, the even ones in its low half.

uint to_half(float value)
{
    uint bits = floatBitsToUint(value);
    uint sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return sign | 0x7e00u;
    if (bits >= 0x47800000u)
        return sign | 0x7c00u;
    if (bits < 0x33000000u)
        return sign; // below half of the smallest subnormal, or just that: rounds to zero
    if (bits < 0x38800000u) {
        // Subnormal: the mantissa with its leading one, shifted to units of 2^-24.
        uint mantissa = (bits & 0x7fffffu) | 0x800000u, shift = 126u - (bits >> 23);
        uint kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1u);
        uint middle = 1u << (shift - 1u);
        return sign | (kept + uint(rest > middle || (rest == middle && (kept & 1u) == 1u)));
    }
    bits += 0xfffu + ((bits >> 13) & 1u);
    return sign | ((bits - 0x38000000u) >> 13);
}

float from_half(uint half_bits)
{
    uint sign = (half_bits & 0x8000u) << 16, exponent = (half_bits >> 10) & 0x1fu;
    uint mantissa = half_bits & 0x3ffu;
    if (exponent == 0u) {
        float magnitude = float(mantissa) * 5.9604644775390625e-8; // 2^-24
        return sign != 0u ? -magnitude : magnitude;
    }
    if (exponent == 0x1fu)
        return uintBitsToFloat(sign | 0x7f800000u | (mantissa << 13));
    return uintBitsToFloat(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}
