#include "model/layout.h"

#include <stdlib.h>
#include <string.h>

int itera_param_layer(const char *name)
{
    static const char *const lists[] = {"layers.", "blocks."};
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(name, lists[i]);
        const char *digits = at ? at + strlen(lists[i]) : "";
        if (*digits >= '0' && *digits <= '9')
            return atoi(digits);
    }
    return -1;
}
