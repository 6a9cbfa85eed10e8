/* What the command line and the environment say. Bad input gives one sentence. */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/log.h"
#include "daemon/objects.h"

#define CONFIG_SIZE_MIN (1ull << 20)
#define CONFIG_SIZE_MAX (1ull << 41) /* SHMI_MAX_PAGES */
#define CONFIG_SIZE_DEFAULT (4ull << 30)

struct config {
	char socket[108]; /* sun_path */
	unsigned socket_mode;
	unsigned dir_mode; /* of the socket's directory, if we are to make it; 0: it must be there */
	char instance[OBJECTS_NAME_MAX + 1];
	char heap[OBJECTS_NAME_MAX + 1];
	uint64_t size; /* bytes */
	uint64_t client_limit, user_limit; /* bytes; 0: none */
	uint32_t scavenge_delay_ms;
	enum log_level log_level;
	bool reset;
	char http[108]; /* where the HTTP listener is; empty: there is none */
	unsigned http_mode; /* of its socket, if that is a path */
	bool http_remote; /* other machines may reach it, under any name */
	char why[256]; /* after CONFIG_BAD */
};

enum config_result { CONFIG_RUN, CONFIG_SHOWN, CONFIG_BAD };

/* CONFIG_SHOWN: help or version was printed. CONFIG_BAD: config->why says what is wrong. */
enum config_result config_parse(struct config *config, int argc, char **argv);

/* "64MiB" to bytes; units KiB, MiB, GiB and TiB, a plain number is bytes. False for anything else, and beyond 2^64 - 1. */
bool config_parse_size(const char *text, uint64_t *bytes);

#endif
