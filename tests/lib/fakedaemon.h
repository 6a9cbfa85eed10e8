/* A daemon's end of a socket, played by a thread of the test: gives canned answers, or rubbish. */
#ifndef TESTS_LIB_FAKEDAEMON_H
#define TESTS_LIB_FAKEDAEMON_H

#include <pthread.h>
#include <stddef.h>

#include "proto/wire.h"

enum fake_answer {
	FAKE_SEND, /* what the script has filled *reply with; its serial is set already */
	FAKE_RAW, /* the bytes that it has filled, of the length that it has set */
	FAKE_SILENCE, /* nothing, and the connection stays */
	FAKE_HANG_UP
};

struct fake_daemon;

/* Answers a request. */
typedef enum fake_answer (*fake_script)(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply);

struct fake_daemon {
	char dir[32], socket[64];
	fake_script script;
	void *ctx; /* the script's */
	unsigned requests; /* so far, hellos included */
	struct wire_msg last; /* the last request but a hello */
	unsigned char raw[WIRE_MAX + 1];
	size_t raw_len;
	int listener, stop[2];
	pthread_t thread;
};

/* Listens on a socket in a private directory. A HELLO is answered with HELLO_OK; the script has all other requests. */
void fake_daemon_start(struct fake_daemon *d, fake_script script, void *ctx);
void fake_daemon_stop(struct fake_daemon *d);

/* The script that has the hello as well. */
void fake_daemon_start_mute(struct fake_daemon *d, fake_script script, void *ctx);

#endif
