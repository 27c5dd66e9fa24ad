/* Runs a few parity cases of every op, with gradients, and more of the products of narrow weights at
 * every level: all that the NEON kernels need to be tested on a machine of another kind.
 * parity [CASES [GLOB]] */
#include <stdbool.h>
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

/* Adds to *summary; returns whether the check could not be made. */
static bool check(const struct itera_check_options *options, struct itera_check_summary *summary)
{
    struct itera_check_summary some;
    int told = 0;
    if (itera_check_ops(options, on_result, &told, &some))
        return true;
    summary->pass += some.pass;
    summary->fail += some.fail;
    summary->skip += some.skip;
    return false;
}

int main(int argc, char **argv)
{
    static const char *const levels[] = {"neon", "neondot"};
    struct itera_check_summary summary = {0};
    itera_set_log(on_log, NULL);
    for (int i = 0; i < 2; i++) {
        struct itera_check_options options = {.devices = "cpu", .isa = levels[i], .seed = 1};
        /* The cases with narrow weights follow the others. */
        options.ops = "matmul";
        options.first = 104;
        options.cases = 36;
        if (check(&options, &summary))
            return 1;
        options.ops = "grouped_matmul";
        options.first = 42;
        options.cases = 24;
        if (check(&options, &summary))
            return 1;
    }
    struct itera_check_options options = {
        .devices = "cpu",
        .isa = "neon",
        .seed = 1,
        .gradients = 1,
        .cases = argc > 1 ? atoi(argv[1]) : 5,
        .ops = argc > 2 ? argv[2] : NULL,
    };
    if (check(&options, &summary))
        return 1;
    printf("NEON: %lld passed, %lld failed, %lld skipped (seed 1)\n", (long long)summary.pass,
           (long long)summary.fail, (long long)summary.skip);
    return summary.fail || !summary.pass;
}
