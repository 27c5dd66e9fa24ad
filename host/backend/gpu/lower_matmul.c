/* Lowering of the matrix products (contracts: host/ops/matmul.c). */
#include "backend/gpu/lower_matmul.h"

#include "args/matmul.clh"
#include "backend/gpu/choice.h"
#include "backend/gpu/matrix_tile.h"

enum candidate {
    TILE32,
    TILE64,
    TILE128,
    SPLIT32, /* k in parts, added up by a second pass */
    SPLIT64,
    COOP64, /* f16 on matrix units */
    COOP128,
    COOPSPLIT,
    GEMV,    /* 32 invocations a column */
    GEMV128, /* a workgroup a column: for few, long ones */
    BLOCKS,  /* the same for weights in blocks */
    INTGEMV, /* with a rounded to int8: few rows, and tiles */
    INT32,
    INT64,
    INTSPLIT,
    CLBLAST,
    CANDIDATES
};

static const struct {
    const char *name;
    uint8_t tile;
    bool split, coop, integer;
} ways[CANDIDATES] = {
    [TILE32] = {"tile32", 32},
    [TILE64] = {"tile64", 64},
    [TILE128] = {"tile128", 128},
    [SPLIT32] = {"split32", 32, .split = true},
    [SPLIT64] = {"split64", 64, .split = true},
    [COOP64] = {"coop64", 64, .coop = true},
    [COOP128] = {"coop128", 128, .coop = true},
    [COOPSPLIT] = {"coopsplit", 64, .split = true, .coop = true},
    [GEMV] = {"gemv"},
    [GEMV128] = {"gemv128"},
    [BLOCKS] = {"blocks"},
    [INTGEMV] = {"intgemv", .integer = true},
    [INT32] = {"int32", 32, .integer = true},
    [INT64] = {"int64", 64, .integer = true},
    [INTSPLIT] = {"intsplit", 64, .split = true, .integer = true},
    [CLBLAST] = {"clblast"},
};

enum {
    GEMV_LANES = ITERA_GPU_LOCAL,
    GEMV_FEW = 8,   /* rows up to which it is the default */
    GEMV_MOST = 32, /* rows up to which it is tried */
    UNIT_GROUPS =
        4, /* of 128 lanes, on a unit: 16 warps of 32, or 4 waves of 64 on each SIMD of RDNA */
    MIN_SLICE = 32,
    MAX_SLICES = 64,
};

int64_t itera_wanted_groups(const struct itera_gpu_traits *traits)
{
    if (traits->vendor == ITERA_GPU_SOFTWARE) /* a core runs one at a time */
        return 2 * (traits->compute_units ? traits->compute_units : 4);
    return UNIT_GROUPS * (int64_t)traits->compute_units;
}

/* Invocations and shared memory of a tiled kernel that does not run on matrix units. */
static uint32_t tile_lanes(enum candidate way)
{
    if (ways[way].integer)
        return itera_integer_lanes(ways[way].tile);
    return ways[way].tile == 32 ? 64 : ways[way].tile == 64 ? 128 : 256;
}

static uint32_t tile_shared(enum candidate way)
{
    const uint32_t tile = ways[way].tile;
    if (ways[way].integer)
        return itera_integer_shared(tile);
    return 2 * TILE_DEPTH * (tile / 4 + 1) * 16;
}

static int64_t tiles(int64_t rows, int64_t cols, int64_t tile)
{
    return itera_gpu_div_up(rows, tile) * itera_gpu_div_up(cols, tile);
}

/* Into how many parts to cut `depth` so that `groups` workgroups become enough. */
static int64_t slices_for(const struct itera_gpu_lowering *l, int64_t groups, int64_t depth)
{
    int64_t slices = itera_gpu_div_up(itera_wanted_groups(l->traits), groups);
    int64_t most = depth / MIN_SLICE < MAX_SLICES ? depth / MIN_SLICE : MAX_SLICES;
    return slices > most ? most : slices < 1 ? 1 : slices;
}

/* The same for a way that is there to cut. */
static int64_t split_for(const struct itera_gpu_lowering *l, int64_t groups, int64_t depth)
{
    int64_t slices = slices_for(l, groups, depth);
    return slices < 2 ? 2 : slices;
}

/* The candidates that can serve, by their names; returns their number. */
struct choice {
    enum candidate id[CANDIDATES];
    const char *name[CANDIDATES];
    int n;
};

static void offer(struct choice *c, enum candidate id)
{
    c->id[c->n] = id;
    c->name[c->n++] = ways[id].name;
}

static int place_of(const struct choice *c, enum candidate id)
{
    int i = 0;
    while (i < c->n && c->id[i] != id)
        i++;
    return i;
}

static bool offered(const struct choice *c, enum candidate id)
{
    return place_of(c, id) < c->n;
}

static bool has_way(struct itera_gpu_lowering *l, enum candidate way, const char *coop_kernel)
{
    const struct itera_gpu_traits *traits = l->traits;
    struct itera_gpu_device *device = (struct itera_gpu_device *)l->device;
    if (ways[way].coop)
        return itera_matrix_tile(traits, ways[way].tile).lanes &&
               device->has_kernel(device, coop_kernel);
    const uint32_t most = ways[way].integer ? traits->most_tile / 2 : traits->most_tile;
    return traits->max_local >= tile_lanes(way) && traits->shared_bytes >= tile_shared(way) &&
           (!most || ways[way].tile <= most);
}

/* The tiled ways that serve; coop_kernel is the one for matrix units, which serve where the operands are
 * f16 or may be rounded to it (half), and depth what may be cut. */
static void offer_tiles(struct itera_gpu_lowering *l, struct choice *c, const char *coop_kernel,
                        int32_t a, int32_t b, bool half, int64_t depth)
{
    const bool both =
        itera_gpu_tensor(l, a)->dtype == ITERA_F16 && itera_gpu_tensor(l, b)->dtype == ITERA_F16;
    for (enum candidate way = TILE32; way <= COOPSPLIT; way++)
        if ((!ways[way].split || depth >= 2 * MIN_SLICE) && (!ways[way].coop || half || both) &&
            has_way(l, way, coop_kernel))
            offer(c, way);
}

static const enum candidate on_matrix_units[] = {[TILE32] = COOP64,
                                                 [TILE64] = COOP64,
                                                 [TILE128] = COOP128,
                                                 [SPLIT32] = COOPSPLIT,
                                                 [SPLIT64] = COOPSPLIT};

/* How many groups of 128 lanes a product by tiles comes to, on matrix units where these serve. */
static int64_t tile_groups(const struct itera_gpu_lowering *l, const struct choice *c,
                           enum candidate way, int64_t rows, int64_t cols)
{
    const uint32_t lanes = offered(c, on_matrix_units[way])
                               ? itera_matrix_tile(l->traits, ways[way].tile).lanes
                               : tile_lanes(way);
    return tiles(rows, cols, ways[way].tile) * lanes / ITERA_GPU_LOCAL;
}

/* The largest tile that still fills the device, or half of it on matrix units, where a subgroup has
 * more to do; below that, k is cut where it is long enough to pay for a second pass. A tile of 64 may
 * fill half of the device, since it needs fewer of shared memory's cycles than one of 32. */
static enum candidate default_tile(const struct itera_gpu_lowering *l, const struct choice *c,
                                   int64_t rows, int64_t cols, int64_t batches, int64_t depth)
{
    const int64_t wanted = itera_wanted_groups(l->traits) / (offered(c, COOP64) ? 2 : 1);
    const bool small = rows <= 32 || cols <= 32;
    const int64_t medium = small ? 0 : tile_groups(l, c, TILE64, rows, cols) * batches;
    enum candidate way = TILE32;
    if (rows >= 128 && cols >= 128 && offered(c, TILE128) &&
        tile_groups(l, c, TILE128, rows, cols) * batches >= wanted)
        way = TILE128;
    else if (medium >= wanted)
        way = TILE64;
    else if (depth >= 512 && (!small || tile_groups(l, c, TILE32, rows, cols) * batches < wanted))
        way = small ? SPLIT32 : SPLIT64;
    else if (medium >= wanted / 2)
        way = TILE64;
    /* Software devices have no matrix units: they compute what these would. */
    if (l->traits->vendor == ITERA_GPU_SOFTWARE)
        return offered(c, way) ? way : TILE64;
    if (way == TILE128 && offered(c, COOP64)) /* too few registers for larger ones */
        return COOP64;
    if (offered(c, on_matrix_units[way]))
        return on_matrix_units[way];
    return offered(c, way) ? way : TILE64;
}

/* The better way to compute `cols` columns of `depth` in all, each from its own row of memory. */
static enum candidate default_gemv(const struct itera_gpu_traits *traits, int64_t cols,
                                   int64_t depth)
{
    return depth >= 512 && cols * 32 / GEMV_LANES < itera_wanted_groups(traits) / 2 ? GEMV128
                                                                                    : GEMV;
}

/* Whether a gemv kernel computes the transpose, as it streams its second operand: when y has fewer
 * columns than rows, that is a. Blocks can be its second only. */
static bool swaps(const struct itera_gpu_lowering *l, const struct itera_product *g)
{
    return g->cols < g->rows && !itera_dtype_is_blocks(itera_gpu_tensor(l, g->b)->dtype);
}

/* The ways for weights in blocks: of few rows, and with integers where these will do. */
static void offer_blocks(struct itera_gpu_lowering *l, struct choice *c, bool few, bool integer,
                         int64_t depth)
{
    if (few)
        offer(c, BLOCKS);
    if (few && integer)
        offer(c, INTGEMV);
    for (enum candidate way = INT32; integer && way <= INTSPLIT; way++)
        if ((!ways[way].split || depth >= 4 * MIN_SLICE) && has_way(l, way, NULL))
            offer(c, way);
}

/* Integers are the default of few rows, which then read a quarter of a's bytes, and of tiles where
 * they take one instruction for four products. `tile` is the default of tiles otherwise. */
static enum candidate default_blocks(const struct itera_gpu_lowering *l, const struct choice *c,
                                     bool few, bool integer, enum candidate tile)
{
    static const enum candidate of_integers[] = {[TILE32] = INT32,
                                                 [TILE64] = INT64,
                                                 [TILE128] = INT64, /* sums of 128 spill */
                                                 [SPLIT32] = INTSPLIT,
                                                 [SPLIT64] = INTSPLIT};
    if (few)
        return integer ? INTGEMV : BLOCKS;
    if (!integer || !l->traits->dot_fast || tile > SPLIT64)
        return tile;
    return offered(c, of_integers[tile]) ? of_integers[tile] : tile;
}

static enum candidate choose_product(struct itera_gpu_lowering *l, const struct itera_product *g)
{
    const bool swapped = swaps(l, g);
    const int64_t few = swapped ? g->cols : g->rows;
    const bool contiguous_k = swapped ? !g->trans_a : g->trans_b; /* of the other */
    struct choice c = {.n = 0};
    offer_tiles(l, &c, "matmul_coopmat", g->a, g->b, g->half, g->depth);
    if (few <= GEMV_MOST)
        offer(&c, GEMV);
    if (few <= GEMV_MOST && contiguous_k)
        offer(&c, GEMV128);
    const struct itera_tensor *t = l->program->tensors;
    const bool blocks = itera_dtype_is_blocks(t[g->b].dtype) && !g->trans_a;
    if (blocks)
        offer_blocks(l, &c, few <= GEMV_MOST, g->integer, g->depth);
    const bool empty = !g->rows || !g->cols || !g->depth; /* an error to the library */
    if (l->traits->clblast && !empty && t[g->a].dtype == ITERA_F32 && t[g->b].dtype == ITERA_F32)
        offer(&c, CLBLAST);
    enum candidate usual = default_tile(l, &c, g->rows, g->cols, 1, g->depth);
    if (blocks)
        usual = default_blocks(l, &c, few <= GEMV_FEW, g->integer, usual);
    else if (few <= GEMV_FEW)
        usual = contiguous_k ? default_gemv(l->traits, g->rows + g->cols - few, g->depth) : GEMV;
    int i =
        itera_gpu_choice(l, c.name, c.n, place_of(&c, usual), "%lldx%lldx%lld %c%c %d%d%s%s",
                         itera_gpu_class(g->rows), itera_gpu_class(g->cols),
                         itera_gpu_class(g->depth), g->trans_a ? 't' : 'n', g->trans_b ? 't' : 'n',
                         t[g->a].dtype, t[g->b].dtype, g->integer ? " i" : "", g->half ? " h" : "");
    return c.id[i];
}

static void storage_constants(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d, int32_t a,
                              int32_t b)
{
    ITERA_GPU_CONSTANT(d, A_TYPE, itera_gpu_tensor(l, a)->dtype);
    ITERA_GPU_CONSTANT(d, B_TYPE, itera_gpu_tensor(l, b)->dtype);
}

/* a_along: op(a) is contiguous along its rows' index, else along k; b_along likewise. */
static void tile_constants(struct itera_gpu_lowering *l, struct itera_gpu_dispatch *d,
                           enum candidate way, bool a_along, bool b_along)
{
    uint32_t lanes = ways[way].coop ? 0 : tile_lanes(way);
    ITERA_GPU_CONSTANT(d, TILE, ways[way].tile);
    if (ways[way].coop) {
        l->half = d->constant[0].value != ITERA_F16 || d->constant[1].value != ITERA_F16;
        const struct itera_matrix_tile t = itera_matrix_tile(l->traits, ways[way].tile);
        lanes = t.lanes;
        ITERA_GPU_CONSTANT(d, A_ALONG, a_along);
        ITERA_GPU_CONSTANT(d, B_ALONG, b_along);
        ITERA_GPU_CONSTANT(d, INVOCATIONS, lanes);
        ITERA_GPU_CONSTANT(d, DOWN, t.down);
        ITERA_GPU_CONSTANT(d, ACROSS, t.across);
        ITERA_GPU_CONSTANT(d, M, l->traits->matrix.m);
        ITERA_GPU_CONSTANT(d, N, l->traits->matrix.n);
        ITERA_GPU_CONSTANT(d, K, l->traits->matrix.k);
    }
    itera_gpu_local(d, lanes, 1, 1);
}

void itera_reduce_product(struct itera_gpu_lowering *l, const struct itera_product *g,
                          struct itera_gpu_scratch part, int64_t slices)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "matmul_reduce");
    itera_gpu_use(d, part, ITERA_GPU_READ);
    itera_gpu_in(l, d, g->bias);
    itera_gpu_in(l, d, g->residual);
    itera_gpu_out(l, d, g->y);
    ITERA_GPU_ARGS(d, reduce_args, .rows = g->rows, .cols = g->cols, .has_bias = g->bias >= 0,
                   .has_residual = g->residual >= 0, .act = g->act, .slices = slices);
    itera_gpu_groups(l, d, itera_gpu_div_up(g->rows * g->cols, ITERA_GPU_LOCAL), 1, 1);
}

struct itera_cut itera_cut_depth(struct itera_gpu_lowering *l, const struct itera_product *g,
                                 int64_t slices, int64_t step)
{
    struct itera_cut c = {.slices = 1, .slice_depth = g->depth};
    if (slices > 1) {
        c.slice_depth = itera_gpu_div_up(itera_gpu_div_up(g->depth, slices), step) * step;
        c.slices = itera_gpu_div_up(g->depth, c.slice_depth);
    }
    if (c.slices > 1)
        c.part = itera_gpu_scratch(l, c.slices * g->rows * g->cols);
    return c;
}

static struct itera_gpu_dispatch *begin_product(struct itera_gpu_lowering *l, const char *kernel,
                                                const struct itera_product *g,
                                                const struct itera_cut *c)
{
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, kernel);
    const bool cut = c->slices > 1; /* then matmul_reduce does the rest */
    const int32_t bias = cut ? ITERA_NONE : g->bias, residual = cut ? ITERA_NONE : g->residual;
    itera_gpu_in(l, d, g->a);
    itera_gpu_in(l, d, g->b);
    itera_gpu_in(l, d, bias);
    itera_gpu_in(l, d, residual);
    if (cut)
        itera_gpu_use(d, c->part, ITERA_GPU_WRITE);
    else
        itera_gpu_out(l, d, g->y);
    storage_constants(l, d, g->a, g->b);
    return d;
}

/* MATMUL_WORDS of a product that is cut. */
#define PRODUCT_WORDS(l, g, c)                                                                     \
    .rows = (g)->rows, .cols = (g)->cols, .depth = (g)->depth, .trans_a = (g)->trans_a,            \
    .trans_b = (g)->trans_b, ITERA_FINISH_WORDS(g, c), .scales = itera_gpu_scales(l, (g)->b)

static void lower_tile(struct itera_gpu_lowering *l, const struct itera_product *g,
                       enum candidate way)
{
    const int64_t groups = tiles(g->rows, g->cols, ways[way].tile);
    const struct itera_cut c =
        itera_cut_depth(l, g, ways[way].split ? split_for(l, groups, g->depth) : 1, TILE_DEPTH);
    struct itera_gpu_dispatch *d =
        begin_product(l, ways[way].coop ? "matmul_coopmat" : "matmul_tile", g, &c);
    ITERA_GPU_ARGS(d, matmul_args, PRODUCT_WORDS(l, g, &c));
    tile_constants(l, d, way, g->trans_a, !g->trans_b);
    itera_gpu_groups(l, d, groups * c.slices, 1, 1);
    if (c.slices > 1)
        itera_reduce_product(l, g, c.part, c.slices);
}

/* How the invocations of a workgroup of the gemv kernels share columns: those that are contiguous
 * along k take many invocations each, the others lie side by side. */
struct gemv_shape {
    int64_t k_lanes, cols, group_cols;
};

static struct gemv_shape gemv_shape(const struct itera_gpu_lowering *l, enum candidate way,
                                    int64_t rows, int64_t cols, bool contiguous_k)
{
    struct gemv_shape s = {.k_lanes = contiguous_k ? 32 : 4, .cols = 1};
    if (way == GEMV128)
        s.k_lanes = GEMV_LANES;
    const int64_t wanted = itera_wanted_groups(l->traits), most = MAX_OUTPUTS / rows;
    while (s.cols < 4 && s.cols < most && cols * s.k_lanes / (GEMV_LANES * 2 * s.cols) >= wanted)
        s.cols *= 2;
    s.group_cols = GEMV_LANES / s.k_lanes * s.cols;
    return s;
}

static void gemv_constants(struct itera_gpu_dispatch *d, const struct gemv_shape *s, int64_t rows)
{
    ITERA_GPU_CONSTANT(d, K_LANES, s->k_lanes);
    ITERA_GPU_CONSTANT(d, COLS, s->cols);
    ITERA_GPU_CONSTANT(d, ROWS, rows);
}

static void lower_gemv(struct itera_gpu_lowering *l, const struct itera_product *g,
                       enum candidate way)
{
    struct itera_product f = *g;
    const bool swapped = swaps(l, g);
    if (swapped) {
        f.a = g->b;
        f.b = g->a;
        f.trans_a = !g->trans_b;
        f.trans_b = !g->trans_a;
    }
    const int64_t few = swapped ? g->cols : g->rows, many = swapped ? g->rows : g->cols;
    const int64_t rows = few < 8 ? itera_gpu_class(few) : 8;
    const struct gemv_shape s = gemv_shape(l, way, rows, many, f.trans_b);
    const int64_t groups = itera_gpu_div_up(many, s.group_cols) * itera_gpu_div_up(few, rows);
    /* Workgroups whose columns are contiguous along k are many and short already. */
    const struct itera_cut c =
        itera_cut_depth(l, g, f.trans_b ? 1 : slices_for(l, groups, g->depth / 4), TILE_DEPTH);
    struct itera_gpu_dispatch *d = begin_product(l, "matmul_gemv", &f, &c);
    ITERA_GPU_ARGS(d, gemv_args, PRODUCT_WORDS(l, &f, &c), .swapped = swapped);
    gemv_constants(d, &s, rows);
    itera_gpu_groups(l, d, groups * c.slices, 1, 1);
    if (c.slices > 1)
        itera_reduce_product(l, g, c.part, c.slices);
}

/* The library makes the bare product, without what is done to it. */
static void lower_clblast(struct itera_gpu_lowering *l, const struct itera_product *g)
{
    const bool bare = g->bias < 0 && g->act == ITERA_ACT_NONE;
    const bool accumulate = bare && g->residual == g->y;
    const bool more = !bare || (g->residual >= 0 && !accumulate);
    struct itera_gpu_scratch product = {0};
    if (more)
        product = itera_gpu_scratch(l, g->rows * g->cols);
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, "clblast_gemm");
    itera_gpu_in(l, d, g->a);
    itera_gpu_in(l, d, g->b);
    if (more)
        itera_gpu_use(d, product, ITERA_GPU_WRITE);
    else if (accumulate)
        itera_gpu_inout(l, d, g->y);
    else
        itera_gpu_out(l, d, g->y);
    ITERA_GPU_ARGS(d, clblast_gemm_args, .m = g->rows, .n = g->cols, .k = g->depth,
                   .trans_a = g->trans_a, .trans_b = g->trans_b, .accumulate = accumulate);
    itera_gpu_groups(l, d, 1, 1, 1);
    if (more)
        itera_reduce_product(l, g, product, 1);
}

struct itera_product itera_product_of(const struct itera_gpu_lowering *l, const struct itera_op *op)
{
    return (struct itera_product){
        .rows = itera_gpu_rows(l, op->out[0]),
        .cols = itera_gpu_cols(l, op->out[0]),
        .depth = op->attr.trans_a ? itera_gpu_rows(l, op->in[0]) : itera_gpu_cols(l, op->in[0]),
        .a = op->in[0],
        .b = op->in[1],
        .bias = op->in[2],
        /* To accumulate is to have y itself as the residual. */
        .residual = op->attr.accumulate ? op->out[0] : op->in[3],
        .y = op->out[0],
        .trans_a = op->attr.trans_a,
        .trans_b = op->attr.trans_b,
        .integer = op->attr.integer,
        .half = op->attr.half,
        .act = op->attr.act,
    };
}

enum itera_status itera_lower_matmul(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const struct itera_product g = itera_product_of(l, op);
    const enum candidate way = choose_product(l, &g);
    const int64_t parts =
        ways[way].split ? split_for(l, tiles(g.rows, g.cols, ways[way].tile), g.depth) : 1;
    if (way == CLBLAST)
        lower_clblast(l, &g);
    else if (way == BLOCKS || way == INTGEMV)
        itera_lower_blocks(l, &g, ways[way].integer);
    else if (ways[way].integer)
        itera_lower_integer(l, &g, ways[way].tile, parts);
    else if (ways[way].tile)
        lower_tile(l, &g, way);
    else
        lower_gemv(l, &g, way);
    return ITERA_OK;
}

/* As part of a chain: in one of the ways of few rows. */
static enum itera_status lower_fused_way(struct itera_gpu_lowering *l, struct itera_fused *f,
                                         enum candidate way)
{
    const bool chunks = way == BLOCKS || way == INTGEMV, integer = ways[way].integer;
    const bool single = f->experts != EXPERTS_NONE;
    const int64_t rows = single ? 1 : itera_gpu_class(f->g.rows);
    const int64_t cols = single ? f->g.cols * f->g.rows : f->g.cols;
    struct itera_lanes lanes = {0};
    if (chunks) {
        lanes = itera_block_lanes(l, f->g.b, rows, cols, f->g.depth, integer);
    } else if (way == GEMV || way == GEMV128) {
        const struct gemv_shape s = gemv_shape(l, way, rows, cols, true);
        lanes = (struct itera_lanes){s.k_lanes, s.cols, rows};
    }
    if (!lanes.k_lanes || !itera_can_fuse(l, f, chunks, integer, lanes))
        return itera_refuse(&l->why, "%s: no part of a chain as %s", itera_gpu_op_name(l),
                            ways[way].name);
    itera_lower_fused(l, f, chunks, integer, lanes);
    return ITERA_OK;
}

enum itera_status itera_lower_fused_product(struct itera_gpu_lowering *l, struct itera_fused *f)
{
    const enum candidate way = choose_product(l, &f->g);
    if (swaps(l, &f->g) && (way == GEMV || way == GEMV128))
        return itera_refuse(&l->why, "matmul: no part of a chain when transposed");
    return lower_fused_way(l, f, way);
}

static enum candidate choose_experts(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const int32_t a = op->in[0], b = op->in[1], y = op->out[0];
    const int64_t rows = itera_gpu_rows(l, a), cols = itera_gpu_cols(l, y);
    const int64_t depth = itera_gpu_cols(l, a), experts = op->attr.experts;
    struct choice c = {.n = 0};
    offer_tiles(l, &c, "grouped_matmul_coopmat", a, b, op->attr.half, 0);
    if (rows <= GEMV_MOST)
        offer(&c, GEMV);
    if (rows <= GEMV_MOST && op->attr.trans_b)
        offer(&c, GEMV128);
    const bool blocks = itera_dtype_is_blocks(itera_gpu_tensor(l, b)->dtype);
    if (blocks)
        offer_blocks(l, &c, rows <= GEMV_MOST, op->attr.integer, 0);
    enum candidate usual = default_tile(l, &c, rows / experts, cols, experts, 0);
    const bool few = rows <= GEMV_FEW || (rows <= GEMV_MOST && rows <= experts);
    if (blocks)
        usual = default_blocks(l, &c, few, op->attr.integer, usual);
    else if (few)
        usual = op->attr.trans_b ? default_gemv(l->traits, rows * cols, depth) : GEMV;
    int i = itera_gpu_choice(
        l, c.name, c.n, place_of(&c, usual), "%lldx%lldx%lld e%lld n%c %d%d%s%s",
        itera_gpu_class(rows), itera_gpu_class(cols), itera_gpu_class(depth),
        itera_gpu_class(experts), op->attr.trans_b ? 't' : 'n', itera_gpu_tensor(l, a)->dtype,
        itera_gpu_tensor(l, b)->dtype, op->attr.integer ? " i" : "", op->attr.half ? " h" : "");
    return c.id[i];
}

enum itera_status itera_lower_fused_experts(struct itera_gpu_lowering *l, const struct itera_op *op,
                                            struct itera_fused *f)
{
    return lower_fused_way(l, f, choose_experts(l, op));
}

/* y_e = act(a_e . op(b_e)), with tiles or for few rows. */
static void lower_experts(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const int32_t a = op->in[0], b = op->in[1], y = op->out[0];
    const int64_t rows = itera_gpu_rows(l, a), cols = itera_gpu_cols(l, y);
    const int64_t depth = itera_gpu_cols(l, a), experts = op->attr.experts;
    const enum candidate way = choose_experts(l, op);
    if (way == BLOCKS || ways[way].integer) {
        itera_lower_grouped_blocks(l, op, ways[way].integer, ways[way].tile);
        return;
    }
    struct itera_gpu_dispatch *d = itera_gpu_begin(l, ways[way].coop   ? "grouped_matmul_coopmat"
                                                      : ways[way].tile ? "grouped_matmul_tile"
                                                                       : "grouped_matmul_gemv");
    itera_gpu_in(l, d, a);
    itera_gpu_in(l, d, b);
    itera_gpu_in(l, d, op->in[2]);
    itera_gpu_out(l, d, y);
    ITERA_GPU_ARGS(d, grouped_args, .rows = rows, .cols = cols, .depth = depth,
                   .trans_b = op->attr.trans_b, .act = op->attr.act, .experts = experts,
                   .b_step = op->attr.trans_b ? cols : depth, .scales = itera_gpu_scales(l, b));
    storage_constants(l, d, a, b);
    if (!ways[way].tile) {
        const struct gemv_shape s = gemv_shape(l, way, 1, cols * rows, op->attr.trans_b);
        gemv_constants(d, &s, 1);
        itera_gpu_groups(l, d, rows * itera_gpu_div_up(cols, s.group_cols), 1, 1);
        return;
    }
    const int64_t tile = ways[way].tile;
    tile_constants(l, d, way, false, !op->attr.trans_b);
    /* Every segment, the two that are nobody's included, may end with a broken tile. */
    itera_gpu_groups(l, d, (rows / tile + experts + 2) * itera_gpu_div_up(cols, tile), 1, 1);
}

/* y_e = a_eT . b_e */
static void lower_weights(struct itera_gpu_lowering *l, const struct itera_op *op)
{
    const int64_t experts = op->attr.experts, rows = itera_gpu_rows(l, op->in[0]);
    const int64_t out_rows = itera_gpu_cols(l, op->in[0]), cols = itera_gpu_cols(l, op->in[1]);
    const int64_t depth = rows / experts; /* on average */
    struct choice c = {.n = 0};
    offer_tiles(l, &c, "grouped_matmul_weights_coopmat", op->in[0], op->in[1], op->attr.half, rows);
    enum candidate usual = default_tile(l, &c, out_rows, cols, experts, depth);
    int i =
        itera_gpu_choice(l, c.name, c.n, place_of(&c, usual), "%lldx%lldx%lld e%lld tn %d%d%s",
                         itera_gpu_class(out_rows), itera_gpu_class(cols), itera_gpu_class(rows),
                         itera_gpu_class(experts), itera_gpu_tensor(l, op->in[0])->dtype,
                         itera_gpu_tensor(l, op->in[1])->dtype, op->attr.half ? " h" : "");
    const enum candidate way = c.id[i];
    const int64_t groups = tiles(out_rows, cols, ways[way].tile) * experts;
    const int64_t slices = ways[way].split ? split_for(l, groups, depth) : 1;
    const struct itera_product g = {.rows = out_rows * experts,
                                    .cols = cols,
                                    .bias = ITERA_NONE,
                                    .residual = ITERA_NONE,
                                    .y = op->out[0]};
    struct itera_gpu_scratch part = {0};
    if (slices > 1)
        part = itera_gpu_scratch(l, slices * g.rows * g.cols);
    struct itera_gpu_dispatch *d = itera_gpu_begin(
        l, ways[way].coop ? "grouped_matmul_weights_coopmat" : "grouped_matmul_weights");
    itera_gpu_in(l, d, op->in[0]);
    itera_gpu_in(l, d, op->in[1]);
    itera_gpu_in(l, d, op->in[2]);
    if (slices > 1)
        itera_gpu_use(d, part, ITERA_GPU_WRITE);
    else
        itera_gpu_out(l, d, g.y);
    ITERA_GPU_ARGS(d, weights_args, .rows = rows, .out_rows = out_rows, .cols = cols,
                   .experts = experts, .slices = slices);
    storage_constants(l, d, op->in[0], op->in[1]);
    tile_constants(l, d, way, true, true);
    itera_gpu_groups(l, d, groups * slices, 1, 1);
    if (slices > 1)
        itera_reduce_product(l, &g, part, slices);
}

enum itera_status itera_lower_grouped_matmul(struct itera_gpu_lowering *l,
                                             const struct itera_op *op)
{
    if (op->attr.trans_a)
        lower_weights(l, op);
    else
        lower_experts(l, op);
    return ITERA_OK;
}
