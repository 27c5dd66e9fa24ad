#include "backend/gpu/units.h"

#include <stddef.h>
#include <string.h>

/* Intel's drivers for Vulkan do not say. By PCI id where chips of one name differ. */
static const struct {
    uint32_t pci_device;
    uint32_t units;
} by_pci[] = {
    /* Arc A: DG2 */
    {0x5690, 32}, /* A770M */
    {0x5691, 24}, /* A730M */
    {0x5692, 16}, /* A550M */
    {0x5693, 8},  /* A370M */
    {0x5694, 6},  /* A350M */
    {0x5696, 16}, /* A570M */
    {0x5697, 16}, /* A530M */
    {0x56a0, 32}, /* A770 */
    {0x56a1, 28}, /* A750 */
    {0x56a2, 24}, /* A580 */
    {0x56a5, 8},  /* A380 */
    {0x56a6, 6},  /* A310 */
    {0x56b0, 8},  /* Pro A30M */
    {0x56b1, 8},  /* Pro A40, A50 */
    {0x56b2, 16}, /* Pro A60M */
    {0x56b3, 16}, /* Pro A60 */
    {0x56c0, 32}, /* Flex 170 */
    {0x56c1, 8},  /* Flex 140, one of two */
    /* Arc B: Battlemage */
    {0xe20b, 20}, /* B580 */
    {0xe20c, 18}, /* B570 */
    {0xe211, 20}, /* Pro B60 */
    {0xe212, 16}, /* Pro B50 */
};

/* The first whose text the name holds. */
static const struct {
    enum itera_gpu_vendor vendor;
    const char *text;
    uint32_t units;
} by_name[] = {
    {ITERA_GPU_INTEL, "A770", 32},
    {ITERA_GPU_INTEL, "A750", 28},
    {ITERA_GPU_INTEL, "A580", 24},
    {ITERA_GPU_INTEL, "A380", 8},
    {ITERA_GPU_INTEL, "A310", 6},
    {ITERA_GPU_INTEL, "B580", 20},
    {ITERA_GPU_INTEL, "B570", 18},
    {ITERA_GPU_INTEL, "140V", 8}, /* Lunar Lake */
    {ITERA_GPU_INTEL, "130V", 7},
    {ITERA_GPU_INTEL, "(LNL)", 8},
    {ITERA_GPU_INTEL, "(BMG", 20},
    {ITERA_GPU_INTEL, "(DG2)", 16},
    {ITERA_GPU_INTEL, "(ARL)", 8}, /* Arrow Lake: 4 to 8 */
    {ITERA_GPU_INTEL, "(MTL)", 8}, /* Meteor Lake: 4 to 8 */
    {ITERA_GPU_INTEL, "Arc(TM) Graphics", 8},
    {ITERA_GPU_INTEL, "Iris(R) Xe", 6},     /* 80 or 96 execution units, 16 a dual subslice */
    {ITERA_GPU_INTEL, "Iris(R) Plus", 8},   /* Ice Lake: 64, 8 a subslice */
    {ITERA_GPU_INTEL, "UHD Graphics 7", 2}, /* Alder, Rocket Lake: 24 or 32 */
    {ITERA_GPU_INTEL, "HD Graphics", 3},    /* Gen9: 24, 8 a subslice; UHD, too */
};

enum {
    EUS_PER_UNIT = 16, /* Intel's OpenCL counts execution units */
};

static uint32_t look_up(const struct itera_gpu_identity *identity)
{
    if (identity->vendor == ITERA_GPU_INTEL)
        for (size_t i = 0; i < sizeof by_pci / sizeof *by_pci; i++)
            if (by_pci[i].pci_device == identity->pci_device)
                return by_pci[i].units;
    for (size_t i = 0; i < sizeof by_name / sizeof *by_name; i++)
        if (by_name[i].vendor == identity->vendor && strstr(identity->name, by_name[i].text))
            return by_name[i].units;
    return 0;
}

/* AMD's OpenCL drivers give a device the name of its instruction set, and count work group processors,
 * of two units each, from RDNA (gfx10) on. Mesa's count units. */
static bool counts_pairs(const char *name)
{
    return !strncmp(name, "gfx1", 4);
}

uint32_t itera_gpu_units(const struct itera_gpu_identity *identity)
{
    static const uint32_t usual[] = {[ITERA_GPU_OTHER] = 16,
                                     [ITERA_GPU_NVIDIA] = 64,
                                     [ITERA_GPU_AMD] = 40,
                                     [ITERA_GPU_INTEL] = 8,
                                     [ITERA_GPU_SOFTWARE] = 0};
    const uint32_t reported = identity->reported;
    if (!reported) {
        uint32_t units = look_up(identity);
        return units ? units : usual[identity->vendor];
    }
    if (identity->vendor == ITERA_GPU_INTEL)
        return (reported + EUS_PER_UNIT - 1) / EUS_PER_UNIT;
    if (identity->vendor == ITERA_GPU_AMD && counts_pairs(identity->name))
        return 2 * reported;
    return reported;
}
