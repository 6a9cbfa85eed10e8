/* Evicting a client, and with --kill ending its process.
 *
 * The signal goes through a pidfd, and only to the client: 1. its row says its pid; 2. that process is opened; 3. the daemon is asked
 * to evict the client, and does so only while its own pidfd says that the process lives; 4. the row is read again. If it is still
 * of that pid, the process had the pid before 2. and has it after 3.: what was opened is it. If the client has ended and its
 * place is another's, either the daemon refuses or the pid differs, or what was opened is dead and gets no signal.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "client/ctl/show.h"
#include "client/ctl/who.h"
#include "proto/chan.h"
#include "proto/fd.h"

#define LOOK_NS 5000000 /* nothing tells when the daemon has taken everything back */

struct eviction {
	struct wire_client_row row;
	uint64_t returned; /* bytes, at once */
	bool gone; /* it has ended in between */
};

static int say(struct ctl *ctl, const struct eviction *e, bool killed)
{
	char held[32];

	if (ctl->json) {
		json_t *json = ctl_json_new(ctl);

		json_object_set_new(json, "client", report_json_number(e->row.client));
		json_object_set_new(json, "pid", report_json_number(e->row.pid));
		json_object_set_new(json, "returned_bytes", report_json_number(e->returned));
		json_object_set_new(json, killed ? "reclaimed_bytes" : "held_bytes", report_json_number(e->row.bytes));
		json_object_set_new(json, "killed", json_boolean(killed));
		return ctl_json_print(ctl, json);
	}
	report_human(e->row.bytes, held, sizeof(held));
	fprintf(ctl->out, "client %u (pid %u) is evicted%s: %llu bytes returned to the system, ", e->row.client,
	        e->row.pid, killed ? " and has ended" : "", (unsigned long long)e->returned);
	if (killed)
		fprintf(ctl->out, "%llu bytes (%s) taken back from it\n", (unsigned long long)e->row.bytes, held);
	else
		fprintf(ctl->out, "%llu bytes (%s) stay its own until its process ends\n",
		        (unsigned long long)e->row.bytes, held);
	return CTL_OK;
}

static int no_client(struct ctl *ctl, uint32_t id)
{
	return ctl_fail(ctl, CTL_FAILED, "there is no client %u: 'shmallocctl clients' lists them", id);
}

/* Evicts it, and reads its row again. */
static int evict(struct ctl *ctl, struct eviction *e)
{
	struct wire_msg request = {.kind = WIRE_EVICT, .u.evict = {.client = e->row.client}};
	const struct wire_msg *reply;
	uint32_t id = e->row.client, pid = e->row.pid;
	bool found;

	snprintf(request.u.evict.heap, sizeof(request.u.evict.heap), "%s", ctl->heap);
	int status = ctl_ask(ctl, &request, WIRE_TRIM_OK, &reply);

	if (status != CTL_OK)
		return status;
	e->returned = reply->u.trim_ok.bytes;
	status = ctl_who_row(ctl, id, &e->row, &found);
	e->gone = !found;
	if (status == CTL_OK && found && e->row.pid != pid)
		return ctl_fail(
		        ctl, CTL_FAILED, "client %u was pid %u and is pid %u now: look again", id, pid, e->row.pid);
	return status;
}

/* ---- --kill ---- */

static bool same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Whether pids mean to the daemon what they mean here. Who listens is the daemon or who has started it. */
static bool same_pids(const struct ctl *ctl)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	char path[64];

	if (getsockopt(ctl->sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) || !cred.pid)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", cred.pid);
	return same_file(path, "/proc/self/ns/pid");
}

static bool wait_for_end(int process, int64_t deadline)
{
	struct pollfd end = {.fd = process, .events = POLLIN};
	int64_t left = (deadline - shmi_chan_now_ns()) / 1000000;

	return poll(&end, 1, left > 0 ? (int)left : 0) == 1;
}

/* Until the daemon does not know it any more. *left: what it held when it was seen last. */
static int wait_for_reclaim(struct ctl *ctl, const struct eviction *e, int64_t deadline)
{
	const struct timespec pause = {.tv_nsec = LOOK_NS};
	struct wire_client_row row = {0};
	bool found = true;

	for (;;) {
		int status = ctl_who_row(ctl, e->row.client, &row, &found);

		if (status != CTL_OK || !found || row.pid != e->row.pid)
			return status;
		if (shmi_chan_now_ns() >= deadline)
			return ctl_fail(ctl, CTL_FAILED,
			        "client %u has ended; processes forked from it still use %llu bytes of its memory",
			        e->row.client, (unsigned long long)row.bytes);
		(void)nanosleep(&pause, NULL);
	}
}

static int kill_it(struct ctl *ctl, const struct eviction *e, int process)
{
	int64_t deadline = shmi_chan_now_ns() + (int64_t)ctl->timeout_s * 1000000000;

	if (e->gone)
		return CTL_OK;
	if (pidfd_send_signal(process, SIGKILL, NULL, 0) && errno != ESRCH)
		return ctl_fail(ctl, CTL_FAILED, "client %u is evicted, but pid %u cannot be killed: %s", e->row.client,
		        e->row.pid, strerror(errno));
	if (!wait_for_end(process, deadline))
		return ctl_fail(ctl, CTL_FAILED, "pid %u has not ended within %u seconds", e->row.pid, ctl->timeout_s);
	return wait_for_reclaim(ctl, e, deadline);
}

static int evict_and_kill(struct ctl *ctl, struct eviction *e)
{
	FD_AUTO int process = -1;

	if (!same_pids(ctl))
		return ctl_fail(ctl, CTL_FAILED,
		        "the daemon is in another pid namespace, or hidden: run --kill where it runs, as root or its "
		        "user");
	process = pidfd_open((pid_t)e->row.pid, 0);
	if (process < 0)
		return ctl_fail(ctl, CTL_FAILED, "cannot open pid %u: %s", e->row.pid, strerror(errno));
	int status = evict(ctl, e);

	return status == CTL_OK ? kill_it(ctl, e, process) : status;
}

static int run(struct ctl *ctl)
{
	struct eviction e = {0};
	uint32_t id;
	bool found;

	if (!ctl->n_args)
		return ctl_fail(ctl, CTL_USAGE, "evict which client? 'shmallocctl clients' lists them");
	int status = ctl_who(ctl, ctl->args[0], &id);

	if (status == CTL_OK)
		status = ctl_who_row(ctl, id, &e.row, &found);
	if (status != CTL_OK)
		return status;
	if (!found)
		return no_client(ctl, id);
	status = ctl->kill ? evict_and_kill(ctl, &e) : evict(ctl, &e);
	return status == CTL_OK ? say(ctl, &e, ctl->kill || e.gone) : status;
}

const struct ctl_command ctl_evict = {.name = "evict",
        .args = "CLIENT",
        .summary = "end a client's use of the heap",
        .help = "For root and the daemon's user. CLIENT is an ID that 'shmallocctl clients' shows. Nothing is granted "
                "to\n"
                "it any more, and it cannot attach again: its calls that need the daemon fail with EACCES. What it "
                "holds\n"
                "stays its own until its process ends, but for spans that are wholly free. With --kill the process is\n"
                "killed, and everything that it held is taken back before the command ends.",
        .options = CTL_OPT_KILL,
        .max_args = 1,
        .run = run};
