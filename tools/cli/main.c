/* The itera command: finds the subcommand, prints the library's messages, and keeps stdout honest.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/help.h"
#include "cli/library_message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "itera/file.h"
#include "itera/status.h"
#include "itera/version.h"

/* In the order of the help text. */
static const struct {
    const char *name;
    itera_command_fn *run;
    const char *summary;
} commands[] = {
    {"devices", itera_command_devices, "list the devices of this machine"},
    {"check", itera_command_check, "show that devices compute what the reference does"},
    {"train", itera_command_train, "train a model, or go on with a run"},
    {"distill", itera_command_distill, "train a smaller model to say what a larger one says"},
    {"prune", itera_command_prune, "remove the experts and channels that matter least"},
    {"vocab", itera_command_vocab, "keep the tokens that a text uses, or make fewer new ones"},
    {"eval", itera_command_eval, "score a text: perplexity, bits per byte"},
    {"generate", itera_command_generate, "continue a prompt"},
    {"logits", itera_command_logits, "write the logits of a sequence of token ids"},
    {"tokenize", itera_command_tokenize, "print the token ids of a text"},
    {"info", itera_command_info, "parameters, bytes and FLOPs of a model or preset"},
    {"energy", itera_command_energy, "list energy sensors, and measure this machine's power"},
    {"bench", itera_command_bench, "measure ops, inference and training"},
    {"compare", itera_command_compare, "put result files of bench side by side"},
    {"quantize", itera_command_quantize, "write a model with narrower weights: f16, q8, q4"},
    {"ledger", itera_command_ledger, "compare models: size, work, speed, quality"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void print_message(void *user, enum itera_log_level level, const char *message)
{
    (void)user;
    char text[2048];
    if (level == ITERA_LOG_DEBUG)
        return;
    library_message(message, text, sizeof text);
    progress_line("itera: %s%s",
                  level == ITERA_LOG_WARNING ? "warning: "
                  : level == ITERA_LOG_INFO  ? "note: "
                                             : "",
                  text);
}

void command_error(const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    progress_line("itera: %s", message);
}

void command_note(const char *format, ...)
{
    char message[4000];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    progress_line("itera: note: %s", message);
}

static void print_help(FILE *file)
{
    fputs("usage: itera COMMAND [OPTION...]\n\n"
          "Trains, compresses, evaluates and benchmarks small SSM + MoE language models.\n\n"
          "commands:\n",
          file);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(file, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\n`itera COMMAND --help` says what a command takes. `itera --version` prints the "
          "version.\n"
          "`itera help --man [COMMAND]` prints a man page, `itera help --completion bash|zsh|fish` "
          "a completion.\n"
          "Results go to stdout, messages to stderr. Exit status: 0 success, 1 failure, 2 wrong\n"
          "usage, 77 nothing to test.\n",
          file);
}

static int run_command(int argc, char **argv)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(argv[0], commands[i].name) == 0)
            return commands[i].run(argc, argv);

    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    const char *near = options_closest(argv[0], names, COMMANDS);
    if (near)
        command_error("there is no command '%s'; did you mean '%s'?", argv[0], near);
    else
        command_error("there is no command '%s'; `itera --help` lists them", argv[0]);
    return EXIT_USAGE;
}

/* itera help --man [COMMAND], itera help --completion bash|zsh|fish: for packages. */
static int print_form(int argc, char **argv)
{
    static const char *const shells[] = {
        [HELP_BASH] = "bash", [HELP_ZSH] = "zsh", [HELP_FISH] = "fish"};
    struct help_command list[COMMANDS];
    char help[] = "--help";
    for (int i = 0; i < COMMANDS; i++)
        list[i] = (struct help_command){commands[i].name, commands[i].summary};
    if (strcmp(argv[0], "--man") == 0) {
        char *args[] = {argc > 1 ? argv[1] : help, help, NULL};
        help_set_form(HELP_MAN);
        if (argc > 1)
            return run_command(2, args);
        help_man_overview(list, COMMANDS);
        return EXIT_OK;
    }
    for (int shell = HELP_BASH; shell <= HELP_FISH; shell++) {
        if (argc < 2 || strcmp(argv[1], shells[shell]) != 0)
            continue;
        int code = EXIT_OK;
        help_set_form((enum help_form)shell);
        help_begin(list, COMMANDS);
        for (int i = 0; i < COMMANDS && code == EXIT_OK; i++) {
            char name[32];
            char *args[] = {name, help, NULL};
            snprintf(name, sizeof name, "%s", commands[i].name);
            code = commands[i].run(2, args);
        }
        help_end();
        return code;
    }
    command_error("help: --completion is one of bash, zsh, fish");
    return EXIT_USAGE;
}

static int dispatch(int argc, char **argv)
{
    const char *first = argc > 1 ? argv[1] : NULL;
    if (!first) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (strcmp(first, "--version") == 0) {
        printf("itera %s\n", itera_version());
        return EXIT_OK;
    }
    if (strcmp(first, "help") == 0) {
        if (argc == 2) {
            print_help(stdout);
            return EXIT_OK;
        }
        if (strcmp(argv[2], "--man") == 0 || strcmp(argv[2], "--completion") == 0)
            return print_form(argc - 2, argv + 2);
        char help[] = "--help";
        char *args[] = {argv[2], help, NULL};
        return run_command(2, args);
    }
    if (first[0] == '-') {
        command_error("'%s' is no option of itera; options follow a command (`itera --help`)",
                      first);
        return EXIT_USAGE;
    }
    return run_command(argc - 1, argv + 1);
}

/* A process may be started without stdin, stdout or stderr. The next files that it opens would take
 * their numbers, and what is printed would end up in a model or a log. */
static void fill_standard_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0)
            return;
}

int main(int argc, char **argv)
{
    fill_standard_streams();
    terminal_guard_stdout();
    /* A reader that goes away (`| head`) must not kill a training run: writes fail with EPIPE
     * instead, and output_finish looks at them. */
    signal(SIGPIPE, SIG_IGN);
    /* Nor must the limit of a file's size (`ulimit -f`): it is an error like a full disk. */
    signal(SIGXFSZ, SIG_IGN);
    itera_set_log(print_message, NULL);
    itera_file_keep_read(true);
    return output_finish(dispatch(argc, argv));
}
