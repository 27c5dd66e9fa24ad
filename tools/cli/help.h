/* What a table of options looks like to people and to shells: help, man pages, completions. */
#ifndef ITERA_TOOLS_HELP_H
#define ITERA_TOOLS_HELP_H

#include "cli/options.h"

enum help_form { HELP_TEXT, HELP_MAN, HELP_BASH, HELP_ZSH, HELP_FISH };

/* How help_print writes from now on: HELP_TEXT until then. */
void help_set_form(enum help_form form);
/* What --help prints; in another form than the text, the part of the page or script that is about
 * this command. */
void help_print(const struct command_spec *spec);

struct help_command {
    const char *name, *summary;
};

/* itera(1), and what stands around the parts of a script for a shell. */
void help_man_overview(const struct help_command *commands, int n);
void help_begin(const struct help_command *commands, int n);
void help_end(void);

#endif
