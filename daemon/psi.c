#include "daemon/psi.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define KERNEL_FILE "/proc/pressure/memory"
#define KERNEL_TRIGGER                                                                                                 \
	"some 200000 2000000" /* microseconds; the window of those who are not root is a multiple of 2 s */
#define WRITE_MOST 512u
#define READ_MOST 4096u /* thrown away at a time: a peer that writes without end does not keep us */

/* ---- what is to be written ---- */

static int digit(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

int psi_decode(const char *text, unsigned char *to, size_t room)
{
	size_t len = strlen(text), n = 0, pad = 0;

	if (len % 4)
		return -1;
	while (pad < 2 && pad < len && text[len - 1 - pad] == '=')
		pad++;
	for (size_t i = 0; i < len; i += 4) {
		unsigned bits = 0, bytes = i + 4 == len ? 3 - (unsigned)pad : 3;

		for (size_t k = 0; k < 4; k++) {
			int d = i + k >= len - pad ? 0 : digit(text[i + k]);

			if (d < 0)
				return -1;
			bits = bits << 6 | (unsigned)d;
		}
		if (n + bytes > room)
			return -1;
		for (unsigned k = 0; k < bytes; k++)
			to[n++] = (unsigned char)(bits >> (16 - 8 * k));
	}
	return (int)n;
}

static int write_all(int fd, const void *bytes, size_t len)
{
	ssize_t n = len ? write(fd, bytes, len) : 0;

	return n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
}

/* ---- what is to be watched ---- */

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)&address, sizeof(address)))
		return fd;
	int error = -errno;

	close(fd);
	return error;
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

	return fd < 0 ? -errno : fd;
}

/* Puts the file into an epoll descriptor. Consumes it on success. */
static int watch_exceptions(struct psi *psi, int file)
{
	struct epoll_event event = {.events = EPOLLPRI};
	int watch = epoll_create1(EPOLL_CLOEXEC);

	if (watch < 0)
		return -errno;
	if (epoll_ctl(watch, EPOLL_CTL_ADD, file, &event)) {
		int error = -errno;

		close(watch);
		return error;
	}
	*psi = (struct psi){.watch = watch, .file = file};
	return 0;
}

static int open_path(struct psi *psi, const char *path, const void *bytes, size_t len)
{
	struct stat st;
	int fd, error = 0;

	if (stat(path, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode))
		return -EINVAL;
	fd = S_ISSOCK(st.st_mode) ? connect_to(path) : open_file(path);
	if (fd < 0)
		return fd;
	if (!S_ISFIFO(st.st_mode))
		error = write_all(fd, bytes, len);
	if (!error && S_ISREG(st.st_mode))
		error = watch_exceptions(psi, fd);
	else if (!error)
		*psi = (struct psi){.watch = fd, .file = -1};
	if (error)
		close(fd);
	return error;
}

int psi_open(struct psi *psi, char *why, size_t room)
{
	const char *path = getenv("MEMORY_PRESSURE_WATCH"), *text = getenv("MEMORY_PRESSURE_WRITE");
	unsigned char bytes[WRITE_MOST];
	int len = text ? psi_decode(text, bytes, sizeof(bytes)) : 0, error;

	*psi = PSI_NONE;
	if (path && *path) {
		error = !strcmp(path, "/dev/null") ? -ECANCELED
		        : len < 0                  ? -EINVAL
		                                   : open_path(psi, path, bytes, (size_t)len);
	} else { /* the trigger ends with its zero */
		path = KERNEL_FILE;
		error = open_path(psi, path, KERNEL_TRIGGER, sizeof(KERNEL_TRIGGER));
	}
	if (error)
		snprintf(why, room, "%.200s: %s", path,
		        error == -ECANCELED ? "nothing is to be watched" : strerror(-error));
	return error;
}

/* ---- what comes ---- */

bool psi_read(struct psi *psi)
{
	char bytes[READ_MOST];
	struct epoll_event event;

	if (psi->file >= 0) {
		int n = epoll_wait(psi->watch, &event, 1, 0);

		if (n < 0 ? errno == EINTR : !n || !(event.events & EPOLLERR))
			return true;
	} else {
		ssize_t n = read(psi->watch, bytes, sizeof(bytes));

		if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
			return true;
	}
	psi_close(psi);
	return false;
}

void psi_close(struct psi *psi)
{
	if (psi->watch >= 0)
		close(psi->watch);
	if (psi->file >= 0)
		close(psi->file);
	*psi = PSI_NONE;
}
