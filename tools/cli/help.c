#include "cli/help.h"

#include <stdio.h>
#include <string.h>

#include "itera/model.h"
#include "itera/version.h"

static enum help_form form;

static const struct command_option help_row = {
    .name = "help", .letter = 'h', .kind = OPTION_FLAG, .help = "print this text"};

void help_set_form(enum help_form wanted)
{
    form = wanted;
}

/* The options of a command and --help: NULL behind the last. */
static const struct command_option *next_row(const struct command_spec *spec,
                                             const struct command_option *row)
{
    const struct command_option *next = !row ? spec->options : row == &help_row ? NULL : row + 1;
    return next && !next->name ? &help_row : next;
}

static const char *argument_of(const struct command_option *row)
{
    return row->argument ? row->argument : "VALUE";
}

/* ---- --help ---------------------------------------------------------------------------------- */

static void print_text(const struct command_spec *spec)
{
    printf("usage: itera %s%s%s [OPTION...]\n\n%s\n\noptions:\n", spec->name,
           spec->positional ? " " : "", spec->positional ? spec->positional : "", spec->summary);
    for (const struct command_option *row = next_row(spec, NULL); row; row = next_row(spec, row)) {
        char left[96], letter[8] = "    ";
        if (row->letter)
            snprintf(letter, sizeof letter, "-%c, ", row->letter);
        const char *argument = argument_of(row);
        if (row->kind == OPTION_FLAG)
            snprintf(left, sizeof left, "%s--%s", letter, row->name);
        else if (row->kind == OPTION_OPTIONAL)
            snprintf(left, sizeof left, "%s--%s [%s]", letter, row->name, argument);
        else
            snprintf(left, sizeof left, "%s--%s %s", letter, row->name, argument);
        enum { COLUMN = 30 };
        printf("  %-*s", COLUMN - 3, left);
        if (strlen(left) > COLUMN - 3)
            printf("\n%*s", COLUMN - 1, "");
        for (const char *line = row->help; line;) {
            const char *end = strchr(line, '\n');
            int length = end ? (int)(end - line) : (int)strlen(line);
            printf(" %.*s\n", length, line);
            line = end ? end + 1 : NULL;
            if (line)
                printf("%*s", COLUMN - 1, "");
        }
    }
    if (spec->notes)
        printf("\n%s\n", spec->notes);
}

/* ---- man pages: man(7) ----------------------------------------------------------------------- */

/* Text as it stands: nothing in it is a request or an escape, and hyphens can be copied. */
static void roff(const char *text)
{
    for (bool first = true; *text; text++) {
        if (first && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
        first = *text == '\n';
    }
}

static void man_head(const char *name, const char *summary)
{
    char title[64];
    snprintf(title, sizeof title, "%s", name);
    for (char *c = title; *c; c++)
        *c = (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    printf(".TH %s 1 \"\" \"itera %s\" \"itera\"\n.SH NAME\n", title, itera_version());
    roff(name);
    fputs(" \\- ", stdout);
    roff(summary);
    putchar('\n');
}

static void man_option(const struct command_option *row)
{
    puts(".TP");
    if (row->letter)
        printf("\\fB\\-%c\\fR, ", row->letter);
    fputs("\\fB\\-\\-", stdout);
    roff(row->name);
    fputs("\\fR", stdout);
    if (row->kind != OPTION_FLAG) {
        fputs(row->kind == OPTION_OPTIONAL ? " [\\fI" : " \\fI", stdout);
        roff(argument_of(row));
        fputs(row->kind == OPTION_OPTIONAL ? "\\fR]" : "\\fR", stdout);
    }
    putchar('\n');
    roff(row->help);
    putchar('\n');
}

static void print_man(const struct command_spec *spec)
{
    char name[64], first[200];
    snprintf(name, sizeof name, "itera-%s", spec->name);
    snprintf(first, sizeof first, "%.*s", (int)strcspn(spec->summary, ".:\n"), spec->summary);
    man_head(name, first);
    fputs(".SH SYNOPSIS\n\\fBitera ", stdout);
    roff(spec->name);
    fputs("\\fR", stdout);
    if (spec->positional) {
        fputs(" \\fI", stdout);
        roff(spec->positional);
        fputs("\\fR", stdout);
    }
    fputs(" [\\fIOPTION\\fR...]\n.SH DESCRIPTION\n", stdout);
    roff(spec->summary);
    puts("\n.SH OPTIONS");
    for (const struct command_option *row = next_row(spec, NULL); row; row = next_row(spec, row))
        man_option(row);
    if (spec->notes) {
        puts(".SH NOTES\n.nf");
        roff(spec->notes);
        puts("\n.fi");
    }
    puts(".SH EXIT STATUS\n0 success, 1 failure, 2 wrong usage, 77 nothing to test.\n"
         ".SH SEE ALSO\n.BR itera (1)");
}

void help_man_overview(const struct help_command *commands, int n)
{
    man_head("itera", "train, compress, evaluate and benchmark small SSM + MoE language models");
    puts(".SH SYNOPSIS\n\\fBitera\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR...]\n.SH COMMANDS");
    for (int i = 0; i < n; i++) {
        puts(".TP");
        fputs("\\fBitera\\-", stdout);
        roff(commands[i].name);
        puts("\\fR(1)");
        roff(commands[i].summary);
        putchar('\n');
    }
    puts(
        ".SH EXIT STATUS\nResults go to stdout, messages to stderr. 0 success, 1 failure, 2 wrong\n"
        "usage, 77 nothing to test.");
}

/* ---- completions ----------------------------------------------------------------------------- */

enum value { VALUE_NONE, VALUE_ANY, VALUE_WORDS, VALUE_FILE, VALUE_FOLDER };

/* What stands behind an option; the words it is one of, each with `between` behind it. */
static enum value value_of(const struct command_option *row, const char *between, char *out,
                           size_t size)
{
    static const char *const devices[] = {"auto", "cpu", "opencl:0", "vulkan:0", NULL};
    size_t used = 0;
    const char *word;
    *out = '\0';
    if (row->kind == OPTION_FLAG)
        return VALUE_NONE;
    if (strcmp(row->name, "preset") == 0 || strcmp(row->name, "device") == 0) {
        const bool preset = row->name[0] == 'p';
        for (size_t i = 0; (word = preset ? itera_preset_name(i) : devices[i]) && used < size; i++)
            used += (size_t)snprintf(out + used, size - used, "%s%s", word, between);
        return VALUE_WORDS;
    }
    if (row->choices) {
        for (word = row->choices; *word && used < size;) {
            const int length = (int)strcspn(word, "|");
            used += (size_t)snprintf(out + used, size - used, "%.*s%s", length, word, between);
            word += length + (word[length] == '|');
        }
        return VALUE_WORDS;
    }
    switch (row->kind) {
    case OPTION_INPUT:
    case OPTION_INPUTS:
    case OPTION_OUTPUT:
    case OPTION_OPTIONAL:
    case OPTION_SETTINGS:
        return VALUE_FILE;
    case OPTION_FOLDER:
        return VALUE_FOLDER;
    default:
        return VALUE_ANY;
    }
}

enum { WORDS = 1024 };

/* The first line of a help text, without what means something to the shell that reads it. */
static void plain(const char *text)
{
    for (; *text && *text != '\n'; text++)
        if (!strchr("'\"`$\\[]:", *text))
            putchar(*text);
        else if (*text == ':')
            putchar(',');
}

static void print_bash(const struct command_spec *spec)
{
    char words[WORDS];
    printf("    %s)\n        options=\"", spec->name);
    for (const struct command_option *row = next_row(spec, NULL); row; row = next_row(spec, row))
        printf("--%s ", row->name);
    puts("\"\n        case $previous in");
    for (const struct command_option *row = next_row(spec, NULL); row; row = next_row(spec, row)) {
        const enum value value = value_of(row, " ", words, sizeof words);
        if (value == VALUE_NONE || row->kind == OPTION_OPTIONAL)
            continue;
        printf("        --%s", row->name);
        if (row->letter)
            printf(" | -%c", row->letter);
        printf(") kind=%s words=\"%s\" ;;\n",
               value == VALUE_WORDS    ? "words"
               : value == VALUE_FOLDER ? "folder"
               : value == VALUE_FILE   ? "file"
                                       : "none",
               words);
    }
    puts("        esac\n        ;;");
}

/* One name of an option: "-o+" and "--out=" take their value in the same word or the next. */
static void zsh_name(const struct command_option *row, bool letter, enum value value,
                     const char *words)
{
    const bool again = row->kind == OPTION_INPUTS || row->kind == OPTION_EACH;
    fputs(" \\\n            '", stdout);
    if (again)
        putchar('*');
    else if (letter)
        printf("(--%s)", row->name);
    else if (row->letter)
        printf("(-%c)", row->letter);
    if (letter)
        printf("-%c%s[", row->letter, value == VALUE_NONE ? "" : "+");
    else
        printf("--%s%s[", row->name, value == VALUE_NONE ? "" : "=");
    plain(row->help);
    putchar(']');
    if (value != VALUE_NONE)
        printf("%s%s:", row->kind == OPTION_OPTIONAL ? "::" : ":", row->name);
    if (value == VALUE_WORDS) {
        putchar('(');
        for (; *words; words++) /* a colon would end the list */
            printf("%s%c", *words == ':' ? "\\" : "", *words);
        putchar(')');
    } else if (value == VALUE_FILE || value == VALUE_FOLDER) {
        fputs(value == VALUE_FOLDER ? "_files -/" : "_files", stdout);
    }
    putchar('\'');
}

static void print_zsh(const struct command_spec *spec)
{
    char words[WORDS];
    printf("    %s)\n        _arguments", spec->name);
    for (const struct command_option *row = next_row(spec, NULL); row; row = next_row(spec, row)) {
        const enum value value = value_of(row, " ", words, sizeof words);
        zsh_name(row, false, value, words);
        if (row->letter)
            zsh_name(row, true, value, words);
    }
    puts(spec->positional ? " \\\n            '*:file:_files'\n        ;;" : "\n        ;;");
}

static void print_fish(const struct command_spec *spec)
{
    char words[WORDS];
    for (const struct command_option *row = next_row(spec, NULL); row; row = next_row(spec, row)) {
        const enum value value = value_of(row, " ", words, sizeof words);
        printf("complete -c itera -n '__itera_command %s' -l %s", spec->name, row->name);
        if (row->letter)
            printf(" -s %c", row->letter);
        if (value == VALUE_WORDS)
            printf(" -x -a '%s'", words);
        else if (value == VALUE_FOLDER)
            fputs(" -x -a '(__fish_complete_directories)'", stdout);
        else if (value != VALUE_NONE && row->kind != OPTION_OPTIONAL)
            fputs(value == VALUE_FILE ? " -r" : " -x", stdout);
        fputs(" -d '", stdout);
        plain(row->help);
        puts("'");
    }
}

void help_begin(const struct help_command *commands, int n)
{
    if (form == HELP_BASH) {
        /* Bash cuts words at '=' and ':', so that `--device vulkan:0` and `--to=q8` come in pieces. */
        fputs("# bash completion for itera, made from its tables of options.\n_itera()\n{\n"
              "    local -a line=()\n    local i word last= options= kind= words=\n"
              "    for ((i = 0; i <= COMP_CWORD; i++)); do\n"
              "        word=${COMP_WORDS[i]}\n"
              "        if [[ $i -gt 0 && ($word == : || $last == :) ]]; then\n"
              "            line[${#line[@]}-1]+=$word\n"
              "        elif [[ $word != = ]]; then\n            line+=(\"$word\")\n"
              "        elif ((i == COMP_CWORD)); then\n            line+=('')\n"
              "        fi\n        last=$word\n    done\n"
              "    local n=${#line[@]}\n"
              "    local current=${line[n-1]} previous=${line[n-2]}\n    COMPREPLY=()\n"
              "    if ((n == 2)); then\n        mapfile -t COMPREPLY < <(compgen -W \"",
              stdout);
        for (int i = 0; i < n; i++)
            printf("%s ", commands[i].name);
        puts("\" -- \"$current\")\n        return\n    fi\n    case ${line[1]} in");
    } else if (form == HELP_ZSH) {
        puts("#compdef itera\n# zsh completion for itera, made from its tables of options.\n"
             "local -a commands\ncommands=(");
        for (int i = 0; i < n; i++) {
            printf("    '%s:", commands[i].name);
            plain(commands[i].summary);
            puts("'");
        }
        puts(")\nif (( CURRENT == 2 )); then\n    _describe command commands\nelse\n"
             "    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n"
             "    case $command in");
    } else if (form == HELP_FISH) {
        /* Not __fish_seen_subcommand_from: `itera bench train` is no `itera train`. */
        puts("# fish completion for itera, made from its tables of options.\n"
             "function __itera_command\n    set -l line (commandline -opc)\n"
             "    test (count $line) -gt 1; and test $line[2] = $argv[1]\nend");
        for (int i = 0; i < n; i++) {
            printf("complete -c itera -n '__fish_use_subcommand' -f -a %s -d '", commands[i].name);
            plain(commands[i].summary);
            puts("'");
        }
    }
}

void help_end(void)
{
    if (form == HELP_BASH)
        puts("    esac\n    if [ -z \"$kind\" ] && [[ $current == -* ]]; then\n"
             "        kind=words words=$options\n    fi\n"
             "    case $kind in\n"
             "    words) mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\") ;;\n"
             "    none) ;;\n"
             "    *)\n        # Of names of files alone: a command is no folder of its name.\n"
             "        compopt -o filenames 2>/dev/null\n"
             "        if [ \"$kind\" = folder ]; then\n"
             "            mapfile -t COMPREPLY < <(compgen -d -- \"$current\")\n"
             "        else\n            mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
             "        fi\n        ;;\n    esac\n"
             "    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then\n"
             "        COMPREPLY=(\"${COMPREPLY[@]#\"${current%\"${current##*:}\"}\"}\")\n"
             "    fi\n}\ncomplete -F _itera itera");
    else if (form == HELP_ZSH)
        puts("    esac\nfi");
}

void help_print(const struct command_spec *spec)
{
    switch (form) {
    case HELP_TEXT:
        print_text(spec);
        break;
    case HELP_MAN:
        print_man(spec);
        break;
    case HELP_BASH:
        print_bash(spec);
        break;
    case HELP_ZSH:
        print_zsh(spec);
        break;
    case HELP_FISH:
        print_fish(spec);
        break;
    }
}
