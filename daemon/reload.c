#include "daemon/reload.h"

#include <string.h>

#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/server.h"
#include "daemon/settings.h"

/* Too large for the stack; one reload at a time. */
static struct config fresh;

static void log_faults(void)
{
	log_line(LEVEL_ERROR, "the configuration has %u faults; nothing is changed", fresh.faults);
	for (uint32_t i = 0; i < fresh.faults && i < CONFIG_FAULTS_MAX; i++)
		log_line(LEVEL_ERROR, "%s", fresh.fault[i]);
}

/* Makes the value what it is in `fresh`, if it can. True if it has changed. */
static bool change(
        struct config *config, struct config_heap *heap, struct config_heap *to, const struct setting *setting)
{
	struct setting_text old = setting_print(setting, config, heap), new = setting_print(setting, &fresh, to);
	const char *of = heap ? "heap '" : "", *name = heap ? heap->name : "", *end = heap ? "': " : "";

	if (!strcmp(old.text, new.text))
		return false;
	if (!setting->live) {
		log_line(LEVEL_WARN, "%s%s%s%s = %s takes effect at the next start; it is %s", of, name, end,
		        setting->name, new.text, old.text);
		return false;
	}
	memcpy(setting_value(setting, config, heap), setting_value(setting, &fresh, to), setting->kind->bytes);
	*setting_origin(setting, config, heap) = *setting_origin(setting, &fresh, to);
	log_line(LEVEL_INFO, "%s%s%s%s = %s; it was %s", of, name, end, setting->name, new.text, old.text);
	return true;
}

static bool change_all(struct config *config, struct config_heap *heap, struct config_heap *to)
{
	bool changed = false;

	for (unsigned i = 0; i < n_settings; i++)
		if (settings[i].of_heap == !!heap)
			changed = change(config, heap, to, &settings[i]) || changed;
	return changed;
}

static void change_daemon(struct server *server)
{
	struct config *config = server->config;
	unsigned mode = config->socket_mode;

	/* Lines about what follows are written at the more talkative of the two levels. */
	if (fresh.log_level > config->log_level)
		log_set_level(fresh.log_level);
	(void)change_all(config, NULL, NULL);
	if (config->socket_mode != mode && listener_set_mode(&server->listener, config->socket_mode))
		log_line(LEVEL_WARN, "the socket %s is not ours; its mode stays as it is", server->listener.path);
}

static void change_heaps(struct server *server)
{
	struct config *config = server->config;

	for (uint32_t i = 0; i < config->heaps; i++) {
		struct config_heap *to = config_heap_of(&fresh, config->heap[i].name);

		if (!to)
			log_line(LEVEL_WARN, "heap '%s' is no longer configured: takes effect at the next start",
			        config->heap[i].name);
		else if (change_all(config, &config->heap[i], to) && server->served[i].open)
			served_set(&server->served[i]);
	}
	for (uint32_t i = 0; i < fresh.heaps; i++)
		if (!config_heap_of(config, fresh.heap[i].name))
			log_line(LEVEL_WARN, "heap '%s' is new: takes effect at the next start", fresh.heap[i].name);
}

void reload_run(struct server *server)
{
	notify_reloading();
	if (config_again(&fresh, server->config) == CONFIG_BAD) {
		log_faults();
	} else {
		change_daemon(server);
		change_heaps(server);
		log_line(LEVEL_INFO, "read the configuration again");
		log_set_level(server->config->log_level);
	}
	server_status(server);
	notify_ready();
}
