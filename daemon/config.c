#include "daemon/config.h"

#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/address.h"
#include "daemon/policy.h"

__attribute__((format(printf, 2, 3))) static bool bad(struct config *config, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(config->why, sizeof(config->why), format, args);
	va_end(args);
	return false;
}

/* ---- values ---- */

static bool parse_number(const char *text, char **end, uint64_t *number)
{
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, end, 10);
	return errno == 0;
}

bool config_parse_size(const char *text, uint64_t *bytes)
{
	static const struct {
		const char *unit;
		unsigned shift;
	} units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}};
	uint64_t number;
	char *unit;

	if (!parse_number(text, &unit, &number))
		return false;
	for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(unit, units[i].unit)) {
			*bytes = number << units[i].shift;
			return *bytes >> units[i].shift == number;
		}
	return false;
}

static bool set_socket(struct config *c, const char *value)
{
	if (!*value || strlen(value) >= sizeof(c->socket))
		return bad(c, "--socket: a path has 1 to %zu bytes", sizeof(c->socket) - 1);
	snprintf(c->socket, sizeof(c->socket), "%s", value);
	c->dir_mode = 0;
	return true;
}

static bool set_mode(struct config *c, unsigned *to, const char *option, const char *value)
{
	char *end;
	unsigned long mode = strtoul(value, &end, 8);

	if (!*value || *end || mode > 0777)
		return bad(c, "%s: '%.40s' is not a file mode such as 0660", option, value);
	*to = (unsigned)mode;
	return true;
}

static bool set_socket_mode(struct config *c, const char *value)
{
	return set_mode(c, &c->socket_mode, "--socket-mode", value);
}

static bool set_name(struct config *c, char *to, const char *option, const char *value)
{
	if (!objects_name_ok(value))
		return bad(c, "%s: '%.60s' is not a name: letters, digits, '-' and '_', at most %u of them", option,
		        value, OBJECTS_NAME_MAX);
	snprintf(to, OBJECTS_NAME_MAX + 1, "%s", value);
	return true;
}

static bool set_instance(struct config *c, const char *value)
{
	return set_name(c, c->instance, "--instance", value);
}

static bool set_heap(struct config *c, const char *value)
{
	return set_name(c, c->heap, "--heap", value);
}

static bool set_size(struct config *c, const char *value)
{
	if (!config_parse_size(value, &c->size))
		return bad(c, "--size: '%.40s' is not a size such as 512MiB or 4GiB", value);
	if (c->size < CONFIG_SIZE_MIN || c->size > CONFIG_SIZE_MAX)
		return bad(c, "--size: %.40s is not between 1MiB and 2TiB", value);
	return true;
}

static bool set_limit(struct config *c, uint64_t *to, const char *option, const char *value)
{
	if (!config_parse_size(value, to))
		return bad(c, "%s: '%.40s' is not a size such as 512MiB or 4GiB", option, value);
	if (*to > CONFIG_SIZE_MAX) /* beyond what pages can count */
		*to = CONFIG_SIZE_MAX;
	return true;
}

static bool set_client_limit(struct config *c, const char *value)
{
	return set_limit(c, &c->client_limit, "--client-limit", value);
}

static bool set_user_limit(struct config *c, const char *value)
{
	return set_limit(c, &c->user_limit, "--user-limit", value);
}

static bool set_scavenge_delay(struct config *c, const char *value)
{
	uint64_t ms;
	char *end;

	if (!parse_number(value, &end, &ms) || *end || ms > 86400000)
		return bad(c, "--scavenge-delay: '%.40s' is not a number of milliseconds up to a day", value);
	c->scavenge_delay_ms = (uint32_t)ms;
	return true;
}

static bool set_log_level(struct config *c, const char *value)
{
	return log_level_parse(value, &c->log_level) ||
	       bad(c, "--log-level: '%.40s' is not one of error, warn, info, debug", value);
}

static bool set_reset(struct config *c, const char *value)
{
	(void)value;
	c->reset = true;
	return true;
}

static bool set_http(struct config *c, const char *value)
{
	struct address address;

	if (!address_parse(value, &address))
		return bad(
		        c, "--http: '%.60s' is not 127.0.0.1:PORT, [::1]:PORT or a path that begins with '/'", value);
	snprintf(c->http, sizeof(c->http), "%s", value);
	return true;
}

static bool set_http_mode(struct config *c, const char *value)
{
	return set_mode(c, &c->http_mode, "--http-mode", value);
}

static bool set_http_remote(struct config *c, const char *value)
{
	(void)value;
	c->http_remote = true;
	return true;
}

/* ---- options ---- */

static const struct choice {
	const char *name, *argument, *help;
	bool (*set)(struct config *config, const char *value);
} choices[] = {
        {"socket", "PATH",
                "where clients connect (default: shmalloc.sock in $RUNTIME_DIRECTORY, /run/shmalloc, "
                "$XDG_RUNTIME_DIR/shmalloc or /tmp/shmalloc-UID)",
                set_socket},
        {"socket-mode", "MODE", "access rights of the socket (0660)", set_socket_mode},
        {"instance", "NAME", "names the shared memory objects ('system' for root and the user shmalloc, else u<uid>)",
                set_instance},
        {"heap", "NAME", "name of the heap (default)", set_heap},
        {"size", "SIZE", "limit of the heap (4GiB); units KiB, MiB, GiB, TiB", set_size},
        {"client-limit", "SIZE", "most that one process may hold (0: no limit)", set_client_limit},
        {"user-limit", "SIZE", "most that one user's processes may hold (0: no limit)", set_user_limit},
        {"scavenge-delay", "MS", "how long memory is idle before it goes back to the system (5000)",
                set_scavenge_delay},
        {"log-level", "LEVEL", "error, warn, info or debug (info)", set_log_level},
        {"http", "ADDRESS", "serve statistics by HTTP on 127.0.0.1:PORT, [::1]:PORT or a Unix socket (none)", set_http},
        {"http-mode", "MODE", "access rights of that socket, if it is a path (0660)", set_http_mode},
        {"http-remote", NULL, "let that be any address, under any name", set_http_remote},
        {"reset", NULL, "drop the heap that an earlier daemon of this instance left", set_reset},
        {"version", NULL, "print the version", NULL},
        {"help", NULL, "print this", NULL},
};

#define CHOICES (sizeof(choices) / sizeof(choices[0]))

static void print_help(void)
{
	printf("usage: shmallocd [options]\nServes a heap of shared memory.\n\n");
	for (size_t i = 0; i < CHOICES; i++) {
		char option[64];

		snprintf(option, sizeof(option), "--%s%s%s", choices[i].name, choices[i].argument ? " " : "",
		        choices[i].argument ? choices[i].argument : "");
		printf("  %-22s %s\n", option, choices[i].help);
	}
}

/* ---- defaults ---- */

/* Where the socket lies if nobody says so; the directory is made if it is ours to make. */
static void default_socket(struct config *c, uid_t uid)
{
	const char *runtime = getenv("RUNTIME_DIRECTORY"), *xdg = getenv("XDG_RUNTIME_DIR");

	if (runtime && *runtime) {
		snprintf(c->socket, sizeof(c->socket), "%.*s/shmalloc.sock", (int)strcspn(runtime, ":"), runtime);
	} else if (uid == 0) {
		snprintf(c->socket, sizeof(c->socket), "/run/shmalloc/shmalloc.sock");
		c->dir_mode = 0755;
	} else if (xdg && *xdg) {
		snprintf(c->socket, sizeof(c->socket), "%s/shmalloc/shmalloc.sock", xdg);
		c->dir_mode = 0700;
	} else {
		snprintf(c->socket, sizeof(c->socket), "/tmp/shmalloc-%u/shmalloc.sock", (unsigned)uid);
		c->dir_mode = 0700;
	}
}

static void set_defaults(struct config *c)
{
	uid_t uid = geteuid();
	const struct passwd *user = getpwuid(uid);

	*c = (struct config){.socket_mode = 0660,
	        .http_mode = 0660,
	        .heap = "default",
	        .size = CONFIG_SIZE_DEFAULT,
	        .scavenge_delay_ms = POLICY_SCAVENGE_DELAY_MS,
	        .log_level = LEVEL_INFO};
	if (uid == 0 || (user && !strcmp(user->pw_name, "shmalloc")))
		snprintf(c->instance, sizeof(c->instance), "system");
	else
		snprintf(c->instance, sizeof(c->instance), "u%u", (unsigned)uid);
	default_socket(c, uid);
}

/* ---- the command line ---- */

static enum config_result choose(struct config *c, const struct choice *choice, const char *value)
{
	if (choice->set)
		return choice->set(c, value) ? CONFIG_RUN : CONFIG_BAD;
	if (!strcmp(choice->name, "version"))
		printf("shmallocd %s\n", SHMALLOC_VERSION);
	else
		print_help();
	return CONFIG_SHOWN;
}

/* What only makes sense together. */
static bool agrees(struct config *c)
{
	struct address address;

	if (*c->http && !c->http_remote && address_parse(c->http, &address) && !address_is_local(&address))
		return bad(c,
		        "--http: other machines could reach %.60s, and see all clients; --http-remote says that they "
		        "may",
		        c->http);
	return true;
}

enum config_result config_parse(struct config *c, int argc, char **argv)
{
	struct option options[CHOICES + 1] = {{0}};
	enum config_result result = CONFIG_RUN;
	int which = 0, got;

	set_defaults(c);
	for (size_t i = 0; i < CHOICES; i++)
		options[i] = (struct option){
		        choices[i].name, choices[i].argument ? required_argument : no_argument, NULL, 0};
	opterr = 0;
	optind = 0; /* start over: tests parse more than once */
	while (result == CONFIG_RUN && (got = getopt_long(argc, argv, ":", options, &which)) != -1) {
		if (!got) {
			result = choose(c, &choices[which], optarg);
			continue;
		}
		const char letter[3] = {'-', (char)optopt}; /* of several in one word, which is not over yet */

		bad(c, got == ':' ? "%s needs a value" : "there is no option %s; --help lists them",
		        optopt ? letter : argv[optind - 1]);
		result = CONFIG_BAD;
	}
	if (result == CONFIG_RUN && optind < argc) {
		bad(c, "'%.60s' is not an option; --help lists them", argv[optind]);
		return CONFIG_BAD;
	}
	if (result == CONFIG_RUN && !agrees(c))
		return CONFIG_BAD;
	return result;
}
