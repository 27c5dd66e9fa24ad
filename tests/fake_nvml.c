/* A stand-in for libnvidia-ml.so.1. The file that FAKE_NVML names is read at each call; a line per
 * card: BUS ENERGY_MJ POWER_MW CODE NAME, where "-" is a reading that the card lacks and CODE is what
 * every reading returns. A line "init CODE" is the answer to nvmlInit_v2. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct card {
    unsigned bus;
    char energy[32], power[32];
    int code;
    char name[64];
};

struct pci_info {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int code);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device);
int nvmlDeviceGetName(void *device, char *name, unsigned length);
int nvmlDeviceGetPciInfo_v3(void *device, struct pci_info *pci);
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy);
int nvmlDeviceGetPowerUsage(void *device, unsigned *power);

static int initialised;

/* Card number `index` into card (NULL: none); returns how many there are. */
static unsigned read_cards(unsigned index, struct card *card, int *init)
{
    unsigned count = 0;
    char line[256];
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    *init = 0;
    while (file && fgets(line, sizeof line, file)) {
        struct card c;
        if (sscanf(line, "init %d", init) == 1)
            continue;
        if (sscanf(line, "%x %31s %31s %d %63[^\n]", &c.bus, c.energy, c.power, &c.code, c.name) !=
            5)
            continue;
        if (card && count == index)
            *card = c;
        count++;
    }
    if (file)
        fclose(file);
    return count;
}

int nvmlInit_v2(void)
{
    int code;
    read_cards(0, NULL, &code);
    initialised += code == 0;
    return code;
}

int nvmlShutdown(void)
{
    return --initialised < 0 ? 1 : 0;
}

const char *nvmlErrorString(int code)
{
    switch (code) {
    case 1:
        return "Uninitialized";
    case 3:
        return "Not Supported";
    case 4:
        return "Insufficient Permissions";
    case 9:
        return "Driver Not Loaded";
    case 15:
        return "GPU is lost";
    default:
        return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int init;
    *count = read_cards(0, NULL, &init);
    return initialised ? 0 : 1;
}

/* A handle is the index plus one. */
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    *device = (void *)(size_t)(index + 1);
    return initialised ? 0 : 1;
}

static int get(void *device, struct card *card)
{
    int init;
    unsigned index = (unsigned)(size_t)device - 1;
    if (!initialised)
        return 1;
    return index < read_cards(index, card, &init) ? card->code : 15;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length)
{
    struct card card = {0};
    get(device, &card);
    snprintf(name, length, "%s", card.name);
    return 0;
}

int nvmlDeviceGetPciInfo_v3(void *device, struct pci_info *pci)
{
    struct card card = {0};
    get(device, &card);
    memset(pci, 0, sizeof *pci);
    pci->bus = card.bus;
    return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *energy)
{
    struct card card;
    int code = get(device, &card);
    if (code == 0 && card.energy[0] == '-')
        return 3;
    if (code == 0)
        *energy = strtoull(card.energy, NULL, 10);
    return code;
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *power)
{
    struct card card;
    int code = get(device, &card);
    if (code == 0 && card.power[0] == '-')
        return 3;
    if (code == 0)
        *power = (unsigned)strtoul(card.power, NULL, 10);
    return code;
}
