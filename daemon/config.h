/* What the daemon is to do: settings of the daemon, and of each of its heaps.
 *
 * A value comes from the last of these that names it: what is built in, the configuration file, the environment
 * (SHMALLOCD_OPTION), the command line. One table (settings.h) has them all: keys of the file, names in the environment and options of
 * the command line are the same words. In environment and command line, what is said of heaps before the first --heap holds for all of
 * them, and what follows a --heap for that one. Without any heap there is one called `default`.
 *
 * What is wrong is one sentence for each fault, which says where it stands and what is allowed; all of them are found in one go.
 *
 *	settings     the table, and the values: text to value and back
 *	configfile   the file
 *	configprint  --help, --print-config
 *	config       the layers in their order, and what does not go together
 */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/access.h"
#include "daemon/account.h"
#include "daemon/log.h"
#include "daemon/objects.h"

#define CONFIG_SIZE_MIN (1ull << 20)
#define CONFIG_SIZE_MAX (1ull << 41) /* SHMI_MAX_PAGES */
#define CONFIG_SIZE_DEFAULT (4ull << 30)
#define CONFIG_RATE_MIN (2ull << 20) /* bytes a second: one turn of the scavenger, which looks for damage as well */

#define CONFIG_HEAPS_MAX 16u /* a daemon has two mappings and a table of 1,024 clients for each */
#define CONFIG_SETTINGS_MAX 32u
#define CONFIG_FAULTS_MAX 10u /* that are kept; further ones are counted */
#define CONFIG_FAULT_BYTES 384u
#define CONFIG_PATH_MAX 256u

enum config_backing { BACKING_SHM, BACKING_MEMFD };

/* Advice to use huge pages: never; where the tmpfs asks for advice, or takes it; or what it is to be mounted with. */
enum config_huge { HUGE_NEVER, HUGE_ADVISE, HUGE_ALWAYS, HUGE_WITHIN_SIZE };

/* Where a value comes from. */
enum config_layer { LAYER_BUILT_IN, LAYER_FILE, LAYER_ENVIRONMENT, LAYER_COMMAND };

struct config_origin {
	uint8_t layer; /* enum config_layer */
	uint32_t line; /* of the file */
};

/* Bytes; 0: no such bound. */
struct config_limit {
	uint64_t hard, soft, guaranteed;
};

struct config_heap {
	char name[OBJECTS_NAME_MAX + 1];
	uint64_t size; /* bytes */
	enum config_backing backing;
	struct access access;
	struct config_limit client, user;
	uint64_t soft_limit; /* of the heap, bytes; 0: none */
	uint32_t scavenge_delay_ms;
	uint64_t scavenge_rate; /* bytes a second */
	enum config_huge huge;
	bool reset;
	struct config_origin named; /* who named the heap */
	struct config_origin origin[CONFIG_SETTINGS_MAX]; /* by the table of settings */
};

struct config {
	char socket[108]; /* sun_path */
	unsigned socket_mode;
	unsigned dir_mode; /* of the socket's directory, if we are to make it; 0: it must be there */
	char instance[OBJECTS_NAME_MAX + 1];
	enum log_level log_level;
	char http[108]; /* where the HTTP listener is; empty: there is none */
	unsigned http_mode; /* of its socket, if that is a path */
	bool http_remote; /* other machines may reach it, under any name */
	struct config_origin origin[CONFIG_SETTINGS_MAX];
	uint32_t heaps;
	struct config_heap heap[CONFIG_HEAPS_MAX];
	int argc; /* the command line */
	char **argv;
	char path[CONFIG_PATH_MAX]; /* of the file; empty: there is no place for one */
	bool path_given; /* it must be there */
	bool path_read; /* it was */
	uint32_t faults; /* after CONFIG_BAD */
	char fault[CONFIG_FAULTS_MAX][CONFIG_FAULT_BYTES]; /* sentences */
};

enum config_result {
	CONFIG_RUN,
	CONFIG_SHOWN, /* help, version, check or the configuration was printed; there was no fault */
	CONFIG_BAD
};

/* Reads all layers, and prints on standard output what the command line asks for. The environment is `environ`. */
enum config_result config_parse(struct config *config, int argc, char **argv);

/* Reads all layers again into `fresh`, with the file and the environment as they are now and the command line of `config`, whose
 * config_parse has given CONFIG_RUN. Returns CONFIG_RUN or CONFIG_BAD. */
enum config_result config_again(struct config *fresh, const struct config *config);

/* The heap of this name, or NULL. */
struct config_heap *config_heap_of(struct config *config, const char *name);

/* The limits in pages. */
struct limits config_limits(const struct config_heap *heap);

/* "64MiB" to bytes; units KiB, MiB, GiB and TiB, a plain number is bytes. False for anything else, and beyond 2^64 - 1. */
bool config_parse_size(const char *text, uint64_t *bytes);

/* "250ms", "5s", "2min", "1h"; a plain number is milliseconds. False for anything else, and beyond 2^64 - 1. */
bool config_parse_duration(const char *text, uint64_t *ms);

#endif
