/* What OpenCL and Vulkan share, on a device that only records what it is asked for: which operands
 * are refused, where barriers go, and that tuning stops where nothing can be timed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(ITERA_HAVE_OPENCL) || defined(ITERA_HAVE_VULKAN)
#include "backend/gpu/kernels.h"
#include "backend/gpu/lower.h"
#include "backend/gpu/matrix_tile.h"
#include "backend/gpu/plan.h"
#include "backend/gpu/tuning_measure.h"
#include "backend/gpu/tuning_store.h"
#include "backend/gpu/units.h"
#include "core/log.h"
#include "tests/support/test.h"

static struct itera_gpu_device device;
static struct itera_buffer *absent;
static int profiled;
static double timed; /* what the next run takes; 0: there are no timestamps */

static enum itera_status create_buffer(struct itera_device *base, size_t bytes,
                                       struct itera_buffer **out)
{
    *out = malloc(sizeof **out);
    assert_non_null(*out);
    **out = (struct itera_buffer){base, bytes};
    return ITERA_OK;
}

static void destroy_buffer(struct itera_buffer *buffer)
{
    free(buffer);
}

static enum itera_status compile(struct itera_device *base, const struct itera_program *program,
                                 const struct itera_binding *bindings, int n_bindings,
                                 const struct itera_compile_options *options,
                                 struct itera_compile_result *result, struct itera_executable **out)
{
    struct itera_gpu_plan plan;
    enum itera_status status = itera_gpu_plan_create(&device, program, bindings, n_bindings, absent,
                                                     options, result, &plan);
    if (status)
        return status;
    itera_gpu_plan_destroy(&plan);
    *out = calloc(1, sizeof **out);
    assert_non_null(*out);
    (*out)->device = base;
    return ITERA_OK;
}

static void destroy_executable(struct itera_executable *executable)
{
    free(executable);
}

static enum itera_status profile(struct itera_executable *executable, double *op_seconds)
{
    (void)executable;
    profiled++;
    if (timed == 0)
        return itera_fail(ITERA_ERR_UNSUPPORTED, "no timestamps");
    *op_seconds = timed;
    return ITERA_OK;
}

static const struct itera_backend backend = {.name = "recording",
                                             .buffer_create = create_buffer,
                                             .buffer_destroy = destroy_buffer,
                                             .supports = itera_gpu_supports,
                                             .tune = itera_gpu_tune,
                                             .compile = compile,
                                             .executable_destroy = destroy_executable,
                                             .profile = profile};

static bool has_kernel(struct itera_gpu_device *d, const char *kernel)
{
    (void)d;
    (void)kernel;
    return true;
}

static int described;

static enum itera_status describe(struct itera_gpu_device *d,
                                  const struct itera_gpu_dispatch *dispatch,
                                  struct itera_kernel_info *info)
{
    (void)d;
    (void)dispatch;
    described++;
    itera_gpu_statistic(info, "VGPRs", 24);
    itera_gpu_statistic(info, "Spilled VGPRs", 3);
    itera_gpu_statistic(info, "Hash", 7);
    return ITERA_OK;
}

static int open_device(void **state)
{
    (void)state;
    device = (struct itera_gpu_device){.base = {.backend = &backend},
                                       .traits = {.vendor = ITERA_GPU_SOFTWARE,
                                                  .max_local = 1024,
                                                  .shared_bytes = 32768,
                                                  .max_operand_bytes = (uint64_t)64 << 30},
                                       .has_kernel = has_kernel,
                                       .describe = describe};
    strcpy(device.base.info.id, "recording:0");
    return create_buffer(&device.base, 256, &absent);
}

static int close_device(void **state)
{
    (void)state;
    itera_buffer_destroy(&absent);
    return 0;
}

static struct itera_program *new_program(void)
{
    struct itera_program *p;
    assert_int_equal(itera_program_create(&p), ITERA_OK);
    return p;
}

static int32_t matrix(struct itera_program *p, enum itera_dtype dtype, int64_t rows, int64_t cols)
{
    return itera_bound(p, "matrix", dtype, 2, (int64_t[]){rows, cols});
}

static struct itera_reason why;

/* Whether the device takes y = a bT, a being (rows, 32768) f16; `why` says why not. */
static bool takes_product(int64_t rows)
{
    struct itera_program *p = new_program();
    struct itera_attr attr = {.trans_b = 1};
    int32_t in[4] = {matrix(p, ITERA_F16, rows, 32768), matrix(p, ITERA_F16, 8, 32768), ITERA_NONE,
                     ITERA_NONE};
    int32_t out = ITERA_NEW;
    itera_record(p, ITERA_OP_matmul, &attr, in, &out);
    assert_int_equal(p->status, ITERA_OK);
    itera_fail(ITERA_ERR_IO, "what failed before");
    enum itera_status status = itera_gpu_supports(&device.base, p, &p->ops[0], &why);
    assert_true(!status || status == ITERA_ERR_UNSUPPORTED);
    assert_string_equal(itera_last_error(), "what failed before"); /* "no" is no error */
    itera_program_destroy(&p);
    return !status;
}

static void operands_of_2_to_the_32_elements_are_refused(void **state)
{
    (void)state;
    assert_true(takes_product(65536));
    assert_false(takes_product(131072)); /* 8 GiB, of the 64 that the device addresses */
    assert_non_null(strstr(why.text, "matmul: an operand of 4294967296 elements"));
    assert_true(takes_product(130000));
}

/* Rows that no word can hold, though there are no elements: words are cut to 32 bits. */
static void sizes_beyond_a_word_are_refused(void **state)
{
    (void)state;
    struct itera_program *p = new_program();
    int32_t x = matrix(p, ITERA_F32, (int64_t)1 << 33, 0), y = ITERA_NEW;
    itera_record(p, ITERA_OP_column_sum, NULL, &x, &y);
    assert_int_equal(p->status, ITERA_OK);
    assert_int_equal(itera_gpu_supports(&device.base, p, &p->ops[0], &why), ITERA_ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "column_sum: an operand of 8589934592 elements"));
    itera_program_destroy(&p);
}

/* y = x scaled by 2. */
static void scale(struct itera_program *p, int32_t x, int32_t y)
{
    struct itera_attr attr = {.scale = 2};
    itera_record(p, ITERA_OP_scale, &attr, &x, &y);
}

/* Compiles the program, each of whose ops is one dispatch, and compares where its barriers are:
 * '|' before an op that has one, '.' before one that has none. */
static void assert_barriers(struct itera_program *p, const char *expected)
{
    struct itera_buffer *memory;
    struct itera_binding bindings[8];
    struct itera_gpu_plan plan;
    char found[32] = "";
    int n = 0;
    assert_int_equal(p->status, ITERA_OK);
    create_buffer(&device.base, 65536, &memory);
    for (int32_t t = 0; t < p->n_tensors; t++)
        if (p->tensors[t].kind == ITERA_BOUND && p->tensors[t].base == t) {
            bindings[n] = (struct itera_binding){t, memory, (size_t)n * 4096};
            n++;
        }
    const struct itera_compile_options options = {0};
    struct itera_compile_result result = {0};
    assert_int_equal(
        itera_gpu_plan_create(&device, p, bindings, n, absent, &options, &result, &plan), ITERA_OK);
    assert_int_equal(plan.n, p->n_ops);
    for (int32_t i = 0; i < plan.n; i++)
        found[i] = plan.dispatches[i].barrier ? '|' : '.';
    assert_string_equal(found, expected);
    itera_gpu_plan_destroy(&plan);
    itera_buffer_destroy(&memory);
    itera_program_destroy(&p);
}

static void barriers_are_where_memory_is_shared(void **state)
{
    (void)state;
    struct itera_program *p = new_program();
    int32_t x = matrix(p, ITERA_F32, 4, 8), y = matrix(p, ITERA_F32, 4, 8);
    int32_t z = matrix(p, ITERA_F32, 4, 8);
    scale(p, x, y); /* reads of x are no conflict */
    scale(p, x, z);
    scale(p, y, y); /* after the first; then nothing is open but itself */
    scale(p, x, z); /* written above, before the barrier */
    scale(p, z, x); /* read after write, and write after read */
    scale(p, y, z); /* write after read */
    assert_barriers(p, "..|.||");
}

static void columns_of_one_matrix_are_apart(void **state)
{
    (void)state;
    struct itera_program *p = new_program();
    int32_t whole = matrix(p, ITERA_F32, 4, 8), x = matrix(p, ITERA_F32, 4, 4);
    int32_t left = itera_view_cols(p, whole, 0, 4), right = itera_view_cols(p, whole, 4, 4);
    int32_t middle = itera_view_cols(p, whole, 2, 4);
    scale(p, x, left);
    scale(p, x, right); /* the rows lie between those of left, the columns do not */
    scale(p, x, middle);
    scale(p, left, x);
    scale(p, right, right);
    assert_barriers(p, "..||.");
}

/* y = norm(x).bT, with something else about it. */
enum twist { PLAIN, READ_TWICE, IN_PLACE, OVERWRITTEN, MANY_ROWS, APART };

/* How many dispatches that takes. */
static int32_t dispatches_of(enum twist twist)
{
    struct itera_program *p = new_program();
    struct itera_buffer *memory;
    struct itera_gpu_plan plan;
    const int64_t rows = twist == MANY_ROWS ? 9 : 3;
    const int32_t x = matrix(p, ITERA_F32, rows, 64), y = matrix(p, ITERA_F32, rows, 64);
    const int32_t w = matrix(p, ITERA_F32, 1, 64), b = matrix(p, ITERA_F32, 64, 64);
    const int32_t z = matrix(p, ITERA_F32, rows, 64);
    int32_t weight = itera_view_dims(p, w, 1, (int64_t[]){64});
    int32_t normal[2] = {ITERA_NEW, ITERA_NONE}, out = y;
    struct itera_attr attr = {.trans_b = 1, .eps = 1e-5f};
    itera_record(p, ITERA_OP_rms_norm, &attr, (int32_t[]){x, weight}, normal);
    if (twist == READ_TWICE)
        scale(p, normal[0], z);
    if (twist == OVERWRITTEN)
        scale(p, z, x);
    itera_record(p, ITERA_OP_matmul, &attr, (int32_t[]){normal[0], b, ITERA_NONE, ITERA_NONE},
                 &out);
    assert_int_equal(p->status, ITERA_OK);
    create_buffer(&device.base, 1 << 20, &memory);
    const struct itera_binding bindings[] = {{x, memory, 0},
                                             {y, memory, twist == IN_PLACE ? 0 : 65536},
                                             {w, memory, 131072},
                                             {b, memory, 196608},
                                             {z, memory, 262144}};
    const struct itera_compile_options options = {.apart = twist == APART};
    struct itera_compile_result result = {0};
    assert_int_equal(
        itera_gpu_plan_create(&device, p, bindings, 5, absent, &options, &result, &plan), ITERA_OK);
    const int32_t n = plan.n;
    /* What passes along a chain has no memory. */
    assert_int_equal(plan.memory != NULL, !result.n_chains);
    itera_gpu_plan_destroy(&plan);
    itera_buffer_destroy(&memory);
    itera_program_destroy(&p);
    return n;
}

static void chains_are_where_nobody_would_notice(void **state)
{
    (void)state;
    device.traits.compute_units = 64;
    assert_int_equal(dispatches_of(PLAIN), 1);
    assert_int_equal(dispatches_of(READ_TWICE), 3);
    assert_int_equal(dispatches_of(IN_PLACE), 2); /* y would be written before all have read x */
    assert_int_equal(dispatches_of(OVERWRITTEN), 3);
    assert_int_equal(dispatches_of(MANY_ROWS), 2);
    assert_int_equal(dispatches_of(APART), 2);
    device.traits.compute_units = 0;
}

/* How many dispatches end a decode step: sample and advance. */
static int32_t dispatches_of_sampling(int64_t batch, int64_t vocabulary, bool apart)
{
    struct itera_program *p = new_program();
    struct itera_buffer *memory;
    struct itera_gpu_plan plan;
    const int64_t four[] = {batch, 4};
    const int32_t logits = matrix(p, ITERA_F32, batch, vocabulary);
    const int32_t params = matrix(p, ITERA_F32, batch, 4);
    const int32_t rng = itera_bound(p, "rng", ITERA_I32, 2, four);
    const int32_t start = itera_bound(p, "start", ITERA_I32, 1, &batch);
    int32_t token = itera_bound(p, "token", ITERA_I32, 1, &batch);
    struct itera_attr attr = {.count = 1};
    itera_record(p, ITERA_OP_sample, NULL, (int32_t[]){logits, params, rng}, &token);
    itera_record(p, ITERA_OP_advance, &attr, &start, NULL);
    assert_int_equal(p->status, ITERA_OK);
    create_buffer(&device.base, 8 << 20, &memory);
    const struct itera_binding bindings[] = {{logits, memory, 0},
                                             {params, memory, 6 << 20},
                                             {rng, memory, (6 << 20) + 4096},
                                             {start, memory, (6 << 20) + 8192},
                                             {token, memory, (6 << 20) + 12288}};
    const struct itera_compile_options options = {.apart = apart};
    struct itera_compile_result result = {0};
    assert_int_equal(
        itera_gpu_plan_create(&device, p, bindings, 5, absent, &options, &result, &plan), ITERA_OK);
    const int32_t n = plan.n;
    itera_gpu_plan_destroy(&plan);
    itera_buffer_destroy(&memory);
    itera_program_destroy(&p);
    return n;
}

static void a_token_is_drawn_in_two_dispatches(void **state)
{
    (void)state;
    assert_int_equal(dispatches_of_sampling(1, 256, false), 2);
    assert_int_equal(dispatches_of_sampling(3, 50257, false), 2);
    assert_int_equal(dispatches_of_sampling(1, 150000, false), 2);
    assert_int_equal(dispatches_of_sampling(1, 50257, true), 3);
}

static void tuning_stops_where_nothing_is_timed(void **state)
{
    (void)state;
    struct itera_program *p = new_program();
    struct itera_attr attr = {.trans_b = 1};
    for (int64_t rows = 64; rows < 1024; rows *= 4) {
        int32_t in[4] = {matrix(p, ITERA_F32, rows, 64), matrix(p, ITERA_F32, 64, 64), ITERA_NONE,
                         ITERA_NONE};
        int32_t out = ITERA_NEW;
        itera_record(p, ITERA_OP_matmul, &attr, in, &out);
    }
    assert_int_equal(p->status, ITERA_OK);
    assert_int_equal(itera_gpu_tuning_open("a device that records", &device.tuning), ITERA_OK);
    profiled = 0;
    for (int i = 0; i < 3; i++)
        assert_int_equal(itera_gpu_tune(&device.base, p), ITERA_OK);
    assert_int_equal(profiled, 1);
    itera_gpu_tuning_close(&device.tuning);
    itera_program_destroy(&p);
}

/* Compiles a product for a device of this type; returns how often it was timed. What could not be timed
 * is no error of a call that succeeds. */
static int times_of_compiling(enum itera_device_type type, int force_choice)
{
    struct itera_program *p = new_program();
    struct itera_attr attr = {.trans_b = 1};
    struct itera_compile_options options = {.force_choice = force_choice};
    struct itera_compile_result result;
    struct itera_executable *e;
    struct itera_buffer *memory;
    int32_t in[4] = {matrix(p, ITERA_F32, 64, 64), matrix(p, ITERA_F32, 64, 64), ITERA_NONE,
                     ITERA_NONE};
    int32_t out = ITERA_NEW;
    itera_record(p, ITERA_OP_matmul, &attr, in, &out);
    assert_int_equal(create_buffer(&device.base, 65536, &memory), ITERA_OK);
    const struct itera_binding bindings[] = {{in[0], memory, 0}, {in[1], memory, 16384}};
    assert_int_equal(itera_gpu_tuning_open("a device that compiles", &device.tuning), ITERA_OK);
    device.base.info.type = type;
    device.untimed = false;
    profiled = 0;
    itera_fail(ITERA_ERR_IO, "what failed before");
    assert_int_equal(itera_compile(&device.base, p, bindings, 2, &options, &result, &e), ITERA_OK);
    assert_string_equal(itera_last_error(), "what failed before");
    assert_true(result.n_choices > 1);
    assert_int_equal(result.choice_name[0] != '\0', force_choice != 0);
    itera_executable_destroy(&e);
    itera_buffer_destroy(&memory);
    itera_gpu_tuning_close(&device.tuning);
    itera_program_destroy(&p);
    return profiled;
}

static void a_device_is_tuned_for_what_it_meets(void **state)
{
    (void)state;
    assert_int_equal(times_of_compiling(ITERA_DEVICE_GPU, 0), 1);
    assert_int_equal(times_of_compiling(ITERA_DEVICE_IGPU, 0), 1);
    assert_int_equal(times_of_compiling(ITERA_DEVICE_GPU, 1), 0);
    assert_int_equal(times_of_compiling(ITERA_DEVICE_SOFTWARE, 0), 0);
}

static int count_kernels(const struct itera_kernel_list *list, const char *name)
{
    int n = 0;
    for (int i = 0; i < list->n; i++)
        n += !strcmp(list->items[i].name, name);
    return n;
}

static void kernels_are_listed_once_with_what_is_told(void **state)
{
    (void)state;
    struct itera_program *p = new_program();
    struct itera_attr attr = {.trans_b = 1};
    for (int i = 0; i < 2; i++) {
        int32_t in[4] = {matrix(p, ITERA_F32, 512, 64), matrix(p, ITERA_F32, 512, 64), ITERA_NONE,
                         ITERA_NONE};
        int32_t out = ITERA_NEW;
        itera_record(p, ITERA_OP_matmul, &attr, in, &out);
    }
    struct itera_kernel_list list = {0};
    described = 0;
    assert_int_equal(itera_gpu_kernels(&device.base, p, "*", false, "first", &list), ITERA_OK);
    assert_int_equal(list.n, 1);
    assert_int_equal(itera_gpu_kernels(&device.base, p, "*", false, "second", &list), ITERA_OK);
    assert_int_equal(itera_gpu_kernels(&device.base, p, "*", false, "first", &list), ITERA_OK);
    assert_int_equal(list.n, 1);
    assert_int_equal(described, 1);
    const struct itera_kernel_info *k = &list.items[0];
    assert_string_equal(k->used_by, "first second");
    assert_string_equal(k->op, "matmul");
    assert_int_equal(k->registers, 24);
    assert_int_equal(k->spills, 3);
    assert_int_equal(k->shared_bytes, -1);
    assert_string_equal(k->statistics, "VGPRs 24, Spilled VGPRs 3, Hash 7");
    /* In every way: tiles of three sizes, products of few rows, ... */
    assert_int_equal(itera_gpu_kernels(&device.base, p, "silu", true, NULL, &list), ITERA_OK);
    assert_int_equal(list.n, 1);
    assert_int_equal(itera_gpu_kernels(&device.base, p, "*", true, NULL, &list), ITERA_OK);
    assert_int_equal(count_kernels(&list, "matmul_tile"), 3);
    assert_string_equal(list.items[0].used_by, "first second");
    free(list.items);
    itera_program_destroy(&p);
}

/* A driver that spills tiles of 32. */
static enum itera_status spill_small(struct itera_gpu_device *d,
                                     const struct itera_gpu_dispatch *dispatch,
                                     struct itera_kernel_info *info)
{
    (void)d;
    for (int i = 0; i < dispatch->n_constants; i++)
        if (!strcmp(dispatch->constant[i].name, "TILE"))
            info->spills = dispatch->constant[i].value == 32 ? 7 : 0;
    return ITERA_OK;
}

/* All ways take the same time: the first is the fastest that does not spill. */
static void what_spills_is_not_chosen(void **state)
{
    (void)state;
    struct itera_program *p = new_program();
    struct itera_attr attr = {.trans_b = 1};
    int32_t in[4] = {matrix(p, ITERA_F32, 256, 64), matrix(p, ITERA_F32, 256, 64), ITERA_NONE,
                     ITERA_NONE};
    int32_t out = ITERA_NEW;
    itera_record(p, ITERA_OP_matmul, &attr, in, &out);
    assert_int_equal(p->status, ITERA_OK);
    const char *const best[] = {"tile32", "tile64"};
    for (int spilling = 0; spilling < 2; spilling++) {
        assert_int_equal(itera_gpu_tuning_open("a device that spills", &device.tuning), ITERA_OK);
        device.describe = spilling ? spill_small : NULL;
        device.untimed = false;
        timed = 1;
        assert_int_equal(itera_gpu_tune(&device.base, NULL), ITERA_OK);
        assert_int_equal(itera_gpu_tune(&device.base, p), ITERA_OK);
        struct itera_gpu_lowering l = {.device = &device, .traits = &device.traits, .program = p};
        assert_int_equal(itera_gpu_lower_op(&l, 0, -1), ITERA_OK);
        assert_string_equal(l.choice_name, best[spilling]);
        free(l.dispatches);
        itera_gpu_tuning_close(&device.tuning);
    }
    device.describe = describe;
    timed = 0;
    itera_program_destroy(&p);
}

/* The way that a product y = a bT of f32 takes by default. */
static const char *usual_way(int64_t rows, int64_t cols, int64_t depth)
{
    static char way[16];
    struct itera_program *p = new_program();
    struct itera_attr attr = {.trans_b = 1};
    int32_t in[4] = {matrix(p, ITERA_F32, rows, depth), matrix(p, ITERA_F32, cols, depth),
                     ITERA_NONE, ITERA_NONE};
    int32_t out = ITERA_NEW;
    itera_record(p, ITERA_OP_matmul, &attr, in, &out);
    assert_int_equal(p->status, ITERA_OK);
    struct itera_gpu_lowering l = {.device = &device, .traits = &device.traits, .program = p};
    assert_int_equal(itera_gpu_lower_op(&l, 0, -1), ITERA_OK);
    snprintf(way, sizeof way, "%s", l.choice_name);
    free(l.dispatches);
    itera_program_destroy(&p);
    return way;
}

/* A unit wants four groups of 128: tiles become smaller where there are fewer of them, or k is cut. */
static void products_fill_the_device(void **state)
{
    (void)state;
    const struct itera_gpu_traits saved = device.traits;
    device.traits.vendor = ITERA_GPU_AMD;
    device.traits.compute_units = 60;
    assert_string_equal(usual_way(4096, 4096, 4096), "tile128");
    assert_string_equal(usual_way(512, 3072, 768), "tile64");
    assert_string_equal(usual_way(512, 768, 1536), "split64");
    assert_string_equal(usual_way(512, 1024, 256), "tile64"); /* half, but too short to cut */
    assert_string_equal(usual_way(512, 512, 256), "tile32");
    assert_string_equal(usual_way(16, 512, 4096), "split32");
    assert_string_equal(usual_way(1, 3072, 768), "gemv");
    assert_string_equal(usual_way(1, 80, 1536), "gemv128");
    device.traits.compute_units = 8;
    assert_string_equal(usual_way(512, 768, 1536), "tile128");
    device.traits.most_tile = 64;
    assert_string_equal(usual_way(4096, 4096, 4096), "tile64");
    device.traits = saved;
}

static uint32_t units(enum itera_gpu_vendor vendor, uint32_t pci_device, const char *name,
                      uint32_t reported)
{
    return itera_gpu_units(&(const struct itera_gpu_identity){vendor, pci_device, name, reported});
}

static void units_are_known(void **state)
{
    (void)state;
    assert_int_equal(units(ITERA_GPU_AMD, 0x73bf, "AMD Radeon RX 6800 (RADV NAVI21)", 60), 60);
    assert_int_equal(units(ITERA_GPU_AMD, 0, "gfx1030", 30), 60); /* ROCm counts pairs */
    assert_int_equal(units(ITERA_GPU_AMD, 0, "gfx906:sramecc+:xnack-", 60), 60);
    assert_int_equal(units(ITERA_GPU_NVIDIA, 0x2504, "NVIDIA GeForce RTX 3060", 28), 28);
    assert_int_equal(units(ITERA_GPU_INTEL, 0x56a0, "Intel(R) Graphics (DG2)", 0), 32);
    assert_int_equal(units(ITERA_GPU_INTEL, 0, "Intel(R) Arc(tm) A380 Graphics (DG2)", 0), 8);
    assert_int_equal(units(ITERA_GPU_INTEL, 0x9a49, "Intel(R) Iris(R) Xe Graphics (TGL GT2)", 0),
                     6);
    assert_int_equal(units(ITERA_GPU_INTEL, 0, "Intel(R) UHD Graphics 770 (ADL-S GT1)", 0), 2);
    assert_int_equal(units(ITERA_GPU_INTEL, 0, "Intel(R) UHD Graphics 630 (CFL GT2)", 0), 3);
    assert_int_equal(units(ITERA_GPU_INTEL, 0, "Intel(R) Arc(TM) A770 Graphics", 512), 32);
    assert_int_equal(units(ITERA_GPU_INTEL, 0x1234, "what comes next", 0), 8);
    assert_int_equal(units(ITERA_GPU_OTHER, 0, "Mali", 0), 16);
    assert_int_equal(units(ITERA_GPU_SOFTWARE, 0, "llvmpipe", 0), 0);
}

/* What a device's traits make of tiles on matrix units: subgroups down and across, 0 where it cannot. */
static void matrix_tiles_fit_into_registers(void **state)
{
    (void)state;
    static const struct {
        enum itera_gpu_vendor vendor;
        struct itera_gpu_matrix matrix;
        uint32_t max_local, tile, down, across;
    } cases[] = {
        {ITERA_GPU_AMD, {16, 16, 16, 64}, 1024, 64, 2, 2},
        {ITERA_GPU_AMD, {16, 16, 16, 64}, 1024, 128, 2, 2},
        {ITERA_GPU_AMD, {16, 16, 16, 32}, 1024, 128, 2, 4},
        {ITERA_GPU_NVIDIA, {16, 16, 16, 32}, 1024, 64, 2, 2},
        {ITERA_GPU_NVIDIA, {16, 16, 16, 32}, 1024, 128, 2, 4},
        {ITERA_GPU_NVIDIA, {16, 16, 16, 32}, 128, 128, 0, 0}, /* workgroups are too small */
        {ITERA_GPU_INTEL, {8, 8, 16, 8}, 1024, 64, 4, 8},     /* Arc A */
        {ITERA_GPU_INTEL, {8, 8, 16, 8}, 1024, 128, 0, 0},    /* no room for its sums */
        {ITERA_GPU_INTEL, {8, 16, 16, 16}, 1024, 64, 4, 4},   /* Arc B */
        {ITERA_GPU_SOFTWARE, {8, 8, 8, 8}, 1024, 128, 4, 8},
        {ITERA_GPU_OTHER, {0}, 1024, 64, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct itera_gpu_traits traits = {.vendor = cases[i].vendor,
                                                .matrix = cases[i].matrix,
                                                .max_local = cases[i].max_local,
                                                .shared_bytes = 32768,
                                                .half_math = true};
        const struct itera_matrix_tile t = itera_matrix_tile(&traits, cases[i].tile);
        assert_int_equal(t.down, cases[i].down);
        assert_int_equal(t.across, cases[i].across);
        assert_int_equal(t.lanes, t.down * t.across * cases[i].matrix.subgroup);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operands_of_2_to_the_32_elements_are_refused),
        cmocka_unit_test(sizes_beyond_a_word_are_refused),
        cmocka_unit_test(barriers_are_where_memory_is_shared),
        cmocka_unit_test(columns_of_one_matrix_are_apart),
        cmocka_unit_test(matrix_tiles_fit_into_registers),
        cmocka_unit_test(chains_are_where_nobody_would_notice),
        cmocka_unit_test(a_token_is_drawn_in_two_dispatches),
        cmocka_unit_test(tuning_stops_where_nothing_is_timed),
        cmocka_unit_test(a_device_is_tuned_for_what_it_meets),
        cmocka_unit_test(what_spills_is_not_chosen),
        cmocka_unit_test(products_fill_the_device),
        cmocka_unit_test(units_are_known),
        cmocka_unit_test(kernels_are_listed_once_with_what_is_told),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
#else
int main(void)
{
    return 77;
}
#endif
