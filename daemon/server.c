#include "daemon/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/event.h>

#include "daemon/boots.h"
#include "daemon/guard.h"
#include "daemon/notify.h"
#include "daemon/passed.h"
#include "daemon/reload.h"
#include "daemon/usermap.h"

#define STOP_MS 2000 /* the longest that a stop waits for jobs */

/* The next heap that is open, from index `i` on; NULL: there is none. */
static struct served *open_from(struct server *server, uint32_t i)
{
	while (i < server->config->heaps && !server->served[i].open)
		i++;
	return i < server->config->heaps ? &server->served[i] : NULL;
}

static struct served *open_after(struct server *server, const struct served *s)
{
	return open_from(server, (uint32_t)(s - server->served) + 1);
}

/* ---- time ---- */

void server_tick(struct server *server)
{
	uint64_t now = timer_now_ms();

	for (struct served *s = open_from(server, 0); s; s = open_after(server, s))
		core_tick(&s->core, now);
	boots_working_on(NULL);
}

void server_wake(struct server *server)
{
	bool jobs = false;

	for (struct served *s = open_from(server, 0); s; s = open_after(server, s)) {
		if (s->core.waiting)
			served_look_soon(s);
		jobs = jobs || core_has_jobs(&s->core);
	}
	if (jobs)
		timer_start(&server->turn, 0);
}

/* One step of one heap, so that a turn of the loop stays short, whatever the number of heaps. */
static void on_turn(void *ctx)
{
	struct server *server = ctx;

	for (uint32_t i = 0; i < server->config->heaps; i++) {
		struct served *served = &server->served[server->next];

		server->next = (server->next + 1) % server->config->heaps;
		if (!served->open || !core_has_jobs(&served->core))
			continue;
		served_tick(served);
		core_turn(&served->core);
		break;
	}
	server_wake(server);
}

static void on_pressed(evutil_socket_t fd, short what, void *ctx)
{
	struct server *server = ctx;

	(void)fd;
	(void)what;
	if (!psi_read(&server->psi)) {
		event_free(server->pressed);
		server->pressed = NULL;
		return;
	}
	server_tick(server);
	for (struct served *s = open_from(server, 0); s; s = open_after(server, s))
		served_pressed(s);
	server_wake(server);
}

/* A daemon that cannot be told when the system is short of memory goes by what it sees itself. */
static void watch_pressure(struct server *server)
{
	char why[256];

	if (psi_open(&server->psi, why, sizeof(why))) {
		log_line(LEVEL_DEBUG, "memory pressure is not watched: %s", why);
		return;
	}
	server->pressed = event_new(server->base, server->psi.watch, EV_READ | EV_PERSIST, on_pressed, server);
	if (!server->pressed || event_add(server->pressed, NULL))
		log_line(LEVEL_WARN, "memory pressure is not watched: no memory");
}

/* A loop that hangs does not come by here, and is killed by the service manager. */
static void on_alive(void *ctx)
{
	struct server *server = ctx;

	notify_alive();
	boots_turned();
	timer_start(&server->alive, (int)notify_alive_ms());
}

static void on_good(void *ctx)
{
	(void)ctx;
	boots_good();
}

/* ---- connections ---- */

bool server_admits(struct server *server, uint32_t uid)
{
	return policy_admits(uid, server->heaps.uid, fair_connections(&server->fair, uid), server->fair.connections);
}

static void on_resume(void *ctx)
{
	struct server *server = ctx;
	uint64_t now_us = timer_now_us();

	server->pausing = false;
	for (struct session *s = LIST_FIRST(&server->sessions); s; s = LIST_NEXT(s, link)) {
		if (!s->paused)
			continue;
		if (fair_within_rate(&server->fair, s->user, now_us))
			session_resume(s);
		else
			server_pause(server);
	}
}

void server_pause(struct server *server)
{
	if (!server->pausing)
		timer_start(&server->resume, POLICY_RATE_PAUSE_MS);
	server->pausing = true;
}

void server_session_gone(struct server *server)
{
	for (struct served *s = open_from(server, 0); s; s = open_after(server, s))
		served_look_soon(s);
	if (server->listener.acceptable)
		listener_resume(&server->listener);
}

/* ---- start ---- */

static void on_stop(evutil_socket_t fd, short what, void *ctx)
{
	struct server *server = ctx;

	(void)fd;
	(void)what;
	event_base_loopbreak(server->base);
}

static void on_reload(evutil_socket_t fd, short what, void *ctx)
{
	(void)fd;
	(void)what;
	reload_run(ctx);
}

static int open_signals(struct server *server)
{
	static const struct {
		int signo;
		event_callback_fn run;
	} signals[SERVER_SIGNALS] = {{SIGTERM, on_stop}, {SIGINT, on_stop}, {SIGHUP, on_reload}};

	sigset_t all, before;
	bool good = true;

	/* They are ignored before and after the loop has them, so that one more to stop does not end a daemon that is ending well; held
	 * back here, none is lost. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	for (unsigned i = 0; i < SERVER_SIGNALS && good; i++) {
		signal(signals[i].signo, SIG_IGN);
		server->signals[i] = evsignal_new(server->base, signals[i].signo, signals[i].run, server);
		good = server->signals[i] && !event_add(server->signals[i], NULL);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return good ? 0 : -ENOMEM;
}

static int open_loop(struct server *server)
{
	server->base = event_base_new();
	if (!server->base)
		return -ENOMEM;
	if (open_signals(server) || timer_init(&server->turn, server->base, on_turn, server) ||
	        timer_init(&server->alive, server->base, on_alive, server) ||
	        timer_init(&server->resume, server->base, on_resume, server) ||
	        awake_init(&server->awake, server->base))
		return -ENOMEM;
	return timer_init(&server->good, server->base, on_good, server);
}

static void close_all(struct server *server)
{
	listener_deinit(&server->listener);
	http_free(server->http);
	server->http = NULL;
	for (struct served *s = open_from(server, 0); s; s = open_after(server, s))
		served_close(s);
	for (unsigned i = 0; i < SERVER_SIGNALS; i++)
		if (server->signals[i])
			event_free(server->signals[i]);
	if (server->pressed)
		event_free(server->pressed);
	psi_close(&server->psi);
	timer_deinit(&server->turn);
	timer_deinit(&server->alive);
	timer_deinit(&server->resume);
	timer_deinit(&server->good);
	awake_deinit(&server->awake);
	if (server->base)
		event_base_free(server->base);
	lock_drop(&server->lock);
}

/* As many descriptors as we may have. */
static void raise_limits(void)
{
	struct rlimit files;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

static int take_lock(struct server *server)
{
	char why[256] = "";

	if (!lock_take(&server->lock, server->config->instance, why, sizeof(why)))
		return 0;
	log_line(LEVEL_ERROR, "%s", why);
	return 1;
}

/* Whether the users whom the daemon cannot tell apart are ordinary ones (daemon/usermap.h). Returns 0 or 1. */
static int look_at_users(void)
{
	int64_t unmapped = usermap_unmapped();

	if (unmapped < 0)
		return 0;
	if (unmapped == 0 || unmapped == (int64_t)geteuid()) {
		log_line(LEVEL_ERROR,
		        "cannot start as uid %u: this user namespace shows users whom it does not map as uid %u, which "
		        "must not "
		        "be root or the daemon's own; run it as another user of the namespace",
		        geteuid(), (unsigned)unmapped);
		return 1;
	}
	log_line(LEVEL_WARN,
	        "this user namespace does not map all users: those whom it does not map count as one, uid %u",
	        (unsigned)unmapped);
	return 0;
}

/* The socket comes before the heaps: if it cannot be had, --reset has dropped nothing, and while a heap is taken over clients that
 * connect need not try again. */
static int open_socket(struct server *server)
{
	char why[256] = "";
	int error = open_loop(server);

	if (error)
		log_line(LEVEL_ERROR, "cannot start: %s", strerror(-error));
	else if ((error = passed_init(why, sizeof(why))) != 0 ||
	         (error = listener_init(&server->listener, server, server->config, why, sizeof(why))) != 0 ||
	         (error = http_new(&server->http, server, server->config, server->listener.http, why, sizeof(why))) !=
	                 0)
		log_line(LEVEL_ERROR, "%s", why);
	return error ? 1 : 0;
}

/* Memory of heaps that were set aside or refused, or are not configured any more: it stays with the service manager. */
static void note_left(void)
{
	if (passed_left())
		log_line(LEVEL_WARN,
		        "the service manager keeps %u descriptors that no heap uses: of heaps that were set aside or "
		        "refused, or are not "
		        "configured any more",
		        passed_left());
	passed_deinit();
}

/* One that is refused keeps the others from nothing; if there is no other the start fails. */
static int open_heaps(struct server *server)
{
	struct heaps *heaps = &server->heaps;

	heaps->uid = geteuid();
	heaps->n = server->config->heaps;
	for (uint32_t i = 0; i < heaps->n; i++) {
		struct served *served = &server->served[i];
		const struct config_heap *config = &server->config->heap[i];
		bool failed = served_open(served, server, config);

		heaps->entry[i] = (struct heaps_entry){.config = config,
		        .core = failed ? NULL : &served->core,
		        .why = failed ? served->objects.why : NULL,
		        .sealed = served->objects.sealed};
	}
	note_left();
	return open_from(server, 0) ? 0 : 1;
}

static int start_http(struct server *server)
{
	int error = http_start(server->http);

	if (!error)
		return 0;
	log_line(LEVEL_ERROR, "cannot serve HTTP: %s", strerror(-error));
	boots_good();
	return 1;
}

int server_start(struct server *server, struct config *config)
{
	server->config = config;
	server->listener.sock = server->lock.fd = -1;
	server->psi = (struct psi)PSI_NONE;
	LIST_INIT(&server->sessions);
	raise_limits();
	guard_install();
	if (look_at_users() || take_lock(server))
		return 1;
	if (open_socket(server) || open_heaps(server) || start_http(server)) {
		close_all(server);
		return 1;
	}
	watch_pressure(server);
	listener_start(&server->listener);
	log_line(LEVEL_INFO, "shmallocd %s serves on %s", SHMALLOC_VERSION, server->listener.path);
	return 0;
}

/* "heap 'a'" or "heaps 'a', 'b'": those that are open, or those that are not. */
static void name_heaps(const struct server *server, bool open, char *text, size_t room)
{
	uint32_t n = 0;
	size_t at = (size_t)snprintf(text, room, "heap");

	for (uint32_t i = 0; i < server->config->heaps; i++)
		n += server->served[i].open == open;
	if (n != 1)
		at += (size_t)snprintf(text + at, room - at, "s");
	for (uint32_t i = 0, named = 0; i < server->config->heaps; i++)
		if (server->served[i].open == open && at < room)
			at += (size_t)snprintf(
			        text + at, room - at, "%s '%s'", named++ ? "," : "", server->config->heap[i].name);
}

void server_status(const struct server *server)
{
	char serving[1024], refused[1024];
	bool all = true;

	for (uint32_t i = 0; i < server->config->heaps; i++)
		all = all && server->served[i].open;
	name_heaps(server, true, serving, sizeof(serving));
	name_heaps(server, false, refused, sizeof(refused));
	notify_status(
	        "serving %s on %s%s%s", serving, server->listener.path, all ? "" : "; refused: ", all ? "" : refused);
}

void server_run(struct server *server)
{
	for (struct served *s = open_from(server, 0); s; s = open_after(server, s))
		served_start(s);
	timer_start(&server->good, BOOTS_GOOD_MS);
	if (notify_alive_ms())
		timer_start(&server->alive, 0);
	server_wake(server);
	boots_ready();
	server_status(server);
	notify_ready();
	do
		fair_turn(&server->fair);
	while (!event_base_loop(server->base, EVLOOP_ONCE) && !event_base_got_break(server->base));
	notify_stopping();
	boots_good();
}

/* ---- stop ---- */

void server_stop(struct server *server)
{
	struct session *session;
	uint64_t deadline = timer_now_ms() + STOP_MS;

	listener_deinit(&server->listener);
	http_free(server->http);
	server->http = NULL;
	while ((session = LIST_FIRST(&server->sessions)) != NULL)
		session_event(session, EVENT_STOP);
	for (struct served *s = open_from(server, 0); s; s = open_after(server, s))
		served_finish(s, deadline);
	for (uint32_t i = 0; i < server->config->heaps; i++)
		if (server->served[i].open)
			served_end(&server->served[i]);
	close_all(server);
}
