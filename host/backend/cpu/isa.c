#include "backend/cpu/isa.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "core/log.h"

/* The op list's simd column decides which ops have a symbol at the vector levels. */
#define SIMD_ENTRY_0(op, isa)
#define SIMD_ENTRY_1(op, isa) [ITERA_OP_##op] = &itera_##op##_##isa,
#define SIMD_EXTERN_0(op, isa)
#define SIMD_EXTERN_1(op, isa) extern const struct itera_kernel itera_##op##_##isa;

static const struct itera_kernel *const ref_kernels[ITERA_OP_COUNT] = {
#define ITERA_OP(op, inputs, outputs, simd, tolerance) [ITERA_OP_##op] = &itera_##op##_ref,
#include "ops/op_list.h"
#undef ITERA_OP
};

#ifdef ITERA_HAVE_avx2
#define ITERA_OP(op, inputs, outputs, simd, tolerance) SIMD_EXTERN_##simd(op, avx2)
#include "ops/op_list.h"
#undef ITERA_OP
static const struct itera_kernel *const avx2_kernels[ITERA_OP_COUNT] = {
#define ITERA_OP(op, inputs, outputs, simd, tolerance) SIMD_ENTRY_##simd(op, avx2)
#include "ops/op_list.h"
#undef ITERA_OP
};
#endif

#ifdef ITERA_HAVE_avx512
#define ITERA_OP(op, inputs, outputs, simd, tolerance) SIMD_EXTERN_##simd(op, avx512)
#include "ops/op_list.h"
#undef ITERA_OP
static const struct itera_kernel *const avx512_kernels[ITERA_OP_COUNT] = {
#define ITERA_OP(op, inputs, outputs, simd, tolerance) SIMD_ENTRY_##simd(op, avx512)
#include "ops/op_list.h"
#undef ITERA_OP
};
#endif

#ifdef ITERA_HAVE_neon
#define ITERA_OP(op, inputs, outputs, simd, tolerance) SIMD_EXTERN_##simd(op, neon)
#include "ops/op_list.h"
#undef ITERA_OP
static const struct itera_kernel *const neon_kernels[ITERA_OP_COUNT] = {
#define ITERA_OP(op, inputs, outputs, simd, tolerance) SIMD_ENTRY_##simd(op, neon)
#include "ops/op_list.h"
#undef ITERA_OP
};
#endif

const char *itera_isa_name(enum itera_isa isa)
{
    static const char *const names[ITERA_ISA_COUNT] = {"ref", "neon", "avx2", "avx512"};
    return names[isa];
}

/* Not every compiler's __builtin_cpu_supports knows the feature (clang 14 does not). */
bool itera_isa_has_f16c(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
#else
    return false;
#endif
}

bool itera_isa_available(enum itera_isa isa)
{
    switch (isa) {
    case ITERA_ISA_REF:
        return true;
#ifdef ITERA_HAVE_neon
    case ITERA_ISA_NEON:
        return true;
#endif
#ifdef ITERA_HAVE_avx2
    case ITERA_ISA_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
               itera_isa_has_f16c();
#endif
#ifdef ITERA_HAVE_avx512
    case ITERA_ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               itera_isa_available(ITERA_ISA_AVX2);
#endif
    default:
        return false;
    }
}

enum itera_isa itera_isa_best(void)
{
    for (int isa = ITERA_ISA_COUNT - 1; isa > 0; isa--)
        if (itera_isa_available((enum itera_isa)isa))
            return (enum itera_isa)isa;
    return ITERA_ISA_REF;
}

enum itera_status itera_isa_find(const char *name, enum itera_isa *out)
{
    for (int isa = 0; isa < ITERA_ISA_COUNT; isa++) {
        if (strcmp(name, itera_isa_name((enum itera_isa)isa)))
            continue;
        if (!itera_isa_available((enum itera_isa)isa))
            return itera_fail(ITERA_ERR_UNSUPPORTED,
                              "this processor (or this build) has no %s; the best here is %s", name,
                              itera_isa_name(itera_isa_best()));
        *out = (enum itera_isa)isa;
        return ITERA_OK;
    }
    return itera_fail(ITERA_ERR_ARGUMENT,
                      "CPU level '%s' (ITERA_CPU_ISA or --isa) is none of ref, avx2, avx512, neon",
                      name);
}

const struct itera_kernel *itera_isa_kernel(enum itera_isa isa, enum itera_op_kind kind)
{
    const struct itera_kernel *kernel = ref_kernels[kind];
    if (isa == ITERA_ISA_REF)
        return kernel;
#ifdef ITERA_HAVE_neon
    if (neon_kernels[kind])
        kernel = neon_kernels[kind];
#endif
#ifdef ITERA_HAVE_avx2
    if (avx2_kernels[kind])
        kernel = avx2_kernels[kind];
#endif
    if (isa != ITERA_ISA_AVX512)
        return kernel;
#ifdef ITERA_HAVE_avx512
    if (avx512_kernels[kind])
        kernel = avx512_kernels[kind];
#endif
    return kernel;
}
