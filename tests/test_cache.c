/* The cache of compiled kernels: what others made, changed or cut never reaches a driver, and
 * nothing in its folder makes a run hang. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "core/private.h"
#include "core/siphash.h"
#include "tests/support/test.h"

/* The first of the vectors that come with the reference implementation. */
static void checksums_are_siphash(void **state)
{
    (void)state;
    static const uint8_t expected[3][16] = {
        {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02,
         0x93},
        {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc,
         0x45},
        {0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a, 0xff,
         0xe4},
    };
    uint8_t key[16], text[64], whole[16], parts[16];
    for (int i = 0; i < 64; i++) {
        text[i] = (uint8_t)i;
        key[i % 16] = (uint8_t)(i % 16);
    }
    struct itera_siphash hash;
    for (int n = 0; n < 64; n++) {
        itera_siphash_begin(&hash, key);
        itera_siphash_add(&hash, text, (size_t)n);
        itera_siphash_end(&hash, whole);
        if (n < 3)
            assert_memory_equal(whole, expected[n], 16);
        /* In pieces it is the same. */
        itera_siphash_begin(&hash, key);
        for (int at = 0, piece = 1; at < n; at += piece, piece = piece % 11 + 1) {
            if (piece > n - at)
                piece = n - at;
            itera_siphash_add(&hash, text + at, (size_t)piece);
        }
        itera_siphash_end(&hash, parts);
        assert_memory_equal(whole, parts, 16);
    }
}

#if defined(ITERA_HAVE_OPENCL) || defined(ITERA_HAVE_VULKAN)
#include "backend/gpu/cache.h"
#include "backend/gpu/tuning_store.h"

static const char name[] = "kernel.bin", identity[] = "a device | a driver";

static void write_entry(void)
{
    itera_gpu_cache_write(name, identity, "a binary", 8);
}

/* Whether the entry is taken. */
static bool taken(void)
{
    void *data;
    size_t bytes;
    log_clear();
    assert_int_equal(itera_gpu_cache_read(name, identity, &data, &bytes), ITERA_OK);
    bool is = data != NULL;
    if (is) {
        assert_int_equal(bytes, 8);
        assert_memory_equal(data, "a binary", 8);
        assert_string_equal(logged, "");
    }
    free(data);
    return is;
}

/* Refused with a warning that says so, and (where a run may replace it) made again. */
static void refused(const char *why, bool replaced)
{
    assert_false(taken());
    if (!strstr(logged, why))
        fail_msg("\"%s\" does not say \"%s\"", logged, why);
    write_entry();
    assert_int_equal(taken(), replaced);
}

static void begin(void)
{
    itera_remove_tree(root);
    assert_int_equal(mkdir(root, 0755), 0);
    assert_false(taken());
    assert_string_equal(logged, "");
    write_entry();
    assert_true(taken());
}

static void entries_are_the_users(void **state)
{
    (void)state;
    begin();
    struct stat st;
    assert_int_equal(stat(in_root("key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(in_root("%s", name), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);

    assert_int_equal(chmod(in_root("%s", name), 0666), 0);
    refused("can be written by others", true);
    assert_int_equal(chmod(in_root("%s", name), 0644), 0);
    assert_true(taken());

    begin();
    assert_int_equal(chmod(in_root("key"), 0644), 0);
    refused("can be read by others", false);
    assert_int_equal(chmod(in_root("key"), 0600), 0);
    assert_true(taken());

    if (geteuid() != 0) {
        puts("not root: no file of another user to try");
        return;
    }
    assert_int_equal(chown(in_root("%s", name), 65534, 65534), 0);
    refused("belongs to another user", false);
    begin();
    assert_int_equal(chown(in_root("key"), 65534, 65534), 0);
    refused("belongs to another user", false);
}

/* A pipe hung a run when it ended; each of these must be over at once. */
static void nothing_hangs(void **state)
{
    (void)state;
    alarm(60);
    begin();
    unlink(in_root("%s", name));
    assert_int_equal(mkfifo(in_root("%s", name), 0600), 0);
    refused("is not a regular file", false);
    unlink(in_root("%s", name));
    assert_int_equal(mkdir(in_root("%s", name), 0700), 0);
    refused("is not a regular file", false);

    /* Links: the file behind one is sound, and neither read nor written. */
    begin();
    char other[128];
    snprintf(other, sizeof other, "%s/other", root);
    assert_int_equal(rename(in_root("%s", name), other), 0);
    assert_int_equal(symlink("other", in_root("%s", name)), 0);
    refused("is a symbolic link", false);

    begin();
    unlink(in_root("key"));
    assert_int_equal(mkfifo(in_root("key"), 0600), 0);
    refused("is not a regular file", false);
    unlink(in_root("key"));
    assert_int_equal(symlink(name, in_root("key")), 0);
    refused("is a symbolic link", false);

    /* Half a key, of a run that was killed, is replaced. */
    begin();
    assert_int_equal(truncate(in_root("key"), 7), 0);
    refused("made elsewhere", true);
    /* An entry is no key. */
    unlink(in_root("key"));
    assert_int_equal(rename(in_root("%s", name), in_root("key")), 0);
    write_entry();
    assert_true(taken());
    alarm(0);
}

static void forged_entries_are_refused(void **state)
{
    (void)state;
    begin();
    struct itera_map map;
    assert_int_equal(itera_map_open(in_root("%s", name), &map), ITERA_OK);
    const size_t size = map.size;
    uint8_t *sound = malloc(size);
    assert_non_null(sound);
    memcpy(sound, map.data, size);
    itera_map_close(&map);
    /* Any bit, any cut. */
    for (size_t i = 0; i < 2 * size; i++) {
        FILE *file = fopen(in_root("%s", name), "wb");
        assert_non_null(file);
        const size_t keep = i < size ? size : i - size;
        if (i < size)
            sound[i] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(fwrite(sound, 1, keep, file), keep);
        if (i < size)
            sound[i] ^= (uint8_t)(1u << i % 8);
        fclose(file);
        assert_false(taken());
        assert_string_not_equal(logged, "");
    }
    /* Another folder's, whole and sound there: it is what one who cannot read the key can make. */
    begin();
    FILE *file = fopen(in_root("%s", name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(sound, 1, size, file), size);
    fclose(file);
    refused("made elsewhere", true);
    /* This folder's under another name. */
    char other[128];
    snprintf(other, sizeof other, "%s/other.bin", root);
    itera_gpu_cache_write("other.bin", identity, "a binary", 8);
    assert_int_equal(rename(other, in_root("%s", name)), 0);
    refused("made elsewhere", true);
    free(sound);
}

/* Processes that begin at once agree on a key. */
static void processes_share_a_key(void **state)
{
    (void)state;
    enum { PROCESSES = 8 };
    for (int round = 0; round < 10; round++) {
        itera_remove_tree(root);
        pid_t pids[PROCESSES];
        for (int i = 0; i < PROCESSES; i++) {
            pids[i] = fork();
            if (pids[i] == 0) {
                char own[32];
                snprintf(own, sizeof own, "kernel-%d.bin", i);
                itera_gpu_cache_write(own, identity, "a binary", 8);
                _exit(0);
            }
            assert_true(pids[i] > 0);
        }
        for (int i = 0; i < PROCESSES; i++)
            assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        log_clear();
        for (int i = 0; i < PROCESSES; i++) {
            char own[32];
            void *data;
            size_t bytes;
            snprintf(own, sizeof own, "kernel-%d.bin", i);
            assert_int_equal(itera_gpu_cache_read(own, identity, &data, &bytes), ITERA_OK);
            assert_non_null(data);
            free(data);
        }
        assert_string_equal(logged, "");
    }
}

/* Choices of kernels are read by the same rule. */
static void tuning_is_the_users(void **state)
{
    (void)state;
    begin();
    struct itera_gpu_tuning *tuning;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(itera_gpu_tuning_open("device", &tuning), ITERA_OK);
        if (i == 0)
            assert_int_equal(itera_gpu_tuning_set(tuning, "key", "a kernel", 0.5), ITERA_OK);
        assert_string_equal(itera_gpu_tuning_find(tuning, "key"), "a kernel");
        assert_int_equal(itera_gpu_tuning_save(tuning), ITERA_OK);
        itera_gpu_tuning_close(&tuning);
    }
    char command[128];
    snprintf(command, sizeof command, "chmod 666 %s/tuning-*.json", root);
    assert_int_equal(system(command), 0);
    log_clear();
    assert_int_equal(itera_gpu_tuning_open("device", &tuning), ITERA_OK);
    assert_null(itera_gpu_tuning_find(tuning, "key"));
    assert_non_null(strstr(logged, "can be written by others"));
    itera_gpu_tuning_close(&tuning);
    snprintf(command, sizeof command, "cd %s && f=$(echo tuning-*.json) && rm $f && mkfifo $f",
             root);
    assert_int_equal(system(command), 0);
    alarm(60);
    assert_int_equal(itera_gpu_tuning_open("device", &tuning), ITERA_OK);
    assert_int_equal(itera_gpu_tuning_set(tuning, "key", "a kernel", 0.5), ITERA_OK);
    assert_int_equal(itera_gpu_tuning_save(tuning), ITERA_ERR_IO);
    itera_gpu_tuning_close(&tuning);
    alarm(0);
}
#endif

static int set_up(void **state)
{
    (void)state;
    if (make_root())
        return -1;
    setenv("ITERA_CACHE_DIR", root, 1);
    log_begin();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return remove_root();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksums_are_siphash),
#if defined(ITERA_HAVE_OPENCL) || defined(ITERA_HAVE_VULKAN)
        cmocka_unit_test(entries_are_the_users),
        cmocka_unit_test(nothing_hangs),
        cmocka_unit_test(forged_entries_are_refused),
        cmocka_unit_test(processes_share_a_key),
        cmocka_unit_test(tuning_is_the_users),
#endif
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
