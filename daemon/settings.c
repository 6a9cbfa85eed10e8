#include "daemon/settings.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/settingkinds.h"

/* ---- the table ---- */

static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const backings[] = {"shm", "memfd", NULL};
static const char *const advices[] = {"never", "advise", "always", "within_size", NULL};

_Static_assert(sizeof(enum log_level) == sizeof(int) && sizeof(enum config_backing) == sizeof(int) &&
                       sizeof(enum config_huge) == sizeof(int),
        "choices are stored as int");

#define DAEMON(field) .of_heap = false, .at = offsetof(struct config, field)
#define HEAP(field) .of_heap = true, .at = offsetof(struct config_heap, field)
#define LIVE .live = true
#define BOUND .kind = &setting_kind_bound, .most = CONFIG_SIZE_MAX

const struct setting settings[] = {
        {"socket", "PATH",
                "where clients connect (shmalloc.sock in $RUNTIME_DIRECTORY, /run/shmalloc, "
                "$XDG_RUNTIME_DIR/shmalloc or /tmp/shmalloc-UID)",
                .kind = &setting_kind_socket, .places = PLACES, DAEMON(socket)},
        {"socket-mode", "MODE", "access rights of the socket (0660)", .kind = &setting_kind_mode, .places = PLACES,
                DAEMON(socket_mode), LIVE},
        {"instance", "NAME", "names the shared memory objects ('system' for root and the user shmalloc, else u<uid>)",
                .kind = &setting_kind_name, .places = PLACES, DAEMON(instance)},
        {"log-level", "LEVEL", "error, warn, info or debug (info)", .kind = &setting_kind_choice, .places = PLACES,
                DAEMON(log_level), LIVE, .words = levels},
        {"http", "ADDRESS", "serve statistics by HTTP on 127.0.0.1:PORT, [::1]:PORT or a Unix socket (off)",
                .kind = &setting_kind_http, .places = PLACES, DAEMON(http)},
        {"http-mode", "MODE", "access rights of that socket, if it is a path (0660)", .kind = &setting_kind_mode,
                .places = PLACES, DAEMON(http_mode)},
        {"http-remote", NULL, "let it be any address, under any name", .kind = &setting_kind_switch, .places = PLACES,
                DAEMON(http_remote)},
        {"size", "SIZE", "limit of the heap (4GiB); units KiB, MiB, GiB, TiB", .kind = &setting_kind_size,
                .places = PLACES, HEAP(size), .least = CONFIG_SIZE_MIN, .most = CONFIG_SIZE_MAX},
        {"backing", "KIND", "shm: POSIX shared memory; memfd: sealed memory files (shm)", .kind = &setting_kind_choice,
                .places = PLACES, HEAP(backing), .words = backings},
        {"allowed-users", "LIST", "users who may attach, by name or number (all who can connect)",
                .kind = &setting_kind_users, .places = PLACES, HEAP(access.users), LIVE},
        {"allowed-groups", "LIST", "groups whose members may attach", .kind = &setting_kind_groups, .places = PLACES,
                HEAP(access.groups), LIVE},
        {"client-limit", "SIZE", "most that one process may hold (0: no limit)", BOUND, .places = PLACES,
                HEAP(client.hard), LIVE},
        {"client-soft-limit", "SIZE", "what a process holds beyond it, it is asked to give back (0: none)", BOUND,
                .places = PLACES, HEAP(client.soft), LIVE},
        {"client-guarantee", "SIZE", "kept free of others for each process (0: nothing)", BOUND, .places = PLACES,
                HEAP(client.guaranteed), LIVE},
        {"user-limit", "SIZE", "most that one user's processes may hold (0: no limit)", BOUND, .places = PLACES,
                HEAP(user.hard), LIVE},
        {"user-soft-limit", "SIZE", "as client-soft-limit, for one user's processes (0: none)", BOUND, .places = PLACES,
                HEAP(user.soft), LIVE},
        {"user-guarantee", "SIZE", "kept free of others for each user (0: nothing)", BOUND, .places = PLACES,
                HEAP(user.guaranteed), LIVE},
        {"soft-limit", "SIZE", "what the heap holds beyond it, all are asked to give back (0: none)", BOUND,
                .places = PLACES, HEAP(soft_limit), LIVE},
        {"scavenge-delay", "TIME", "how long memory is idle before it goes back to the system (5s); ms, s, min, h",
                .kind = &setting_kind_duration, .places = PLACES, HEAP(scavenge_delay_ms), LIVE, .most = 86400000},
        {"scavenge-rate", "SIZE", "most that goes back in a second (100MiB)", .kind = &setting_kind_size,
                .places = PLACES, HEAP(scavenge_rate), LIVE, .least = CONFIG_RATE_MIN, .most = CONFIG_SIZE_MAX},
        {"huge-pages", "ADVICE", "never, advise, always or within_size (never)", .kind = &setting_kind_choice,
                .places = PLACES, HEAP(huge), LIVE, .words = advices},
        {"reset", NULL, "drop the heap that an earlier daemon of this instance left", .kind = &setting_kind_flag,
                .places = PLACE_COMMAND, HEAP(reset)},
};

const unsigned n_settings = sizeof(settings) / sizeof(settings[0]);

_Static_assert(sizeof(settings) / sizeof(settings[0]) <= CONFIG_SETTINGS_MAX, "there is an origin for each");

const struct setting *setting_of(const char *name, size_t len)
{
	for (unsigned i = 0; i < n_settings; i++)
		if (strlen(settings[i].name) == len && !strncmp(settings[i].name, name, len))
			return &settings[i];
	return NULL;
}

const struct setting *setting_of_heap_at(size_t at)
{
	unsigned i = 0;

	while (!settings[i].of_heap || settings[i].at != at)
		i++;
	return &settings[i];
}

unsigned setting_index(const struct setting *setting)
{
	return (unsigned)(setting - settings);
}

void *setting_value(const struct setting *setting, struct config *config, struct config_heap *heap)
{
	return (setting->of_heap ? (char *)heap : (char *)config) + setting->at;
}

struct config_origin *setting_origin(const struct setting *setting, struct config *config, struct config_heap *heap)
{
	return &(setting->of_heap ? heap->origin : config->origin)[setting_index(setting)];
}

struct setting_text setting_print(const struct setting *setting, struct config *config, struct config_heap *heap)
{
	struct setting_text text;

	setting->kind->print(setting, setting_value(setting, config, heap), text.text, sizeof(text.text));
	return text;
}

struct setting_text setting_variable(const char *name)
{
	struct setting_text variable;

	snprintf(variable.text, sizeof(variable.text), "SHMALLOCD_%s", name);
	for (char *c = variable.text; *c; c++)
		*c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
	return variable;
}

void setting_set(const struct setting *setting, struct config *config, struct config_heap *heap, const char *text,
        struct config_origin origin)
{
	char why[SETTING_TEXT_MAX];

	if (setting->kind->parse(setting, text, setting_value(setting, config, heap), why, sizeof(why)))
		*setting_origin(setting, config, heap) = origin;
	else
		config_fault(config, origin, setting->name, "%s", why);
}

/* ---- faults ---- */

static void print_place(
        const struct config *config, struct config_origin origin, const char *name, char *text, size_t room)
{
	const char *colon = name ? ": " : "";

	switch (origin.layer) {
	case LAYER_FILE:
		snprintf(text, room, "%s:%u: %s%s", config->path, origin.line, name ? name : "", colon);
		break;
	case LAYER_ENVIRONMENT:
		snprintf(text, room, "%s%s", name ? setting_variable(name).text : "", colon);
		break;
	case LAYER_COMMAND:
		snprintf(text, room, "%s%s%s", name ? "--" : "", name ? name : "", colon);
		break;
	default:
		snprintf(text, room, "%s%s", name ? name : "", colon);
	}
}

void config_fault(struct config *config, struct config_origin origin, const char *name, const char *format, ...)
{
	char place[SETTING_TEXT_MAX + CONFIG_PATH_MAX];
	va_list args;

	if (config->faults++ >= CONFIG_FAULTS_MAX)
		return;
	char *fault = config->fault[config->faults - 1];

	print_place(config, origin, name, place, sizeof(place));
	int n = snprintf(fault, CONFIG_FAULT_BYTES, "%s", place);

	va_start(args, format);
	if (n < (int)CONFIG_FAULT_BYTES)
		vsnprintf(fault + n, CONFIG_FAULT_BYTES - (size_t)n, format, args);
	va_end(args);
}
