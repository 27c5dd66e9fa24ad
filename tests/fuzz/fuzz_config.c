/* libFuzzer: any bytes as a configuration; what parses must be valid and survive a round trip. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct itera_config config, again;
    if (itera_config_parse((const char *)data, size, "fuzz", &config) != ITERA_OK)
        return 0;
    char *first, *second;
    if (itera_config_to_json(&config, &first) != ITERA_OK ||
        itera_config_parse(first, strlen(first), "again", &again) != ITERA_OK ||
        itera_config_to_json(&again, &second) != ITERA_OK || strcmp(first, second) != 0)
        abort();
    if (memcmp(config.moe, again.moe, sizeof config.moe) != 0)
        abort();
    free(first);
    free(second);
    return 0;
}
