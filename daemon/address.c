#include "daemon/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/fd.h"

/* ---- text ---- */

static bool parse_port(const char *text, in_port_t *port)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || number > 65535)
		return false;
	*port = htons((uint16_t)number);
	return true;
}

static bool parse_path(const char *text, struct address *a)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&a->at;
	size_t len = strlen(text);

	if (len >= sizeof(un->sun_path))
		return false;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, text, len + 1);
	a->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return true;
}

static bool parse_v6(const char *host, const char *port, struct address *a)
{
	struct sockaddr_in6 *in = (struct sockaddr_in6 *)&a->at;

	in->sin6_family = AF_INET6;
	a->len = sizeof(*in);
	return inet_pton(AF_INET6, host, &in->sin6_addr) == 1 && parse_port(port, &in->sin6_port);
}

static bool parse_v4(const char *host, const char *port, struct address *a)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&a->at;

	in->sin_family = AF_INET;
	a->len = sizeof(*in);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1 && parse_port(port, &in->sin_port);
}

bool address_parse(const char *text, struct address *address)
{
	char host[64];
	const char *colon = strrchr(text, ':');
	bool bracketed = *text == '[' && colon && colon > text && colon[-1] == ']';

	*address = (struct address){0};
	if (*text == '/')
		return parse_path(text, address);
	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return false;
	snprintf(host, sizeof(host), "%.*s", (int)(colon - text) - 2 * bracketed, text + bracketed);
	return bracketed ? parse_v6(host, colon + 1, address) : parse_v4(host, colon + 1, address);
}

void address_text(const struct address *address, char text[ADDRESS_TEXT])
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->at;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->at;
	char host[INET6_ADDRSTRLEN] = "";

	switch (address->at.ss_family) {
	case AF_INET:
		inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT, "%s:%u", host, ntohs(v4->sin_port));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT, "[%s]:%u", host, ntohs(v6->sin6_port));
		break;
	default:
		snprintf(text, ADDRESS_TEXT, "%.107s", ((const struct sockaddr_un *)&address->at)->sun_path);
	}
}

/* ---- who can reach it ---- */

bool address_is_local(const struct address *address)
{
	switch (address->at.ss_family) {
	case AF_INET:
		return ntohl(((const struct sockaddr_in *)&address->at)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	case AF_INET6:
		return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)&address->at)->sin6_addr);
	default:
		return true;
	}
}

/* Without the port; an IPv6 address keeps its brackets. */
static int host_len(const char *host)
{
	const char *end = *host == '[' ? strchr(host, ']') : NULL;

	return end ? (int)(end - host) + 1 : (int)strcspn(host, ":");
}

bool address_is_host(const struct address *address, const char *host)
{
	char own[ADDRESS_TEXT];
	const char *const good[] = {"localhost", "127.0.0.1", "[::1]", own};
	int len = host_len(host);

	if (strspn(host + len, ":0123456789") != strlen(host + len))
		return false;
	address_text(address, own);
	own[host_len(own)] = 0;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (len && strlen(good[i]) == (size_t)len && !strncasecmp(host, good[i], (size_t)len))
			return true;
	return false;
}

/* ---- sockets ---- */

/* A socket file to which nobody listens is what a killed daemon leaves. */
static int remove_stale(const struct address *address)
{
	const char *path = ((const struct sockaddr_un *)&address->at)->sun_path;
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	FD_AUTO int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (sock < 0)
		return -errno;
	if (!connect(sock, (const struct sockaddr *)&address->at, address->len) || errno != ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(path) ? -errno : 0;
}

/* With this mode from the first moment. */
static int bind_path(int sock, const struct address *address, unsigned mode, struct bound *bound)
{
	const char *path = ((const struct sockaddr_un *)&address->at)->sun_path;
	struct stat st;
	int error = remove_stale(address);
	mode_t mask = umask(~(mode_t)mode & 0777);

	if (!error && bind(sock, (const struct sockaddr *)&address->at, address->len))
		error = -errno;
	umask(mask);
	if (error)
		return error;
	if (chmod(path, (mode_t)mode) || lstat(path, &st)) {
		error = -errno;
		unlink(path);
		return error;
	}
	bound->dev = st.st_dev;
	bound->inode = st.st_ino;
	return 0;
}

static int bind_ip(int sock, const struct address *address)
{
	const int on = 1;

	/* connections that a daemon before us had do not keep us from its port */
	if (setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
		return -errno;
	return bind(sock, (const struct sockaddr *)&address->at, address->len) ? -errno : 0;
}

static int name_it(struct bound *bound)
{
	bound->address.len = sizeof(bound->address.at);
	return getsockname(bound->sock, (struct sockaddr *)&bound->address.at, &bound->address.len) ? -errno : 0;
}

int address_listen(const struct address *address, unsigned mode, int backlog, struct bound *bound)
{
	int family = address->at.ss_family, error;

	*bound = (struct bound){.sock = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
	if (bound->sock < 0)
		return -errno;
	if (family == AF_UNIX)
		error = bind_path(bound->sock, address, mode, bound);
	else
		error = bind_ip(bound->sock, address);
	if (!error && listen(bound->sock, backlog))
		error = -errno;
	bound->address = *address;
	if (!error && family != AF_UNIX)
		error = name_it(bound);
	if (error)
		address_close(bound);
	return error;
}

int address_adopt(int sock, struct bound *bound)
{
	*bound = (struct bound){.sock = sock};
	return name_it(bound);
}

void address_close(struct bound *bound)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&bound->address.at;
	struct stat st;

	if (bound->inode && !lstat(un->sun_path, &st) && st.st_dev == bound->dev && st.st_ino == bound->inode)
		unlink(un->sun_path);
	bound->inode = 0;
	if (bound->sock >= 0)
		close(bound->sock);
	bound->sock = -1;
}
