/* Fast sample. Contract: host/ops/sample.c. The tokens are the reference's: comparisons of logits
 * are exact at any precision, and where a sum of f32 exponentials comes so close to a boundary that
 * its error could decide, the exact sampler does. */
#include "cpu_fallback/sample.h"

#include <math.h>
#include <string.h>

#include "cpu_fallback/simd/kernel.h"

#define BLOCK 64 /* logits at a time; a multiple of every VF_N */
/* Bound on the relative error of f32 weights in a sum of them: an exponent x is off by 2^-24 |x|
 * twice and its exponential by a few ulp; weighted by themselves, exponents average below about
 * ln(vocabulary) + 2. The bound is several times that. */
#define SUM_ERROR 5e-6

/* ---- the largest logit ----------------------------------------------------------------------- */

/* The largest of n <= BLOCK logits, without NaN; -INFINITY if there is none. */
static inline float block_max(const float *x, int64_t n)
{
    vf lowest = vf_set(-INFINITY), a = lowest, b = lowest;
    int64_t i = 0;
    for (; i + 2 * VF_N <= n; i += 2 * VF_N) {
        a = vf_max(vf_load(x + i), a); /* the second operand where the first is NaN */
        b = vf_max(vf_load(x + i + VF_N), b);
    }
    float max = vf_hmax(vf_max(a, b));
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

static inline int64_t block_size(int64_t n, int64_t i)
{
    return n - i < BLOCK ? n - i : BLOCK;
}

/* The first of the largest; 0 when all are NaN. */
static int32_t argmax(const float *x, int64_t n, float *max)
{
    int64_t best = 0;
    *max = -INFINITY;
    for (int64_t i = 0; i < n; i += BLOCK) {
        float m = block_max(x + i, block_size(n, i));
        if (m > *max) {
            *max = m;
            best = i;
        }
    }
    for (int64_t i = best; i < n; i++)
        if (x[i] == *max)
            return (int32_t)i;
    return 0;
}

/* ---- top_k ----------------------------------------------------------------------------------- */

/* Sinks entry i in a heap with the smallest first (of equals, the highest id). */
static inline void sink(struct itera_sample_entry *heap, int64_t n, int64_t i)
{
    struct itera_sample_entry moved = heap[i];
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n &&
            (heap[child + 1].logit < heap[child].logit ||
             (heap[child + 1].logit == heap[child].logit && heap[child + 1].id > heap[child].id)))
            child++;
        if (moved.logit < heap[child].logit ||
            (moved.logit == heap[child].logit && moved.id > heap[child].id))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

/* The k largest (or all that are not NaN, if fewer) into heap, in any order; returns how many. */
static int64_t select_top(const float *x, int64_t n, int64_t k, struct itera_sample_entry *heap)
{
    int64_t held = 0, i = 0;
    for (; i < n && held < k; i++)
        if (x[i] == x[i])
            heap[held++] = (struct itera_sample_entry){x[i], (int32_t)i};
    for (int64_t j = held / 2 - 1; j >= 0; j--)
        sink(heap, held, j);
    while (i < n) {
        int64_t end = i + block_size(n, i);
        /* A later logit equal to the smallest held does not displace it. */
        if (block_max(x + i, end - i) > heap[0].logit) {
            for (; i < end; i++) {
                if (x[i] > heap[0].logit) {
                    heap[0] = (struct itera_sample_entry){x[i], (int32_t)i};
                    sink(heap, held, 0);
                }
            }
        }
        i = end;
    }
    return held;
}

/* ---- weights in f32 -------------------------------------------------------------------------- */

/* exp((x - max) / temperature), 0 for NaN */
static inline vf weights(vf x, vf max, vf temperature)
{
    vf z = vf_div(vf_sub(x, max), temperature);
    return vf_select(vf_eq(z, z), vf_exp(z), vf_zero());
}

/* Sums of weights: one per block into sums, and all of them. The weights go to w if it is not NULL
 * (room for n rounded up to whole vectors). */
static double sum_weights(const float *x, int64_t n, float max, double temperature, float *w,
                          float *sums)
{
    vf top = vf_set(max), t = vf_set((float)temperature);
    double total = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t size = block_size(n, i), j = 0;
        vf sum = vf_zero();
        for (; j + VF_N <= size; j += VF_N) {
            vf e = weights(vf_load(x + i + j), top, t);
            sum = vf_add(sum, e);
            if (w)
                vf_store(w + i + j, e);
        }
        if (j < size) {
            float tail[VF_N];
            for (int l = 0; l < VF_N; l++)
                tail[l] = j + l < size ? x[i + j + l] : -INFINITY;
            vf e = weights(vf_load(tail), top, t);
            sum = vf_add(sum, e);
            if (w)
                vf_store(w + i + j, e);
        }
        sums[i / BLOCK] = vf_sum(sum);
        total += sums[i / BLOCK];
    }
    return total;
}

/* A draw from all tokens; -1 when it is too close to call. */
static int32_t draw_all(const float *x, int64_t n, float max, const struct itera_sample_rule *rule,
                        float *sums)
{
    double total = sum_weights(x, n, max, rule->temperature, NULL, sums);
    double wanted = rule->u * total, margin = SUM_ERROR * total, sum = 0;
    int64_t block = 0, blocks = (n + BLOCK - 1) / BLOCK;
    while (block < blocks && sum + sums[block] <= wanted)
        sum += sums[block++];
    if (block == blocks || wanted - sum < margin)
        return -1;
    int64_t end = block * BLOCK + block_size(n, block * BLOCK);
    for (int64_t i = block * BLOCK; i < end; i++) {
        double w = x[i] == x[i] ? itera_sample_weight(x[i], max, rule->temperature) : 0;
        if (sum + w > wanted)
            return wanted - sum < margin || sum + w - wanted < margin ? -1 : (int32_t)i;
        sum += w;
    }
    return -1;
}

/* Weights fall into classes by their leading bits, eight to an octave; the largest weight, 1, is in
 * the last. */
#define CLASS_SHIFT 20
#define CLASSES     ((0x3f800000 >> CLASS_SHIFT) + 1)

static inline int weight_class(float w)
{
    uint32_t bits;
    memcpy(&bits, &w, sizeof bits);
    uint32_t class = bits >> CLASS_SHIFT;
    return (int)(class < CLASSES ? class : CLASSES - 1);
}

/* Swaps the largest of the entries from `at` on to `at`. */
static void bring_largest(struct itera_sample_entry *entries, int64_t n, int64_t at)
{
    int64_t best = at;
    for (int64_t i = at + 1; i < n; i++)
        if (entries[i].logit > entries[best].logit ||
            (entries[i].logit == entries[best].logit && entries[i].id < entries[best].id))
            best = i;
    struct itera_sample_entry largest = entries[best];
    entries[best] = entries[at];
    entries[at] = largest;
}

/* A draw under top_p alone; -1 when it is too close to call.
 *
 * Tokens whose weights are all below (1 - top_p) total / n together weigh less than what top_p
 * leaves out, so the ones to keep are among the others. Of these, whole classes are kept from the
 * largest down to the one that the cut goes through, and only that one is put in order. */
static int32_t draw_top_p(const float *x, int64_t n, float max,
                          const struct itera_sample_rule *rule, float *w, float *sums,
                          struct itera_sample_entry *entries)
{
    double total = sum_weights(x, n, max, rule->temperature, w, sums);
    double wanted = rule->top_p * total, margin = SUM_ERROR * total;
    float least = (float)((1 - rule->top_p) * total / (double)n * (1 - 1e-3));
    int lowest = weight_class(least);
    double mass[CLASSES];
    memset(mass + lowest, 0, (size_t)(CLASSES - lowest) * sizeof mass[0]);
    for (int64_t i = 0; i < n; i += BLOCK) {
        if (sums[i / BLOCK] < least)
            continue;
        int64_t end = i + block_size(n, i);
        for (int64_t j = i; j < end; j++)
            if (w[j] >= least)
                mass[weight_class(w[j])] += w[j];
    }
    int cut = CLASSES - 1;
    double sum = 0;
    while (cut > lowest && sum + mass[cut] < wanted)
        sum += mass[cut--];
    if (wanted - sum < margin)
        return -1;
    /* The class of the cut, as far as it is needed. */
    int64_t members = 0, taken = 0;
    for (int64_t i = 0; i < n; i++) {
        if (sums[i / BLOCK] < least)
            i += BLOCK - 1;
        else if (w[i] >= least && weight_class(w[i]) == cut)
            entries[members++] = (struct itera_sample_entry){x[i], (int32_t)i};
    }
    while (sum < wanted) {
        if (taken == members || taken == 256)
            return -1;
        bring_largest(entries, members, taken);
        sum += itera_sample_weight(entries[taken++].logit, max, rule->temperature);
        if (fabs(sum - wanted) < margin)
            return -1;
    }
    struct itera_sample_entry last = entries[taken - 1];
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        if (sums[i / BLOCK] < least)
            i += BLOCK - 1;
        else if (w[i] >= least && (x[i] > last.logit || (x[i] == last.logit && i <= last.id)))
            entries[kept++] = (struct itera_sample_entry){x[i], (int32_t)i};
    }
    return itera_sample_draw(entries, kept, max, rule);
}

/* ---- sample ---------------------------------------------------------------------------------- */

/* What a thread works with, for n logits: n + 1 entries, n weights, a sum per block. */
static int64_t work_bytes(int64_t n)
{
    int64_t whole = (n + BLOCK - 1) / BLOCK * BLOCK;
    return (whole + BLOCK) * (int64_t)sizeof(struct itera_sample_entry) +
           (whole + whole / BLOCK + BLOCK) * (int64_t)sizeof(float);
}

static size_t sample_scratch(const struct itera_call *call, int threads)
{
    return (size_t)threads * (size_t)work_bytes(call->in[0].cols);
}

static int32_t sample_row(const float *x, int64_t n, const struct itera_sample_rule *rule,
                          char *memory)
{
    int64_t whole = (n + BLOCK - 1) / BLOCK * BLOCK;
    struct itera_sample_entry *entries = (struct itera_sample_entry *)memory;
    float *w = (float *)(entries + whole + BLOCK), *sums = w + whole;
    float max;
    int32_t token = -1;
    if (rule->temperature > 0 && rule->gap > 0) /* few are left to be weighed */
        return itera_sample_exact(x, n, rule, entries);
    if (rule->temperature > 0 && rule->top_k < n) {
        if (rule->top_k > n / 16) /* too much would pass through the small heap */
            return itera_sample_exact(x, n, rule, entries);
        int64_t held = select_top(x, n, rule->top_k, entries);
        return held ? itera_sample_entries(entries, held, rule) : 0;
    }
    int32_t best = argmax(x, n, &max);
    if (rule->temperature == 0)
        return best;
    /* f32 sums need finite weights; a temperature at the ends of f32 loses them. */
    if (isfinite(max) && rule->temperature > 1e-30 && rule->temperature < 1e30)
        token = rule->top_p < 1 ? draw_top_p(x, n, max, rule, w, sums, entries)
                                : draw_all(x, n, max, rule, sums);
    return token >= 0 ? token : itera_sample_exact(x, n, rule, entries);
}

static void sample(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *logits = &call->in[0], *params = &call->in[1], *rng = &call->in[2];
    int64_t n = logits->cols, begin, end;
    char *memory = (char *)call->scratch + team->rank * work_bytes(n);
    itera_team_range(team, logits->rows, 1, &begin, &end);
    for (int64_t b = begin; b < end; b++) {
        struct itera_sample_rule rule =
            itera_sample_read(itera_f32(params) + b * params->ld, itera_i32(rng) + b * rng->ld, n);
        itera_i32(&call->out[0])[b] =
            sample_row(itera_f32(logits) + b * logits->ld, n, &rule, memory);
    }
}

const struct itera_kernel ITERA_SIMD(sample) = {.run = sample, .scratch = sample_scratch};
