/* Stands in for a loader of OpenCL whose driver does not survive being loaded. */
#include <stdlib.h>

__attribute__((constructor)) static void start(void)
{
    abort();
}
