/* The subcommands of `itera`: one file each, commands/<name>.c (and bench/), registered in
 * the table of main.c. */
#ifndef ITERA_TOOLS_COMMAND_H
#define ITERA_TOOLS_COMMAND_H

/* What a command returns, and the process exits with. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_NOTHING_TO_TEST = 77 };

/* argv[0] is the command's name. Library errors are printed by the log callback that main installs
 * (`itera: <message>`): a command only returns EXIT_FAILED after them. */
typedef int itera_command_fn(int argc, char **argv);

itera_command_fn itera_command_devices;
itera_command_fn itera_command_check;
itera_command_fn itera_command_train;
itera_command_fn itera_command_distill;
itera_command_fn itera_command_eval;
itera_command_fn itera_command_generate;
itera_command_fn itera_command_logits;
itera_command_fn itera_command_tokenize;
itera_command_fn itera_command_info;
itera_command_fn itera_command_prune;
itera_command_fn itera_command_vocab;
itera_command_fn itera_command_energy;
itera_command_fn itera_command_bench;
itera_command_fn itera_command_compare;
itera_command_fn itera_command_quantize;
itera_command_fn itera_command_ledger;

/* Prints `itera: <message>` on stderr, around a progress bar. For errors that are not the
 * library's: those have been printed when the call returns. */
__attribute__((format(printf, 1, 2))) void command_error(const char *format, ...);
/* The same as `itera: note: <message>`, for what is no error but should be known. */
__attribute__((format(printf, 1, 2))) void command_note(const char *format, ...);

#endif
