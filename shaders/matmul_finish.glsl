// What becomes of a sum: for kernels whose words and operands have the names used here.

// The partial sum of a slice goes to scratch, laid out (slices, rows, cols).
void store_partial(uint slice, uint m, uint n, float sum)
{
    y.v[p.y_at + (slice * p.rows + m) * p.cols + n] = sum;
}

void store_result(uint m, uint n, float sum)
{
    uint at = p.y_at + m * p.y_ld + n;
    if (p.accumulate != 0) {
        y.v[at] += sum;
        return;
    }
    if (p.has_bias != 0)
        sum += bias.v[p.bias_at + n];
    sum = activate(sum, ACT);
    if (p.has_residual != 0)
        sum += residual.v[p.residual_at + m * p.residual_ld + n];
    y.v[at] = sum;
}
