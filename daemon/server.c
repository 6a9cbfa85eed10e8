#include "daemon/server.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/event.h>

#include "daemon/boots.h"
#include "daemon/clients.h"
#include "daemon/guard.h"
#include "daemon/large.h"
#include "daemon/notify.h"
#include "daemon/reaper.h"
#include "daemon/scavenger.h"
#include "daemon/selfcheck.h"
#include "daemon/store.h"

#define STOP_MS 2000 /* the longest that a stop waits for jobs */
#define SCAVENGE_IDLE_MS 1000

static struct server *server_of(struct core *core)
{
	return (struct server *)(void *)((char *)core - offsetof(struct server, core));
}

/* ---- the core's hooks ---- */

static void on_death(evutil_socket_t fd, short what, void *ctx)
{
	struct client *client = ctx;
	struct core *core = (struct core *)(void *)((char *)(client - client->id) - offsetof(struct core, client));
	struct server *server = server_of(core);

	(void)fd;
	(void)what;
	server_tick(server);
	struct caller *caller = core_client_died(core, client->id);

	if (caller)
		session_event(session_of(caller), EVENT_DEATH);
	server_wake(server);
}

static void hook_watch(void *ctx, uint32_t id, int pidfd)
{
	struct server *server = ctx;

	if (server->deaths[id])
		event_free(server->deaths[id]);
	server->deaths[id] = NULL;
	if (pidfd < 0)
		return;
	server->deaths[id] = event_new(server->base, pidfd, EV_READ, on_death, &server->core.client[id]);
	if (!server->deaths[id] || event_add(server->deaths[id], NULL))
		log_limited(LEVEL_ERROR, LOG_DEATH,
		        "client %u cannot be watched: no memory; its death will go unnoticed", id);
}

static void hook_finished(void *ctx, struct caller *caller, const struct answer *answer, bool last)
{
	(void)ctx;
	session_finished(session_of(caller), answer, last);
}

static void hook_replaced(void *ctx, struct caller *caller)
{
	(void)ctx;
	session_event(session_of(caller), EVENT_REPLACED);
}

static int hook_give(void *ctx, uint32_t client)
{
	return leases_give(ctx, client);
}

static bool hook_held(void *ctx, uint32_t client)
{
	return leases_held(ctx, client);
}

/* ---- time ---- */

void server_tick(struct server *server)
{
	core_tick(&server->core, timer_now_ms());
}

static void look_soon(struct server *server)
{
	if (!server->looks_soon)
		timer_start(&server->look, POLICY_LEASE_MS);
	server->looks_soon = true;
}

static void on_look(void *ctx)
{
	struct server *server = ctx;

	server_tick(server);
	server->looks_soon = false;
	int due = reaper_look(&server->core);

	server->core.looks = policy_looks(server->core.looks, timer_now_ms() - server->core.now_ms);
	if (due == POLICY_LEASE_MS)
		look_soon(server);
	else if (due >= 0)
		timer_start(&server->look, due);
	server_wake(server);
}

void server_wake(struct server *server)
{
	if (server->core.waiting)
		look_soon(server);
	if (core_has_jobs(&server->core))
		timer_start(&server->turn, 0);
}

static void on_turn(void *ctx)
{
	struct server *server = ctx;

	server_tick(server);
	core_turn(&server->core);
	server_wake(server);
}

struct scavenging {
	struct server *server;
	uint32_t pages;
};

static int scavenge_guarded(void *ctx)
{
	struct scavenging *s = ctx;

	s->pages = scavenger_turn(&s->server->core, s->server->config->scavenge_delay_ms);
	return 0;
}

static void on_scavenge(void *ctx)
{
	struct scavenging s = {.server = ctx};
	int idle = (int)s.server->config->scavenge_delay_ms / 2;

	server_tick(s.server);
	if (guard_run(scavenge_guarded, &s))
		core_fence(&s.server->core);
	server_wake(s.server);
	if (idle < POLICY_SCAVENGE_MS)
		idle = POLICY_SCAVENGE_MS;
	if (idle > SCAVENGE_IDLE_MS)
		idle = SCAVENGE_IDLE_MS;
	timer_start(&s.server->scavenge, s.pages ? POLICY_SCAVENGE_MS : idle);
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

/* The number of the user's connections; NULL: there is none. */
static uint32_t *count_of(struct session_counts *counts, uint32_t uid, uint32_t *at)
{
	for (*at = 0; *at < counts->users; ++*at)
		if (counts->user[*at].uid == uid)
			return &counts->user[*at].count;
	return NULL;
}

bool server_admits(struct server *server, uint32_t uid)
{
	uint32_t at, *count = count_of(&server->counts, uid, &at);

	return policy_admits(uid, server->core.uid, count ? *count : 0, server->counts.count);
}

void server_session_came(struct server *server, uint32_t uid)
{
	struct session_counts *counts = &server->counts;
	uint32_t at, *count = count_of(counts, uid, &at);

	counts->count++;
	if (count) {
		++*count;
		return;
	}
	counts->user[counts->users].uid = uid; /* there are never more users than sessions */
	counts->user[counts->users++].count = 1;
}

void server_session_gone(struct server *server, uint32_t uid)
{
	struct session_counts *counts = &server->counts;
	uint32_t at, *count = count_of(counts, uid, &at);

	counts->count--;
	look_soon(server);
	if (count && !--*count)
		counts->user[at] = counts->user[--counts->users];
	if (server->listener.acceptable)
		listener_resume(&server->listener);
}

/* ---- start ---- */

/* What an adopted heap brings with it. */
static void take_over(struct server *server)
{
	const struct config *config = server->config;
	uint64_t bytes = shmi_npages_bytes((shmi_npages){server->heap.img.geo.limit_pages});
	uint32_t alive = clients_adopt(&server->core);

	log_line(LEVEL_INFO, "took over heap '%s' of %llu MiB, instance '%s', with %u living clients", config->heap,
	        (unsigned long long)(bytes >> 20), config->instance, alive);
	if (server->heap.img.geo.limit_pages != shmi_npages_of(config->size).n)
		log_line(LEVEL_WARN, "heap '%s' keeps its size of %llu MiB; --size only counts for a new one",
		        config->heap, (unsigned long long)(bytes >> 20));
	scavenger_drop_stale(&server->core);
	scavenger_look(&server->core);
}

static void on_signal(evutil_socket_t fd, short what, void *ctx)
{
	(void)fd;
	(void)what;
	event_base_loopbreak(ctx);
}

static int open_loop(struct server *server)
{
	static const int stops[2] = {SIGTERM, SIGINT};

	server->base = event_base_new();
	if (!server->base)
		return -ENOMEM;
	for (int i = 0; i < 2; i++) {
		server->signals[i] = evsignal_new(server->base, stops[i], on_signal, server->base);
		if (!server->signals[i] || event_add(server->signals[i], NULL))
			return -ENOMEM;
	}
	if (timer_init(&server->turn, server->base, on_turn, server) ||
	        timer_init(&server->look, server->base, on_look, server) ||
	        timer_init(&server->scavenge, server->base, on_scavenge, server) ||
	        timer_init(&server->alive, server->base, on_alive, server) || awake_init(&server->awake, server->base))
		return -ENOMEM;
	return timer_init(&server->good, server->base, on_good, server);
}

static void open_leases(struct server *server)
{
	if (!leases_init(&server->leases, server->objects.fd[HEAP_DATA]))
		server->core.leases =
		        (struct core_leases){.ctx = &server->leases, .give = hook_give, .held = hook_held};
	else
		log_line(LEVEL_WARN,
		        "this system cannot tell whether a process has memory mapped: scoped blocks do not "
		        "outlive their process for those forked from it");
}

/* Returns 0, or 1 after the reason has been logged. `began_us`: when the heap began to be opened. */
static int open_core(struct server *server, bool adopted, uint64_t began_us)
{
	const struct core_hooks hooks = {
	        .ctx = server, .watch = hook_watch, .finished = hook_finished, .replaced = hook_replaced};
	const struct config *config = server->config;
	char why[256];

	server->heap.now = (uint32_t)timer_now_ms();
	const struct limits limits = {.client.hard = shmi_npages_of(config->client_limit).n,
	        .user.hard = shmi_npages_of(config->user_limit).n};
	int error = core_init(&server->core, &server->heap, &hooks, &limits);

	if (error) {
		log_line(LEVEL_ERROR, "cannot start: %s", strerror(-error));
		return 1;
	}
	server->core.uid = geteuid();
	server->core.sessions = &server->counts;
	open_leases(server);
	server_tick(server);
	if (!adopted)
		return 0;
	take_over(server);
	server->core.recovery_us = timer_now_us() - began_us;
	if (!selfcheck_run(&server->core, why, sizeof(why)))
		return 0;
	store_refuse(config, why, "lists and counts were made anew, no block was touched");
	return 1;
}

static void close_all(struct server *server)
{
	listener_deinit(&server->listener);
	http_free(server->http);
	server->http = NULL;
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		hook_watch(server, i, -1);
	for (int i = 0; i < 2; i++)
		if (server->signals[i])
			event_free(server->signals[i]);
	timer_deinit(&server->turn);
	timer_deinit(&server->scavenge);
	timer_deinit(&server->alive);
	timer_deinit(&server->good);
	timer_deinit(&server->look);
	awake_deinit(&server->awake);
	leases_deinit(&server->leases);
	if (server->core.heap)
		core_deinit(&server->core);
	if (server->base)
		event_base_free(server->base);
	objects_close(&server->objects, true);
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

/* The socket comes before the heap: if it cannot be had, --reset has dropped nothing, and while a heap is taken over clients that
 * connect need not try again. */
static int open_socket(struct server *server)
{
	char why[256] = "";
	int error = open_loop(server);

	if (error)
		log_line(LEVEL_ERROR, "cannot start: %s", strerror(-error));
	else if ((error = listener_init(&server->listener, server, server->config, why, sizeof(why))) != 0 ||
	         (error = http_new(&server->http, server, server->config, server->listener.http, why, sizeof(why))) !=
	                 0)
		log_line(LEVEL_ERROR, "%s", why);
	return error ? 1 : 0;
}

static int open_heap(struct server *server)
{
	struct objects *objects = &server->objects;
	uint64_t began_us = timer_now_us();
	bool adopted = false;

	notify_status("opening heap '%s'", server->config->heap);
	if (store_take(objects, &server->heap, server->config, &adopted))
		return 1;
	server->descriptors[0] = objects->meta_readonly;
	server->descriptors[1] = objects->fd[HEAP_CTL];
	server->descriptors[2] = objects->fd[HEAP_DATA];
	if (!open_core(server, adopted, began_us))
		return 0;
	boots_refused();
	if (!adopted)
		objects_unlink(objects);
	return 1;
}

static int start_http(struct server *server)
{
	int error = http_start(server->http);

	if (!error)
		return 0;
	log_line(LEVEL_ERROR, "cannot serve HTTP: %s", strerror(-error));
	boots_refused();
	return 1;
}

int server_start(struct server *server, const struct config *config)
{
	*server = (struct server){.config = config, .listener.sock = -1, .leases.spare = -1};
	LIST_INIT(&server->sessions);
	raise_limits();
	guard_install();
	if (store_lock(&server->objects, config))
		return 1;
	if (open_socket(server) || open_heap(server) || start_http(server)) {
		close_all(server);
		return 1;
	}
	listener_start(&server->listener);
	log_line(LEVEL_INFO, "shmallocd %s serves on %s", SHMALLOC_VERSION, server->listener.path);
	return 0;
}

void server_run(struct server *server)
{
	timer_start(&server->scavenge, POLICY_SCAVENGE_MS);
	timer_start(&server->good, BOOTS_GOOD_MS);
	if (notify_alive_ms())
		timer_start(&server->alive, 0);
	look_soon(server);
	server_wake(server);
	boots_ready();
	notify_status("serving heap '%s' on %s", server->heap.name, server->listener.path);
	notify_ready();
	event_base_dispatch(server->base);
	notify_stopping();
	boots_good();
}

/* ---- stop ---- */

/* Whether somebody may still want the heap: living clients, blocks, roots; or a person, if it is damaged. */
static bool is_wanted(struct server *server)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (server->core.client[i].state != CLIENT_FREE)
			return true;
	return store_has_blocks(&server->heap);
}

static void finish_jobs(struct server *server)
{
	uint64_t deadline = timer_now_ms() + STOP_MS;

	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		large_abort(&server->core, &server->core.client[i]);
	do
		server_tick(server);
	while (core_turn(&server->core) && timer_now_ms() < deadline);
}

void server_stop(struct server *server)
{
	struct session *session;

	listener_deinit(&server->listener);
	http_free(server->http);
	server->http = NULL;
	while ((session = LIST_FIRST(&server->sessions)) != NULL)
		session_event(session, EVENT_STOP);
	finish_jobs(server);
	store_end(&server->objects, &server->heap, is_wanted(server));
	close_all(server);
}
