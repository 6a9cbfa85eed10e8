#include "daemon/passed.h"

#include "daemon/memfd.h"
#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define KEEP_US (5 * 1000000ull) /* that the manager may take to answer: it answers in microseconds, or is not well */

static struct passed {
	int fd; /* -1: taken */
	char name[PASSED_NAME];
} passed[PASSED_MAX];
static unsigned n_passed;

static void free_names(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}

int passed_init(char *why, size_t room)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names);

	n_passed = 0;
	if (n < 0 || (unsigned)n > PASSED_MAX) {
		free_names(names);
		if (n < 0)
			snprintf(why, room, "$LISTEN_FDS makes no sense: %s", strerror(-n));
		else
			snprintf(why, room, "the service manager passed %d descriptors, more than %u", n, PASSED_MAX);
		return -EINVAL;
	}
	for (int i = 0; i < n; i++) {
		struct passed *p = &passed[n_passed++];

		p->fd = SD_LISTEN_FDS_START + i;
		snprintf(p->name, sizeof(p->name), "%s", names && names[i] ? names[i] : "");
	}
	free_names(names);
	return 0;
}

void passed_deinit(void)
{
	for (unsigned i = 0; i < n_passed; i++)
		if (passed[i].fd >= 0)
			close(passed[i].fd);
	n_passed = 0;
}

static struct passed *find(const char *name)
{
	for (unsigned i = 0; i < n_passed; i++)
		if (passed[i].fd >= 0 && !strcmp(passed[i].name, name))
			return &passed[i];
	return NULL;
}

static int take(struct passed *p)
{
	int fd = p ? p->fd : -1;

	if (p)
		p->fd = -1; /* the caller's */
	return fd;
}

int passed_take(const char *name)
{
	return take(find(name));
}

bool passed_has(const char *name)
{
	return find(name) != NULL;
}

int passed_take_other(const char **name)
{
	for (unsigned i = 0; i < n_passed; i++)
		if (passed[i].fd >= 0 && !memfd_is_part(passed[i].name)) {
			*name = passed[i].name;
			return take(&passed[i]);
		}
	return -1;
}

unsigned passed_left(void)
{
	unsigned left = 0;

	for (unsigned i = 0; i < n_passed; i++)
		left += passed[i].fd >= 0;
	return left;
}

bool passed_has_store(void)
{
	return notify_is_watched();
}

int passed_keep(int fd, const char *name)
{
	char state[PASSED_NAME + 32];
	/* FDPOLL=0: memory has no hang-up that would say that it is of no use any more. */
	int len = snprintf(state, sizeof(state), "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);

	if (len < 0 || (size_t)len >= sizeof(state) || strpbrk(name, ":\n"))
		return -EINVAL;
	int sent = sd_pid_notify_with_fds(0, 0, state, &fd, 1);

	if (sent <= 0)
		return sent ? sent : -ENOTCONN;
	/* Until the manager has read it the descriptor lives in its socket alone. */
	int done = sd_notify_barrier(0, KEEP_US);

	return done < 0 ? done : 0;
}

void passed_forget(const char *name)
{
	(void)sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}
