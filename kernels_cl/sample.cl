/* Sampling a token, and moving positions on: see host/ops/sample.c for the contracts.
 *
 * Tokens must be those of the reference, which sums weights in double, so weights are integers
 * here: exp((logit - max) / temperature) in units of 2^-44, worked out without floats. Their sums
 * are exact and the same in any order. A first kernel works them out for the maximum of a segment,
 * since nobody knows the row's yet; a second one multiplies them by that segment's own. Logits are
 * compared as integers too: a larger key is a larger logit. Order among tokens is by key from the
 * largest down, then by id. */
#include "args/sample.clh"
#include "itera.clh"
#include "philox.clh"
#include "wide.clh"

#define BUCKETS 256
#define TEAM    32 /* invocations that sum together */

/* 0 for NaN; -0 and 0 are equal. */
static inline uint key_of(float logit)
{
    uint bits = as_uint(logit);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0;
    if (bits == 0x80000000u)
        bits = 0;
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Bits of the logit with this key */
static inline uint bits_of_key(uint key)
{
    return key & 0x80000000u ? key ^ 0x80000000u : ~key;
}

/* 0, below and NaN */
static inline bool is_greedy(float temperature)
{
    uint bits = as_uint(temperature);
    return bits == 0 || bits > 0x7f800000u;
}

/* ---- the largest logit -------------------------------------------------------------------------
 * A token as its key, then its id in reverse: the first of the largest logits is the maximum. */

static inline ulong token_of(uint key, uint id)
{
    return (ulong)key << 32 | ~id;
}

static inline uint id_of(ulong token)
{
    return ~(uint)token;
}

/* The maximum over the workgroup, in all lanes; `buffer` has a place for each. */
INLINE ulong group_best(ulong best, local ulong *buffer)
{
    buffer[LANE] = best;
    for (uint step = LANES / 2; step > 0; step /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (LANE < step)
            buffer[LANE] = max(buffer[LANE], buffer[LANE + step]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    best = buffer[0];
    barrier(CLK_LOCAL_MEM_FENCE);
    return best;
}

/* The best token of a row from those of its segments. */
INLINE ulong best_of_row(global const uint *best, uint segments, local ulong *buffer)
{
    ulong most = 0;
    for (uint i = LANE; i < segments; i += LANES) {
        uint2 token = vload2(i, best);
        most = max(most, (ulong)token.y << 32 | token.x);
    }
    return group_best(most, buffer);
}

/* ---- weights --------------------------------------------------------------------------------- */

/* magnitude 2^(exponent - 150) */
struct parts {
    uint magnitude;
    int exponent;
};

static inline struct parts parts_of(uint bits)
{
    struct parts f = {bits & 0x7fffffu, (int)(bits >> 23 & 0xffu)};
    if (f.exponent == 0)
        f.exponent = 1;
    else
        f.magnitude |= 0x800000u;
    return f;
}

/* 1 / temperature in powers of two: scale 2^-(64 + 22 + exponent) of log2(e) / temperature */
struct slope {
    ulong scale;
    int exponent;
    bool infinite; /* temperature */
};

static inline struct slope slope_of(uint temperature)
{
    struct parts t = parts_of(temperature);
    while (t.magnitude < 0x800000u) {
        t.magnitude <<= 1;
        t.exponent--;
    }
    const ulong log2_e = 0x5c551d94ae0bf85dul; /* in units of 2^-62 */
    struct slope s = {0, t.exponent - 150, temperature == 0x7f800000u};
    /* log2_e 2^24 / magnitude by long division, eight bits at a time */
    uint rest = 0;
#pragma unroll 1 /* a division is long code on GPUs */
    for (int i = 7; i > -4; i--) {
        rest = rest << 8 | (i < 0 ? 0 : (uint)(log2_e >> 8 * max(i, 0)) & 0xffu);
        s.scale = s.scale << 8 | rest / t.magnitude;
        rest %= t.magnitude;
    }
    return s;
}

/* A power: the fraction (0.5 to 1, in units of 2^-52) and above it how often it is halved, at most
 * 2047, which is 0. */
#define FRACTION_BITS 52
#define POWER_ONE     (1ul << FRACTION_BITS)
#define POWER_ZERO    (2047ul << (FRACTION_BITS + 1))

/* exp((x - max) / temperature), x and max given by their keys. */
static inline ulong power_of(uint key, uint max_key, struct slope slope)
{
    uint x = bits_of_key(key), most = bits_of_key(max_key);
    if (key == 0)
        return POWER_ZERO;
    if (key == max_key)
        return POWER_ONE;
    if (most == 0x7f800000u || x == 0xff800000u)
        return POWER_ZERO;
    if (slope.infinite)
        return POWER_ONE;
    /* max - x: the mantissas aligned to the larger exponent, 38 bits below the point */
    struct parts a = parts_of(most), b = parts_of(x);
    int exponent = max(a.exponent, b.exponent);
    ulong from = (ulong)a.magnitude << 38 >> min(exponent - a.exponent, 63);
    ulong off = (ulong)b.magnitude << 38 >> min(exponent - b.exponent, 63);
    ulong gap = (most >> 31 ? 0 - from : from) - (x >> 31 ? 0 - off : off);
    int zeros = (int)clz(gap);
    /* (max - x) log2(e) / temperature in units of 2^-51 */
    int shift = slope.exponent - (exponent - 188 - zeros) - 29;
    if (shift < 0)
        return POWER_ZERO;
    ulong z = shift < 64 ? mul_hi(gap << zeros, slope.scale) >> shift : 0;
    ulong halvings = min(z >> 51, 2047ul);
    return halvings << (FRACTION_BITS + 1) | power_of_half(z << 13) >> (63 - FRACTION_BITS);
}

/* The product of two powers in units of 2^-44 and, with `possible`, whether it is more than 0 in
 * double. */
static inline ulong weight_of(ulong a, ulong b, bool possible)
{
    uint halvings = (uint)(a >> (FRACTION_BITS + 1)) + (uint)(b >> (FRACTION_BITS + 1));
    /* in units of 2^-62 */
    ulong product = mul_hi(a << (63 - FRACTION_BITS), b << (63 - FRACTION_BITS));
    if (possible)
        return halvings + (product < 1ul << 61 ? 1 : 0) < 1075;
    if (halvings > WEIGHT_BITS)
        return 0;
    uint drop = 62 - WEIGHT_BITS + halvings;
    return (product + (1ul << (drop - 1))) >> drop;
}

/* A workgroup takes a segment of a row: its best token and, for a draw, the powers with which its
 * logits lie below that one's. */
kernel void sample_weigh(global const float *logits, global const float *params, global uint *best,
                         global uint *powers, const struct sample_weigh_args p)
{
    local ulong buffer[SEGMENT_LOCAL];
    bool idle = GROUP >= p.groups; /* the grid may be larger than asked for */
    uint row = idle ? 0 : GROUP / p.segments, begin = idle ? 0 : GROUP % p.segments * SEGMENT;
    uint end = idle ? 0 : min(begin + SEGMENT, p.vocabulary);
    logits += p.logits_at + row * p.logits_ld;
    ulong most = 0;
    for (uint i = begin + LANE; i < end; i += LANES)
        most = max(most, token_of(key_of(logits[i]), i));
    most = group_best(most, buffer);
    if (!idle && LANE == 0)
        vstore2((uint2)((uint)most, (uint)(most >> 32)), GROUP, best + p.best_at);
    float temperature = params[p.params_at + row * p.params_ld];
    if (!idle && !is_greedy(temperature)) {
        struct slope slope = slope_of(as_uint(temperature));
        for (uint i = begin + LANE; i < end; i += LANES) {
            ulong power = power_of(key_of(logits[i]), (uint)(most >> 32), slope);
            vstore2((uint2)((uint)power, (uint)(power >> 32)), row * p.vocabulary + i,
                    powers + p.powers_at);
        }
    }
}

/* The smallest key that is kept: of a logit not further than the gap below the largest, or of any. */
static inline uint least_key(uint max_key, float gap)
{
    if (!(gap > 0.0f))
        return 1;
    return max(key_of(as_float(bits_of_key(max_key)) - gap), 1u);
}

/* ---- the cuts and the draw ------------------------------------------------------------------- */

/* What a token counts for in a sum */
enum mass { MASS_ONE, MASS_WEIGHT, MASS_POSSIBLE };

/* A row of logits of which the tokens up to a cut are kept. */
struct row {
    global const float *logits;
    global const uint *powers; /* below the best of their segment */
    uint size, max_key;
    uint cut_key, cut_id; /* the last one kept */
};

static inline bool is_kept(const struct row *row, uint key, uint id)
{
    return key > row->cut_key || (key == row->cut_key && id <= row->cut_id);
}

/* The whole number of sums total fraction 2^-24, rounded down */
static inline ulong part_of(ulong total, uint fraction)
{
    return ((total >> 32) * fraction << 8) + ((total & 0xffffffffu) * fraction >> 24);
}

/* The smallest sum that reaches top_p total, at least 1: 0 <= top_p < 1, as bits. */
static inline ulong reaching(ulong total, uint top_p)
{
    struct parts f = parts_of(top_p);
    if (top_p >> 31)
        return 1;
    uint shift = (uint)(126 - f.exponent);
    ulong whole = part_of(total, f.magnitude);
    bool more = ((total & 0xffffffu) * f.magnitude & 0xffffffu) != 0;
    if (shift > 63)
        return 1;
    more = more || (whole >> shift << shift) != whole;
    return max((whole >> shift) + (more ? 1 : 0), 1ul);
}

/* What lanes tell each other. */
struct shared {
    ulong powers[MAX_SEGMENTS]; /* of a segment's best below that of the row */
    ulong sums[MAX_LOCAL];
    uint low[BUCKETS], high[BUCKETS]; /* of the mass in a bucket */
    ulong need;                       /* mass still wanted in what was chosen */
    uint chosen;
    bool whole; /* all of the chosen is wanted */
    bool found;
};

INLINE ulong mass_of(const struct row *row, const local struct shared *s, uint id, enum mass mass)
{
    if (mass == MASS_ONE)
        return 1;
    uint2 power = vload2(id, row->powers);
    return weight_of((ulong)power.y << 32 | power.x, s->powers[id / SEGMENT],
                     mass == MASS_POSSIBLE);
}

/* Adds to a bucket; integer sums do not depend on the order. */
INLINE void add_mass(local struct shared *s, uint bucket, ulong mass)
{
    uint low = (uint)mass, high = (uint)(mass >> 32);
    uint before = atomic_add(&s->low[bucket], low);
    if (before + low < before)
        high++;
    if (high)
        atomic_add(&s->high[bucket], high);
}

INLINE ulong bucket_mass(const local struct shared *s, uint bucket)
{
    return (ulong)s->high[bucket] << 32 | s->low[bucket];
}

/* Chooses the bucket in which the sum from the first on reaches what is needed: `amount` tokens, or
 * the part of the sum that top_p `amount` asks for; after the first time, s->need. */
INLINE void choose_bucket(local struct shared *s, enum mass mass, uint amount, bool first)
{
    const uint span = BUCKETS / 16;
    if (LANE < 16) {
        ulong sum = 0;
        for (uint i = 0; i < span; i++)
            sum += bucket_mass(s, LANE * span + i);
        s->sums[LANE] = sum;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (LANE == 0) {
        ulong need = s->need, total = 0;
        for (uint i = 0; i < 16; i++)
            total += s->sums[i];
        if (first) {
            need = mass == MASS_ONE ? amount : reaching(total, amount);
            s->found = need <= total;
        }
        uint i = 0;
        for (; i < 15 && s->sums[i] < need; i++)
            need -= s->sums[i];
        uint bucket = i * span, last = bucket + span - 1;
        for (; bucket < last && bucket_mass(s, bucket) < need; bucket++)
            need -= bucket_mass(s, bucket);
        s->chosen = bucket;
        s->need = need;
        s->whole = bucket_mass(s, bucket) == need;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
}

/* Finds the key with which the sum over the kept, from the largest down, reaches what is needed;
 * s->need of it is then wanted from tokens of that key. Eight bits of the keys at a time. */
INLINE uint find_key(const struct row *row, local struct shared *s, enum mass mass, uint amount)
{
    uint top = row->max_key, bits = 32 - clz(top - row->cut_key);
    bool first = true;
    do {
        uint shift = bits > 8 ? bits - 8 : 0;
        for (uint i = LANE; i < BUCKETS; i += LANES)
            s->low[i] = s->high[i] = 0;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (uint i = LANE; i < row->size; i += LANES) {
            uint key = key_of(row->logits[i]), bucket = (top - key) >> shift;
            if (key <= top && bucket < BUCKETS && is_kept(row, key, i))
                add_mass(s, bucket, mass_of(row, s, i, mass));
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        choose_bucket(s, mass, amount, first);
        top -= s->chosen << shift;
        bits = shift;
        first = false;
    } while (bits > 0);
    return top;
}

/* Finds the token with which the sum over the kept (with `only`: those of that key), in the order
 * of ids, reaches s->need or, without, exceeds the part `random` 2^-24 of all. */
INLINE uint find_id(const struct row *row, local struct shared *s, enum mass mass, uint only,
                    uint random)
{
    uint begin = 0, end = row->size, teams = LANES / TEAM, team = LANE / TEAM;
    bool first = true;
    while (first || end - begin > 1) {
        uint share = (end - begin + teams - 1) / teams;
        uint from = begin + team * share, to = min(from + share, end);
        ulong sum = 0;
        for (uint i = from + LANE % TEAM; i < to; i += TEAM) {
            uint key = key_of(row->logits[i]);
            if (is_kept(row, key, i) && (only == 0 || key == only))
                sum += mass_of(row, s, i, mass);
        }
        s->sums[LANE] = sum;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (LANE % TEAM == 0) {
            for (uint j = 1; j < TEAM; j++)
                sum += s->sums[LANE + j];
            s->sums[LANE] = sum;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (LANE == 0) {
            ulong need = s->need;
            if (first && only == 0) {
                ulong total = 0;
                for (uint i = 0; i < teams; i++)
                    total += s->sums[i * TEAM];
                need = part_of(total, random) + 1;
            }
            uint i = 0;
            for (; i + 1 < teams && s->sums[i * TEAM] < need; i++)
                need -= s->sums[i * TEAM];
            s->chosen = i;
            s->need = need;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        begin = min(begin + s->chosen * share, end - 1);
        end = min(begin + share, end);
        first = false;
    }
    return begin;
}

/* A workgroup takes a row. */
kernel void sample(global const float *logits, global const float *params, global int *rng,
                   global const uint *best, global const uint *powers, global int *token,
                   global int *start, const struct sample_args p)
{
    local struct shared s;
    bool idle = GROUP >= p.batch; /* the grid may be larger than asked for */
    uint b = idle ? 0 : GROUP;
    params += p.params_at + b * p.params_ld;
    rng += p.rng_at + b * p.rng_ld;
    uint2 seed = (uint2)((uint)rng[0], (uint)rng[1]);
    uint counter = (uint)rng[2];
    best += p.best_at + 2 * b * p.segments;
    ulong most = best_of_row(best, p.segments, s.sums);
    uint max_key = (uint)(most >> 32), id = max_key == 0 ? 0 : id_of(most);
    bool drawn = !idle && max_key > 0 && !is_greedy(params[0]);
    if (drawn) {
        struct slope slope = slope_of(as_uint(params[0]));
        for (uint i = LANE; i < p.segments; i += LANES)
            s.powers[i] = power_of(best[2 * i + 1], max_key, slope);
    }
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE); /* all have read rng */
    if (!idle && LANE == 0)
        rng[2] = (int)(counter + 1);
    if (drawn) {
        struct row row = {logits + p.logits_at + b * p.logits_ld,
                          powers + p.powers_at + 2 * b * p.vocabulary,
                          p.vocabulary,
                          max_key,
                          least_key(max_key, params[3]),
                          UINT_MAX};
        /* The two cuts, then the draw */
        for (uint stage = 0; stage < 3; stage++) {
            float limit = params[stage + 1];
            if ((stage == 0 && !(limit >= 1.0f && limit < (float)p.vocabulary)) ||
                (stage == 1 && !(limit < 1.0f)))
                continue;
            enum mass mass = stage == 0 ? MASS_ONE : MASS_WEIGHT;
            uint key = 0, random = 0;
            if (stage < 2)
                key = find_key(&row, &s, mass, stage == 0 ? (uint)limit : as_uint(limit));
            else
                random = philox_at(seed, (uint2)(0, 0), (uint2)(counter, 0)) >> 8;
            if (stage == 2 && random == 0)
                mass = MASS_POSSIBLE;
            id = stage < 2 && s.whole ? UINT_MAX : find_id(&row, &s, mass, key, random);
            if (stage < 2 && s.found) {
                row.cut_id = key == row.cut_key ? min(id, row.cut_id) : id;
                row.cut_key = key;
            }
        }
    }
    if (!idle && LANE == 0)
        token[p.token_at + b] = (int)id;
    if (!idle && LANE == 0 && p.count != 0)
        start[p.start_at + b] = add_sat(start[p.start_at + b], p.count);
}

/* ---- advance --------------------------------------------------------------------------------- */

/* A workgroup takes 128 sequences. */
kernel void advance(global int *start, const struct advance_args p)
{
    if (THREAD < p.batch)
        start[p.start_at + THREAD] = add_sat(start[p.start_at + THREAD], p.count);
}
