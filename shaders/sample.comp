#version 450
#extension GL_GOOGLE_include_directive : require
#include "philox.glsl"
#include "sample.glsl"

#include "advance.glsl"

ARGS(sample_args)
IN_INT(1, logits)
IN(2, params)
INOUT_INT(3, rng)
IN_INT(4, best)
IN_INT(5, powers)
OUT_INT(6, token)
INOUT_INT(7, start)

#define BUCKETS 256
#define TEAM    32 // invocations that sum together

// What a token counts for in a sum
#define MASS_ONE      0
#define MASS_WEIGHT   1
#define MASS_POSSIBLE 2

// What lanes tell each other.
shared uint bucket_low[BUCKETS], bucket_high[BUCKETS]; // the mass in a bucket
shared uvec2 shared_need;                              // mass still wanted in what was chosen
shared uint shared_chosen;
shared bool shared_whole; // all of the chosen is wanted
shared bool shared_found;
shared uvec2 shared_powers[MAX_SEGMENTS]; // of a segment's best below that of the row

// A row of logits of which the tokens up to a cut are kept.
struct Row {
    uint logits_at, powers_at; // powers below the best of their segment
    uint max_key;
    uint cut_key, cut_id; // the last one kept
};

bool is_kept(Row row, uint key, uint id)
{
    return key > row.cut_key || (key == row.cut_key && id <= row.cut_id);
}

// The smallest key that is kept: of a logit not further than the gap below the largest, or of any.
uint least_key(uint max_key, float gap)
{
    if (!(gap > 0.0))
        return 1;
    return max(key_of(floatBitsToInt(uintBitsToFloat(bits_of_key(max_key)) - gap)), 1u);
}

// The product of two powers in units of 2^-44 and, with `possible`, whether it is more than 0 in
// double.
uvec2 weight_of(uvec2 a, uvec2 b, bool possible)
{
    uint halvings = (a.y >> 21) + (b.y >> 21);
    uvec2 product = multiply_high_wide(left_wide(a, 11), left_wide(b, 11)); // in units of 2^-62
    if (possible)
        return uvec2(halvings + (product.y < 1u << 29 ? 1 : 0) < 1075 ? 1 : 0, 0);
    if (halvings > WEIGHT_BITS)
        return uvec2(0);
    uint drop = 62 - WEIGHT_BITS + halvings;
    return right_wide(add_wide(product, left_wide(uvec2(1, 0), drop - 1)), drop);
}

uvec2 mass_of(Row row, uint id, uint mass)
{
    if (mass == MASS_ONE)
        return uvec2(1, 0);
    uvec2 power = uvec2(powers.v[row.powers_at + 2 * id], powers.v[row.powers_at + 2 * id + 1]);
    return weight_of(power, shared_powers[id / SEGMENT], mass == MASS_POSSIBLE);
}

// The whole number of sums total fraction 2^-24, rounded down
uvec2 part_of(uvec2 total, uint fraction)
{
    return add_wide(left_wide(multiply_wide(total.y, fraction), 8),
                    right_wide(multiply_wide(total.x, fraction), 24));
}

// The smallest sum that reaches top_p total, at least 1: 0 <= top_p < 1, as bits.
uvec2 reaching(uvec2 total, uint top_p)
{
    Parts f = parts_of(top_p);
    uint right = uint(126 - f.exponent);
    if (top_p >> 31 != 0 || right > 63)
        return uvec2(1, 0);
    uvec2 all = part_of(total, f.magnitude), need = right_wide(all, right);
    bool more = ((total.x & 0xffffffu) * f.magnitude & 0xffffffu) != 0 ||
                left_wide(need, right) != all;
    need = add_wide(need, uvec2(more ? 1 : 0, 0));
    return need == uvec2(0) ? uvec2(1, 0) : need;
}

// Adds to a bucket; integer sums do not depend on the order.
void add_mass(uint bucket, uvec2 mass)
{
    uint before = atomicAdd(bucket_low[bucket], mass.x);
    if (before + mass.x < before)
        mass.y++;
    if (mass.y != 0)
        atomicAdd(bucket_high[bucket], mass.y);
}

uvec2 bucket_mass(uint bucket)
{
    return uvec2(bucket_low[bucket], bucket_high[bucket]);
}

uvec2 lane_sum(uint lane)
{
    return uvec2(lane_low[lane], lane_high[lane]);
}

void set_lane_sum(uvec2 sum)
{
    lane_low[LANE] = sum.x;
    lane_high[LANE] = sum.y;
}

// Chooses the bucket in which the sum from the first on reaches what is needed: `amount` tokens, or
// the part of the sum that top_p `amount` asks for; after the first time, shared_need.
void choose_bucket(uint mass, uint amount, bool first)
{
    const uint span = BUCKETS / 16;
    if (LANE < 16) {
        uvec2 sum = uvec2(0);
        for (uint i = 0; i < span; i++)
            sum = add_wide(sum, bucket_mass(LANE * span + i));
        set_lane_sum(sum);
    }
    barrier();
    if (LANE == 0) {
        uvec2 need = shared_need, total = uvec2(0);
        for (uint i = 0; i < 16; i++)
            total = add_wide(total, lane_sum(i));
        if (first) {
            need = mass == MASS_ONE ? uvec2(amount, 0) : reaching(total, amount);
            shared_found = !less_wide(total, need);
        }
        uint i = 0;
        for (; i < 15 && less_wide(lane_sum(i), need); i++)
            need = subtract_wide(need, lane_sum(i));
        uint bucket = i * span, last = bucket + span - 1;
        for (; bucket < last && less_wide(bucket_mass(bucket), need); bucket++)
            need = subtract_wide(need, bucket_mass(bucket));
        shared_chosen = bucket;
        shared_need = need;
        shared_whole = bucket_mass(bucket) == need;
    }
    barrier();
}

// Finds the key with which the sum over the kept, from the largest down, reaches what is needed;
// shared_need of it is then wanted from tokens of that key. Eight bits of the keys at a time.
uint find_key(Row row, uint mass, uint amount)
{
    uint top = row.max_key, bits = uint(findMSB(top - row.cut_key) + 1);
    bool first = true;
    do {
        uint right = bits > 8 ? bits - 8 : 0;
        for (uint i = LANE; i < BUCKETS; i += LANES)
            bucket_low[i] = bucket_high[i] = 0;
        barrier();
        for (uint i = LANE; i < p.vocabulary; i += LANES) {
            uint key = key_of(logits.v[row.logits_at + i]), bucket = (top - key) >> right;
            if (key <= top && bucket < BUCKETS && is_kept(row, key, i))
                add_mass(bucket, mass_of(row, i, mass));
        }
        barrier();
        choose_bucket(mass, amount, first);
        top -= shared_chosen << right;
        bits = right;
        first = false;
    } while (bits > 0);
    return top;
}

// Finds the token with which the sum over the kept (with `only`: those of that key), in the order
// of ids, reaches shared_need or, without, exceeds the part `random` 2^-24 of all.
uint find_id(Row row, uint mass, uint only, uint random)
{
    uint begin = 0, end = p.vocabulary, teams = LANES / TEAM, team = LANE / TEAM;
    bool first = true;
    while (first || end - begin > 1) {
        uint share = (end - begin + teams - 1) / teams;
        uint from = begin + team * share, to = min(from + share, end);
        uvec2 sum = uvec2(0);
        for (uint i = from + LANE % TEAM; i < to; i += TEAM) {
            uint key = key_of(logits.v[row.logits_at + i]);
            if (is_kept(row, key, i) && (only == 0 || key == only))
                sum = add_wide(sum, mass_of(row, i, mass));
        }
        set_lane_sum(sum);
        barrier();
        if (LANE % TEAM == 0) {
            for (uint j = 1; j < TEAM; j++)
                sum = add_wide(sum, lane_sum(LANE + j));
            set_lane_sum(sum);
        }
        barrier();
        if (LANE == 0) {
            uvec2 need = shared_need, total = uvec2(0);
            for (uint i = 0; i < teams; i++)
                total = add_wide(total, lane_sum(i * TEAM));
            if (first && only == 0)
                need = add_wide(part_of(total, random), uvec2(1, 0));
            uint i = 0;
            for (; i + 1 < teams && less_wide(lane_sum(i * TEAM), need); i++)
                need = subtract_wide(need, lane_sum(i * TEAM));
            shared_chosen = i;
            shared_need = need;
        }
        barrier();
        begin = min(begin + shared_chosen * share, end - 1);
        end = min(begin + share, end);
        first = false;
    }
    return begin;
}

// A workgroup takes a row.
void main()
{
    uint b = GROUP;
    if (b >= p.batch)
        return;
    uint params_at = p.params_at + b * p.params_ld, rng_at = p.rng_at + b * p.rng_ld;
    uvec2 seed = uvec2(rng.v[rng_at], rng.v[rng_at + 1]);
    uint counter = rng.v[rng_at + 2];
    uint best_at = p.best_at + 2 * b * p.segments;
    uvec2 most = uvec2(0);
    for (uint i = LANE; i < p.segments; i += LANES)
        most = larger_of(most, uvec2(best.v[best_at + 2 * i], best.v[best_at + 2 * i + 1]));
    most = group_best(most);
    uint id = most.y == 0 ? 0 : ~most.x;
    bool drawn = most.y > 0 && !is_greedy(floatBitsToInt(params.v[params_at]));
    if (drawn) {
        Slope slope = slope_of(floatBitsToUint(params.v[params_at]));
        for (uint i = LANE; i < p.segments; i += LANES)
            shared_powers[i] = power_of(best.v[best_at + 2 * i + 1], most.y, slope);
    }
    memoryBarrierBuffer(); // all have read rng
    barrier();
    if (LANE == 0)
        rng.v[rng_at + 2] = int(counter + 1);
    if (drawn) {
        Row row = Row(p.logits_at + b * p.logits_ld, p.powers_at + 2 * b * p.vocabulary, most.y,
                      least_key(most.y, params.v[params_at + 3]), 0xffffffffu);
        // The two cuts, then the draw
        for (uint stage = 0; stage < 3; stage++) {
            float limit = params.v[params_at + stage + 1];
            if ((stage == 0 && !(limit >= 1.0 && limit < float(p.vocabulary))) ||
                (stage == 1 && !(limit < 1.0)))
                continue;
            uint mass = stage == 0 ? MASS_ONE : MASS_WEIGHT, key = 0, random = 0;
            if (stage < 2)
                key = find_key(row, mass, stage == 0 ? uint(limit) : floatBitsToUint(limit));
            else
                random = philox_at(seed, uvec2(0), uvec2(counter, 0)) >> 8;
            if (stage == 2 && random == 0)
                mass = MASS_POSSIBLE;
            id = stage < 2 && shared_whole ? 0xffffffffu : find_id(row, mass, key, random);
            if (stage < 2 && shared_found) {
                row.cut_id = key == row.cut_key ? min(id, row.cut_id) : id;
                row.cut_key = key;
            }
        }
    }
    if (LANE == 0)
        token.v[p.token_at + b] = int(id);
    if (LANE == 0 && p.count != 0)
        start.v[p.start_at + b] = advanced(start.v[p.start_at + b], p.count);
}
