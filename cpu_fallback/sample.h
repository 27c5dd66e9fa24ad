/* The exact sampler: the reference itself, and what a fast kernel falls back on where its own f32
 * sums could decide otherwise. */
#ifndef ITERA_CPU_SAMPLE_H
#define ITERA_CPU_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

struct itera_sample_entry {
    float logit; /* never NaN */
    int32_t id;
};

/* One row's params and draw, read and brought into range. */
struct itera_sample_rule {
    double temperature; /* 0: greedy */
    int64_t top_k;      /* 1 <= top_k <= vocabulary */
    double top_p;       /* 1: all */
    float gap;          /* 0: all */
    double u;           /* in [0, 1) */
};

/* params and rng are one row of the operands; advances the counter. */
struct itera_sample_rule itera_sample_read(const float *params, int32_t *rng, int64_t vocabulary);

/* exp((logit - max) / temperature) in double; 1 for the maximum even when it is infinite. */
double itera_sample_weight(float logit, float max, double temperature);

/* A token from a whole row. entries: memory for n of them. */
int32_t itera_sample_exact(const float *logits, int64_t n, const struct itera_sample_rule *rule,
                           struct itera_sample_entry *entries);

/* A token from the n >= 1 entries that are all there are, or all of the top_k largest, in any
 * order; reorders them. */
int32_t itera_sample_entries(struct itera_sample_entry *entries, int64_t n,
                             const struct itera_sample_rule *rule);

/* A token from entries that are all kept, in the order of ids. */
int32_t itera_sample_draw(const struct itera_sample_entry *entries, int64_t n, float max,
                          const struct itera_sample_rule *rule);

#endif
