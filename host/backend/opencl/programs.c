/* Programs: a .cl file compiled with one set of constants, when a dispatch first needs it, and kept
 * on disk as the driver's binary. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/cache.h"
#include "backend/gpu/fault.h"
#include "backend/gpu/hash.h"
#include "backend/opencl/opencl.h"
#include "core/clock.h"
#include "core/log.h"

/* How much of a build log goes to the log (lines) and into an error (characters). */
enum { LOG_LINES = 20, LOG_EXCERPT = 480 };

/* What asks for integer dot products (dot.clh). */
#define DOT_OPTION " -D DOT=1"

bool opencl_has_kernel(struct itera_gpu_device *base, const char *kernel)
{
    const struct opencl_device *d = (const struct opencl_device *)base;
    if (!strcmp(kernel, "clblast_gemm"))
        return d->gpu.traits.clblast;
    int file = opencl_sources_find(&d->sources, kernel);
    return file >= 0 && !d->broken[file];
}

void opencl_programs_close(struct opencl_device *d)
{
    for (int i = 0; i < d->n_programs; i++) {
        d->cl->ReleaseProgram(d->programs[i].program);
        free(d->programs[i].kernels);
    }
    free(d->programs);
    d->programs = NULL;
    d->n_programs = d->cap_programs = 0;
}

static bool has_constant(const struct itera_gpu_dispatch *dispatch, const char *name,
                         uint32_t value)
{
    for (int i = 0; i < dispatch->n_constants; i++)
        if (!strcmp(dispatch->constant[i].name, name) && dispatch->constant[i].value == value)
            return true;
    return false;
}

/* Integer dot products are there for OpenCL C 3.0 alone, but for those in PTX. Of workgroups of 256 with
 * up to 128 registers a lane NVIDIA's units hold two, of others one. */
static enum itera_status write_options(const struct opencl_device *d,
                                       const struct itera_gpu_dispatch *dispatch, char *out,
                                       size_t size, struct itera_reason *why)
{
    const bool dot = d->gpu.traits.dot && !d->ptx_dot;
    size_t used = (size_t)snprintf(out, size, "-cl-std=%s", dot ? "CL3.0" : "CL1.2");
    if (d->ptx_dot && used < size)
        used += (size_t)snprintf(out + used, size - used, " -D ITERA_PTX_DOT");
    if (d->nvidia && has_constant(dispatch, "TILE", 128) && used < size)
        used += (size_t)snprintf(out + used, size - used, " -cl-nv-maxrregcount=128");
    for (int i = 0; i < dispatch->n_constants && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, " -D %s=%u", dispatch->constant[i].name,
                                 dispatch->constant[i].value);
    if (d->gpu.base.lane_order && used < size)
        used += (size_t)snprintf(out + used, size - used, " -D ITERA_LANE_ORDER=%d",
                                 d->gpu.base.lane_order);
    if (used < size)
        return ITERA_OK;
    return itera_refuse(why, "the constants of kernel %s are too long", dispatch->kernel);
}

/* What the compiler said, without empty lines; to be freed, may be NULL. */
static char *build_log(const struct opencl_device *d, cl_program program)
{
    size_t size = 0;
    if (d->cl->GetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size))
        size = 0;
    char *text = calloc(size + 1, 1);
    if (!text || !size ||
        d->cl->GetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, size, text, NULL))
        return text;
    size_t kept = 0;
    for (size_t i = 0; text[i]; i++)
        if (text[i] != '\n' || (kept && text[kept - 1] != '\n'))
            text[kept++] = text[i];
    while (kept && (text[kept - 1] == '\n' || text[kept - 1] == ' '))
        kept--;
    text[kept] = '\0';
    return text;
}

/* From now on the file's kernels are not to be had. */
static enum itera_status build_failed(struct opencl_device *d, int file, cl_int error, char *log,
                                      struct itera_reason *why)
{
    const struct itera_device_info *info = &d->gpu.base.info;
    const char *name = d->sources.files[file].name;
    d->broken[file] = true;
    itera_log(ITERA_LOG_WARNING, "%s: the kernel file %s does not compile; its ops are not used",
              info->id, name);
    char *line = log;
    for (int i = 0; line && *line && i < LOG_LINES; i++) {
        size_t length = strcspn(line, "\n");
        itera_log(ITERA_LOG_WARNING, "  %.*s", (int)length, line);
        line += length + (line[length] == '\n');
    }
    for (char *at = log; at && *at; at++)
        *at = *at == '\n' ? ' ' : *at;
    return itera_refuse(why,
                        "%s (%s): the kernel file %s does not compile (%s); update the device's "
                        "driver, or leave the file's ops to the CPU; the compiler says: %.*s",
                        info->id, info->name, name, opencl_error_name(error), LOG_EXCERPT,
                        log && *log ? log : "nothing");
}

/* Whether `binary` was made by this driver and still serves it. */
static bool build_binary(const struct opencl_device *d, const unsigned char *binary, size_t bytes,
                         const char *options, cl_program *out)
{
    cl_int error, loaded = CL_SUCCESS;
    cl_program program =
        d->cl->CreateProgramWithBinary(d->context, 1, &d->id, &bytes, &binary, &loaded, &error);
    if (!error && !loaded)
        error = d->cl->BuildProgram(program, 1, &d->id, options, NULL, NULL);
    if (!error && !loaded) {
        *out = program;
        return true;
    }
    if (program)
        d->cl->ReleaseProgram(program);
    itera_log(ITERA_LOG_WARNING,
              "%s: the driver does not take a kernel binary from the cache (%s); it is built anew",
              d->gpu.base.info.id, opencl_error_name(error ? error : loaded));
    return false;
}

static enum itera_status build_source(struct opencl_device *d, int file, const char *text,
                                      size_t bytes, const char *options, cl_program *out,
                                      struct itera_reason *why);

/* A compiler that lacks the dot products which its driver says it has: the plain arithmetic does. What is
 * lowered from now on does not ask for them. */
static enum itera_status build_without_dot(struct opencl_device *d, int file, const char *text,
                                           size_t bytes, const char *options, cl_program *out,
                                           struct itera_reason *why)
{
    char plain[sizeof((struct opencl_program *)0)->options];
    const char *at = strstr(options, DOT_OPTION);
    snprintf(plain, sizeof plain, "%.*s%s", (int)(at - options), options,
             at + sizeof DOT_OPTION - 1);
    itera_log(ITERA_LOG_INFO, "%s: the driver does not compile %s with integer dot products",
              d->gpu.base.info.id, d->sources.files[file].name);
    d->gpu.traits.dot = d->gpu.traits.dot_fast = false;
    return build_source(d, file, text, bytes, plain, out, why);
}

static enum itera_status build_source(struct opencl_device *d, int file, const char *text,
                                      size_t bytes, const char *options, cl_program *out,
                                      struct itera_reason *why)
{
    cl_int error;
    cl_program program = d->cl->CreateProgramWithSource(d->context, 1, &text, &bytes, &error);
    if (error)
        return opencl_refuse(d, "clCreateProgramWithSource", error, why);
    double start = itera_seconds();
    error = itera_gpu_fault(ITERA_GPU_FAULT_BUILD)
                ? CL_BUILD_PROGRAM_FAILURE
                : d->cl->BuildProgram(program, 1, &d->id, options, NULL, NULL);
    if (error && !opencl_is_failure(error) && strstr(options, DOT_OPTION)) {
        d->cl->ReleaseProgram(program);
        return build_without_dot(d, file, text, bytes, options, out, why);
    }
    char *log = build_log(d, program);
    if (error) {
        enum itera_status status = opencl_is_failure(error)
                                       ? opencl_fail(d, "clBuildProgram", error)
                                       : build_failed(d, file, error, log, why);
        free(log);
        d->cl->ReleaseProgram(program);
        return status;
    }
    itera_log(ITERA_LOG_DEBUG, "%s: built %s (%s) in %.2f s%s", d->gpu.base.info.id,
              d->sources.files[file].name, options, itera_seconds() - start,
              log && *log ? ", with warnings" : "");
    free(log);
    *out = program;
    return ITERA_OK;
}

static void keep_binary(const struct opencl_device *d, const char *name, const char *identity,
                        cl_program program)
{
    size_t bytes = 0;
    if (d->cl->GetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof bytes, &bytes, NULL) ||
        !bytes)
        return;
    unsigned char *binary = malloc(bytes);
    if (binary &&
        !d->cl->GetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL))
        itera_gpu_cache_write(name, identity, binary, bytes);
    free(binary);
}

static enum itera_status build(struct opencl_device *d, int file, const char *options,
                               cl_program *out, struct itera_reason *why)
{
    char *text;
    size_t bytes;
    struct itera_attempt attempt; /* without the file there are its ops' places elsewhere */
    itera_attempt_begin(&attempt);
    enum itera_status status = opencl_sources_resolve(&d->sources, file, &text, &bytes);
    itera_attempt_end(&attempt);
    if (status == ITERA_ERR_MEMORY)
        return itera_fail(status, "%s", attempt.error);
    if (status) {
        d->broken[file] = true;
        return itera_refuse(why, "%s", attempt.error);
    }
    char identity[sizeof d->identity + 576], name[96];
    snprintf(identity, sizeof identity, "%s | %s | %016llx", d->identity, options,
             (unsigned long long)itera_gpu_hash(0, text, bytes));
    snprintf(name, sizeof name, "%s-%016llx.bin", d->sources.files[file].name,
             (unsigned long long)itera_gpu_hash(0, identity, strlen(identity)));
    void *binary = NULL;
    size_t binary_bytes = 0;
    if (d->keeps_binaries)
        status = itera_gpu_cache_read(name, identity, &binary, &binary_bytes);
    if (!status && !(binary && build_binary(d, binary, binary_bytes, options, out))) {
        status = build_source(d, file, text, bytes, options, out, why);
        if (!status && d->keeps_binaries)
            keep_binary(d, name, identity, *out);
    }
    free(binary);
    free(text);
    return status;
}

/* The dispatch's program, built if it has not been. */
static enum itera_status find_program(struct opencl_device *d,
                                      const struct itera_gpu_dispatch *dispatch,
                                      struct opencl_program **out, struct itera_reason *why)
{
    const struct itera_device_info *info = &d->gpu.base.info;
    struct opencl_program wanted = {.file = opencl_sources_find(&d->sources, dispatch->kernel)};
    if (wanted.file < 0)
        return itera_refuse(why, "%s (%s): there is no kernel %s", info->id, info->name,
                            dispatch->kernel);
    enum itera_status status =
        write_options(d, dispatch, wanted.options, sizeof wanted.options, why);
    if (status)
        return status;
    for (int i = 0; i < d->n_programs; i++) {
        *out = &d->programs[i];
        if ((*out)->file == wanted.file && !strcmp((*out)->options, wanted.options))
            return ITERA_OK;
    }
    if (d->n_programs == d->cap_programs) {
        int cap = d->cap_programs ? d->cap_programs * 2 : 16;
        struct opencl_program *grown = realloc(d->programs, (size_t)cap * sizeof *grown);
        if (!grown)
            return itera_fail(ITERA_ERR_MEMORY, "no memory for the kernels of %s", info->id);
        d->programs = grown;
        d->cap_programs = cap;
    }
    status = build(d, wanted.file, wanted.options, &wanted.program, why);
    if (status)
        return status;
    *out = &d->programs[d->n_programs++];
    **out = wanted;
    return ITERA_OK;
}

char *opencl_build_log(struct opencl_device *d, const struct itera_gpu_dispatch *dispatch,
                       const char *option)
{
    char options[sizeof d->programs->options + 64], *text = NULL, *log = NULL;
    struct itera_reason why;
    const int file = opencl_sources_find(&d->sources, dispatch->kernel);
    if (file < 0 || write_options(d, dispatch, options, sizeof d->programs->options, &why))
        return NULL;
    size_t bytes, used = strlen(options);
    snprintf(options + used, sizeof options - used, " %s", option);
    struct itera_attempt attempt;
    itera_attempt_begin(&attempt); /* nothing depends on it */
    enum itera_status status = opencl_sources_resolve(&d->sources, file, &text, &bytes);
    itera_attempt_end(&attempt);
    if (status)
        return NULL;
    cl_int error;
    const char *source = text;
    cl_program program = d->cl->CreateProgramWithSource(d->context, 1, &source, &bytes, &error);
    if (!error) {
        if (!d->cl->BuildProgram(program, 1, &d->id, options, NULL, NULL))
            log = build_log(d, program);
        d->cl->ReleaseProgram(program);
    }
    free(text);
    return log;
}

/* Asks the driver how large a group of this kernel may be. */
static enum itera_status look_at_kernel(struct opencl_device *d, struct opencl_program *program,
                                        const char *name, struct opencl_kernel **out,
                                        struct itera_reason *why)
{
    struct opencl_kernel *grown =
        realloc(program->kernels, ((size_t)program->n_kernels + 1) * sizeof *grown);
    if (!grown)
        return itera_fail(ITERA_ERR_MEMORY, "no memory for the kernels of %s", d->gpu.base.info.id);
    program->kernels = grown;
    struct opencl_kernel *added = &grown[program->n_kernels];
    snprintf(added->name, sizeof added->name, "%s", name);
    cl_int error;
    cl_kernel kernel = d->cl->CreateKernel(program->program, name, &error);
    if (error)
        return opencl_refuse(d, "clCreateKernel", error, why);
    error = d->cl->GetKernelWorkGroupInfo(kernel, d->id, CL_KERNEL_WORK_GROUP_SIZE,
                                          sizeof added->max_local, &added->max_local, NULL);
    d->cl->ReleaseKernel(kernel);
    if (error)
        return opencl_refuse(d, "clGetKernelWorkGroupInfo", error, why);
    program->n_kernels++;
    *out = added;
    return ITERA_OK;
}

bool opencl_takes_ptx(struct opencl_device *d)
{
    static const char *const text = "kernel void four(global int *x)\n"
                                    "{\n"
                                    "    int sum;\n"
                                    "    __asm__(\"dp4a.s32.s32 %0, %1, %2, %3;\" : \"=r\"(sum) : "
                                    "\"r\"(x[0]), \"r\"(x[1]), \"r\"(x[2]));\n"
                                    "    x[3] = sum;\n"
                                    "}\n";
    cl_int error;
    cl_program program =
        d->cl->CreateProgramWithSource(d->context, 1, (const char **)&text, NULL, &error);
    if (error)
        return false;
    error = d->cl->BuildProgram(program, 1, &d->id, "-cl-std=CL1.2", NULL, NULL);
    d->cl->ReleaseProgram(program);
    return !error;
}

enum itera_status opencl_prepare(struct itera_gpu_device *base,
                                 const struct itera_gpu_dispatch *dispatch,
                                 struct itera_reason *why)
{
    struct opencl_device *d = (struct opencl_device *)base;
    if (!strcmp(dispatch->kernel, "clblast_gemm"))
        return ITERA_OK;
    struct opencl_program *program;
    enum itera_status status = find_program(d, dispatch, &program, why);
    if (status)
        return status;
    struct opencl_kernel *kernel = NULL;
    for (int i = 0; !kernel && i < program->n_kernels; i++)
        if (!strcmp(program->kernels[i].name, dispatch->kernel))
            kernel = &program->kernels[i];
    if (!kernel)
        status = look_at_kernel(d, program, dispatch->kernel, &kernel, why);
    if (status)
        return status;
    size_t need = (size_t)dispatch->local[0] * dispatch->local[1] * dispatch->local[2];
    if (need > kernel->max_local)
        return itera_refuse(
            why, "%s (%s): kernel %s wants workgroups of %zu, and the driver takes %zu",
            base->base.info.id, base->base.info.name, dispatch->kernel, need, kernel->max_local);
    return ITERA_OK;
}

enum itera_status opencl_kernel_create(struct opencl_device *d,
                                       const struct itera_gpu_dispatch *dispatch, cl_kernel *out)
{
    struct opencl_program *program;
    struct itera_reason why;
    enum itera_status status = find_program(d, dispatch, &program, &why);
    if (status == ITERA_ERR_UNSUPPORTED)
        return itera_fail(status, "%s", why.text);
    if (status)
        return status;
    cl_int error;
    cl_kernel kernel = d->cl->CreateKernel(program->program, dispatch->kernel, &error);
    if (error)
        return opencl_fail(d, "clCreateKernel", error);
    *out = kernel;
    return ITERA_OK;
}
