/* The table of settings: their names, what values they take, where these are kept, and where they may be given.
 *
 * A setting has one name, in the file, on the command line (--NAME) and in the environment (SHMALLOCD_NAME, in capitals, with '_' for
 * '-'). What a value may look like is a kind: a function that parses the text, and one that writes a value as text, which
 * parsed again gives the same value.
 */
#ifndef DAEMON_SETTINGS_H
#define DAEMON_SETTINGS_H

#include <stddef.h>

#include "daemon/config.h"

struct setting;

struct setting_kind {
	/* Stores the value, or returns false with what is wrong in `why`: a sentence's end that quotes the text and says what is
	 * allowed. */
	bool (*parse)(const struct setting *setting, const char *text, void *value, char *why, size_t room);
	void (*print)(const struct setting *setting, const void *value, char *text, size_t room);
	size_t bytes; /* of a value */
};

enum setting_place { PLACE_FILE = 1, PLACE_ENVIRONMENT = 2, PLACE_COMMAND = 4, PLACES = 7 };

struct setting {
	const char *name;
	const char *argument; /* for --help; NULL: takes none on the command line */
	const char *help;
	const struct setting_kind *kind;
	bool of_heap; /* lies in struct config_heap, else in struct config */
	bool live; /* can change while the daemon runs */
	unsigned places; /* enum setting_place */
	size_t at; /* offset there */
	uint64_t least, most; /* of numbers */
	const char *const *words; /* of choices */
};

#define SETTING_TEXT_MAX 256u /* bytes of a value as text */

extern const struct setting settings[];
extern const unsigned n_settings;

/* By name, which has `len` bytes; NULL. */
const struct setting *setting_of(const char *name, size_t len);

/* The setting whose value lies at this offset of struct config_heap. */
const struct setting *setting_of_heap_at(size_t at);

unsigned setting_index(const struct setting *setting);

/* Where the value lies; `heap` is NULL for a setting of the daemon. */
void *setting_value(const struct setting *setting, struct config *config, struct config_heap *heap);
struct config_origin *setting_origin(const struct setting *setting, struct config *config, struct config_heap *heap);

/* The value as text. */
struct setting_text {
	char text[SETTING_TEXT_MAX];
};
struct setting_text setting_print(const struct setting *setting, struct config *config, struct config_heap *heap);

/* Parses `text` into the value, from that place. On a fault the value stays as it was, and the fault is noted. */
void setting_set(const struct setting *setting, struct config *config, struct config_heap *heap, const char *text,
        struct config_origin origin);

/* "SHMALLOCD_SIZE". */
struct setting_text setting_variable(const char *name);

/* ---- faults ---- */

/* Notes what is wrong with what was said of `name` (NULL: with the line as a whole) at that place. */
void config_fault(struct config *config, struct config_origin origin, const char *name, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

/* ---- for config, configfile and configprint ---- */

/* Adds a heap with the values that are built in. NULL after a fault: the name is none, or there are too many. */
struct config_heap *config_add_heap(struct config *config, const char *name, struct config_origin origin);

/* Reads config->path. */
void configfile_read(struct config *config);

void configprint_help(void);
void configprint_settings(struct config *config);

#endif
