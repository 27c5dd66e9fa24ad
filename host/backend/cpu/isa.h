/* The instruction set levels of the CPU backend, and each level's kernel table. */
#ifndef ITERA_BACKEND_CPU_ISA_H
#define ITERA_BACKEND_CPU_ISA_H

#include "backend/cpu/kernel.h"

/* In rising order on each architecture. avx512vnni and neondot differ from the level before in the
 * products of int8 blocks. */
enum itera_isa {
    ITERA_ISA_REF,
    ITERA_ISA_NEON,
    ITERA_ISA_NEONDOT,
    ITERA_ISA_AVX2,
    ITERA_ISA_AVX512,
    ITERA_ISA_AVX512VNNI,
    ITERA_ISA_COUNT
};

/* What struct itera_device_options and the like take as isa: the names of all levels. */
#define ITERA_ISA_NAMES "ref, avx2, avx512, avx512vnni, neon, neondot"

const char *itera_isa_name(enum itera_isa isa);
/* Whether this build carries the level and this processor runs it. */
bool itera_isa_available(enum itera_isa isa);
enum itera_isa itera_isa_best(void);
/* Whether an AArch64 processor has the int8 dot product instructions; false elsewhere. */
bool itera_isa_has_dotprod(void);
/* Whether the processor converts half precision; false where it is no x86. */
bool itera_isa_has_f16c(void);
/* By name; fails when there is no such level, or not here. */
enum itera_status itera_isa_find(const char *name, enum itera_isa *out);
/* The kernel of every op at a level: its own, or that of the level below; never empty. */
const struct itera_kernel *itera_isa_kernel(enum itera_isa isa, enum itera_op_kind kind);

#endif
