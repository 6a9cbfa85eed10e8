#include "client/run.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/chan.h"

static const struct {
	const char *name, *arg;
	int letter; /* what getopt returns */
	const char *help;
} options[] = {
        {"socket", "PATH", 's',
                "the daemon to use; without this, the one where libshmalloc looks for it, and if none\n"
                "answers there, a private one for as long as the program runs"},
        {"heap", "NAME", 'H', "which heap; default $SHMALLOC_HEAP, else 'default'"},
        {"size", "SIZE", 'z', "limit of a private daemon's heap; default 16GiB"},
        {"label", "TEXT", 'l', "what statistics call the program; default its name"},
        {"stats", NULL, 'S', "print the heap's figures to standard error after the end"},
        {"verbose", NULL, 'v', "say what is done, and show a private daemon's log"},
        {"help", NULL, 'h', "this text"},
        {"version", NULL, 'V', "the program's version"},
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

static __attribute__((format(printf, 1, 0))) void say(const char *format, va_list args)
{
	(void)fputs("shmalloc-run: ", stderr);
	(void)vfprintf(stderr, format, args);
	(void)fputc('\n', stderr);
}

int run_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(format, args);
	va_end(args);
	return RUN_FAILED;
}

void run_say(const struct run *run, const char *format, ...)
{
	va_list args;

	if (!run->verbose)
		return;
	va_start(args, format);
	say(format, args);
	va_end(args);
}

/* ---- the command line ---- */

static void print_help(void)
{
	char left[40];

	(void)puts("Usage: shmalloc-run [OPTIONS] [--] PROGRAM [ARGUMENTS]\n\n"
	           "Runs a program with its malloc on a shmalloc heap.\n");
	for (size_t i = 0; i < N_OPTIONS; i++) {
		const char *line = options[i].help;

		(void)snprintf(left, sizeof(left), "-%c, --%s %s", options[i].letter, options[i].name,
		        options[i].arg ? options[i].arg : "");
		(void)printf("  %-20s %.*s\n", left, (int)strcspn(line, "\n"), line);
		while ((line = strchr(line, '\n')) != NULL) {
			line++;
			(void)printf("  %-20s %.*s\n", "", (int)strcspn(line, "\n"), line);
		}
	}
	(void)puts("\nExit status: the program's; 125 if shmalloc-run fails, 126 if the program cannot be executed,\n"
	           "127 if it is not found.");
}

/* Options end at the program. Returns the letter that getopt did, -1 at their end. */
static int next_option(int argc, char **argv)
{
	struct option longs[N_OPTIONS + 1] = {{0}};
	char shorts[2 * N_OPTIONS + 3] = "+:";

	for (size_t i = 0, at = 2; i < N_OPTIONS; i++) {
		longs[i] = (struct option){options[i].name, options[i].arg != NULL, NULL, options[i].letter};
		shorts[at++] = (char)options[i].letter;
		if (options[i].arg)
			shorts[at++] = ':';
	}
	opterr = 0;
	return getopt_long(argc, argv, shorts, longs, NULL);
}

static int bad_option(int how, char **argv)
{
	return how == ':' ? run_fail("%s needs a value; see 'shmalloc-run --help'", argv[optind - 1])
	                  : run_fail("there is no option '%s'; see 'shmalloc-run --help'", argv[optind - 1]);
}

static int read_options(struct run *run, int argc, char **argv)
{
	for (int letter; (letter = next_option(argc, argv)) != -1;) {
		switch (letter) {
		case 's':
			run->socket = optarg;
			break;
		case 'H':
			run->heap = optarg;
			break;
		case 'z':
			run->size = optarg;
			break;
		case 'l':
			run->label = optarg;
			break;
		case 'S':
			run->stats = true;
			break;
		case 'v':
			run->verbose = true;
			break;
		case 'h':
			print_help();
			exit(0);
		case 'V':
			(void)puts("shmalloc-run " SHMALLOC_VERSION);
			exit(0);
		default:
			return bad_option(letter, argv);
		}
	}
	run->program = argv + optind;
	return *run->program ? 0 : run_fail("no program is named; see 'shmalloc-run --help'");
}

/* ---- which daemon ---- */

/* 0 if somebody listens there, else a negative errno. */
static int look(const char *path)
{
	int sock, error = shmi_chan_connect(path, &sock);

	if (!error)
		(void)close(sock);
	return error == -EAGAIN ? 0 : error; /* so many want to connect that one has to wait */
}

const char *run_heap(const struct run *run)
{
	const char *name = run->heap && *run->heap ? run->heap : getenv("SHMALLOC_HEAP");

	return name && *name ? name : "default";
}

/* Whether the daemon that was named, or the usual one, answers; run->path is its socket. RUN_FAILED: it was named and does not. */
static int look_for_daemon(struct run *run, bool *found)
{
	char usual[SHMI_PATH_MAX], real[PATH_MAX];
	const char *path = run->socket ? run->socket : shmi_socket_default(usual) ? usual : NULL;

	if (path && realpath(path, real)) /* the program may go to another directory */
		path = real;
	if (path && snprintf(run->path, sizeof(run->path), "%s", path) >= (int)sizeof(run->path))
		return run_fail("the path of a socket has at most %d bytes", SHMI_PATH_MAX - 1);
	int error = path ? look(run->path) : -ENOENT;

	*found = !error;
	run->usual = *found && !run->socket;
	if (!run->socket || *found)
		return 0;
	if (error == -EACCES || error == -EPERM)
		return run_fail(
		        "you may not connect to %s; have yourself let in there, or leave --socket out", run->path);
	return run_fail("no daemon answers at %s; start shmallocd --socket %s, or leave --socket out for a private one",
	        run->path, run->path);
}

static int find_library(struct run *run)
{
	if (!run_find(RUN_LIBRARY, run->library))
		return run_fail("libshmalloc-preload.so is not installed; see 'make install'");
	if (strpbrk(run->library, " :"))
		return run_fail("%s cannot be preloaded: no space and no colon may be in its path", run->library);
	return 0;
}

/* ---- the run ---- */

/* To standard error; with no signal blocked or ignored, as ours are: it is to end when somebody wants that. */
static int spawn_plain(pid_t *pid, const char *path, const char *const *argv)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;

	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setsigdefault(&attr, &all);
	(void)posix_spawn_file_actions_init(&files);
	(void)posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	(void)posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
	(void)posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDERR_FILENO); /* not closed on exec */
	int error = posix_spawn(pid, path, &files, &attr, (char *const *)(uintptr_t)argv, environ);

	(void)posix_spawn_file_actions_destroy(&files);
	(void)posix_spawnattr_destroy(&attr);
	return error;
}

static void print_stats(const struct run *run)
{
	char ctl[PATH_MAX];
	const char *argv[] = {"shmallocctl", "--socket", run->path, "stats", "--heap", run_heap(run), NULL};
	pid_t pid;

	if (!run_find(RUN_CTL, ctl))
		(void)run_fail("shmallocctl is not installed, so there are no statistics");
	else if (spawn_plain(&pid, ctl, argv) == 0)
		(void)waitpid(pid, NULL, 0);
}

static int with_private_daemon(struct run *run)
{
	struct run_private priv = {.keeper = -1, .line = -1};

	run->private = true;
	if (run_private_start(&priv, run) != 0)
		return -1;
	int status = run_try(run) == 0 ? run_child(run) : -1;

	if (run->stats && status >= 0)
		print_stats(run);
	(void)run_private_end(&priv, run);
	return status;
}

/* Where 0, 1 or 2 are closed, a file of ours would lie there, be copied over and be inherited. What takes its place is closed on exec:
 * the program finds them as we did. */
static void fill_standard(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		(void)close(fd);
}

int main(int argc, char **argv)
{
	struct run run = {0};
	bool found = false;
	int status;

	fill_standard();
	if (read_options(&run, argc, argv) != 0 || find_library(&run) != 0 || look_for_daemon(&run, &found) != 0)
		return RUN_FAILED;
	if (found)
		run_say(&run, "the daemon at %s serves%s", run.path, run.size ? "; --size is of no use" : "");
	if (found && run_try(&run) != 0)
		return RUN_FAILED;
	if (found && !run.stats)
		return run_become(&run);
	status = found ? run_child(&run) : with_private_daemon(&run);
	if (found)
		print_stats(&run);
	return status < 0 ? RUN_FAILED : run_end_like(status);
}
