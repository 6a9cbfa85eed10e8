#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <time.h>

void notify_status(const char *format, ...)
{
	char text[3072]; /* the names of all heaps */
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	for (char *c = text; *c; c++)
		if (*c == '\n') /* the next line would be another message */
			*c = '?';
	(void)sd_notifyf(0, "STATUS=%s", text);
}

void notify_ready(void)
{
	(void)sd_notify(0, "READY=1");
}

void notify_reloading(void)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_MONOTONIC, &now);
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
	        (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000);
}

void notify_stopping(void)
{
	(void)sd_notify(0, "STOPPING=1");
}

bool notify_is_watched(void)
{
	const char *path = getenv("NOTIFY_SOCKET");

	return path && *path;
}

uint32_t notify_alive_ms(void)
{
	uint64_t usec = 0;

	if (sd_watchdog_enabled(0, &usec) <= 0)
		return 0;
	usec /= 2000;
	return usec < 1 ? 1 : usec > INT32_MAX ? INT32_MAX : (uint32_t)usec;
}

void notify_alive(void)
{
	(void)sd_notify(0, "WATCHDOG=1");
}

/* ---- sockets ---- */

static bool is_http(int fd)
{
	return sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) > 0 ||
	       sd_is_socket_inet(fd, AF_UNSPEC, SOCK_STREAM, 1, 0) > 0;
}

static bool is_ours(int fd)
{
	return sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) > 0;
}

/* What may be passed, each once. */
static const struct {
	const char *name; /* NULL: any other */
	bool (*fits)(int fd);
	const char *want;
} passable[] = {
        {"http", is_http, "a listening stream socket (ListenStream=)"},
        {NULL, is_ours, "a listening Unix socket of type SOCK_SEQPACKET (ListenSequentialPacket=)"},
};

static int take(int fd, int n, const char *name, int *const to[2], char *why, size_t room)
{
	size_t i = name && !strcmp(name, passable[0].name) ? 0 : 1;

	if (*to[i] >= 0)
		snprintf(why, room, "the service manager passed %d descriptors, and there is use for one of a kind", n);
	else if (!passable[i].fits(fd))
		snprintf(why, room, "the descriptor '%.40s' that the service manager passed is not %s",
		        name ? name : "", passable[i].want);
	else if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		snprintf(why, room, "the socket that the service manager passed cannot be used");
	else
		*to[i] = fd;
	return *to[i] == fd ? 0 : -EINVAL;
}

int notify_sockets(int *sock, int *http, char *why, size_t room)
{
	int *const to[2] = {http, sock};
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), error = 0;

	*sock = *http = -1;
	if (n < 0)
		snprintf(why, room, "$LISTEN_FDS makes no sense");
	for (int i = 0; i < n && !error; i++)
		error = take(SD_LISTEN_FDS_START + i, n, names ? names[i] : NULL, to, why, room);
	for (int i = 0; i < n && names; i++)
		free(names[i]);
	free(names);
	return n < 0 ? -EINVAL : error;
}
