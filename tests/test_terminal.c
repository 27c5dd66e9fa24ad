/* Text on a terminal is harmless, and a message never stands in the middle of a line; into a pipe
 * everything goes as it is. The command runs on a terminal of the test's own. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/terminal.c"
#include "core/file.h"
#include "tests/support/test.h"

/* A control of every kind, and the letters between. */
#define HOSTILE                                                                                    \
    "a\x1b]0;t\x07"                                                                                \
    "b\r\xc2\x9b"                                                                                  \
    "31mc\xe2\x80\xae"                                                                             \
    "d\xe2\x81\xa7"                                                                                \
    "e\x7f"                                                                                        \
    "f\xd8\x9cg"
#define HARMLESS                                                                                   \
    "a\xe2\x90\x9b]0;t\xe2\x90\x87"                                                                \
    "b\xe2\x90\x8d\xef\xbf\xbd"                                                                    \
    "31mc\xef\xbf\xbd"                                                                             \
    "d\xef\xbf\xbd"                                                                                \
    "e\xe2\x90\xa1"                                                                                \
    "f\xef\xbf\xbdg"

static void controls_become_pictures(void **state)
{
    (void)state;
    char out[TERMINAL_ROOM(2000)];
    size_t length = terminal_harmless(HOSTILE, strlen(HOSTILE), true, out);
    assert_string_equal(out, HARMLESS);
    assert_int_equal(length, strlen(HARMLESS));
    /* Writing of all languages stays, with its joiners. */
    static const char fine[] =
        "\ttab, \xc3\xa4, \xe0\xa4\x95\xe2\x80\x8d, \xd7\x90, \xf0\x9f\x98\x80\n";
    terminal_harmless(fine, strlen(fine), true, out);
    assert_string_equal(out, fine);
    terminal_harmless("two\nlines\x9b", 10, false, out);
    assert_string_equal(out, "two\xe2\x90\x8alines\xef\xbf\xbd");
    terminal_harmless("", 0, false, out);
    assert_string_equal(out, "");

    /* Longer than a piece, cut at every place of a letter; and of nothing but controls. */
    for (int pad = 250; pad < 260; pad++) {
        char text[600];
        memset(text, 'x', sizeof text);
        memcpy(text + pad, "\xe2\x80\xae", 3);
        length = terminal_harmless(text, sizeof text, true, out);
        assert_int_equal(length, sizeof text);
        assert_memory_equal(out + pad, "\xef\xbf\xbd", 3);
    }
    char all[2000];
    memset(all, 0x1b, sizeof all);
    assert_int_equal(terminal_harmless(all, sizeof all, true, out), 3 * sizeof all);
    memset(all, 0xff, sizeof all);
    assert_int_equal(terminal_harmless(all, sizeof all, true, out), 3 * sizeof all);
}

#ifdef ITERA_COMMAND

/* What the command prints in `root`, stdout and stderr together; *code is its exit status. */
static char *run(bool terminal, int *code, char *const *args)
{
    static char text[1 << 16];
    int ends[2];
    if (terminal) {
        ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
        assert_true(ends[0] >= 0 && grantpt(ends[0]) == 0 && unlockpt(ends[0]) == 0);
        ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
        assert_true(ends[1] >= 0);
        const struct winsize size = {.ws_row = 40, .ws_col = 100};
        assert_int_equal(ioctl(ends[0], TIOCSWINSZ, &size), 0);
    } else {
        assert_int_equal(pipe(ends), 0);
    }
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        setenv("TERM", "xterm", 1);
        if (chdir(root) == 0)
            execv(ITERA_COMMAND, args);
        _exit(127);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t n; (n = read(ends[0], text + used, sizeof text - 1 - used)) > 0; used += (size_t)n)
        assert_true(used < sizeof text - 1);
    close(ends[0]);
    text[used] = '\0';
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    *code = WEXITSTATUS(status);
    return text;
}

#define RUN(terminal, code, ...)                                                                   \
    run(terminal, code, (char *const[]){(char *)"itera", __VA_ARGS__, NULL})
#define ARG(text) (char *)(uintptr_t)(text)

/* No byte that a terminal obeys, but the ends of lines (\r\n there) and what a bar is drawn with. */
static void assert_no_controls(const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\n' || *p == '\t' || *p == '\r')
            continue;
        if (p[0] == '\x1b' && p[1] == '[' && p[2] == 'K')
            continue;
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            fail_msg("byte %02x at %.40s", (unsigned char)*p, p);
    }
    assert_null(strstr(text, "\xe2\x80\xae"));
    assert_null(strstr(text, "\xc2\x9b"));
}

/* The prompt is printed as generated text is. */
static void generated_text(void **state)
{
    (void)state;
    int code;
    char *text = RUN(true, &code, ARG("generate"), ARG("run/model.safetensors"), ARG("-n"),
                     ARG("3"), ARG("-p"), ARG(HOSTILE));
    assert_int_equal(code, 0);
    assert_non_null(strstr(text, HARMLESS));
    assert_no_controls(text);
    text = RUN(false, &code, ARG("generate"), ARG("run/model.safetensors"), ARG("-n"), ARG("3"),
               ARG("-p"), ARG(HOSTILE));
    assert_int_equal(code, 0);
    assert_non_null(strstr(text, HOSTILE));
}

/* The model's 16 positions end within the text, which is said there. */
static void messages_have_lines_of_their_own(void **state)
{
    (void)state;
    int code;
    const char *text = RUN(true, &code, ARG("generate"), ARG("run/model.safetensors"), ARG("-n"),
                           ARG("40"), ARG("-p"), ARG("0123456789"), ARG("--temp"), ARG("0"));
    assert_int_equal(code, 0);
    const char *note = strstr(text, "itera: note: the model's 16 positions are used up");
    assert_non_null(note);
    assert_true(note > text && note[-1] == '\n');
    const char *rates = strstr(text, "prefill: 10 tokens");
    assert_non_null(rates);
    assert_true(rates[-1] == '\n');
}

static void names_and_messages(void **state)
{
    (void)state;
    int code;
    const char *text = RUN(true, &code, ARG("info"), ARG(HOSTILE));
    assert_int_equal(code, 1);
    assert_non_null(strstr(text, "itera: " HARMLESS));
    assert_no_controls(text);
    text = RUN(true, &code, ARG(HOSTILE));
    assert_int_equal(code, 2);
    assert_non_null(strstr(text, HARMLESS));
    assert_no_controls(text);
    /* What is printed by other ways than generated text. */
    text = RUN(true, &code, ARG("generate"), ARG("run/model.safetensors"), ARG("-n"), ARG("3"),
               ARG("--json"), ARG("-p"), ARG(HOSTILE));
    assert_int_equal(code, 0);
    assert_non_null(strstr(text, "\"prompt\": \"a\\u001B]0;t"));
    assert_no_controls(text);
    text = RUN(false, &code, ARG("info"), ARG("\x1b[31m\xe2\x80\xae"));
    assert_int_equal(code, 1);
    assert_non_null(strstr(text, "itera: \x1b[31m\xe2\x80\xae"));
}

static int set_up(void **state)
{
    (void)state;
    if (make_root())
        return -1;
    put(in_root("config.json"),
        "{\"architecture\": \"transformer\", \"vocab_size\": 257, \"hidden_size\": 16,"
        " \"num_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 32,"
        " \"max_seq_length\": 16}");
    char text[4000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    put(in_root("text"), text);
    int code;
    const char *said =
        RUN(true, &code, ARG("train"), ARG("--config"), ARG("config.json"), ARG("--data"),
            ARG("text"), ARG("--tokenizer"), ARG("byte"), ARG("--steps"), ARG("30"), ARG("--batch"),
            ARG("1"), ARG("--seq"), ARG("16"), ARG("--out"), ARG("run"));
    if (code)
        printf("%s\n", said);
    return code;
}

static int tear_down(void **state)
{
    (void)state;
    return remove_root();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(controls_become_pictures),
#ifdef ITERA_COMMAND
        cmocka_unit_test(generated_text),
        cmocka_unit_test(messages_have_lines_of_their_own),
        cmocka_unit_test(names_and_messages),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
#else
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
#endif
}
