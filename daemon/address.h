/* Where the HTTP listener is: a numeric IP address with a port, or a path.
 *
 *	127.0.0.1:9779   [::1]:9779   127.0.0.1:0 (the kernel picks a port)   /run/shmalloc/http.sock
 *
 * Names are not resolved: a name that leads elsewhere one day would take the listener with it.
 */
#ifndef DAEMON_ADDRESS_H
#define DAEMON_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#define ADDRESS_TEXT 128u /* bytes that name any of them, with the final zero */

struct address {
	struct sockaddr_storage at;
	socklen_t len; /* 0: none */
};

/* A listening socket, and the file that it made. */
struct bound {
	int sock; /* -1: none */
	dev_t dev;
	ino_t inode; /* 0: no file */
	struct address address; /* with the port that the kernel picked */
};

/* False if it is none of these. */
bool address_parse(const char *text, struct address *address);

/* Whether only this machine can reach it. */
bool address_is_local(const struct address *address);

void address_text(const struct address *address, char text[ADDRESS_TEXT]);

/* Whether `host`, the Host header of a request, names the address or the loopback: else a page from elsewhere has had its
 * own name lead here (DNS rebinding). The port is not looked at. */
bool address_is_host(const struct address *address, const char *host);

/* Makes a listening, non-blocking socket there; a path gets this mode, and a stale socket file is replaced. Returns 0 or a negative errno. */
int address_listen(const struct address *address, unsigned mode, int backlog, struct bound *bound);

/* Takes over a listening socket that was passed: its file is not ours to remove. Returns 0 or a negative errno. */
int address_adopt(int sock, struct bound *bound);

/* Closes it and removes the file that address_listen made, if it is still that one. */
void address_close(struct bound *bound);

#endif
