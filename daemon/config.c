#include "daemon/config.h"

#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/address.h"
#include "daemon/policy.h"
#include "daemon/settings.h"
#include "proto/ourdir.h"
#include "shm/units.h"

#define SYSTEM_FILE "/etc/shmalloc/shmallocd.conf"
#define VARIABLE "SHMALLOCD_"

/* ---- what is built in ---- */

static bool is_system(uid_t uid)
{
	const struct passwd *user = getpwuid(uid);

	return uid == 0 || (user && !strcmp(user->pw_name, "shmalloc"));
}

/* Where the socket lies if nobody says so; the directory is made if it is ours to make. Clients look below $XDG_RUNTIME_DIR by the same
 * rule: not if it is another's, and not if the path is too long for a socket. */
static void default_socket(struct config *c, uid_t uid)
{
	const char *runtime = getenv("RUNTIME_DIRECTORY"), *xdg = getenv("XDG_RUNTIME_DIR");
	int room = (int)(sizeof(c->socket) - sizeof("/shmalloc/shmalloc.sock"));

	if (runtime && *runtime) {
		snprintf(c->socket, sizeof(c->socket), "%.*s/shmalloc.sock", (int)strcspn(runtime, ":"), runtime);
	} else if (uid == 0) {
		snprintf(c->socket, sizeof(c->socket), "/run/shmalloc/shmalloc.sock");
		c->dir_mode = 0755;
	} else if (xdg && (int)strlen(xdg) <= room && shmi_dir_is_ours(xdg)) {
		snprintf(c->socket, sizeof(c->socket), "%s/shmalloc/shmalloc.sock", xdg);
		c->dir_mode = 0700;
	} else {
		snprintf(c->socket, sizeof(c->socket), "/tmp/shmalloc-%u/shmalloc.sock", (unsigned)uid);
		c->dir_mode = 0700;
	}
}

/* A user's own daemon has a file of its own: that of the system says what the system's heaps are. */
static void default_path(struct config *c, uid_t uid)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

	if (is_system(uid))
		snprintf(c->path, sizeof(c->path), SYSTEM_FILE);
	else if (xdg && *xdg)
		snprintf(c->path, sizeof(c->path), "%s/shmalloc/shmallocd.conf", xdg);
	else if (home && *home)
		snprintf(c->path, sizeof(c->path), "%s/.config/shmalloc/shmallocd.conf", home);
}

static void set_defaults(struct config *c)
{
	uid_t uid = geteuid();

	*c = (struct config){
	        .socket_mode = 0660, .http_mode = 0660, .log_level = LEVEL_INFO, .argc = c->argc, .argv = c->argv};
	if (is_system(uid))
		snprintf(c->instance, sizeof(c->instance), "system");
	else
		snprintf(c->instance, sizeof(c->instance), "u%u", (unsigned)uid);
	default_socket(c, uid);
	default_path(c, uid);
}

/* ---- heaps ---- */

struct config_heap *config_heap_of(struct config *config, const char *name)
{
	for (uint32_t i = 0; i < config->heaps; i++)
		if (!strcmp(config->heap[i].name, name))
			return &config->heap[i];
	return NULL;
}

struct config_heap *config_add_heap(struct config *c, const char *name, struct config_origin origin)
{
	if (!objects_name_ok(name)) {
		config_fault(c, origin, "heap",
		        "'%.60s' is not a name: letters, digits, '-' and '_', at most %u of them", name,
		        OBJECTS_NAME_MAX);
		return NULL;
	}
	if (c->heaps == CONFIG_HEAPS_MAX) {
		config_fault(c, origin, "heap", "at most %u heaps are allowed", CONFIG_HEAPS_MAX);
		return NULL;
	}
	struct config_heap *heap = &c->heap[c->heaps++];

	*heap = (struct config_heap){.size = CONFIG_SIZE_DEFAULT,
	        .scavenge_delay_ms = POLICY_SCAVENGE_DELAY_MS,
	        .scavenge_rate = POLICY_SCAVENGE_RATE,
	        .named = origin};
	snprintf(heap->name, sizeof(heap->name), "%s", name);
	return heap;
}

static void name_heap(struct config *c, const char *name, enum config_layer layer)
{
	if (!config_heap_of(c, name))
		(void)config_add_heap(c, name, (struct config_origin){.layer = (uint8_t)layer});
}

/* Of one heap, or of all if `heap` is NULL; or of the daemon. */
static void set_from(struct config *c, const struct setting *setting, struct config_heap *heap, const char *value,
        enum config_layer layer)
{
	const struct config_origin origin = {.layer = (uint8_t)layer};
	uint32_t before = c->faults;

	if (!setting->of_heap || heap) {
		setting_set(setting, c, heap, value, origin);
		return;
	}
	for (uint32_t i = 0; i < c->heaps && c->faults == before; i++)
		setting_set(setting, c, &c->heap[i], value, origin);
}

/* ---- the command line ---- */

enum verb { VERB_SET, VERB_HEAP, VERB_CONFIG, VERB_CHECK, VERB_PRINT, VERB_VERSION, VERB_HELP };

static const struct {
	const char *name;
	enum verb verb;
	bool value;
} verbs[] = {{"heap", VERB_HEAP, true}, {"config", VERB_CONFIG, true}, {"check-config", VERB_CHECK, false},
        {"print-config", VERB_PRINT, false}, {"version", VERB_VERSION, false}, {"help", VERB_HELP, false}};

#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

struct given {
	enum verb verb;
	const struct setting *setting; /* VERB_SET */
	const char *value;
};

static void fill_options(struct option options[CONFIG_SETTINGS_MAX + VERBS + 1])
{
	for (unsigned i = 0; i < n_settings; i++)
		options[i] = (struct option){
		        settings[i].name, settings[i].argument ? required_argument : no_argument, NULL, 0};
	for (unsigned i = 0; i < VERBS; i++)
		options[n_settings + i] =
		        (struct option){verbs[i].name, verbs[i].value ? required_argument : no_argument, NULL, 0};
}

/* Calls fn for each option in its order, until that returns false. False after a fault of the line itself. */
static bool walk(struct config *c, bool (*fn)(struct config *c, const struct given *given, void *ctx), void *ctx)
{
	struct option options[CONFIG_SETTINGS_MAX + VERBS + 1] = {{0}};
	const struct config_origin here = {.layer = LAYER_COMMAND};
	int which = 0, got;

	fill_options(options);
	opterr = 0;
	optind = 0; /* start over: this is called more than once */
	while ((got = getopt_long(c->argc, c->argv, ":", options, &which)) != -1) {
		const char letter[3] = {'-', (char)optopt}; /* of several in one word, which is not over yet */
		bool set = which < (int)n_settings;
		const struct given given = {.verb = set ? VERB_SET : verbs[which - (int)n_settings].verb,
		        .setting = set ? &settings[which] : NULL,
		        .value = optarg ? optarg : ""};

		if (got) {
			config_fault(c, here, NULL,
			        got == ':' ? "%s needs a value" : "there is no option %s; --help lists them",
			        optopt ? letter : c->argv[optind - 1]);
			return false;
		}
		if (!fn(c, &given, ctx))
			return true;
	}
	if (optind < c->argc)
		config_fault(c, here, NULL, "'%.60s' is not an option; --help lists them", c->argv[optind]);
	return optind >= c->argc;
}

/* What must be known before anything is read. */
struct asked {
	bool check, print, shown;
	const char *path;
};

static bool look(struct config *c, const struct given *given, void *ctx)
{
	struct asked *asked = ctx;

	(void)c;
	switch (given->verb) {
	case VERB_CONFIG:
		asked->path = given->value;
		break;
	case VERB_CHECK:
		asked->check = true;
		break;
	case VERB_PRINT:
		asked->print = true;
		break;
	case VERB_VERSION:
		printf("shmallocd %s\n", SHMALLOC_VERSION);
		asked->shown = true;
		break;
	case VERB_HELP:
		configprint_help();
		asked->shown = true;
		break;
	default:
		break;
	}
	return !asked->shown;
}

static bool add_named(struct config *c, const struct given *given, void *ctx)
{
	(void)ctx;
	if (given->verb == VERB_HEAP)
		name_heap(c, given->value, LAYER_COMMAND);
	return true;
}

static bool apply(struct config *c, const struct given *given, void *ctx)
{
	struct config_heap **heap = ctx;

	if (given->verb == VERB_HEAP)
		*heap = config_heap_of(c, given->value);
	else if (given->setting)
		set_from(c, given->setting, *heap, given->value, LAYER_COMMAND);
	return true;
}

/* ---- the environment ---- */

/* Two are dealt with elsewhere, and from SHMALLOCD_OPTIONS shmallocd.service makes the command line. */
static bool is_setting(const char *variable)
{
	static const char *const others[] = {VARIABLE "HEAP=", VARIABLE "CONFIG=", VARIABLE "OPTIONS="};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (!strncmp(variable, others[i], strlen(others[i])))
			return false;
	return !strncmp(variable, VARIABLE, strlen(VARIABLE));
}

static const struct setting *setting_in(const char *variable, const char *end)
{
	for (unsigned i = 0; i < n_settings; i++) {
		struct setting_text name = setting_variable(settings[i].name);

		if (settings[i].places & PLACE_ENVIRONMENT && strlen(name.text) == (size_t)(end - variable) &&
		        !strncmp(name.text, variable, (size_t)(end - variable)))
			return &settings[i];
	}
	return NULL;
}

static void apply_variable(struct config *c, const char *variable)
{
	const char *end = strchr(variable, '=');
	const struct setting *setting = end ? setting_in(variable, end) : NULL;

	if (setting)
		set_from(c, setting, NULL, end + 1, LAYER_ENVIRONMENT);
	else if (end)
		config_fault(c, (struct config_origin){.layer = LAYER_ENVIRONMENT}, NULL,
		        "%.*s: there is no such setting; --help lists them", (int)(end - variable), variable);
}

/* ---- what does not go together ---- */

struct pair {
	size_t small, large; /* the first must not be above the second, unless that is 0 */
};

#define AT(field) offsetof(struct config_heap, field)

static const struct pair pairs[] = {{AT(client.soft), AT(client.hard)}, {AT(user.soft), AT(user.hard)},
        {AT(client.guaranteed), AT(client.hard)}, {AT(user.guaranteed), AT(user.hard)},
        {AT(client.guaranteed), AT(user.hard)}, {AT(client.guaranteed), AT(size)}, {AT(user.guaranteed), AT(size)},
        {AT(soft_limit), AT(size)}};

static bool is_later(struct config_origin a, struct config_origin b)
{
	return a.layer != b.layer ? a.layer > b.layer : a.line > b.line;
}

static void check_pair(struct config *c, struct config_heap *heap, const struct pair *pair)
{
	const struct setting *small = setting_of_heap_at(pair->small), *large = setting_of_heap_at(pair->large);
	uint64_t s = *(const uint64_t *)setting_value(small, c, heap);
	uint64_t l = *(const uint64_t *)setting_value(large, c, heap);

	if (!l || s <= l)
		return;
	struct config_origin at = *setting_origin(small, c, heap), other = *setting_origin(large, c, heap);
	const struct setting *later = is_later(other, at) ? large : small;

	config_fault(c, later == large ? other : at, later->name,
	        "heap '%s' has a %s of %s; at most its %s, %s, is allowed", heap->name, small->name,
	        setting_print(small, c, heap).text, large->name, setting_print(large, c, heap).text);
}

static void check_http(struct config *c)
{
	const struct setting *http = setting_of("http", strlen("http"));
	struct address address;

	if (*c->http && !c->http_remote && address_parse(c->http, &address) && !address_is_local(&address))
		config_fault(c, *setting_origin(http, c, NULL), http->name,
		        "other machines could reach %.60s and see all clients; http-remote says that they may",
		        c->http);
}

static void check(struct config *c)
{
	check_http(c);
	for (uint32_t i = 0; i < c->heaps; i++)
		for (size_t p = 0; p < sizeof(pairs) / sizeof(pairs[0]); p++)
			check_pair(c, &c->heap[i], &pairs[p]);
}

/* ---- the layers ---- */

static void set_path(struct config *c, const char *path)
{
	if (!path)
		return;
	c->path_given = true;
	if (!*path || strlen(path) >= sizeof(c->path))
		config_fault(c, (struct config_origin){0}, "config", "a path has 1 to %zu bytes", sizeof(c->path) - 1);
	else
		snprintf(c->path, sizeof(c->path), "%s", path);
}

/* The directory is ours to make only where the usual socket lies. */
static void settle_socket(struct config *c, const char *usual)
{
	if (strcmp(c->socket, usual) != 0)
		c->dir_mode = 0;
}

static void read_layers(struct config *c, const struct asked *asked)
{
	const char *heap_named = getenv(VARIABLE "HEAP");
	struct config_heap *heap = NULL;
	char usual[sizeof(c->socket)];

	snprintf(usual, sizeof(usual), "%s", c->socket);
	set_path(c, asked->path ? asked->path : getenv(VARIABLE "CONFIG"));
	if (c->faults)
		return;
	configfile_read(c);
	if (heap_named)
		name_heap(c, heap_named, LAYER_ENVIRONMENT);
	(void)walk(c, add_named, NULL);
	if (!c->heaps && !c->faults)
		name_heap(c, "default", LAYER_BUILT_IN);
	for (char **variable = environ; variable && *variable; variable++)
		if (is_setting(*variable))
			apply_variable(c, *variable);
	(void)walk(c, apply, &heap);
	settle_socket(c, usual);
	if (!c->faults)
		check(c);
}

static void say_good(const struct config *c)
{
	if (c->path_read)
		printf("%s: good\n", c->path);
	else
		printf("%s: not there; good without it\n", *c->path ? c->path : "configuration file");
}

enum config_result config_parse(struct config *c, int argc, char **argv)
{
	struct asked asked = {0};

	*c = (struct config){.argc = argc, .argv = argv};
	set_defaults(c);
	if (!walk(c, look, &asked))
		return CONFIG_BAD;
	if (asked.shown)
		return CONFIG_SHOWN;
	read_layers(c, &asked);
	if (c->faults)
		return CONFIG_BAD;
	if (asked.check)
		say_good(c);
	else if (asked.print)
		configprint_settings(c);
	return asked.check || asked.print ? CONFIG_SHOWN : CONFIG_RUN;
}

enum config_result config_again(struct config *fresh, const struct config *config)
{
	struct asked asked = {0};

	*fresh = (struct config){.argc = config->argc, .argv = config->argv};
	set_defaults(fresh);
	if (walk(fresh, look, &asked))
		read_layers(fresh, &asked);
	return fresh->faults ? CONFIG_BAD : CONFIG_RUN;
}

struct limits config_limits(const struct config_heap *heap)
{
	const struct config_limit *client = &heap->client, *user = &heap->user;

	return (struct limits){.client = {.hard = shmi_npages_of(client->hard).n,
	                               .soft = shmi_npages_of(client->soft).n,
	                               .guaranteed = shmi_npages_of(client->guaranteed).n},
	        .user = {.hard = shmi_npages_of(user->hard).n,
	                .soft = shmi_npages_of(user->soft).n,
	                .guaranteed = shmi_npages_of(user->guaranteed).n},
	        .heap_soft = shmi_npages_of(heap->soft_limit).n};
}
