#include "itera/version.h"

#define TEXT(x)  #x
#define VALUE(x) TEXT(x)

const char *itera_version(void)
{
    return VALUE(ITERA_VERSION_MAJOR) "." VALUE(ITERA_VERSION_MINOR) "." VALUE(ITERA_VERSION_PATCH);
}
