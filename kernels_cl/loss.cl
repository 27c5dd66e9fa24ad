/* Losses: see host/ops/loss.c for their contracts. Probabilities are never stored. Workgroups have
 * at most MAX_LOCAL invocations. */
#include "args/loss.clh"
#include "math.clh"
#include "reduce.clh"

/* sum = sum of exp((x - max) scale) over what was seen */
struct softmax {
    float max, sum;
};

/* exp((x - max) scale), where max is -INFINITY when nothing but that was seen */
static inline float weight_of(float x, float max, float scale)
{
    return exp((x - (max == -INFINITY ? 0.0f : max)) * scale);
}

/* Takes n more elements, at most 4, `stride` apart: one rescaling for all. */
static inline void add_elements(struct softmax *s, global const float *x, uint n, uint stride,
                                float scale)
{
    float v[4], max = s->max;
    for (uint i = 0; i < 4; i++) {
        v[i] = i < n ? x[i * stride] : -INFINITY;
        max = v[i] > max ? v[i] : max;
    }
    s->sum *= weight_of(s->max, max, scale);
    for (uint i = 0; i < 4; i++)
        s->sum += weight_of(v[i], max, scale);
    s->max = max;
}

/* ln sum exp(x scale) of a row as (max, the rest), by the whole workgroup: what is left of x scale
 * after both are taken off is a logarithm of a probability. */
INLINE float2 log_sum_exp(global const float *x, uint cols, float scale, local float *buffer)
{
    struct softmax s = {-INFINITY, 0.0f};
    for (uint c = LANE; c < cols; c += 4 * LANES)
        add_elements(&s, x + c, (cols - c + LANES - 1) / LANES, LANES, scale);
    float max = group_max(s.max, buffer);
    float sum = group_sum(s.sum * weight_of(s.max, max, scale), buffer);
    return (float2)(max == -INFINITY ? 0.0f : max, log(sum));
}

/* The target of row r; `classes` or more for an ignored row. */
static inline uint target_of(global const int *targets, uint at, uint ld, uint cols, uint r)
{
    return (uint)targets[at + r / cols * ld + r % cols];
}

/* ---- cross_entropy --------------------------------------------------------------------------- */

/* A workgroup takes a row. */
kernel void cross_entropy_rows(global const float *logits, global const int *targets,
                               global float *lse, global float *losses,
                               const struct cross_entropy_rows_args p)
{
    local float buffer[MAX_LOCAL];
    uint row = GROUP, cols = row < p.rows ? p.cols : 0; /* the grid may be larger */
    global const float *x = logits + p.logits_at + row * p.logits_ld;
    float2 parts = log_sum_exp(x, cols, 1.0f, buffer);
    if (row >= p.rows || LANE > 0)
        return;
    uint target = target_of(targets, p.targets_at, p.targets_ld, p.target_cols, row);
    lse[p.lse_at + row] = parts.x + parts.y;
    losses[p.losses_at + row] = target < p.cols ? parts.x - x[target] + parts.y : 0.0f;
}

/* One workgroup takes the mean over the rows that count. */
kernel void cross_entropy_mean(global const float *losses, global const int *targets,
                               global float *loss, const struct cross_entropy_mean_args p)
{
    local float2 buffer[MAX_LOCAL];
    float2 sum = (float2)(0.0f, 0.0f);
    for (uint r = LANE; r < p.rows; r += LANES)
        if (target_of(targets, p.targets_at, p.targets_ld, p.target_cols, r) < p.cols)
            sum += (float2)(losses[p.losses_at + r], 1.0f);
    sum = row_sum2(sum, buffer, LANES);
    if (LANE == 0)
        loss[p.loss_at] = sum.y > 0.0f ? sum.x / sum.y : 0.0f;
}

/* One workgroup divides dloss by the number of rows that count. */
kernel void cross_entropy_bwd_scale(global const float *dloss, global const int *targets,
                                    global float *scale,
                                    const struct cross_entropy_bwd_scale_args p)
{
    local float buffer[MAX_LOCAL];
    float counted = 0.0f;
    for (uint r = LANE; r < p.rows; r += LANES)
        if (target_of(targets, p.targets_at, p.targets_ld, p.target_cols, r) < p.cols)
            counted += 1.0f;
    counted = group_sum(counted, buffer);
    if (LANE == 0)
        scale[p.scale_at] = dloss[p.dloss_at] / fmax(counted, 1.0f);
}

/* A workgroup takes ELEMENTS elements of a row for each invocation. */
kernel void cross_entropy_bwd(global const float *scale, global const float *logits,
                              global const int *targets, global const float *lse,
                              global float *dlogits, const struct cross_entropy_bwd_args p)
{
    uint row = GROUP / p.tiles, first = GROUP % p.tiles * ELEMENTS * LANES + LANE;
    if (row >= p.rows)
        return;
    uint target = target_of(targets, p.targets_at, p.targets_ld, p.target_cols, row);
    float g = scale[p.scale_at], log_sum = lse[p.lse_at + row];
    for (uint i = 0; i < ELEMENTS; i++) {
        uint col = first + i * LANES;
        if (col >= p.cols)
            break;
        float x = logits[p.logits_at + row * p.logits_ld + col] - log_sum;
        float d = col == target ? -one_minus_exp_neg(-x) : exp(x);
        dlogits[p.dlogits_at + row * p.dlogits_ld + col] = target < p.cols ? d * g : 0.0f;
    }
}

/* ---- kl_loss --------------------------------------------------------------------------------- */

/* The logarithms of a token's probabilities: the teacher's p and the student's q. */
struct pair {
    float log_p, log_q;
};

static inline struct pair pair_of(float student, float teacher, float2 of_student,
                                  float2 of_teacher, float scale)
{
    struct pair pair = {(teacher - of_teacher.x) * scale - of_teacher.y,
                        (student - of_student.x) * scale - of_student.y};
    return pair;
}

/* p (ln p - ln q) - p + q, which has the same sum as its first term and none that is negative:
 * errors of the logarithms do not add up. */
static inline float divergence(struct pair pair)
{
    float d = pair.log_p - pair.log_q, p = exp(pair.log_p);
    return fabs(d) < 0.5f ? p * (d - one_minus_exp_neg(d)) : p * d - p + exp(pair.log_q);
}

/* q - p, without cancellation where they are close */
static inline float difference(struct pair pair)
{
    float d = pair.log_p - pair.log_q, p = exp(pair.log_p);
    return fabs(d) < 0.5f ? -p * one_minus_exp_neg(d) : exp(pair.log_q) - p;
}

/* A workgroup takes a row. */
kernel void kl_loss_rows(global const float *student, global const float *teacher,
                         global float *losses, const struct kl_loss_rows_args p)
{
    local float buffer[MAX_LOCAL];
    uint row = GROUP, cols = row < p.rows ? p.cols : 0; /* the grid may be larger */
    global const float *s = student + p.student_at + row * p.student_ld;
    global const float *t = teacher + p.teacher_at + row * p.teacher_ld;
    float2 of_student = log_sum_exp(s, cols, p.scale, buffer);
    float2 of_teacher = log_sum_exp(t, cols, p.scale, buffer);
    float sum = 0.0f;
    for (uint c = LANE; c < cols; c += LANES)
        sum += divergence(pair_of(s[c], t[c], of_student, of_teacher, p.scale));
    sum = group_sum(sum, buffer);
    if (row < p.rows && LANE == 0)
        losses[p.losses_at + row] = sum;
}

/* One workgroup takes the mean over the rows. */
kernel void kl_loss_mean(global const float *losses, global float *loss,
                         const struct kl_loss_mean_args p)
{
    local float buffer[MAX_LOCAL];
    float sum = 0.0f;
    for (uint r = LANE; r < p.rows; r += LANES)
        sum += losses[p.losses_at + r];
    sum = group_sum(sum, buffer);
    if (LANE == 0)
        loss[p.loss_at] = p.rows > 0 ? p.factor * sum / (float)p.rows : 0.0f;
}

/* A workgroup takes a row. dstudent may be student: an element is written by who read it last. */
kernel void kl_loss_bwd(global const float *dloss, global const float *student,
                        global const float *teacher, global float *dstudent,
                        const struct kl_loss_bwd_args p)
{
    local float buffer[MAX_LOCAL];
    uint row = GROUP, cols = row < p.rows ? p.cols : 0; /* the grid may be larger */
    global const float *s = student + p.student_at + row * p.student_ld;
    global const float *t = teacher + p.teacher_at + row * p.teacher_ld;
    global float *ds = dstudent + p.dstudent_at + row * p.dstudent_ld;
    float2 of_student = log_sum_exp(s, cols, p.scale, buffer);
    float2 of_teacher = log_sum_exp(t, cols, p.scale, buffer);
    float g = dloss[p.dloss_at] * p.factor / (float)p.rows;
    for (uint c = LANE; c < cols; c += LANES)
        ds[c] = g * difference(pair_of(s[c], t[c], of_student, of_teacher, p.scale));
}
