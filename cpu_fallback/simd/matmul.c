/* matmul and grouped_matmul: which part of the product a thread computes, and the loops over
 * blocks. */
#include <string.h>

#include "cpu_fallback/simd/matmul_integer.h"

extern const struct itera_kernel ITERA_SIMD(matmul);
extern const struct itera_kernel ITERA_SIMD(grouped_matmul);

/* A narrow a is expanded to f32 in the scratch memory, behind what the product needs. */

static size_t expanded_bytes(const struct itera_arg *a)
{
    return a->dtype != ITERA_F32 ? ((size_t)(a->rows * a->cols) * sizeof(float) + 63) / 64 * 64 : 0;
}

/* The call as it is once a is expanded to `at`. */
static struct itera_call expanded(const struct itera_call *call, void *at)
{
    struct itera_call wide = *call;
    struct itera_arg *a = &wide.in[0];
    if (a->dtype != ITERA_F32) {
        a->data = at;
        a->ld = a->cols;
        a->dtype = ITERA_F32;
    }
    return wide;
}

/* Runs a kernel for a in f32; a narrow one the team expands first. bytes: of scratch memory that
 * the kernel needs. */
static void run_expanded(const struct itera_call *call, struct itera_team *team,
                         size_t bytes(const struct itera_call *, int),
                         void run(const struct itera_call *, struct itera_team *))
{
    const struct itera_arg *a = &call->in[0];
    if (a->dtype == ITERA_F32) { /* a call is long to copy, beside the product of one row */
        run(call, team);
        return;
    }
    struct itera_call wide = expanded(call, a->data);
    wide = expanded(call, (uint8_t *)call->scratch + bytes(&wide, team->size));
    const struct itera_weights w = itera_weights(a);
    int64_t begin, end;
    itera_team_range(team, a->rows, 1, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        itera_expand(itera_weights_from(w, r * a->ld), a->cols,
                     itera_f32(&wide.in[0]) + r * a->cols);
    itera_team_barrier(team);
    run(&wide, team);
}

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline __attribute__((always_inline)) void finish(float *c, int64_t c_ld, const float *from,
                                                         int64_t from_ld, int64_t rows, int64_t n,
                                                         const uint8_t act, const float *residual,
                                                         int64_t residual_ld)
{
    for (int64_t i = 0; i < rows; i++, c += c_ld, from += from_ld) {
        for (int64_t j = 0; j < n; j += VF_N) {
            int64_t w = least(n - j, VF_N);
            vf x = w == VF_N ? vf_load(from + j) : vf_load_n(from + j, w);
            x = act == ITERA_ACT_SILU       ? vf_silu(x)
                : act == ITERA_ACT_GELU     ? vf_gelu(x)
                : act == ITERA_ACT_SOFTPLUS ? vf_softplus(x)
                                            : x;
            if (residual)
                x = vf_add(x, w == VF_N ? vf_load(residual + j) : vf_load_n(residual + j, w));
            if (w == VF_N)
                vf_store(c + j, x);
            else
                vf_store_n(c + j, x, w);
        }
        if (residual)
            residual += residual_ld;
    }
}

void mm_finish(float *c, int64_t c_ld, const float *from, int64_t from_ld, int64_t rows, int64_t n,
               uint8_t act, const float *residual, int64_t residual_ld)
{
    switch (act) {
    case ITERA_ACT_SILU:
        finish(c, c_ld, from, from_ld, rows, n, ITERA_ACT_SILU, residual, residual_ld);
        break;
    case ITERA_ACT_GELU:
        finish(c, c_ld, from, from_ld, rows, n, ITERA_ACT_GELU, residual, residual_ld);
        break;
    case ITERA_ACT_SOFTPLUS:
        finish(c, c_ld, from, from_ld, rows, n, ITERA_ACT_SOFTPLUS, residual, residual_ld);
        break;
    default:
        break;
    }
}

/* A packed tile of a is k rows of this many floats. */
#define A_LD    ((MM_ROWS + VF_N - 1) / VF_N * VF_N)
#define FAR_ROW 512 /* floats */

/* Whether a block of a is packed, too. Read where it lies a costs nothing extra, but a transposed a
 * with long rows has each step along k in another page. */
static bool packs_a(const struct mm_product *g)
{
    return g->a_col >= FAR_ROW && g->m > MM_ROWS && g->k > MM_ROWS;
}

/* The most of b that is kept packed, in floats: it is to stay in L2. */
#define KEPT_FLOATS (128 * 1024)

/* How a product is cut into blocks, and what of it is packed where. */
struct blocking {
    int64_t depth; /* of a block, at most */
    bool keeps_b; /* all panels of b (of one depth) are kept, so that c is written along its rows, a
                     few at a time; else a panel serves MM_MC rows and is packed again for the next
                   */
    bool packs_a;
    size_t b_floats; /* packed b, then packed a, of one thread */
    size_t floats;
};

/* Holds for g and for any part of it (fewer rows, smaller k). */
static struct blocking choose_blocking(const struct mm_product *g)
{
    struct blocking blocking = {.packs_a = packs_a(g)};
    /* Coming back to c for another block costs more than a panel that is a little large for L1, so
     * blocks are deep; less so where packed a is to stay in L2. Where a result must pass through
     * act and then meet a residual that may lie in c itself, partial sums cannot rest in c: k stays
     * whole. */
    if (g->act != ITERA_ACT_NONE && g->residual)
        blocking.depth = g->k;
    else
        blocking.depth = least(g->k, blocking.packs_a ? MM_KC / 4 : MM_KC);
    const int64_t panels = (g->n + MM_COLS - 1) / MM_COLS;
    blocking.keeps_b = panels * MM_COLS * blocking.depth <= KEPT_FLOATS;
    blocking.b_floats = (size_t)(blocking.keeps_b ? panels : 1) * MM_COLS * (size_t)blocking.depth;
    blocking.floats = blocking.b_floats;
    if (blocking.packs_a)
        blocking.floats +=
            (size_t)((least(g->m, MM_MC) + MM_ROWS - 1) / MM_ROWS * A_LD * blocking.depth);
    return blocking;
}

/* A thread's part of the scratch memory; NULL where there is none. */
static float *own_floats(const struct itera_call *call, const struct itera_team *team,
                         size_t floats)
{
    float *all = call->scratch;
    return all ? all + (size_t)team->rank * floats : NULL;
}

/* Where tile i of `parts` begins: even parts, so that no tile is left with a row or two. */
static inline int64_t tile_row(int64_t begin, int64_t end, int64_t i, int64_t parts)
{
    return begin + (end - begin) * i / parts;
}

/* Packs rows [begin, end) of an a that is stored (k, m), tile after tile, in one walk along its
 * rows. */
static void pack_a(const float *a, int64_t a_ld, int64_t k, int64_t begin, int64_t end, float *out)
{
    const int64_t parts = (end - begin + MM_ROWS - 1) / MM_ROWS;
    int64_t row[(MM_MC + MM_ROWS - 1) / MM_ROWS];
    for (int64_t i = 0; i < parts; i++)
        row[i] = tile_row(begin, end, i, parts);
    for (int64_t j = 0; j < k; j++, a += a_ld, out += A_LD) {
        float *dst = out;
        const int64_t ahead = (j + 4 < k ? 4 : 0) * a_ld;
        for (int64_t i = 0; i < parts; i++, dst += k * A_LD) {
            __builtin_prefetch(a + row[i] + ahead);
            /* Whole vectors, which reach into the next tile's rows, up to the edge. */
            for (int64_t at = 0; at < A_LD; at += VF_N) {
                const int64_t left = end - row[i] - at;
                if (left >= VF_N)
                    vf_store(dst + at, vf_load(a + row[i] + at));
                else if (left > 0)
                    vf_store(dst + at, vf_load_n(a + row[i] + at, left));
            }
        }
    }
}

/* The part [m0, m1) x [n0, n1) of the product; n0 is a multiple of MM_COLS. panel: blocking->floats,
 * aligned; not used when that is 0. */
static void product_tiles(const struct mm_product *g, const struct blocking *blocking, int64_t m0,
                          int64_t m1, int64_t n0, int64_t n1, float *panel)
{
    if (m0 >= m1 || n0 >= n1)
        return;
    const int64_t cuts =
        g->k > blocking->depth ? (g->k + blocking->depth - 1) / blocking->depth : 1;
    /* Whole blocks of weights; blocking->depth is a multiple of 32 wherever k is cut. */
    const int64_t depth = ((g->k + cuts - 1) / cuts + ITERA_BLOCK - 1) / ITERA_BLOCK * ITERA_BLOCK;
    /* Copying rows of b pays when enough tiles reuse them. */
    const bool direct = !g->b_trans && g->b.dtype == ITERA_F32 && m1 - m0 <= 4 * MM_ROWS;
    float *const a_panel = blocking->packs_a ? panel + blocking->b_floats : NULL;
    const bool keep = blocking->keeps_b;
    const int64_t block = keep && !a_panel ? 4 * MM_ROWS : MM_MC;
    struct mm_tile t = {.a_row = a_panel ? 1 : g->a_row, .a_col = a_panel ? A_LD : g->a_col};
    /* A tile on its way through act: c may hold the residual that is to be added after it. */
    _Alignas(64) float raw[MM_ROWS * MM_COLS];
    /* At depth 0 (k == 0) there is still one pass: bias and residual. */
    int64_t k0 = 0;
    do {
        const bool first = k0 == 0, last = k0 + depth >= g->k;
        t.k = least(depth, g->k - k0);
        const bool finish_here = last && g->act != ITERA_ACT_NONE;
        t.c_ld = finish_here ? MM_COLS : g->c_ld;
        for (int64_t mb = m0, me; mb < m1; mb = me) {
            me = least(mb + block, m1);
            const int64_t parts = (me - mb + MM_ROWS - 1) / MM_ROWS;
            if (a_panel)
                pack_a(g->a + k0 * g->a_col, g->a_col, t.k, mb, me, a_panel);
            for (int64_t n = n0; n < n1; n += MM_COLS) {
                t.n = least(n1 - n, MM_COLS);
                const int64_t vecs = (t.n + VF_N - 1) / VF_N;
                if (direct && t.n == vecs * VF_N) {
                    t.b = (const float *)(const void *)g->b.data + k0 * g->b_ld + n;
                    t.b_ld = g->b_ld;
                } else {
                    float *out = panel + (keep ? (n - n0) * t.k : 0);
                    t.b = out;
                    t.b_ld = vecs * VF_N;
                    if (!keep || mb == m0) /* kept panels are packed for the first rows */
                        mm_pack(g, k0, t.k, n, t.n, out, t.b_ld);
                }
                t.bias = first && g->bias ? g->bias + n : NULL;
                int64_t m = mb;
                for (int64_t i = 0; i < parts; i++) {
                    const int64_t end = tile_row(mb, me, i + 1, parts);
                    t.a = a_panel ? a_panel + i * t.k * A_LD : g->a + m * g->a_row + k0 * g->a_col;
                    float *c = g->c + m * g->c_ld + n;
                    t.c = finish_here ? raw : c;
                    if (!first || g->accumulate) {
                        t.add = c;
                        t.add_ld = g->c_ld;
                    } else if (g->residual && g->act == ITERA_ACT_NONE) {
                        t.add = g->residual + m * g->residual_ld + n;
                        t.add_ld = g->residual_ld;
                    } else {
                        t.add = NULL;
                    }
                    mm_tiles[end - m - 1][vecs - 1](&t);
                    if (finish_here)
                        mm_finish(c, g->c_ld, raw, MM_COLS, end - m, t.n, g->act,
                                  g->residual ? g->residual + m * g->residual_ld + n : NULL,
                                  g->residual_ld);
                    m = end;
                }
            }
        }
        k0 += depth;
    } while (k0 < g->k);
}

/* Cuts m x n into one rectangle per thread. More rows per thread spread the packing of b further,
 * more columns reread a less; the grid with the least work for the busiest thread wins. */
static void share(const struct itera_team *team, int64_t m, int64_t n, bool b_trans, int64_t *m0,
                  int64_t *m1, int64_t *n0, int64_t *n1)
{
    *m0 = *n0 = 0;
    *m1 = m;
    *n1 = n;
    if (team->size == 1)
        return;
    int best = 1;
    int64_t best_cost = INT64_MAX;
    for (int down = 1; down <= team->size; down++) {
        if (team->size % down)
            continue;
        int across = team->size / down;
        int64_t rows = (m + down - 1) / down;
        int64_t panels = (n + MM_COLS - 1) / MM_COLS;
        int64_t cost = (rows + (b_trans ? 8 : 2)) * ((panels + across - 1) / across);
        if (cost < best_cost) {
            best_cost = cost;
            best = down;
        }
    }
    int across = team->size / best;
    struct itera_team row = {team->rank / across, best, NULL};
    struct itera_team col = {team->rank % across, across, NULL};
    itera_team_range(&row, m, 8, m0, m1);
    itera_team_range(&col, n, MM_COLS, n0, n1);
}

static void product(const struct itera_call *call, const struct mm_product *g,
                    struct itera_team *team)
{
    int64_t m0 = 0, m1 = g->m, n0 = 0, n1 = g->n;
    if (mm_dot_suits(g)) {
        if (g->n >= g->m)
            itera_team_range(team, g->n, VF_N, &n0, &n1);
        else
            itera_team_range(team, g->m, 16, &m0, &m1);
        if (m0 < m1 && n0 < n1)
            mm_dot(g, m0, m1, n0, n1, own_floats(call, team, (size_t)mm_dot_floats(g)));
        return;
    }
    share(team, g->m, g->n, g->b_trans, &m0, &m1, &n0, &n1);
    const struct blocking blocking = choose_blocking(g);
    product_tiles(g, &blocking, m0, m1, n0, n1, own_floats(call, team, blocking.floats));
}

/* Scratch memory of an integer product: a few rows are rounded by every thread for itself, so that
 * none waits; more rows are shared. */
static size_t integer_bytes(const struct mm_product *g, int threads)
{
    const size_t rounded = mm_rounded_bytes(g->m, g->k);
    const size_t own = (size_t)mm_integer_floats(g) * sizeof(float);
    return g->m <= MI_DOT_ROWS ? (size_t)threads * (rounded + own)
                               : rounded + (size_t)threads * own;
}

/* Rounds g's rows; *own is the rest of a thread's memory. */
static struct mm_rounded round_a(const struct itera_call *call, const struct mm_product *g,
                                 struct itera_team *team, float **own)
{
    const size_t floats = (size_t)mm_integer_floats(g), bytes = mm_rounded_bytes(g->m, g->k);
    const bool few = g->m <= MI_DOT_ROWS;
    uint8_t *mine = call->scratch;
    mine += (size_t)team->rank * (floats * sizeof(float) + (few ? bytes : 0));
    struct mm_rounded a = mm_rounded_at(few ? mine : call->scratch, g->m, g->k);
    *own = (float *)(void *)(mine + bytes);
    int64_t begin = 0, end = g->m;
    if (!few)
        itera_team_range(team, g->m, 1, &begin, &end);
    mm_round(g, begin, end, &a);
    if (!few)
        itera_team_barrier(team);
    return a;
}

static void integer_product(const struct itera_call *call, const struct mm_product *g,
                            struct itera_team *team)
{
    float *own;
    const struct mm_rounded a = round_a(call, g, team, &own);
    int64_t m0 = 0, m1 = g->m, n0 = 0, n1 = g->n;
    if (g->m <= MI_DOT_ROWS)
        itera_team_range(team, g->n, 16, &n0, &n1);
    else
        share(team, g->m, g->n, true, &m0, &m1, &n0, &n1);
    if (m0 < m1 && n0 < n1)
        mm_integer(g, &a, m0, m1, n0, n1, own);
}

static struct mm_product matmul_product(const struct itera_call *call)
{
    const struct itera_arg *a = &call->in[0], *b = &call->in[1], *y = &call->out[0];
    const struct itera_attr *attr = call->attr;
    return (struct mm_product){
        .m = y->rows,
        .n = y->cols,
        .k = attr->trans_a ? a->rows : a->cols,
        .a = itera_f32(a),
        .a_row = attr->trans_a ? 1 : a->ld,
        .a_col = attr->trans_a ? a->ld : 1,
        .b = itera_weights(b),
        .b_ld = b->ld,
        .b_trans = attr->trans_b,
        .c = itera_f32(y),
        .c_ld = y->ld,
        .bias = call->in[2].data,
        .residual = call->in[3].data,
        .residual_ld = call->in[3].ld,
        .act = attr->act,
        .accumulate = attr->accumulate,
    };
}

static size_t matmul_bytes(const struct itera_call *call, int threads)
{
    struct mm_product g = matmul_product(call);
    if (call->attr->integer && mm_integer_suits(&g))
        return integer_bytes(&g, threads);
    size_t floats = mm_dot_suits(&g) ? (size_t)mm_dot_floats(&g) : choose_blocking(&g).floats;
    return ((size_t)threads * floats * sizeof(float) + 63) / 64 * 64;
}

static size_t matmul_scratch(const struct itera_call *call, int threads)
{
    struct itera_call wide = expanded(call, call->in[0].data);
    return matmul_bytes(&wide, threads) + expanded_bytes(&call->in[0]);
}

/* a is f32. */
static void matmul_f32(const struct itera_call *call, struct itera_team *team)
{
    struct mm_product g = matmul_product(call);
    if (call->attr->integer && mm_integer_suits(&g))
        integer_product(call, &g, team);
    else
        product(call, &g, team);
}

static void matmul_run(const struct itera_call *call, struct itera_team *team)
{
    run_expanded(call, team, matmul_bytes, matmul_f32);
}

const struct itera_kernel ITERA_SIMD(matmul) = {matmul_run, matmul_scratch};

/* Experts. */

static struct mm_product grouped_product(const struct itera_call *call)
{
    const struct itera_arg *a = &call->in[0], *b = &call->in[1], *y = &call->out[0];
    const struct itera_attr *attr = call->attr;
    return (struct mm_product){
        .m = attr->trans_a ? a->cols : a->rows,
        .n = y->cols,
        .k = attr->trans_a ? a->rows : a->cols,
        .a = itera_f32(a),
        .a_row = attr->trans_a ? 1 : a->ld,
        .a_col = attr->trans_a ? a->ld : 1,
        .b = itera_weights(b),
        .b_ld = b->ld,
        .b_trans = attr->trans_b,
        .c = itera_f32(y),
        .c_ld = y->ld,
        .act = attr->act,
    };
}

static void zero_rows(const struct itera_arg *y, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        memset(itera_f32(y) + i * y->ld, 0, (size_t)y->cols * sizeof(float));
}

/* What a thread needs for any of the experts, whose rows are known in the run only. */
static size_t grouped_floats(const struct mm_product *g)
{
    const size_t tiles = choose_blocking(g).floats;
    const size_t dots = g->b_trans ? (size_t)mm_dot_floats(g) : 0;
    return tiles > dots ? tiles : dots;
}

static size_t grouped_bytes(const struct itera_call *call, int threads)
{
    struct mm_product g = grouped_product(call);
    if (call->attr->integer && mm_integer_suits(&g))
        return integer_bytes(&g, threads);
    return ((size_t)threads * grouped_floats(&g) * sizeof(float) + 63) / 64 * 64;
}

static size_t grouped_scratch(const struct itera_call *call, int threads)
{
    struct itera_call wide = expanded(call, call->in[0].data);
    return grouped_bytes(&wide, threads) + expanded_bytes(&call->in[0]);
}

/* a is f32. */
static void grouped_f32(const struct itera_call *call, struct itera_team *team)
{
    const struct itera_arg *y = &call->out[0];
    const int32_t *offsets = itera_i32(&call->in[2]);
    const int64_t experts = call->in[2].cols - 1, rows = call->in[0].rows;
    const struct mm_product all = grouped_product(call);
    const struct blocking blocking = choose_blocking(&all);
    const bool integer = call->attr->integer && mm_integer_suits(&all);
    struct mm_rounded rounded = {0};
    float *own = NULL;
    if (integer)
        rounded = round_a(call, &all, team, &own);
    else
        own = own_floats(call, team, grouped_floats(&all));
    const bool gradient = call->attr->trans_a;
    const int64_t b_rows = gradient ? 0 : call->in[1].rows / experts;

    int64_t m0, m1, n0, n1;
    share(team, all.m, all.n, all.b_trans, &m0, &m1, &n0, &n1);
    int64_t begin = 0;
    for (int64_t e = 0; e <= experts; e++) {
        /* offsets[e] is where expert e begins; what lies before the first is nobody's. */
        int64_t end = offsets[e];
        end = end < begin ? begin : end > rows ? rows : end;
        struct mm_product g = all;
        if (e == 0) {
            if (!gradient && team->rank == 0)
                zero_rows(y, 0, end);
        } else if (gradient) {
            g.k = end - begin;
            g.a += begin * g.a_col;
            g.b = itera_weights_from(all.b, begin * g.b_ld);
            g.c += (e - 1) * g.m * g.c_ld;
            product_tiles(&g, &blocking, m0, m1, n0, n1, own);
        } else {
            g.m = end - begin;
            g.a += begin * g.a_row;
            g.b = itera_weights_from(all.b, (e - 1) * b_rows * g.b_ld);
            g.c += begin * g.c_ld;
            int64_t lo = m0 > begin ? m0 - begin : 0, hi = m1 < end ? m1 - begin : g.m;
            if (lo >= hi || n0 >= n1) {
                /* None of this thread's. */
            } else if (integer) {
                const struct mm_rounded a = mm_rounded_from(rounded, begin, g.k);
                mm_integer(&g, &a, lo, hi, n0, n1, own);
            } else if (mm_dot_suits(&g)) {
                mm_dot(&g, lo, hi, n0, n1, own);
            } else {
                product_tiles(&g, &blocking, lo, hi, n0, n1, own);
            }
        }
        begin = end;
    }
    if (!gradient && team->rank == 0)
        zero_rows(y, begin, rows);
}

static void grouped_run(const struct itera_call *call, struct itera_team *team)
{
    run_expanded(call, team, grouped_bytes, grouped_f32);
}

const struct itera_kernel ITERA_SIMD(grouped_matmul) = {grouped_run, grouped_scratch};
