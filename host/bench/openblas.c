/* OpenBLAS as a peer, loaded at run time: nothing of ours depends on it. */
#include <dlfcn.h>
#include <stdlib.h>

#include "bench/bench_impl.h"

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                      const float *a, int lda, const float *b, int ldb, float beta, float *c,
                      int ldc);

struct itera_openblas {
    void *library;
    sgemm_fn *sgemm;
    void (*set_threads)(int);
    int threads;
    const char *core;
};

struct itera_openblas *itera_openblas_open(int threads)
{
    struct itera_openblas *blas = calloc(1, sizeof *blas);
    if (!blas)
        return NULL;
    blas->library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!blas->library)
        goto fail;
    /* POSIX gives function pointers as void *; going through memory keeps ISO C content. */
    *(void **)&blas->sgemm = dlsym(blas->library, "cblas_sgemm");
    *(void **)&blas->set_threads = dlsym(blas->library, "openblas_set_num_threads");
    char *(*core)(void);
    *(void **)&core = dlsym(blas->library, "openblas_get_corename");
    if (!blas->sgemm || !blas->set_threads || !core)
        goto fail;
    blas->threads = threads;
    blas->core = core();
    return blas;
fail:
    itera_openblas_close(&blas);
    return NULL;
}

void itera_openblas_close(struct itera_openblas **blas)
{
    if (!*blas)
        return;
    /* The library stays loaded: its threads may still be on their way to sleep. */
    free(*blas);
    *blas = NULL;
}

void itera_openblas_sgemm(const struct itera_openblas *blas, int trans_a, int trans_b, int m, int n,
                          int k, const float *a, int lda, const float *b, int ldb, float *c)
{
    /* The library has one number of threads for everyone, and rows of one and of two take turns. */
    static int current;
    if (current != blas->threads) {
        blas->set_threads(blas->threads);
        current = blas->threads;
    }
    blas->sgemm(ROW_MAJOR, trans_a ? TRANS : NO_TRANS, trans_b ? TRANS : NO_TRANS, m, n, k, 1.0f, a,
                lda, b, ldb, 0.0f, c, n);
}

const char *itera_openblas_core(const struct itera_openblas *blas)
{
    return blas->core;
}
