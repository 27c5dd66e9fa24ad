/* Dense products by CLBlast, where it is installed. */
#include <dlfcn.h>
#include <pthread.h>

#include "backend/opencl/api.h"
#include "core/log.h"

#ifdef ITERA_HAVE_CLBLAST
#include <clblast_c.h>

static __typeof__(CLBlastSgemm) *sgemm;
static __typeof__(CLBlastHgemm) *hgemm;

static void load(void)
{
    void *library = dlopen("libclblast.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        itera_log(ITERA_LOG_DEBUG, "opencl: no CLBlast (%s)", dlerror());
        return;
    }
    *(void **)&sgemm = dlsym(library, "CLBlastSgemm");
    *(void **)&hgemm = dlsym(library, "CLBlastHgemm");
}

bool opencl_clblast_load(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return sgemm && hgemm;
}

int opencl_clblast_gemm(const struct opencl_gemm *g, cl_command_queue queue)
{
    enum { HALF_ONE = 0x3c00 };
    CLBlastTranspose a = g->trans_a ? CLBlastTransposeYes : CLBlastTransposeNo;
    CLBlastTranspose b = g->trans_b ? CLBlastTransposeYes : CLBlastTransposeNo;
    if (g->half)
        return hgemm(CLBlastLayoutRowMajor, a, b, g->m, g->n, g->k, HALF_ONE, g->a, g->a_at,
                     g->a_ld, g->b, g->b_at, g->b_ld, g->accumulate ? HALF_ONE : 0, g->y, g->y_at,
                     g->y_ld, &queue, NULL);
    return sgemm(CLBlastLayoutRowMajor, a, b, g->m, g->n, g->k, 1.0f, g->a, g->a_at, g->a_ld, g->b,
                 g->b_at, g->b_ld, g->accumulate ? 1.0f : 0.0f, g->y, g->y_at, g->y_ld, &queue,
                 NULL);
}
#else
bool opencl_clblast_load(void)
{
    return false;
}

int opencl_clblast_gemm(const struct opencl_gemm *gemm, cl_command_queue queue)
{
    (void)gemm;
    (void)queue;
    return CL_INVALID_OPERATION;
}
#endif
