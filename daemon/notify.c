#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
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

int notify_socket(int *sock, char *why, size_t room)
{
	int fd = SD_LISTEN_FDS_START, n = sd_listen_fds(1);

	*sock = -1;
	if (n == 0)
		return 0;
	if (n < 0)
		snprintf(why, room, "$LISTEN_FDS makes no sense");
	else if (n > 1)
		snprintf(why, room, "the service manager passed %d descriptors, and there is use for one", n);
	else if (sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) <= 0)
		snprintf(why, room,
		        "the descriptor that the service manager passed is not a listening Unix socket of type "
		        "SOCK_SEQPACKET (ListenSequentialPacket=)");
	else if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		snprintf(why, room, "the socket that the service manager passed cannot be used");
	else
		*sock = fd;
	return *sock < 0 ? -EINVAL : 0;
}
