/* What goes before and after attention: new keys and values into the caches, and one result from
 * those of several ranges of keys. */
#include "args/attention.clh"
#include "itera.clh"

/* A workgroup copies 128 elements of both new keys and values to their places in the caches. */
kernel void attention_store(global const float *k, global const float *v, global const int *start,
                            global float *k_cache, global float *v_cache,
                            const struct attention_store_args p)
{
    uint row = THREAD / p.cols, col = THREAD % p.cols;
    if (row >= p.rows)
        return;
    uint b = row / p.time, position = (uint)max(start[p.start_at + b], 0) + row % p.time;
    if (position >= p.positions)
        return;
    uint to = b * p.positions + position;
    k_cache[p.k_cache_at + to * p.k_cache_ld + col] = k[p.k_at + row * p.k_ld + col];
    v_cache[p.v_cache_at + to * p.v_cache_ld + col] = v[p.v_at + row * p.v_ld + col];
}

/* A workgroup joins 128 elements of the result from the ranges of keys. */
kernel void attention_merge(global const float *parts, global float *y, global float *lse,
                            const struct attention_merge_args p)
{
    uint col = THREAD % p.d, row = THREAD / p.d % (p.time * p.share);
    uint pair = THREAD / p.d / (p.time * p.share);
    if (pair >= p.pairs)
        return;
    uint stride = p.d + 2;
    parts += p.parts_at + (pair * p.time * p.share + row) * p.splits * stride;
    float most = -INFINITY, total = 0.0f, sum = 0.0f;
    for (uint s = 0; s < p.splits; s++)
        most = fmax(most, parts[s * stride]);
    for (uint s = 0; s < p.splits; s++) {
        float weight = exp(parts[s * stride] - most);
        total += weight * parts[s * stride + 1];
        sum += weight * parts[s * stride + 2 + col];
    }
    uint b = pair / p.kv_heads, t = row / p.share;
    uint h = pair % p.kv_heads * p.share + row % p.share;
    y[p.y_at + (b * p.time + t) * p.y_ld + h * p.d + col] = sum / total;
    if (p.wants_lse && col == 0)
        lse[p.lse_at + (b * p.kv_heads * p.share + h) * p.lse_ld + t] = most + log(total);
}
