#include "client/ctl/ctl.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_S 5u /* like the library's */
#define TIMEOUT_MAX_S 3600u /* nobody waits longer for an answer that comes in milliseconds */
#define FORMATS "text|json"

static const struct ctl_command *const commands[] = {&ctl_stats, &ctl_clients, &ctl_users, &ctl_classes, &ctl_spans,
        &ctl_roots, &ctl_heaps, &ctl_check, &ctl_trim, &ctl_evict, &ctl_dump, &ctl_heapmap, &ctl_top};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct {
	const char *name, *arg;
	int letter; /* what getopt returns; letters are short options as well */
	uint32_t needs; /* 0: every command has it */
	const char *help;
} options[] = {
        {"socket", "PATH", 's', 0,
                "where the daemon listens; default $SHMALLOC_SOCKET, else\n"
                "$XDG_RUNTIME_DIR/shmalloc/shmalloc.sock if it is there, else\n"
                "/run/shmalloc/shmalloc.sock"},
        {"heap", "NAME", 'H', 0, "which heap; default $SHMALLOC_HEAP, else 'default'"},
        {"format", FORMATS, 'f', 0, "what to print; default text"},
        {"timeout", "SECONDS", 't', 0, "the longest wait for the daemon; default 5"},
        {"bytes", NULL, 'b', CTL_OPT_BYTES, "exact bytes in tables, not KiB and MiB"},
        {"sort", "KEY", 'S', CTL_OPT_SORT,
                "what the rows are sorted by, the biggest first: in top held (the\n"
                "default), rate, idle, name or pid; else a key of the JSON, and with\n"
                "'-' before it the smallest first"},
        {"wide", NULL, 'w', CTL_OPT_WIDE, "more columns, up to 160 wide"},
        {"all", NULL, 'a', CTL_OPT_ALL, "also what clients can spare"},
        {"image", NULL, 'i', CTL_OPT_IMAGE, "look at saved copies of a heap's objects; no daemon is asked"},
        {"kill", NULL, 'K', CTL_OPT_KILL, "kill the client's process, and wait until the daemon has taken all back"},
        {"by", "kind|class|owner", 'g', CTL_OPT_BY, "what the colours say; default kind"},
        {"output", "FILE", 'o', CTL_OPT_OUTPUT, "write there, not to the standard output"},
        {"interval", "SECONDS", 'd', CTL_OPT_TOP, "time between two looks: 0.1 to 3600; default 1"},
        {"reverse", NULL, 'r', CTL_OPT_TOP, "the other way round"},
        {"once", NULL, 'O', CTL_OPT_TOP, "print one look as text, and end"},
        {"frames", "NUMBER", 'n', CTL_OPT_TOP, "print so many looks as text, and end"},
        {"help", NULL, 'h', 0, "this text; with a command, about that command"},
        {"version", NULL, 'V', 0, "the program's version"},
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

int ctl_fail(struct ctl *ctl, int status, const char *format, ...)
{
	va_list args;

	fputs("shmallocctl: ", ctl->err);
	va_start(args, format);
	vfprintf(ctl->err, format, args);
	va_end(args);
	fputc('\n', ctl->err);
	return status;
}

static const char *formats_of(const struct ctl_command *command)
{
	return command->formats ? command->formats : FORMATS;
}

/* ---- help ---- */

static void print_indented(FILE *out, const char *text, int indent)
{
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		fprintf(out, "%*s%.*s\n", line == text ? 0 : indent, "", (int)strcspn(line, "\n"), line);
	}
}

/* What an option takes; of some it is the command's to say. NULL: nothing. */
static const char *arg_of(size_t option, const struct ctl_command *command)
{
	if (options[option].letter == 'f')
		return command ? formats_of(command) : FORMATS;
	return options[option].letter == 'S' && command && command->sorts ? command->sorts : options[option].arg;
}

static void print_options(FILE *out, uint32_t have, const struct ctl_command *command)
{
	char left[64];

	fputs("\nOptions:\n", out);
	for (size_t i = 0; i < N_OPTIONS; i++) {
		if (options[i].needs & ~have)
			continue;
		const char *arg = arg_of(i, command);

		snprintf(left, sizeof(left), "-%c, --%s%s%s", options[i].letter, options[i].name, arg ? " " : "",
		        arg ? arg : "");
		fprintf(out, "  %-25s ", left);
		print_indented(out, options[i].help, 28);
	}
}

static void print_help(FILE *out, const struct ctl_command *command)
{
	if (command) {
		fprintf(out, "Usage: shmallocctl [OPTIONS] %s%s%s\n\n%s\n", command->name, command->args ? " " : "",
		        command->args ? command->args : "", command->summary);
		if (command->help)
			fprintf(out, "\n%s\n", command->help);
		print_options(out, command->options, command);
		return;
	}
	fputs("Usage: shmallocctl [OPTIONS] COMMAND\n\nAsks a shmalloc daemon what is where in its "
	      "heap.\n\nCommands:\n",
	        out);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-9s %s\n", commands[i]->name, commands[i]->summary);
	print_options(out, 0, NULL);
	fputs("\n'shmallocctl COMMAND --help' says more about a command.\n"
	      "Exit status: 0 done; 1 check found violations; 2 bad usage; 3 the daemon cannot be reached;\n"
	      "4 the daemon refused or failed.\n",
	        out);
}

/* ---- the command line ---- */

static int set_timeout(struct ctl *ctl, const char *arg)
{
	char *end;
	unsigned long seconds = strtoul(arg, &end, 10);

	if (*arg < '0' || *arg > '9' || *end || !seconds || seconds > TIMEOUT_MAX_S)
		return ctl_fail(ctl, CTL_USAGE, "--timeout is 1 to %u seconds, not '%s'", TIMEOUT_MAX_S, arg);
	ctl->timeout_s = (uint32_t)seconds;
	return CTL_OK;
}

static int set_option(struct ctl *ctl, int letter, const char *arg)
{
	switch (letter) {
	case 's':
		if (snprintf(ctl->socket, sizeof(ctl->socket), "%s", arg) >= CTL_SOCKET_MAX)
			return ctl_fail(
			        ctl, CTL_USAGE, "the path of a socket has at most %d bytes", CTL_SOCKET_MAX - 1);
		break;
	case 'H':
		ctl->heap = arg;
		break;
	case 'f':
		ctl->format = arg;
		break;
	case 't':
		return set_timeout(ctl, arg);
	case 'S':
		ctl->sort = arg;
		break;
	case 'w':
		ctl->wide = true;
		break;
	case 'b':
		ctl->bytes = true;
		break;
	case 'a':
		ctl->all = true;
		break;
	case 'K':
		ctl->kill = true;
		break;
	case 'g':
		ctl->by = arg;
		break;
	case 'o':
		ctl->output = arg;
		break;
	case 'd':
		ctl->interval = arg;
		break;
	case 'r':
		ctl->reverse = true;
		break;
	case 'O':
		ctl->frames = "1";
		break;
	case 'n':
		ctl->frames = arg;
		break;
	default:
		ctl->image = true;
		break;
	}
	return CTL_OK;
}

/* What was asked for, but for the command. */
struct line {
	bool help, version;
	uint32_t given; /* CTL_OPT_... bits */
};

static const char *option_name(int letter)
{
	for (size_t i = 0; i < N_OPTIONS; i++)
		if (options[i].letter == letter)
			return options[i].name;
	return "?";
}

static int bad_option(struct ctl *ctl, int how, char **argv)
{
	if (how == ':')
		return ctl_fail(ctl, CTL_USAGE, "--%s needs a value; see 'shmallocctl --help'", option_name(optopt));
	return ctl_fail(ctl, CTL_USAGE, "there is no option '%s'; see 'shmallocctl --help'", argv[optind - 1]);
}

static int read_options(struct ctl *ctl, int argc, char **argv, struct line *line)
{
	struct option longs[N_OPTIONS + 1] = {{0}};
	char shorts[2 * N_OPTIONS + 2] = ":";
	int letter, status = CTL_OK;

	for (size_t i = 0, at = 1; i < N_OPTIONS; i++) {
		longs[i] = (struct option){options[i].name, options[i].arg != NULL, NULL, options[i].letter};
		shorts[at++] = (char)options[i].letter;
		if (options[i].arg)
			shorts[at++] = ':';
	}
	optind = 0; /* from the start, if we are called again */
	opterr = 0;
	while (status == CTL_OK && (letter = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		for (size_t i = 0; i < N_OPTIONS; i++)
			line->given |= options[i].letter == letter ? options[i].needs : 0;
		if (letter == 'h')
			line->help = true;
		else if (letter == 'V')
			line->version = true;
		else if (letter == '?' || letter == ':')
			status = bad_option(ctl, letter, argv);
		else
			status = set_option(ctl, letter, optarg);
	}
	return status;
}

static const struct ctl_command *find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

/* Is it one of what the command can print? */
static int check_format(struct ctl *ctl, const struct ctl_command *command)
{
	const char *formats = formats_of(command);
	size_t len = strlen(ctl->format);

	for (const char *at = formats; at; at = strchr(at, '|')) {
		at += *at == '|';
		if (strcspn(at, "|") == len && strncmp(at, ctl->format, len) == 0) {
			ctl->json = strcmp(ctl->format, "json") == 0;
			ctl->prometheus = strcmp(ctl->format, "prometheus") == 0;
			return CTL_OK;
		}
	}
	return ctl_fail(ctl, CTL_USAGE, "--format of %s is %s, not '%s'", command->name, formats, ctl->format);
}

static int run_command(struct ctl *ctl, const struct ctl_command *command, const struct line *line)
{
	uint32_t foreign = line->given & ~command->options;

	for (size_t i = 0; i < N_OPTIONS && foreign; i++)
		if (options[i].needs & foreign)
			return ctl_fail(ctl, CTL_USAGE, "%s has no option --%s; see 'shmallocctl %s --help'",
			        command->name, options[i].name, command->name);
	if (ctl->n_args > command->max_args)
		return ctl_fail(ctl, CTL_USAGE, "'%s' is too much; see 'shmallocctl %s --help'",
		        ctl->args[command->max_args], command->name);
	int status = check_format(ctl, command);

	if (status != CTL_OK)
		return status;
	status = command->run(ctl);
	ctl_hang_up(ctl);
	if (fflush(ctl->out) != 0 || ferror(ctl->out))
		return ctl_fail(ctl, CTL_FAILED, "the output could not be written");
	return status;
}

int ctl_main(int argc, char **argv, FILE *out, FILE *err)
{
	struct ctl ctl = {.format = "text", .timeout_s = TIMEOUT_S, .out = out, .err = err, .sock = -1};
	const char *heap = secure_getenv("SHMALLOC_HEAP");
	const struct ctl_command *command = NULL;
	struct line line = {0};
	int status = read_options(&ctl, argc, argv, &line);

	if (status != CTL_OK)
		return status;
	if (optind < argc && !(command = find_command(argv[optind])))
		return ctl_fail(&ctl, CTL_USAGE, "there is no command '%s'; see 'shmallocctl --help'", argv[optind]);
	if (line.version || line.help || !command) {
		if (line.version)
			fprintf(out, "shmallocctl %s\n", SHMALLOC_VERSION);
		else
			print_help(line.help ? out : err, command);
		return line.version || line.help ? CTL_OK : CTL_USAGE;
	}
	if (!ctl.heap)
		ctl.heap = heap && *heap ? heap : "default";
	if (!ctl.socket[0] && !shmi_socket_default(ctl.socket))
		return ctl_fail(&ctl, CTL_USAGE, "SHMALLOC_SOCKET: the path of a socket has at most %d bytes",
		        CTL_SOCKET_MAX - 1);
	ctl.args = (const char *const *)argv + optind + 1;
	ctl.n_args = (uint32_t)(argc - optind - 1);
	return run_command(&ctl, command, &line);
}
