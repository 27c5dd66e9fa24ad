// What becomes of a sum, for shaders whose words and operands have the names used here.

float bias_at(uint n)
{
    return p.has_bias != 0 ? bias.v[p.bias_at + n] : 0.0;
}

float residual_at(uint m, uint n)
{
    return p.has_residual != 0 ? residual.v[p.residual_at + m * p.residual_ld + n] : 0.0;
}

void store(uint i, float value)
{
    y.v[i] = value;
}
