/* The CPU backend: memory, and programs resolved to a walk over kernels. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/cpu/isa.h"
#include "core/clock.h"
#include "core/environment.h"
#include "core/log.h"
#include "program/plan.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

struct cpu_device {
    struct itera_device base;
    enum itera_isa isa;
    struct itera_pool *pool;
};

struct cpu_buffer {
    struct itera_buffer base;
    uint8_t *data;
};

/* One resolved op. */
struct step {
    itera_kernel_fn *run;
    struct itera_call call;
    bool alone;   /* too small to share: rank 0 runs it by itself */
    bool barrier; /* the team meets after it */
};

struct cpu_executable {
    struct itera_executable base;
    struct step *steps;
    int32_t n_steps;
    uint8_t *memory; /* activations, then scratch */
    bool flush;
    bool alone;         /* every step is: the team need not wake up */
    double *op_seconds; /* while profiling */
};

/* An op whose estimated single-thread time is below this is not worth a team's two barriers. */
static const double ALONE_SECONDS = 4e-6;
static const double ESTIMATE_FLOPS = 40e9, ESTIMATE_BYTES = 15e9;
/* The same for a whole program: its weights stay in the cache from run to run (a decode step of a
 * tiny model), so that it is several times as fast as the estimate, and waking the team costs as
 * much as it gains, or far more where the machine has other work to do. */
static const double PROGRAM_ALONE_SECONDS = 100e-6;

static double estimate(struct itera_cost cost)
{
    return cost.flops / ESTIMATE_FLOPS + cost.bytes / ESTIMATE_BYTES;
}

static const struct {
    const char *name;
    enum itera_isa isa; /* from which level on it is used */
} cpu_features[] = {
#if defined(__x86_64__)
    {"avx2", ITERA_ISA_AVX2},
    {"fma", ITERA_ISA_AVX2},
    {"f16c", ITERA_ISA_AVX2},
    {"avx512f", ITERA_ISA_AVX512},
    {"avx512bw", ITERA_ISA_AVX512},
    {"avx512vl", ITERA_ISA_AVX512},
    {"avx512vnni", ITERA_ISA_AVX512VNNI},
#elif defined(__aarch64__)
    {"neon", ITERA_ISA_NEON},
    {"dotprod", ITERA_ISA_NEONDOT},
#endif
    {"", ITERA_ISA_COUNT},
};

static bool has_feature(const char *name)
{
#if defined(__x86_64__)
    if (!strcmp(name, "avx2"))
        return __builtin_cpu_supports("avx2");
    if (!strcmp(name, "fma"))
        return __builtin_cpu_supports("fma");
    if (!strcmp(name, "f16c"))
        return itera_isa_has_f16c();
    if (!strcmp(name, "avx512f"))
        return __builtin_cpu_supports("avx512f");
    if (!strcmp(name, "avx512bw"))
        return __builtin_cpu_supports("avx512bw");
    if (!strcmp(name, "avx512vl"))
        return __builtin_cpu_supports("avx512vl");
    if (!strcmp(name, "avx512vnni"))
        return __builtin_cpu_supports("avx512vnni");
    return false;
#else
    if (!strcmp(name, "dotprod"))
        return itera_isa_has_dotprod();
    return *name != 0;
#endif
}

static void processor_name(char *out, size_t size)
{
    snprintf(out, size, "CPU");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f)
        return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon)
            continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(out, size, "%s", colon + 1 + (colon[1] == ' '));
        break;
    }
    fclose(f);
}

static uint64_t physical_memory(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGE_SIZE);
}

static void describe(struct itera_device_info *info, enum itera_isa isa)
{
    *info = (struct itera_device_info){.id = "cpu", .backend = "cpu", .type = ITERA_DEVICE_CPU};
    processor_name(info->name, sizeof info->name);
    snprintf(info->driver, sizeof info->driver, "%s", itera_isa_name(isa));
    info->memory_bytes = physical_memory();
    for (int i = 0; cpu_features[i].name[0]; i++) {
        if (!has_feature(cpu_features[i].name))
            continue;
        int n = info->n_features++;
        snprintf(info->features[n].name, sizeof info->features[n].name, "%s", cpu_features[i].name);
        info->features[n].used = isa >= cpu_features[i].isa;
    }
}

/* The level that options or the environment ask for, else the best. */
static enum itera_status choose_isa(const char *asked, enum itera_isa *isa)
{
    const char *name = asked ? asked : itera_environment_cpu_isa();
    if (name)
        return itera_isa_find(name, isa);
    *isa = itera_isa_best();
    return ITERA_OK;
}

static enum itera_status cpu_list(struct itera_device_info *infos, int capacity, int *count)
{
    *count = 0;
    enum itera_isa isa;
    enum itera_status status = choose_isa(NULL, &isa);
    if (status || capacity < 1)
        return status;
    describe(&infos[0], isa);
    *count = 1;
    return ITERA_OK;
}

static enum itera_status cpu_open(int index, const struct itera_device_options *options,
                                  struct itera_device **out)
{
    (void)index;
    enum itera_isa isa;
    enum itera_status status = choose_isa(options->isa, &isa);
    if (status)
        return status;
    struct cpu_device *device = calloc(1, sizeof *device);
    if (!device)
        return itera_fail(ITERA_ERR_MEMORY, "no memory to open the CPU device");
    int threads = options->threads ? options->threads : itera_processor_count();
    status = itera_pool_create(threads, &device->pool);
    if (status) {
        free(device);
        return status;
    }
    device->base.backend = &itera_backend_cpu;
    device->base.threads = threads;
    device->isa = isa;
    describe(&device->base.info, isa);
    *out = &device->base;
    return ITERA_OK;
}

static void cpu_close(struct itera_device *base)
{
    struct cpu_device *device = (struct cpu_device *)base;
    itera_pool_destroy(&device->pool);
    free(device);
}

/* Zeroed and aligned to a cache line; large ones to a huge page, which the kernel is asked for. */
static uint8_t *memory_create(size_t bytes)
{
    size_t huge = (size_t)2 << 20;
    size_t align = bytes >= huge ? huge : 64;
    size_t rounded = (bytes + align) / align * align;
    /* The kernel may promise more than there is, and kill the process when it is touched. */
    if (rounded < bytes || rounded > physical_memory())
        return NULL;
    uint8_t *data = aligned_alloc(align, rounded);
    if (!data)
        return NULL;
    if (align == huge)
        madvise(data, rounded, MADV_HUGEPAGE);
    memset(data, 0, rounded);
    return data;
}

static enum itera_status cpu_buffer_create(struct itera_device *device, size_t bytes,
                                           struct itera_buffer **out)
{
    struct cpu_buffer *buffer = calloc(1, sizeof *buffer);
    if (buffer)
        buffer->data = memory_create(bytes);
    if (!buffer || !buffer->data) {
        free(buffer);
        return itera_fail(ITERA_ERR_MEMORY, "cpu: no memory for a buffer of %zu bytes", bytes);
    }
    buffer->base = (struct itera_buffer){.device = device, .bytes = bytes};
    *out = &buffer->base;
    return ITERA_OK;
}

static void cpu_buffer_destroy(struct itera_buffer *base)
{
    struct cpu_buffer *buffer = (struct cpu_buffer *)base;
    free(buffer->data);
    free(buffer);
}

static enum itera_status cpu_upload(struct itera_buffer *buffer, size_t offset, const void *data,
                                    size_t bytes)
{
    if (bytes)
        memcpy(((struct cpu_buffer *)buffer)->data + offset, data, bytes);
    return ITERA_OK;
}

static enum itera_status cpu_download(struct itera_buffer *buffer, size_t offset, void *data,
                                      size_t bytes)
{
    if (bytes)
        memcpy(data, ((struct cpu_buffer *)buffer)->data + offset, bytes);
    return ITERA_OK;
}

static enum itera_status cpu_supports(struct itera_device *device,
                                      const struct itera_program *program,
                                      const struct itera_op *op, struct itera_reason *why)
{
    (void)device;
    (void)program;
    (void)op;
    (void)why;
    return ITERA_OK; /* the reference has every op */
}

static void cpu_executable_destroy(struct itera_executable *base)
{
    struct cpu_executable *e = (struct cpu_executable *)base;
    free(e->memory);
    free(e->steps);
    free(e->op_seconds);
    free(e);
}

/* The address of a tensor: its base's storage plus its offset. */
static struct itera_arg resolve(const struct itera_program *p, int32_t id, uint8_t *const *bases)
{
    if (id < 0)
        return (struct itera_arg){0};
    const struct itera_tensor *t = &p->tensors[id];
    struct itera_arg arg = {
        .data = bases[t->base] + itera_dtype_bytes(t->dtype, t->offset),
        .rows = itera_shape_rows(&t->shape),
        .cols = itera_shape_cols(&t->shape),
        .ld = t->shape.ld,
        .rank = t->shape.rank,
        .dtype = t->dtype,
    };
    memcpy(arg.dim, t->shape.dim, sizeof arg.dim);
    return arg;
}

static void resolve_operands(struct step *step, const struct itera_program *p,
                             const struct itera_op *op, uint8_t *const *bases)
{
    for (int k = 0; k < ITERA_MAX_IN; k++)
        step->call.in[k] = resolve(p, op->in[k], bases);
    for (int k = 0; k < ITERA_MAX_OUT; k++)
        step->call.out[k] = resolve(p, op->out[k], bases);
}

/* Picks every step's kernel, and whether one thread runs it alone. Returns the scratch that the
 * hungriest needs. Scratch is sized from the operands, before they have addresses: in `bases` a
 * stand-in tells those that are there from the absent ones. */
static size_t choose_kernels(struct cpu_executable *e, const struct itera_program *p,
                             const struct itera_compile_options *options, uint8_t *const *bases)
{
    const struct cpu_device *device = (const struct cpu_device *)e->base.device;
    const int threads = device->base.threads;
    const bool small =
        threads == 1 ||
        (!options->checking && estimate(itera_program_cost(p, NULL)) < PROGRAM_ALONE_SECONDS);
    size_t scratch = 0;
    e->alone = true;
    for (int32_t i = 0; i < p->n_ops; i++) {
        const struct itera_op *op = &p->ops[i];
        struct step *step = &e->steps[i];
        const struct itera_kernel *kernel = itera_isa_kernel(device->isa, op->kind);
        step->run = kernel->run;
        step->alone =
            small || (!options->checking && estimate(itera_op_cost(p, op)) < ALONE_SECONDS);
        e->alone &= step->alone;
        step->call.attr = &op->attr;
        resolve_operands(step, p, op, bases);
        size_t need = kernel->scratch ? kernel->scratch(&step->call, step->alone ? 1 : threads) : 0;
        if (need > scratch)
            scratch = need;
    }
    return scratch;
}

/* Gives every base its address: what is bound in its buffer, activations in the program's memory. */
static void place_bases(const struct cpu_executable *e, const struct itera_program *p,
                        const struct itera_plan *plan, const struct itera_binding *bindings,
                        int n_bindings, uint8_t **bases)
{
    for (int i = 0; i < n_bindings; i++)
        bases[bindings[i].tensor] =
            ((struct cpu_buffer *)bindings[i].buffer)->data + bindings[i].offset;
    for (int32_t t = 0; t < p->n_tensors; t++)
        if (plan->offset[t] >= 0)
            bases[t] = e->memory + plan->offset[t];
}

/* Gives every step its addresses, and sees where steps must wait for others. */
static void place_steps(struct cpu_executable *e, const struct itera_program *p, uint8_t *scratch,
                        uint8_t *const *bases)
{
    e->n_steps = p->n_ops;
    for (int32_t i = 0; i < p->n_ops; i++) {
        struct step *step = &e->steps[i];
        resolve_operands(step, p, &p->ops[i], bases);
        step->call.scratch = scratch;
        /* Ops that rank 0 runs alone follow each other without meeting. */
        step->barrier = i + 1 < p->n_ops && !(step->alone && e->steps[i + 1].alone);
    }
}

static enum itera_status cpu_compile(struct itera_device *base, const struct itera_program *p,
                                     const struct itera_binding *bindings, int n_bindings,
                                     const struct itera_compile_options *options,
                                     struct itera_compile_result *result,
                                     struct itera_executable **out)
{
    (void)result; /* an op has one kernel */
    struct cpu_executable *e = calloc(1, sizeof *e);
    uint8_t **bases = calloc((size_t)p->n_tensors + 1, sizeof *bases);
    struct itera_plan plan = {0};
    enum itera_status status = ITERA_ERR_MEMORY;
    if (!e || !bases)
        goto fail;
    status = itera_plan_create(p, 64, NULL, &plan);
    if (status)
        goto fail;
    status = ITERA_ERR_MEMORY;
    e->base.device = base;
    e->flush = ((struct cpu_device *)base)->isa != ITERA_ISA_REF;
    e->steps = calloc((size_t)p->n_ops + 1, sizeof *e->steps);
    e->op_seconds = calloc((size_t)p->n_ops + 1, sizeof *e->op_seconds);
    if (!e->steps || !e->op_seconds)
        goto fail;
    for (int32_t t = 0; t < p->n_tensors; t++)
        bases[t] = (uint8_t *)bases;
    size_t scratch = choose_kernels(e, p, options, bases);
    e->base.memory_bytes = (size_t)plan.bytes + scratch;
    e->memory = memory_create(e->base.memory_bytes + 64);
    if (!e->memory)
        goto fail;
    for (size_t i = 0; options->checking && i < e->base.memory_bytes / 4; i++)
        ((uint32_t *)(void *)e->memory)[i] = 0x7fedbeefu;
    place_bases(e, p, &plan, bindings, n_bindings, bases);
    place_steps(e, p, e->memory + plan.bytes, bases);
    itera_plan_destroy(&plan);
    free(bases);
    *out = &e->base;
    return ITERA_OK;
fail:
    if (status == ITERA_ERR_MEMORY)
        status =
            itera_fail(status, "cpu: no memory for a program of %lld bytes", (long long)plan.bytes);
    itera_plan_destroy(&plan);
    free(bases);
    if (e)
        cpu_executable_destroy(&e->base);
    return status;
}

/* Subnormal results are flushed to zero while fast kernels run: decaying states and the second
 * moments of idle weights reach them, and each costs a hundred cycles. */
static unsigned flush_begin(bool flush)
{
#if defined(__x86_64__)
    unsigned old = _mm_getcsr();
    if (flush)
        _mm_setcsr(old | 0x8040);
    return old;
#else
    (void)flush;
    return 0;
#endif
}

static void flush_end(unsigned old)
{
#if defined(__x86_64__)
    _mm_setcsr(old);
#else
    (void)old;
#endif
}

static void run_steps(void *user, struct itera_team *team)
{
    const struct cpu_executable *e = user;
    unsigned old = flush_begin(e->flush);
    struct itera_team one = {.rank = 0, .size = 1, .pool = team->pool};
    const struct itera_device *device = e->base.device;
    for (int32_t i = 0; i < e->n_steps; i++) {
        const struct step *step = &e->steps[i];
        if (!step->alone)
            step->run(&step->call, team);
        else if (team->rank == 0)
            step->run(&step->call, &one);
        if (device->after_op && device->threads == 1)
            device->after_op(device->after_op_user, &step->call);
        if (step->barrier)
            itera_team_barrier(team);
    }
    flush_end(old);
}

static void profile_steps(void *user, struct itera_team *team)
{
    struct cpu_executable *e = user;
    unsigned old = flush_begin(e->flush);
    struct itera_team one = {.rank = 0, .size = 1, .pool = team->pool};
    double before = itera_seconds();
    for (int32_t i = 0; i < e->n_steps; i++) {
        const struct step *step = &e->steps[i];
        if (!step->alone)
            step->run(&step->call, team);
        else if (team->rank == 0)
            step->run(&step->call, &one);
        itera_team_barrier(team);
        if (team->rank == 0) {
            double after = itera_seconds();
            e->op_seconds[i] = after - before;
            before = after;
        }
    }
    flush_end(old);
}

static enum itera_status cpu_run(struct itera_executable *base)
{
    struct itera_pool *pool = ((struct cpu_device *)base->device)->pool;
    struct itera_team one = {.rank = 0, .size = 1, .pool = pool};
    if (((const struct cpu_executable *)base)->alone)
        run_steps(base, &one);
    else
        itera_pool_run(pool, run_steps, base);
    return ITERA_OK;
}

static enum itera_status cpu_profile(struct itera_executable *base, double *op_seconds)
{
    struct cpu_executable *e = (struct cpu_executable *)base;
    itera_pool_run(((struct cpu_device *)base->device)->pool, profile_steps, base);
    memcpy(op_seconds, e->op_seconds, (size_t)e->n_steps * sizeof *op_seconds);
    return ITERA_OK;
}

const struct itera_backend itera_backend_cpu = {
    .name = "cpu",
    .list = cpu_list,
    .open = cpu_open,
    .close = cpu_close,
    .buffer_create = cpu_buffer_create,
    .buffer_destroy = cpu_buffer_destroy,
    .upload = cpu_upload,
    .download = cpu_download,
    .supports = cpu_supports,
    .compile = cpu_compile,
    .executable_destroy = cpu_executable_destroy,
    .run = cpu_run,
    .profile = cpu_profile,
};
