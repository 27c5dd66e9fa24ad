/* Which OpenCL devices there are, and what they can do. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/fault.h"
#include "backend/gpu/units.h"
#include "backend/opencl/opencl.h"
#include "core/log.h"
#include "core/number.h"

enum {
    MAX_PLATFORMS = 16,
    MAX_DEVICES = 32,
    INTEL_TILE = 64, /* of 128, its compiler leaves the sums in memory */
};

/* Kernels address elements with 32 bits. */
static const uint64_t MAX_ADDRESSED = (uint64_t)4 << 32;
/* Pointers and words of the largest dispatch. */
static const size_t PARAMETER_BYTES = ITERA_GPU_MAX_BINDINGS * 8 + ITERA_GPU_MAX_WORDS * 4;

static const struct {
    const char *extension, *name;
    bool used;
} extensions[] = {
    {"cl_khr_fp16", "fp16", false},
    {"cl_khr_fp64", "fp64", false},
    {"cl_khr_subgroups", "subgroups", false},
    {"cl_intel_subgroups", "intel_subgroups", false},
    {"cl_khr_integer_dot_product", "integer_dot_product", false}, /* see find_dot */
};

/* Of cl_khr_integer_dot_product, which older headers lack. */
enum {
    INTEGER_DOT_CAPABILITIES = 0x1073,        /* a bit field */
    INTEGER_DOT_PACKED = 1,                   /* of it: operands are words of four int8 */
    INTEGER_DOT_PACKED_ACCELERATION = 0x1075, /* six cl_bool, for signed operands the first */
};

static void warn(bool wanted, const char *format, ...)
{
    if (!wanted)
        return;
    char text[512];
    va_list args;
    va_start(args, format);
    itera_format_args(text, sizeof text, format, args);
    va_end(args);
    itera_log(ITERA_LOG_WARNING, "opencl: %s", text);
}

/* A device's string, without the spaces around it; "" when there is none. To be freed; may be NULL
 * for lack of memory. */
static char *device_string(const struct opencl_api *cl, cl_device_id id, cl_device_info what)
{
    size_t size = 0;
    if (cl->GetDeviceInfo(id, what, 0, NULL, &size))
        size = 0;
    char *text = calloc(size + 1, 1);
    if (!text || (size && cl->GetDeviceInfo(id, what, size, text, NULL)))
        return text;
    size_t length = strlen(text), skip = strspn(text, " ");
    while (length > skip && text[length - 1] == ' ')
        length--;
    memmove(text, text + skip, length - skip);
    text[length - skip] = '\0';
    return text;
}

static void copy_device_string(const struct opencl_api *cl, cl_device_id id, cl_device_info what,
                               char *out, size_t size)
{
    char *text = device_string(cl, id, what);
    snprintf(out, size, "%s", text ? text : "");
    free(text);
}

/* A number; 0 when the device does not say. */
static cl_ulong device_number(const struct opencl_api *cl, cl_device_id id, cl_device_info what)
{
    union {
        cl_uint word;
        cl_ulong wide;
    } value = {0};
    size_t size = 0;
    if (cl->GetDeviceInfo(id, what, sizeof value, &value, &size))
        return 0;
    return size == sizeof value.word ? value.word : value.wide;
}

/* Whether the list of extensions, separated by spaces, has this one. */
static bool has_extension(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; (at = strstr(at, name)); at += length)
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

/* What the device lacks, or NULL when it will do. */
static const char *lack(const struct opencl_api *cl, cl_device_id id)
{
    char version[64];
    copy_device_string(cl, id, CL_DEVICE_VERSION, version, sizeof version);
    int major = 0, minor = 0;
    if (sscanf(version, "OpenCL %d.%d", &major, &minor) != 2 || major * 10 + minor < 12)
        return "its OpenCL is older than 1.2";
    if (!device_number(cl, id, CL_DEVICE_AVAILABLE))
        return "its driver says that it is not available";
    if (!device_number(cl, id, CL_DEVICE_COMPILER_AVAILABLE))
        return "its driver has no compiler";
    if (!device_number(cl, id, CL_DEVICE_ENDIAN_LITTLE))
        return "it is big-endian";
    if (device_number(cl, id, CL_DEVICE_ADDRESS_BITS) < 32)
        return "it has no 32-bit addresses";
    size_t items[8] = {0};
    if (device_number(cl, id, CL_DEVICE_MAX_WORK_ITEM_DIMENSIONS) > 8 ||
        cl->GetDeviceInfo(id, CL_DEVICE_MAX_WORK_ITEM_SIZES, sizeof items, items, NULL) ||
        items[0] < ITERA_GPU_LOCAL ||
        device_number(cl, id, CL_DEVICE_MAX_WORK_GROUP_SIZE) < ITERA_GPU_LOCAL)
        return "it takes fewer than 128 work items in a group";
    if (device_number(cl, id, CL_DEVICE_LOCAL_MEM_SIZE) < 16384)
        return "it has less than 16 KiB of local memory";
    if (device_number(cl, id, CL_DEVICE_MAX_PARAMETER_SIZE) < PARAMETER_BYTES)
        return "its kernels take too few bytes of parameters";
    return NULL;
}

static enum itera_gpu_vendor find_vendor(const struct opencl_api *cl, cl_device_id id,
                                         enum itera_device_type type)
{
    if (type == ITERA_DEVICE_SOFTWARE)
        return ITERA_GPU_SOFTWARE;
    switch (device_number(cl, id, CL_DEVICE_VENDOR_ID)) {
    case 0x10de:
        return ITERA_GPU_NVIDIA;
    case 0x1002:
        return ITERA_GPU_AMD;
    case 0x8086:
        return ITERA_GPU_INTEL;
    default:
        return ITERA_GPU_OTHER;
    }
}

/* Not all versions of the headers have these: cl_khr_pci_bus_info (four cl_uint),
 * cl_amd_device_attribute_query (24 bytes, of which the first cl_uint is 1 and the last three bytes
 * are the address), cl_nv_device_attribute_query. */
enum {
    KHR_PCI_BUS_INFO = 0x410F,
    AMD_TOPOLOGY = 0x4037,
    NV_PCI_BUS = 0x4008,
    NV_PCI_SLOT = 0x4009,
    NV_PCI_DOMAIN = 0x400A
};

/* The PCI address, from whichever extension tells it; left empty when none does. */
static void find_pci(const struct opencl_api *cl, cl_device_id id, const char *list,
                     struct itera_device_info *info)
{
    cl_uint at[4] = {0}; /* domain, bus, device, function */
    cl_uchar amd[24] = {0};
    if (has_extension(list, "cl_khr_pci_bus_info") &&
        !cl->GetDeviceInfo(id, KHR_PCI_BUS_INFO, sizeof at, at, NULL)) {
        /* all there */
    } else if (has_extension(list, "cl_nv_device_attribute_query")) {
        cl_uint slot = (cl_uint)device_number(cl, id, NV_PCI_SLOT);
        at[0] = (cl_uint)device_number(cl, id, NV_PCI_DOMAIN);
        at[1] = (cl_uint)device_number(cl, id, NV_PCI_BUS);
        at[2] = slot >> 3;
        at[3] = slot & 7;
    } else if (has_extension(list, "cl_amd_device_attribute_query") &&
               !cl->GetDeviceInfo(id, AMD_TOPOLOGY, sizeof amd, amd, NULL) && amd[0] == 1) {
        for (int i = 1; i < 4; i++)
            at[i] = amd[20 + i];
    } else {
        return;
    }
    snprintf(info->pci, sizeof info->pci, "%04x:%02x:%02x.%x", at[0] & 0xffff, at[1] & 0xff,
             at[2] & 0x1f, at[3] & 7);
}

static void add_feature(struct itera_device_info *info, const char *name, bool used)
{
    if (info->n_features == ITERA_MAX_FEATURES)
        return;
    int n = info->n_features++;
    snprintf(info->features[n].name, sizeof info->features[n].name, "%s", name);
    info->features[n].used = used;
}

/* Kernels use the products of packed words, and in OpenCL C 3.0, where compilers say that they have
 * them. */
static void find_dot(const struct opencl_api *cl, cl_device_id id, const char *extensions_list,
                     struct itera_gpu_traits *traits)
{
    char version[64];
    int major = 0;
    copy_device_string(cl, id, CL_DEVICE_VERSION, version, sizeof version);
    cl_bool fast[6] = {0};
    traits->dot = extensions_list && has_extension(extensions_list, "cl_khr_integer_dot_product") &&
                  sscanf(version, "OpenCL %d", &major) == 1 && major >= 3 &&
                  (device_number(cl, id, INTEGER_DOT_CAPABILITIES) & INTEGER_DOT_PACKED);
    traits->dot_fast =
        traits->dot &&
        !cl->GetDeviceInfo(id, INTEGER_DOT_PACKED_ACCELERATION, sizeof fast, fast, NULL) && fast[0];
}

static void describe(const struct opencl_api *cl, const char *platform, int index,
                     struct opencl_found *f)
{
    struct itera_device_info *info = &f->info;
    *info = (struct itera_device_info){.backend = "opencl"};
    snprintf(info->id, sizeof info->id, "opencl:%d", index);
    copy_device_string(cl, f->device, CL_DEVICE_NAME, info->name, sizeof info->name);
    char version[64];
    copy_device_string(cl, f->device, CL_DRIVER_VERSION, version, sizeof version);
    snprintf(info->driver, sizeof info->driver, "%.63s %s", platform, version);
    info->memory_bytes = device_number(cl, f->device, CL_DEVICE_GLOBAL_MEM_SIZE);
    cl_ulong type = device_number(cl, f->device, CL_DEVICE_TYPE);
    if (type & CL_DEVICE_TYPE_CPU)
        info->type = ITERA_DEVICE_SOFTWARE;
    else if (device_number(cl, f->device, CL_DEVICE_HOST_UNIFIED_MEMORY))
        info->type = ITERA_DEVICE_IGPU;
    else
        info->type = ITERA_DEVICE_GPU;

    char *list = device_string(cl, f->device, CL_DEVICE_EXTENSIONS);
    struct itera_gpu_traits dot = {0};
    find_dot(cl, f->device, list, &dot);
    for (size_t i = 0; list && i < sizeof extensions / sizeof *extensions; i++)
        if (has_extension(list, extensions[i].extension))
            add_feature(info, extensions[i].name,
                        extensions[i].used || (dot.dot && strstr(extensions[i].name, "dot")));
    if (list && info->type != ITERA_DEVICE_SOFTWARE)
        find_pci(cl, f->device, list, info);
    bool clblast = opencl_clblast_load();
    if (clblast)
        add_feature(info, "clblast", true);

    f->max_buffer = device_number(cl, f->device, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    const struct itera_gpu_identity identity = {
        .vendor = find_vendor(cl, f->device, info->type),
        .name = info->name,
        .reported = (uint32_t)device_number(cl, f->device, CL_DEVICE_MAX_COMPUTE_UNITS),
    };
    f->traits = (struct itera_gpu_traits){
        .vendor = identity.vendor,
        .max_local = (uint32_t)device_number(cl, f->device, CL_DEVICE_MAX_WORK_GROUP_SIZE),
        .shared_bytes = (uint32_t)device_number(cl, f->device, CL_DEVICE_LOCAL_MEM_SIZE),
        .compute_units = itera_gpu_units(&identity),
        .most_tile = identity.vendor == ITERA_GPU_INTEL ? INTEL_TILE : 0,
        .max_operand_bytes = f->max_buffer < MAX_ADDRESSED ? f->max_buffer : MAX_ADDRESSED,
        .half_storage = true,
        .half_math = list && has_extension(list, "cl_khr_fp16"),
        .dot = dot.dot,
        .dot_fast = dot.dot_fast,
        .clblast = clblast,
    };
    free(list);
}

static int find_of_platform(const struct opencl_api *cl, cl_platform_id platform, int first,
                            struct opencl_found *found, int capacity, bool warns)
{
    char name[64] = "?";
    cl->GetPlatformInfo(platform, CL_PLATFORM_NAME, sizeof name - 1, name, NULL);
    cl_device_id ids[MAX_DEVICES];
    cl_uint n = 0;
    cl_int error = itera_gpu_fault(ITERA_GPU_FAULT_LIST)
                       ? CL_OUT_OF_HOST_MEMORY
                       : cl->GetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, MAX_DEVICES, ids, &n);
    if (error == CL_DEVICE_NOT_FOUND)
        return 0;
    if (error) {
        warn(warns,
             "the driver \"%s\" fails to list its devices (clGetDeviceIDs: %s); they are "
             "left out; reinstall or remove that driver",
             name, opencl_error_name(error));
        return 0;
    }
    int count = 0;
    for (cl_uint i = 0; i < n && i < MAX_DEVICES && count < capacity; i++) {
        const char *why = lack(cl, ids[i]);
        if (why) {
            char device[128];
            copy_device_string(cl, ids[i], CL_DEVICE_NAME, device, sizeof device);
            warn(warns, "%s (%s) is left out: %s", device, name, why);
            continue;
        }
        found[count] = (struct opencl_found){.platform = platform, .device = ids[i]};
        describe(cl, name, first + count, &found[count]);
        found[count].nvidia = !strcmp(name, "NVIDIA CUDA");
        found[count].keeps_binaries = strcmp(name, "Portable Computing Language") != 0;
        count++;
    }
    return count;
}

int opencl_find(struct opencl_found *found, int capacity, bool warns)
{
    const struct opencl_api *cl = opencl_load();
    if (!cl)
        return 0;
    cl_platform_id platforms[MAX_PLATFORMS];
    cl_uint n = 0;
    cl_int error = cl->GetPlatformIDs(MAX_PLATFORMS, platforms, &n);
    if (error == OPENCL_PLATFORM_NOT_FOUND || (!error && n == 0)) {
        itera_log(ITERA_LOG_DEBUG, "opencl: the loader knows no driver");
        return 0;
    }
    if (error) {
        warn(warns, "clGetPlatformIDs fails with %s; reinstall the OpenCL loader or its drivers",
             opencl_error_name(error));
        return 0;
    }
    int count = 0;
    for (cl_uint i = 0; i < n && i < MAX_PLATFORMS; i++)
        count += find_of_platform(cl, platforms[i], count, found + count, capacity - count, warns);
    return count;
}
