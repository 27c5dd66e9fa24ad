#include "backend/cpu/isa.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
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

#ifdef ITERA_HAVE_avx512vnni
extern const struct itera_kernel itera_matmul_avx512vnni, itera_grouped_matmul_avx512vnni;
static const struct itera_kernel *const avx512vnni_kernels[ITERA_OP_COUNT] = {
    [ITERA_OP_matmul] = &itera_matmul_avx512vnni,
    [ITERA_OP_grouped_matmul] = &itera_grouped_matmul_avx512vnni,
};
#endif

#ifdef ITERA_HAVE_neondot
extern const struct itera_kernel itera_matmul_neondot, itera_grouped_matmul_neondot;
static const struct itera_kernel *const neondot_kernels[ITERA_OP_COUNT] = {
    [ITERA_OP_matmul] = &itera_matmul_neondot,
    [ITERA_OP_grouped_matmul] = &itera_grouped_matmul_neondot,
};
#endif

const char *itera_isa_name(enum itera_isa isa)
{
    static const char *const names[ITERA_ISA_COUNT] = {"ref",  "neon",   "neondot",
                                                       "avx2", "avx512", "avx512vnni"};
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

bool itera_isa_has_dotprod(void)
{
#if defined(__aarch64__) && defined(__linux__)
    const unsigned long asimddp = 1ul << 20; /* HWCAP_ASIMDDP */
    return getauxval(AT_HWCAP) & asimddp;
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
#ifdef ITERA_HAVE_neondot
    case ITERA_ISA_NEONDOT:
        return itera_isa_has_dotprod();
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
#ifdef ITERA_HAVE_avx512vnni
    case ITERA_ISA_AVX512VNNI:
        return __builtin_cpu_supports("avx512vnni") && itera_isa_available(ITERA_ISA_AVX512);
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
                      "CPU level '%s' (ITERA_CPU_ISA, or isa) is none of " ITERA_ISA_NAMES, name);
}

/* The level's own kernels, or NULL where this build has none of it. */
static const struct itera_kernel *const *kernels_of(enum itera_isa isa)
{
    switch (isa) {
#ifdef ITERA_HAVE_neon
    case ITERA_ISA_NEON:
        return neon_kernels;
#endif
#ifdef ITERA_HAVE_neondot
    case ITERA_ISA_NEONDOT:
        return neondot_kernels;
#endif
#ifdef ITERA_HAVE_avx2
    case ITERA_ISA_AVX2:
        return avx2_kernels;
#endif
#ifdef ITERA_HAVE_avx512
    case ITERA_ISA_AVX512:
        return avx512_kernels;
#endif
#ifdef ITERA_HAVE_avx512vnni
    case ITERA_ISA_AVX512VNNI:
        return avx512vnni_kernels;
#endif
    default:
        return NULL;
    }
}

const struct itera_kernel *itera_isa_kernel(enum itera_isa isa, enum itera_op_kind kind)
{
    const struct itera_kernel *kernel = ref_kernels[kind];
    for (int level = ITERA_ISA_REF + 1; level <= (int)isa; level++) {
        const struct itera_kernel *const *own = kernels_of((enum itera_isa)level);
        if (own && own[kind])
            kernel = own[kind];
    }
    return kernel;
}
