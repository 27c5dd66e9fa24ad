#include "backend/opencl/api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

#include "core/log.h"

static struct opencl_api api;
static const struct opencl_api *loaded;

static void load(void)
{
    /* Never closed: drivers leave threads and exit handlers behind. */
    void *library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        itera_log(ITERA_LOG_DEBUG, "opencl: no loader (%s)", dlerror());
        return;
    }
    static const char *const names[] = {
#define OPENCL_NAME(name) "cl" #name,
        OPENCL_FUNCTIONS(OPENCL_NAME)
#undef OPENCL_NAME
    };
    void **members[] = {
#define OPENCL_ADDRESS(name) (void **)&api.name,
        OPENCL_FUNCTIONS(OPENCL_ADDRESS)
#undef OPENCL_ADDRESS
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *members[i] = dlsym(library, names[i]);
        if (!*members[i]) {
            itera_log(ITERA_LOG_DEBUG, "opencl: the loader has no %s: it is older than OpenCL 1.2",
                      names[i]);
            return;
        }
    }
    loaded = &api;
}

const struct opencl_api *opencl_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return loaded;
}

const char *opencl_error_name(cl_int error)
{
    static const struct {
        cl_int error;
        const char *name;
    } names[] = {
#define OPENCL_ERROR(name) {name, #name}
        OPENCL_ERROR(CL_DEVICE_NOT_FOUND),
        OPENCL_ERROR(CL_DEVICE_NOT_AVAILABLE),
        OPENCL_ERROR(CL_COMPILER_NOT_AVAILABLE),
        OPENCL_ERROR(CL_MEM_OBJECT_ALLOCATION_FAILURE),
        OPENCL_ERROR(CL_OUT_OF_RESOURCES),
        OPENCL_ERROR(CL_OUT_OF_HOST_MEMORY),
        OPENCL_ERROR(CL_PROFILING_INFO_NOT_AVAILABLE),
        OPENCL_ERROR(CL_MEM_COPY_OVERLAP),
        OPENCL_ERROR(CL_BUILD_PROGRAM_FAILURE),
        OPENCL_ERROR(CL_MAP_FAILURE),
        OPENCL_ERROR(CL_MISALIGNED_SUB_BUFFER_OFFSET),
        OPENCL_ERROR(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST),
        OPENCL_ERROR(CL_COMPILE_PROGRAM_FAILURE),
        OPENCL_ERROR(CL_LINKER_NOT_AVAILABLE),
        OPENCL_ERROR(CL_LINK_PROGRAM_FAILURE),
        OPENCL_ERROR(CL_INVALID_VALUE),
        OPENCL_ERROR(CL_INVALID_DEVICE_TYPE),
        OPENCL_ERROR(CL_INVALID_PLATFORM),
        OPENCL_ERROR(CL_INVALID_DEVICE),
        OPENCL_ERROR(CL_INVALID_CONTEXT),
        OPENCL_ERROR(CL_INVALID_QUEUE_PROPERTIES),
        OPENCL_ERROR(CL_INVALID_COMMAND_QUEUE),
        OPENCL_ERROR(CL_INVALID_HOST_PTR),
        OPENCL_ERROR(CL_INVALID_MEM_OBJECT),
        OPENCL_ERROR(CL_INVALID_BINARY),
        OPENCL_ERROR(CL_INVALID_BUILD_OPTIONS),
        OPENCL_ERROR(CL_INVALID_PROGRAM),
        OPENCL_ERROR(CL_INVALID_PROGRAM_EXECUTABLE),
        OPENCL_ERROR(CL_INVALID_KERNEL_NAME),
        OPENCL_ERROR(CL_INVALID_KERNEL_DEFINITION),
        OPENCL_ERROR(CL_INVALID_KERNEL),
        OPENCL_ERROR(CL_INVALID_ARG_INDEX),
        OPENCL_ERROR(CL_INVALID_ARG_VALUE),
        OPENCL_ERROR(CL_INVALID_ARG_SIZE),
        OPENCL_ERROR(CL_INVALID_KERNEL_ARGS),
        OPENCL_ERROR(CL_INVALID_WORK_DIMENSION),
        OPENCL_ERROR(CL_INVALID_WORK_GROUP_SIZE),
        OPENCL_ERROR(CL_INVALID_WORK_ITEM_SIZE),
        OPENCL_ERROR(CL_INVALID_GLOBAL_OFFSET),
        OPENCL_ERROR(CL_INVALID_EVENT_WAIT_LIST),
        OPENCL_ERROR(CL_INVALID_EVENT),
        OPENCL_ERROR(CL_INVALID_OPERATION),
        OPENCL_ERROR(CL_INVALID_BUFFER_SIZE),
        OPENCL_ERROR(CL_INVALID_GLOBAL_WORK_SIZE),
        OPENCL_ERROR(CL_INVALID_PROPERTY),
        OPENCL_ERROR(CL_INVALID_COMPILER_OPTIONS),
        OPENCL_ERROR(CL_INVALID_LINKER_OPTIONS),
#undef OPENCL_ERROR
        {OPENCL_PLATFORM_NOT_FOUND, "CL_PLATFORM_NOT_FOUND_KHR"},
        {OPENCL_NVIDIA_FAULT,
         "an error of NVIDIA's driver: a kernel read or wrote outside its buffers"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].error == error)
            return names[i].name;
    static _Thread_local char unknown[32];
    snprintf(unknown, sizeof unknown, "error %d", error);
    return unknown;
}
