/* Maps, atomic replacement, folders, and the arena that readers use. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/environment.h"
#include "core/file.h"
#include "itera/file.h"
#include "tests/support/test.h"

static void write_whole(const char *path, const char *text)
{
    struct itera_writer *writer;
    assert_int_equal(itera_writer_open(path, &writer), ITERA_OK);
    assert_int_equal(itera_writer_append(writer, text, strlen(text)), ITERA_OK);
    assert_int_equal(itera_writer_commit(&writer), ITERA_OK);
    assert_null(writer);
}

static void assert_content(const char *path, const char *text)
{
    struct itera_map map;
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    assert_int_equal(map.size, strlen(text));
    if (map.size)
        assert_memory_equal(map.data, text, map.size);
    itera_map_close(&map);
    assert_null(map.data);
}

static int entries(const char *folder)
{
    char command[300];
    snprintf(command, sizeof command, "ls -A '%s' | wc -l", folder);
    FILE *pipe = popen(command, "r");
    int count = -1;
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%d", &count), 1);
    pclose(pipe);
    return count;
}

static int set_up(void **state)
{
    (void)state;
    return make_root();
}

static int tear_down(void **state)
{
    (void)state;
    return remove_root();
}

static void test_map(void **state)
{
    (void)state;
    struct itera_map map;
    assert_int_equal(itera_map_open(in_root("missing"), &map), ITERA_ERR_IO);
    assert_null(map.data);
    assert_non_null(strstr(itera_last_error(), "missing"));
    assert_non_null(strstr(itera_last_error(), "No such file"));
    assert_int_equal(itera_map_open(root, &map), ITERA_ERR_IO);
    assert_non_null(strstr(itera_last_error(), "directory"));
    assert_int_equal(mkfifo(in_root("pipe"), 0600), 0);
    assert_int_equal(itera_map_open(in_root("pipe"), &map), ITERA_ERR_IO);
    write_whole(in_root("empty"), "");
    assert_content(in_root("empty"), "");
    itera_map_close(NULL);
}

static void test_writer_replaces(void **state)
{
    (void)state;
    const char *path = in_root("file");
    write_whole(path, "one");
    assert_content(path, "one");
    assert_int_equal(chmod(path, 0640), 0);

    struct itera_writer *writer;
    assert_int_equal(itera_writer_open(path, &writer), ITERA_OK);
    assert_int_equal(itera_writer_append(writer, "two", 3), ITERA_OK);
    assert_content(path, "one");
    itera_writer_abort(&writer);
    assert_null(writer);
    itera_writer_abort(&writer);
    assert_content(path, "one");
    assert_int_equal(entries(root), 1);

    write_whole(path, "three");
    assert_content(path, "three");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);

    /* Through a link, the file behind it is replaced and the link stays. */
    assert_int_equal(symlink("file", in_root("link")), 0);
    write_whole(in_root("link"), "four");
    assert_int_equal(lstat(in_root("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_content(path, "four");
    assert_int_equal(entries(root), 2);
}

static void test_writer_large(void **state)
{
    (void)state;
    enum { SIZE = 1 << 20 };
    unsigned char *data = malloc(SIZE);
    assert_non_null(data);
    for (int i = 0; i < SIZE; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 24);
    struct itera_writer *writer;
    assert_int_equal(itera_writer_open(in_root("large"), &writer), ITERA_OK);
    size_t at = 0;
    for (size_t step = 1; at < SIZE; step = step * 3 + 1) {
        size_t size = step < SIZE - at ? step : SIZE - at;
        assert_int_equal(itera_writer_append(writer, data + at, size), ITERA_OK);
        at += size;
    }
    assert_int_equal(itera_writer_commit(&writer), ITERA_OK);
    struct itera_map map;
    assert_int_equal(itera_map_open(in_root("large"), &map), ITERA_OK);
    assert_int_equal(map.size, SIZE);
    assert_memory_equal(map.data, data, SIZE);
    itera_map_close(&map);
    free(data);
}

/* What another process does to a file that is being read. */
static void test_truncated_while_open(void **state)
{
    (void)state;
    enum { LARGE = ITERA_MAP_SMALL + 100000, SMALL = 10000 };
    char *text = malloc(LARGE);
    assert_non_null(text);
    memset(text, 'a', LARGE);
    text[LARGE - 1] = '\0';
    const char *path = in_root("large"), *small_path = in_root("small");
    write_whole(path, text);
    text[SMALL] = '\0';
    write_whole(small_path, text);

    struct itera_map small, map, other;
    assert_int_equal(itera_map_open(small_path, &small), ITERA_OK);
    assert_int_equal(truncate(small_path, 0), 0);
    assert_int_equal(small.data[SMALL - 1], 'a');
    assert_int_equal(itera_map_check(&small), ITERA_OK);
    itera_map_close(&small);

    /* Within the last page nothing is signalled; beyond it there are zeros instead of SIGBUS. */
    static const off_t sizes[] = {LARGE - 2, 5000, 0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memset(text, 'a', LARGE - 1);
        write_whole(path, text);
        write_whole(small_path, "kept");
        assert_int_equal(itera_map_open(path, &map), ITERA_OK);
        assert_int_equal(itera_map_open(path, &other), ITERA_OK);
        assert_int_equal(itera_map_check(&map), ITERA_OK);
        assert_int_equal(truncate(path, sizes[i]), 0);
        if (sizes[i] < LARGE - 2)
            assert_int_equal(map.data[map.size - 1], 0);
        assert_int_equal(itera_map_check(&map), ITERA_ERR_IO);
        assert_non_null(strstr(itera_last_error(), "large: was truncated"));
        itera_map_close(&map);

        /* Whatever was made of it replaces nothing. */
        struct itera_writer *writer;
        assert_int_equal(itera_writer_open(small_path, &writer), ITERA_OK);
        assert_int_equal(itera_writer_append(writer, "zeros", 5), ITERA_OK);
        assert_int_equal(itera_writer_commit(&writer), ITERA_ERR_IO);
        assert_content(small_path, "kept");
        itera_map_close(&other);
        write_whole(small_path, "new");
        assert_int_equal(entries(root), 2);
    }

    /* A file that is replaced, as writers do it, stays whole for those who have it open. */
    memset(text, 'a', LARGE - 1);
    write_whole(path, text);
    assert_int_equal(itera_map_open(path, &map), ITERA_OK);
    write_whole(path, "shorter");
    assert_int_equal(map.data[map.size - 1], 'a');
    assert_int_equal(itera_map_check(&map), ITERA_OK);
    itera_map_close(&map);

    /* Any other bus error is not ours to hide, but for whoever had the signal before. */
    write_whole(path, text);
    write_whole(small_path, "mine");
    pid_t child = fork();
    if (child == 0) {
        signal(SIGBUS, SIG_DFL); /* instead of cmocka's */
        if (itera_map_open(path, &map))
            _exit(0);
        int fd = open(small_path, O_RDWR);
        const volatile char *mine = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        if (setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}) || !freopen("/dev/null", "w", stderr) ||
            mine == MAP_FAILED || ftruncate(fd, 0))
            _exit(0);
        _exit(mine[0] ? 0 : 0);
    }
    int result = 0;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGBUS);
    free(text);
}

static void touch(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
}

/* What killed processes left beside a file goes when the file is next written, and nothing else. */
static void test_writer_left(void **state)
{
    (void)state;
    const char *path = in_root("file");
    write_whole(path, "old");
    const pid_t child = fork();
    if (child == 0) {
        struct itera_writer *writer;
        if (!itera_writer_open(path, &writer) && !itera_writer_append(writer, "half", 4))
            kill(getpid(), SIGKILL);
        _exit(1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(entries(root), 2);
    assert_content(path, "old");
    write_whole(path, "new");
    assert_int_equal(entries(root), 1);
    assert_content(path, "new");

    /* Left by a process that had this one's number, as the first of every container has. */
    char name[64];
    snprintf(name, sizeof name, "file.tmp.%ld.999999", (long)getpid());
    touch(in_root("%s", name));
    write_whole(path, "new");
    assert_int_equal(entries(root), 1);

    /* A live writer's, another file's, a link, a folder, and names that are none of ours. */
    struct itera_writer *live;
    assert_int_equal(itera_writer_open(path, &live), ITERA_OK);
    assert_int_equal(itera_writer_append(live, "live", 4), ITERA_OK);
    snprintf(name, sizeof name, "other.tmp.%ld.1", (long)child);
    touch(in_root("%s", name));
    snprintf(name, sizeof name, "file.tmp.%ld.1", (long)child);
    assert_int_equal(symlink("file", in_root("%s", name)), 0);
    snprintf(name, sizeof name, "file.tmp.%ld.2", (long)child);
    assert_int_equal(mkdir(in_root("%s", name), 0700), 0);
    snprintf(name, sizeof name, "file.tmp.%ld.3.txt", (long)child);
    touch(in_root("%s", name));
    touch(in_root("file.tmp.x.1"));
    snprintf(name, sizeof name, "file.tmp.%ld.1", (long)getppid());
    touch(in_root("%s", name));
    write_whole(path, "newer");
    assert_int_equal(entries(root), 8);
    assert_content(path, "newer");
    assert_int_equal(itera_writer_commit(&live), ITERA_OK);
    assert_content(path, "live");
    assert_int_equal(entries(root), 7);
}

/* What is read is not written to, by whatever name, when a program asks for that. */
static void test_keep(void **state)
{
    (void)state;
    const char *path = in_root("input");
    write_whole(path, "in");
    assert_int_equal(symlink("input", in_root("link")), 0);
    assert_int_equal(link(path, in_root("hard")), 0);
    assert_content(path, "in");
    write_whole(path, "in"); /* read, but nobody asked */

    itera_file_keep_read(true);
    assert_content(path, "in");
    itera_file_keep_read(false);
    assert_int_equal(link(path, in_root("hard2")), 0);
    static const char *const names[] = {"input", "link", "hard2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(itera_file_check_output(in_root("%s", names[i])), ITERA_ERR_IO);
        assert_int_equal(itera_file_write(in_root("%s", names[i]), "out", 3), ITERA_ERR_IO);
        assert_non_null(strstr(itera_last_error(), "is what is read; write to another file"));
    }
    assert_content(path, "in");
    assert_int_equal(itera_file_keep(in_root("missing")), ITERA_OK);
    assert_int_equal(itera_file_write(in_root("missing"), "out", 3), ITERA_OK);
    assert_int_equal(itera_file_write(in_root("hard"), "out", 3), ITERA_OK); /* the old file */
    assert_int_equal(entries(root), 5);
}

static void test_writer_full_disk(void **state)
{
    (void)state;
    const char *path = in_root("file");
    write_whole(path, "kept");

    /* A size limit stands in for a full disk: write fails half-way with the old file in place. */
    struct rlimit before, tight;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = before;
    tight.rlim_cur = 400 * 1024;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    static const char block[300 * 1024];
    struct itera_writer *writer;
    enum itera_status opened = itera_writer_open(path, &writer);
    enum itera_status first = itera_writer_append(writer, block, sizeof block);
    enum itera_status second = itera_writer_append(writer, block, sizeof block);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(opened, ITERA_OK);
    assert_int_equal(first, ITERA_OK);
    assert_int_equal(second, ITERA_ERR_IO);
    assert_non_null(strstr(itera_last_error(), path));
    assert_int_equal(entries(root), 1);
    assert_int_equal(itera_writer_append(writer, block, 1), ITERA_ERR_IO);
    assert_int_equal(itera_writer_commit(&writer), ITERA_ERR_IO);
    assert_null(writer);
    assert_content(path, "kept");

    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(itera_writer_open("/dev/full", &writer), ITERA_OK);
        assert_int_equal(itera_writer_append(writer, "x", 1), ITERA_OK);
        assert_int_equal(itera_writer_commit(&writer), ITERA_ERR_IO);
        assert_non_null(strstr(itera_last_error(), "No space left"));
        struct stat st;
        assert_int_equal(stat("/dev/full", &st), 0);
        assert_true(S_ISCHR(st.st_mode));
    }
    assert_int_equal(itera_writer_open(in_root("no/such/folder"), &writer), ITERA_ERR_IO);
    assert_null(writer);
    assert_int_equal(itera_writer_open(root, &writer), ITERA_ERR_IO);
}

static void test_directories(void **state)
{
    (void)state;
    assert_int_equal(itera_make_directory(in_root("a/b//c/")), ITERA_OK);
    assert_int_equal(itera_make_directory(in_root("a/b/c")), ITERA_OK);
    assert_true(itera_is_directory(in_root("a/b/c")));
    assert_false(itera_file_exists(in_root("a/b/c")));
    write_whole(in_root("a/b/c/file"), "x");
    assert_true(itera_file_exists(in_root("a/b/c/file")));
    assert_int_equal(itera_make_directory(in_root("a/b/c/file/d")), ITERA_ERR_IO);
    assert_int_equal(itera_make_directory(in_root("a/b/c/file")), ITERA_ERR_IO);

    /* Links are removed, not followed. */
    write_whole(in_root("outside"), "safe");
    assert_int_equal(symlink(in_root("outside"), in_root("a/link")), 0);
    assert_int_equal(itera_remove_tree(in_root("a")), ITERA_OK);
    assert_int_equal(itera_remove_tree(in_root("a")), ITERA_OK);
    assert_content(in_root("outside"), "safe");
    assert_int_equal(entries(root), 1);
}

static void test_replace_directory(void **state)
{
    (void)state;
    const char *to = in_root("to");
    assert_int_equal(itera_replace_directory(in_root("from"), to), ITERA_ERR_IO);
    assert_int_equal(itera_make_directory(in_root("from/sub")), ITERA_OK);
    write_whole(in_root("from/sub/file"), "1");
    assert_int_equal(itera_replace_directory(in_root("from"), to), ITERA_OK);
    assert_content(in_root("to/sub/file"), "1");

    assert_int_equal(itera_make_directory(in_root("from")), ITERA_OK);
    write_whole(in_root("from/file"), "2");
    /* A leftover of a killed process. */
    assert_int_equal(itera_make_directory(in_root("to.old")), ITERA_OK);
    assert_int_equal(itera_replace_directory(in_root("from"), in_root("to/")), ITERA_OK);
    assert_content(in_root("to/file"), "2");
    assert_false(itera_is_directory(in_root("to/sub")));
    assert_int_equal(entries(root), 1);

    /* Killed between the renames: only .old is there. It goes once the new one is in place. */
    assert_int_equal(rename(in_root("to"), in_root("to.old")), 0);
    assert_int_equal(itera_replace_directory(in_root("from"), in_root("to")), ITERA_ERR_IO);
    assert_content(in_root("to.old/file"), "2");
    assert_int_equal(itera_make_directory(in_root("from")), ITERA_OK);
    assert_int_equal(itera_replace_directory(in_root("from"), in_root("to")), ITERA_OK);
    assert_int_equal(entries(root), 1);

    write_whole(in_root("plain"), "x");
    assert_int_equal(itera_replace_directory(in_root("to"), in_root("plain")), ITERA_ERR_IO);
    assert_true(itera_is_directory(in_root("to")));
}

static void test_path_join(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(itera_path_join(out, sizeof out, "a", "b"), ITERA_OK);
    assert_string_equal(out, "a/b");
    assert_int_equal(itera_path_join(out, sizeof out, "a/", "b"), ITERA_OK);
    assert_string_equal(out, "a/b");
    assert_int_equal(itera_path_join(out, sizeof out, "", "b"), ITERA_OK);
    assert_string_equal(out, "b");
    assert_int_equal(itera_path_join(out, sizeof out, "abc", "def"), ITERA_OK);
    assert_int_equal(itera_path_join(out, sizeof out, "abcd", "def"), ITERA_ERR_LIMIT);
}

static void test_environment(void **state)
{
    (void)state;
    unsetenv("ITERA_CPU_ISA");
    assert_null(itera_environment_cpu_isa());
    setenv("ITERA_CPU_ISA", "", 1);
    assert_null(itera_environment_cpu_isa());
    setenv("ITERA_CPU_ISA", "ref", 1);
    assert_string_equal(itera_environment_cpu_isa(), "ref");
    unsetenv("ITERA_CPU_ISA");
}

static void test_arena(void **state)
{
    (void)state;
    struct itera_arena *arena = itera_arena_create(256);
    assert_non_null(arena);
    for (size_t i = 0; i < 200; i++) {
        size_t align = (size_t)1 << (i % 8);
        unsigned char *data = itera_arena_alloc(arena, i * 3, align);
        assert_non_null(data);
        assert_int_equal((uintptr_t)data % align, 0);
        memset(data, (int)i, i * 3);
    }
    void *line = itera_arena_alloc(arena, 100000, ITERA_ALIGN_LINE);
    assert_int_equal((uintptr_t)line % 64, 0);
    assert_string_equal(itera_arena_strdup(arena, "text"), "text");
    assert_string_equal(itera_arena_strndup(arena, "text", 2), "te");
    assert_string_equal(itera_arena_printf(arena, "layers.%d.%s", 3, "norm"), "layers.3.norm");
    int *zero = itera_arena_calloc(arena, 10, sizeof *zero);
    for (int i = 0; i < 10; i++)
        assert_int_equal(zero[i], 0);
    assert_null(itera_arena_calloc(arena, SIZE_MAX / 2, 3));
    assert_null(itera_arena_alloc(arena, SIZE_MAX - 8, 16));
    assert_null(itera_arena_alloc(arena, 8, 3));
    itera_arena_destroy(&arena);
    assert_null(arena);
    itera_arena_destroy(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_map, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writer_replaces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writer_large, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_truncated_while_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writer_left, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_keep, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_writer_full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_directories, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_replace_directory, set_up, tear_down),
        cmocka_unit_test(test_path_join),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
