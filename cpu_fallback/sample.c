/* Scalar reference of sample and advance. The contracts are in host/ops/sample.c. */
#include "cpu_fallback/sample.h"

#include <math.h>

#include "backend/cpu/kernel.h"
#include "core/rng.h"

/* ---- sample ---------------------------------------------------------------------------------- */

struct itera_sample_rule itera_sample_read(const float *params, int32_t *rng, int64_t vocabulary)
{
    uint64_t seed = (uint32_t)rng[0] | (uint64_t)(uint32_t)rng[1] << 32;
    uint32_t counter = (uint32_t)rng[2];
    rng[2] = (int32_t)(counter + 1);
    struct itera_sample_rule rule = {
        .temperature = params[0] > 0 ? params[0] : 0, /* NaN: greedy */
        .top_k = vocabulary,
        .top_p = params[2] < 1 ? (params[2] > 0 ? params[2] : 0) : 1,
        .gap = params[3] > 0 ? params[3] : 0,
        .u = (itera_rng_at(seed, 0, counter) >> 8) * 0x1p-24,
    };
    if (params[1] >= 1 && params[1] < (float)vocabulary)
        rule.top_k = (int64_t)params[1];
    return rule;
}

double itera_sample_weight(float logit, float max, double temperature)
{
    if (logit == max)
        return 1;
    double w = exp(((double)logit - max) / temperature);
    return w > 0 ? w : 0; /* an infinite temperature and an infinite logit make NaN */
}

typedef bool before_fn(const struct itera_sample_entry *a, const struct itera_sample_entry *b);

static bool larger(const struct itera_sample_entry *a, const struct itera_sample_entry *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static bool later(const struct itera_sample_entry *a, const struct itera_sample_entry *b)
{
    return a->id > b->id;
}

/* A heap whose first entry comes before all others: restores it below i. */
static inline void sift(struct itera_sample_entry *heap, int64_t n, int64_t i, before_fn *before)
{
    struct itera_sample_entry moved = heap[i];
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &moved))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

static inline void make_heap(struct itera_sample_entry *heap, int64_t n, before_fn *before)
{
    for (int64_t i = n / 2 - 1; i >= 0; i--)
        sift(heap, n, i, before);
}

/* Moves the first of n entries to place n - 1. */
static inline void pop(struct itera_sample_entry *heap, int64_t n, before_fn *before)
{
    struct itera_sample_entry first = heap[0];
    heap[0] = heap[n - 1];
    heap[n - 1] = first;
    sift(heap, n - 1, 0, before);
}

int32_t itera_sample_draw(const struct itera_sample_entry *entries, int64_t n, float max,
                          const struct itera_sample_rule *rule)
{
    double total = 0, sum = 0;
    for (int64_t i = 0; i < n; i++)
        total += itera_sample_weight(entries[i].logit, max, rule->temperature);
    int32_t token = entries[0].id;
    for (int64_t i = 0; i < n; i++) {
        double w = itera_sample_weight(entries[i].logit, max, rule->temperature);
        if (w > 0)
            token = entries[i].id; /* the last one possible, should rounding keep sum below */
        sum += w;
        if (rule->u * total < sum)
            break;
    }
    return token;
}

int32_t itera_sample_entries(struct itera_sample_entry *entries, int64_t n,
                             const struct itera_sample_rule *rule)
{
    make_heap(entries, n, larger);
    float max = entries[0].logit;
    int64_t keep = rule->top_k < n ? rule->top_k : n, kept = 0;
    double total = 0, sum = 0;
    if (rule->top_p < 1 && keep == n) {
        for (int64_t i = 0; i < n; i++)
            total += itera_sample_weight(entries[i].logit, max, rule->temperature);
    } else if (rule->top_p < 1) {
        /* The weights of the top_k, which are popped for it and then put back. */
        for (int64_t i = 0; i < keep; i++) {
            total += itera_sample_weight(entries[0].logit, max, rule->temperature);
            pop(entries, n - i, larger);
        }
        make_heap(entries, n, larger);
    }
    while (kept < keep) {
        if (rule->top_p < 1)
            sum += itera_sample_weight(entries[0].logit, max, rule->temperature);
        pop(entries, n - kept, larger);
        kept++;
        if (rule->top_p < 1 && sum >= rule->top_p * total)
            break;
    }
    struct itera_sample_entry *largest = entries + n - kept;
    make_heap(largest, kept, later);
    for (int64_t i = kept; i > 1; i--)
        pop(largest, i, later);
    return itera_sample_draw(largest, kept, max, rule);
}

/* Moves those that are not too far below the largest to the front; returns how many. */
static int64_t keep_near(struct itera_sample_entry *entries, int64_t n, float max, float gap)
{
    float cut = max - gap;
    int64_t kept = 0;
    if (isnan(cut))
        return n;
    for (int64_t i = 0; i < n; i++)
        if (entries[i].logit >= cut)
            entries[kept++] = entries[i];
    return kept;
}

int32_t itera_sample_exact(const float *logits, int64_t n, const struct itera_sample_rule *rule,
                           struct itera_sample_entry *entries)
{
    int64_t present = 0, best = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isnan(logits[i]))
            continue;
        entries[present] = (struct itera_sample_entry){logits[i], (int32_t)i};
        if (logits[i] > entries[best].logit)
            best = present;
        present++;
    }
    if (!present)
        return 0;
    if (rule->temperature == 0)
        return entries[best].id;
    float max = entries[best].logit;
    if (rule->gap > 0)
        present = keep_near(entries, present, max, rule->gap);
    if (rule->top_k >= present && rule->top_p >= 1)
        return itera_sample_draw(entries, present, max, rule);
    return itera_sample_entries(entries, present, rule);
}

static size_t sample_ref_scratch(const struct itera_call *call, int threads)
{
    return (size_t)threads * (size_t)call->in[0].cols * sizeof(struct itera_sample_entry);
}

static void sample_ref(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *logits = &call->in[0], *params = &call->in[1], *rng = &call->in[2];
    int32_t *token = itera_i32(&call->out[0]);
    struct itera_sample_entry *entries =
        (struct itera_sample_entry *)call->scratch + team->rank * logits->cols;
    int64_t begin, end;
    itera_team_range(team, logits->rows, 1, &begin, &end);
    for (int64_t b = begin; b < end; b++) {
        struct itera_sample_rule rule = itera_sample_read(
            itera_f32(params) + b * params->ld, itera_i32(rng) + b * rng->ld, logits->cols);
        token[b] =
            itera_sample_exact(itera_f32(logits) + b * logits->ld, logits->cols, &rule, entries);
    }
}

const struct itera_kernel itera_sample_ref = {.run = sample_ref, .scratch = sample_ref_scratch};

/* ---- advance --------------------------------------------------------------------------------- */

static void advance_ref(const struct itera_call *call, struct itera_team *team)
{
    if (team->rank)
        return;
    int32_t *start = itera_i32(&call->in[0]);
    for (int64_t b = 0; b < call->in[0].cols; b++) {
        int64_t next = (int64_t)start[b] + call->attr->count;
        start[b] = (int32_t)(next > INT32_MAX ? INT32_MAX : next < INT32_MIN ? INT32_MIN : next);
    }
}

const struct itera_kernel itera_advance_ref = {.run = advance_ref};
