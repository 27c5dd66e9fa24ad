/* What every fast kernel includes. A file in cpu_fallback/simd/ is compiled once per ISA level, over
 * that level's vec.h; ITERA_SIMD(op) is the name of the kernel of this level. */
#ifndef ITERA_SIMD_KERNEL_H
#define ITERA_SIMD_KERNEL_H

#include "backend/cpu/kernel.h"
#include "vec.h"

#include "cpu_fallback/simd/math.h"

#define ITERA_JOIN2(a, b) a##_##b
#define ITERA_JOIN(a, b)  ITERA_JOIN2(a, b)
/* itera_<op>_<isa> */
#define ITERA_SIMD(op) ITERA_JOIN(itera_##op, ITERA_ISA)

#endif
