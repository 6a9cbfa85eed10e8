#include "tests/lib/fakedaemon.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/chan.h"
#include "proto/codec.h"

struct fake_play {
	struct fake_daemon *d;
	bool mute;
	struct wire_msg request, reply;
	struct codec_scratch scratch;
	unsigned char bytes[WIRE_MAX];
};

static enum fake_answer decide(struct fake_play *play)
{
	struct fake_daemon *d = play->d;

	d->requests++;
	play->reply.serial = play->request.serial;
	if (play->request.kind == WIRE_HELLO && !play->mute) {
		play->reply.kind = WIRE_HELLO_OK;
		play->reply.u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL, .version = "9.9.9"};
		return FAKE_SEND;
	}
	if (play->request.kind != WIRE_HELLO)
		d->last = play->request;
	return d->script(d, &play->request, &play->reply);
}

/* One request. False: hang up. */
static bool serve(struct fake_play *play, int sock)
{
	size_t len;

	if (shmi_chan_recv(sock, play->bytes, sizeof(play->bytes), &len, NULL, NULL) != 0)
		return false;
	if (shmi_codec_decode(&play->request, &play->scratch, play->bytes, len) != 0)
		abort();
	memset(&play->reply, 0, sizeof(play->reply));
	switch (decide(play)) {
	case FAKE_SEND:
		if (shmi_codec_encode(&play->reply, &play->scratch, play->bytes, sizeof(play->bytes), &len) != 0)
			abort();
		return shmi_chan_send(sock, play->bytes, len, NULL, 0) == 0;
	case FAKE_RAW:
		return send(sock, play->d->raw, play->d->raw_len, MSG_NOSIGNAL) >= 0;
	case FAKE_SILENCE:
		return true;
	default:
		return false;
	}
}

static void *play_daemon(void *arg)
{
	struct fake_play *play = arg;
	struct fake_daemon *d = play->d;
	struct pollfd fds[3] = {
	        {.fd = d->stop[0], .events = POLLIN}, {.fd = d->listener, .events = POLLIN}, {.fd = -1}};

	fds[2].events = POLLIN;
	while (poll(fds, 3, -1) > 0 && !fds[0].revents) {
		if (fds[2].revents && !serve(play, fds[2].fd)) {
			close(fds[2].fd);
			fds[2].fd = -1;
		}
		if (fds[1].revents) {
			if (fds[2].fd >= 0)
				close(fds[2].fd);
			fds[2].fd = accept(d->listener, NULL, NULL);
		}
	}
	if (fds[2].fd >= 0)
		close(fds[2].fd);
	free(play);
	return NULL;
}

static void start(struct fake_daemon *d, fake_script script, void *ctx, bool mute)
{
	struct fake_play *play = calloc(1, sizeof(*play));

	*d = (struct fake_daemon){.dir = "/tmp/fakedaemon.XXXXXX", .script = script, .ctx = ctx};
	if (!play || !mkdtemp(d->dir) || pipe(d->stop) != 0)
		abort();
	snprintf(d->socket, sizeof(d->socket), "%s/sock", d->dir);
	play->d = d;
	play->mute = mute;
	if (shmi_chan_listen(d->socket, 0600, 8, &d->listener) != 0 ||
	        pthread_create(&d->thread, NULL, play_daemon, play) != 0)
		abort();
}

void fake_daemon_start(struct fake_daemon *d, fake_script script, void *ctx)
{
	start(d, script, ctx, false);
}

void fake_daemon_start_mute(struct fake_daemon *d, fake_script script, void *ctx)
{
	start(d, script, ctx, true);
}

void fake_daemon_stop(struct fake_daemon *d)
{
	char lock[80];

	close(d->stop[1]);
	pthread_join(d->thread, NULL);
	close(d->stop[0]);
	close(d->listener);
	unlink(d->socket);
	snprintf(lock, sizeof(lock), "%s.lock", d->socket);
	unlink(lock);
	rmdir(d->dir);
}
