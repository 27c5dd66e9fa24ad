/* A declarative option parser, the same for every subcommand:
 *
 *     const char *device = "auto";
 *     int64_t threads = 0;
 *     struct option_optional json = {0};
 *     const struct command_option options[] = {
 *         {"device", 0, OPTION_STRING, &device, "D", "device to run on (default: auto)"},
 *         {"threads", 't', OPTION_INTEGER, &threads, "N", "threads (default: all)", 1, 1024},
 *         {"json", 0, OPTION_OPTIONAL, &json, "FILE", "write JSON to FILE, or to stdout"},
 *         {0}};
 *     const struct command_spec spec = {.name = "eval", .positional = "MODEL", .options = options,
 *                                       .summary = "...", .min = 1, .max = 1};
 *     struct command_args args;
 *     int code = options_parse(&spec, argc, argv, &args);
 *     if (code >= 0)
 *         return code;
 *     ... args.positional[0] ...
 *     options_free(&args);
 *
 * Accepted: --name VALUE, --name=VALUE, -x VALUE, -xVALUE, flags, options and positional arguments
 * in any order, `--` to end the options. --help is always there, made from the table. The last of
 * several equal options counts, where it is not an OPTION_EACH. */
#ifndef ITERA_TOOLS_OPTIONS_H
#define ITERA_TOOLS_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_kind {
    OPTION_FLAG,   /* bool; no value */
    OPTION_STRING, /* const char *, into argv */
    OPTION_INPUT,  /* the same: a file or folder to read, or a comma list of them */
    OPTION_INPUTS, /* struct option_names: the same, of which there may be several, each given by itself */
    OPTION_OUTPUT,   /* const char *: a file to write */
    OPTION_FOLDER,   /* the same: the directory of a training run */
    OPTION_CHOICE,   /* const char *, one of `choices` ("f32|f16|q8") */
    OPTION_INTEGER,  /* int64_t, in [min, max] */
    OPTION_NUMBER,   /* double, in [min, max], finite */
    OPTION_OPTIONAL, /* struct option_optional: `--json` alone or with a file to write. A following
                        argument is its value unless it starts with '-' (but "-" is), is a directory or a
                        file that holds something else than JSON, or is needed as a positional
                        argument; `--json=FILE` is always clear. */
    OPTION_INTEGERS, /* struct option_integers: 1,2,8; each in [min, max] */
    OPTION_NAMES,    /* struct option_names: f32,q8; each one of `choices` where given */
    OPTION_EACH,     /* the same, but what later ones list is added */
    OPTION_SETTINGS, /* const char *: a file of options in JSON, {"steps": 500, "device": "cpu"}, which
                        count where the command line does not name them */
};

struct option_optional {
    bool given;
    const char *value; /* NULL without one */
};
struct option_integers {
    size_t n;
    const int64_t *item;
};
struct option_names {
    size_t n;
    const char *const *item;
};

/* Where min == max the range is not checked. */
struct command_option {
    const char *name; /* without the dashes; NULL ends the table */
    char letter;      /* the short form, or 0 */
    enum option_kind kind;
    void *value;          /* set when the option is given, left alone otherwise */
    const char *argument; /* how the help names the value; not for flags */
    const char *help;     /* one line or several */
    double min, max;
    const char *choices;
    bool *given; /* set to true when the option occurs; may be NULL */
};

/* A row that sets what output_model_check takes. */
#define FORCE_OPTION(force)                                                                        \
    {                                                                                              \
        "force", 0, OPTION_FLAG, &(force), NULL, "replace the file that is to be written", 0, 0,   \
            NULL, NULL                                                                             \
    }

struct command_spec {
    const char *name;
    const char *positional; /* for the usage line: "MODEL [FILE...]"; may be NULL */
    const char *summary;    /* what the command does, in a sentence or a few lines */
    const struct command_option *options;
    const char *notes; /* printed after the options; may be NULL */
    int min, max;      /* number of positional arguments; max < 0: any number */
};

struct command_args {
    int n;
    char **positional;
    void *memory; /* what lists point to */
};

/* Returns -1 to go on, or an exit code: 0 after --help, 2 after a usage error, 1 where an output is
 * an input or two outputs are one file; the message has been printed. From then on the library does
 * not write over an input. After -1, args is to be freed; lists in option values live until then. */
int options_parse(const struct command_spec *spec, int argc, char **argv,
                  struct command_args *args);
void options_free(struct command_args *args);

/* The options of a table as such a file: those that have a value which could be given. NULL without
 * memory. */
json_t *options_to_json(const struct command_option *options);

/* The check of options_parse: every positional argument is an input, too. Returns EXIT_OK or
 * EXIT_FAILED. */
int options_check_files(const struct command_spec *spec, const struct command_args *args);

/* Prints `itera <command>: <message>` with a hint at --help; returns EXIT_USAGE. For what the table
 * cannot say (options that exclude each other). */
__attribute__((format(printf, 2, 3))) int options_usage(const struct command_spec *spec,
                                                        const char *format, ...);

/* The word that `word` probably was meant to be, or NULL. */
const char *options_closest(const char *word, const char *const *words, int n);

#endif
