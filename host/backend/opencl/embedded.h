/* The files of kernels_cl/ as they were when the library was built (cmake/embed_opencl.cmake). */
#ifndef ITERA_BACKEND_OPENCL_EMBEDDED_H
#define ITERA_BACKEND_OPENCL_EMBEDDED_H

#include <stddef.h>

struct opencl_text {
    const char *name; /* "elementwise.cl" */
    const char *text; /* ends with a 0 byte, which `bytes` does not count */
    size_t bytes;
};
extern const struct opencl_text opencl_embedded[];
extern const int opencl_n_embedded;

#endif
