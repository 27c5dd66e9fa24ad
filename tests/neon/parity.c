/* Runs a few parity cases of every op, with gradients: all that the NEON kernels need to be tested
 * on a machine of another kind. parity [CASES [GLOB]] */
#include <stdio.h>
#include <stdlib.h>

#include "itera/check.h"

static int on_result(void *user, const struct itera_check_result *result)
{
    int *told = user;
    if (result->verdict == ITERA_CHECK_FAIL && (*told)++ < 30)
        printf("FAIL: %s [%s] on %s %s: %s\n", result->op, result->label, result->device,
               result->variant, result->reason);
    return 0;
}

static void on_log(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    if (level == ITERA_LOG_ERROR)
        printf("%s\n", message);
}

int main(int argc, char **argv)
{
    struct itera_check_options options = {
        .devices = "cpu",
        .isa = "neon",
        .seed = 1,
        .gradients = 1,
        .cases = argc > 1 ? atoi(argv[1]) : 5,
        .ops = argc > 2 ? argv[2] : NULL,
    };
    struct itera_check_summary summary;
    int told = 0;
    itera_set_log(on_log, NULL);
    if (itera_check_ops(&options, on_result, &told, &summary))
        return 1;
    printf("NEON: %lld passed, %lld failed, %lld skipped (seed 1)\n", (long long)summary.pass,
           (long long)summary.fail, (long long)summary.skip);
    return summary.fail || !summary.pass;
}
