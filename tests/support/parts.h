/* Tests that need what not every machine has (a device, data, a library) are a part of their own: the
 * program runs them when it is called with the part's name, as a ctest of its own
 * (itera_test_part() in tests/CMakeLists.txt), and they call skip_without() where it is missing. So
 * that nothing that was not tested reads as a pass, the part then exits with 77, ctest's skip.
 */
#ifndef ITERA_TESTS_PARTS_H
#define ITERA_TESTS_PARTS_H

#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"

static int parts_skipped;

/* Ends the test that calls it. */
#define skip_without(...)                                                                          \
    do {                                                                                           \
        printf("skipped: without " __VA_ARGS__);                                                   \
        putchar('\n');                                                                             \
        parts_skipped++;                                                                           \
        skip();                                                                                    \
    } while (0)

/* Whether the program was called for the part of this name. */
static inline int part_is(int argc, char **argv, const char *name)
{
    return argc == 2 && !strcmp(argv[1], name);
}

/* The exit status of a part of which this many tests failed. */
static inline int part_status(int failed)
{
    return failed ? failed : parts_skipped ? 77 : 0;
}

#endif
