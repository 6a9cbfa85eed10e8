/* What a process attaches to: the caller's options, completed from the environment. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/heap.h"

/* The environment of a set-user-id program is its caller's: not to be followed. */
const char *shmi_env(const char *name)
{
	const char *value = secure_getenv(name);

	return value && *value ? value : NULL;
}

int shmi_env_timeout_ms(int otherwise)
{
	const char *given = shmi_env("SHMALLOC_TIMEOUT_MS");
	char *end = NULL;
	long ms = given ? strtol(given, &end, 10) : 0;

	return given && !*end && ms > 0 && ms <= 3600000 ? (int)ms : otherwise;
}

/* Returns 0, or ENAMETOOLONG. */
static int copy(char *to, size_t room, const char *from)
{
	return (size_t)snprintf(to, room, "%s", from) < room ? 0 : ENAMETOOLONG;
}

int shmi_target_resolve(const struct shma_options *given, struct shmi_target *t)
{
	struct shma_options o = {0};
	int error;

	if (given) {
		if (given->size < offsetof(struct shma_options, socket) + sizeof(o.socket))
			return EINVAL;
		memcpy(&o, given, given->size < sizeof(o) ? given->size : sizeof(o));
		if (o.timeout_ms < -1)
			return EINVAL;
	}
	error = o.socket                         ? copy(t->socket, sizeof(t->socket), o.socket)
	        : shmi_socket_default(t->socket) ? 0
	                                         : ENAMETOOLONG;
	if (!error)
		error = copy(t->name, sizeof(t->name),
		        o.heap                      ? o.heap
		        : shmi_env("SHMALLOC_HEAP") ? shmi_env("SHMALLOC_HEAP")
		                                    : "default");
	(void)snprintf(t->label, sizeof(t->label), "%s", o.label ? o.label : program_invocation_short_name);
	t->timeout_ms = o.timeout_ms ? o.timeout_ms : 5000;
	return error;
}
