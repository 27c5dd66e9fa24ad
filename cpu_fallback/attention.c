/* Scalar reference of rope, attention and its gradient. The contracts are in host/ops/attention.c.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/kernel.h"

/* ---- rope ------------------------------------------------------------------------------------ */

static void rope_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *x = &call->in[0], *y = &call->out[0];
    const int32_t *start = itera_i32(&call->in[1]);
    int64_t time = x->dim[1], heads = call->attr->heads, d = x->cols / heads;
    double theta = call->attr->scale != 0 ? call->attr->scale : 10000.0;
    int64_t begin, end;
    itera_team_range(team, x->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        double position = (double)(r % time) + (start ? start[r / time] : 0);
        for (int64_t i = 0; i < d / 2; i++) {
            double angle = position * pow(theta, -2.0 * (double)i / (double)d);
            double c = cos(angle), s = call->attr->inverse ? -sin(angle) : sin(angle);
            for (int64_t h = 0; h < heads; h++) {
                const float *from = itera_f32(x) + r * x->ld + h * d + i;
                float *to = itera_f32(y) + r * y->ld + h * d + i;
                double a = from[0], b = from[d / 2];
                to[0] = (float)(a * c - b * s);
                to[d / 2] = (float)(b * c + a * s);
            }
        }
    }
}

const struct itera_kernel itera_rope_ref = {.run = rope_ref};

/* ---- attention ------------------------------------------------------------------------------- */

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* Stores the new rows of one sequence in a cache, as far as they fit. */
static void store_rows(const struct itera_arg *from, const struct itera_arg *cache, int64_t b,
                       int64_t start)
{
    int64_t time = from->dim[1], positions = cache->dim[1];
    for (int64_t t = 0; t < time && start + t < positions; t++)
        memcpy(itera_f32(cache) + (b * positions + start + t) * cache->ld,
               itera_f32(from) + (b * time + t) * from->ld, (size_t)from->cols * sizeof(float));
}

static size_t attention_ref_scratch(const struct itera_call *call, int threads)
{
    (void)threads;
    const struct itera_arg *keys = call->in[3].data ? &call->in[3] : &call->in[1];
    return (size_t)keys->dim[1] * sizeof(double);
}

static void attention_ref(const struct itera_call *call, struct itera_team *team)
{
    if (team->rank)
        return;
    const struct itera_arg *q = &call->in[0], *y = &call->out[0], *lse = &call->out[1];
    const int32_t *start = itera_i32(&call->in[5]);
    bool cached = call->in[3].data != NULL;
    const struct itera_arg *k = cached ? &call->in[3] : &call->in[1];
    const struct itera_arg *v = cached ? &call->in[4] : &call->in[2];
    int64_t batch = q->dim[0], time = q->dim[1], keys = k->dim[1];
    int64_t heads = call->attr->heads, d = q->cols / heads, share = q->cols / k->cols;
    double scale = call->attr->scale != 0 ? call->attr->scale : 1.0 / sqrt((double)d);
    double *p = call->scratch;
    for (int64_t b = 0; b < batch; b++) {
        int64_t first = 0;
        if (cached) {
            first = start[b] < 0 ? 0 : start[b];
            store_rows(&call->in[1], k, b, first);
            store_rows(&call->in[2], v, b, first);
        }
        for (int64_t h = 0; h < heads; h++) {
            const float *kh = itera_f32(k) + b * keys * k->ld + h / share * d;
            const float *vh = itera_f32(v) + b * keys * v->ld + h / share * d;
            for (int64_t t = 0; t < time; t++) {
                int64_t n = first + t + 1 < keys ? first + t + 1 : keys;
                const float *row = itera_f32(q) + (b * time + t) * q->ld + h * d;
                double max = -INFINITY, sum = 0;
                for (int64_t j = 0; j < n; j++) {
                    p[j] = scale * dot(row, kh + j * k->ld, d);
                    max = p[j] > max ? p[j] : max;
                }
                for (int64_t j = 0; j < n; j++) {
                    p[j] = exp(p[j] - max);
                    sum += p[j];
                }
                float *out = itera_f32(y) + (b * time + t) * y->ld + h * d;
                for (int64_t c = 0; c < d; c++) {
                    double total = 0;
                    for (int64_t j = 0; j < n; j++)
                        total += p[j] * vh[j * v->ld + c];
                    out[c] = (float)(total / sum);
                }
                if (lse->data)
                    itera_f32(lse)[(b * heads + h) * lse->ld + t] = (float)(max + log(sum));
            }
        }
    }
}

const struct itera_kernel itera_attention_ref = {.run = attention_ref,
                                                 .scratch = attention_ref_scratch};

/* ---- attention_bwd --------------------------------------------------------------------------- */

/* dk and dv of one key and value head, and one row of dq. */
static size_t attention_bwd_ref_scratch(const struct itera_call *call, int threads)
{
    (void)threads;
    const struct itera_arg *q = &call->in[1];
    int64_t d = q->cols / call->attr->heads;
    return (size_t)(2 * q->dim[1] * d + d) * sizeof(double);
}

static void attention_bwd_ref(const struct itera_call *call, struct itera_team *team)
{
    if (team->rank)
        return;
    const struct itera_arg *dy = &call->in[0], *q = &call->in[1], *k = &call->in[2];
    const struct itera_arg *v = &call->in[3], *y = &call->in[4], *lse = &call->in[5];
    const struct itera_arg *dq = &call->out[0], *dk = &call->out[1], *dv = &call->out[2];
    int64_t batch = q->dim[0], time = q->dim[1], heads = call->attr->heads;
    int64_t d = q->cols / heads, kv_heads = k->cols / d, share = heads / kv_heads;
    double scale = call->attr->scale != 0 ? call->attr->scale : 1.0 / sqrt((double)d);
    double *dk_sum = call->scratch, *dv_sum = dk_sum + time * d, *dq_sum = dv_sum + time * d;
    for (int64_t item = 0; item < batch * kv_heads; item++) {
        int64_t b = item / kv_heads, g = item % kv_heads;
        memset(dk_sum, 0, (size_t)(2 * time * d) * sizeof(double));
        for (int64_t h = g * share; h < (g + 1) * share; h++) {
            for (int64_t t = 0; t < time; t++) {
                int64_t r = b * time + t;
                const float *q_row = itera_f32(q) + r * q->ld + h * d;
                const float *dy_row = itera_f32(dy) + r * dy->ld + h * d;
                double delta = dot(dy_row, itera_f32(y) + r * y->ld + h * d, d);
                double log_sum = itera_f32(lse)[(b * heads + h) * lse->ld + t];
                memset(dq_sum, 0, (size_t)d * sizeof(double));
                for (int64_t j = 0; j <= t; j++) {
                    const float *k_row = itera_f32(k) + (b * time + j) * k->ld + g * d;
                    const float *v_row = itera_f32(v) + (b * time + j) * v->ld + g * d;
                    double p = exp(scale * dot(q_row, k_row, d) - log_sum);
                    double ds = p * (dot(dy_row, v_row, d) - delta) * scale;
                    for (int64_t c = 0; c < d; c++) {
                        dv_sum[j * d + c] += p * dy_row[c];
                        dk_sum[j * d + c] += ds * q_row[c];
                        dq_sum[c] += ds * k_row[c];
                    }
                }
                for (int64_t c = 0; c < d; c++)
                    itera_f32(dq)[r * dq->ld + h * d + c] = (float)dq_sum[c];
            }
        }
        for (int64_t j = 0; j < time; j++) {
            for (int64_t c = 0; c < d; c++) {
                itera_f32(dk)[(b * time + j) * dk->ld + g * d + c] = (float)dk_sum[j * d + c];
                itera_f32(dv)[(b * time + j) * dv->ld + g * d + c] = (float)dv_sum[j * d + c];
            }
        }
    }
}

const struct itera_kernel itera_attention_bwd_ref = {.run = attention_bwd_ref,
                                                     .scratch = attention_bwd_ref_scratch};
