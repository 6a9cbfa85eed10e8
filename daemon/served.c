#include "daemon/served.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "daemon/boots.h"
#include "daemon/clients.h"
#include "daemon/guard.h"
#include "daemon/hugepages.h"
#include "daemon/large.h"
#include "daemon/limits.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/policy.h"
#include "daemon/pressure.h"
#include "daemon/reaper.h"
#include "daemon/scavenger.h"
#include "daemon/selfcheck.h"
#include "daemon/server.h"
#include "daemon/store.h"

_Static_assert(BOOTS_HEAPS >= CONFIG_HEAPS_MAX, "each heap has a count of its starts");

struct served *served_of(struct core *core)
{
	return (struct served *)(void *)((char *)core - offsetof(struct served, core));
}

void served_tick(struct served *served)
{
	core_tick(&served->core, timer_now_ms());
	boots_working_on(served->heap.state);
}

/* ---- the core's hooks ---- */

static void on_death(evutil_socket_t fd, short what, void *ctx)
{
	struct client *client = ctx;
	struct core *core = (struct core *)(void *)((char *)(client - client->id) - offsetof(struct core, client));
	struct served *served = served_of(core);

	(void)fd;
	(void)what;
	served_tick(served);
	struct caller *caller = core_client_died(core, client->id);

	if (caller)
		session_event(session_of(caller), EVENT_DEATH);
	server_wake(served->server);
}

static void hook_watch(void *ctx, uint32_t id, int pidfd)
{
	struct served *served = ctx;

	if (served->deaths[id])
		event_free(served->deaths[id]);
	served->deaths[id] = NULL;
	if (pidfd < 0)
		return;
	served->deaths[id] = event_new(served->server->base, pidfd, EV_READ, on_death, &served->core.client[id]);
	if (!served->deaths[id] || event_add(served->deaths[id], NULL))
		log_event(LEVEL_ERROR, LOG_CLIENT, core_about(&served->core, &served->core.client[id]),
		        "client %u of heap '%s' cannot be watched: no memory; its death will go unnoticed", id,
		        served->heap.name);
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

void served_look_soon(struct served *served)
{
	if (!served->looks_soon)
		timer_start(&served->look, POLICY_LEASE_MS);
	served->looks_soon = true;
}

static void on_look(void *ctx)
{
	struct served *served = ctx;

	served_tick(served);
	served->looks_soon = false;
	int due = reaper_look(&served->core);

	served->core.looks = policy_looks(served->core.looks, timer_now_ms() - served->core.now_ms);
	if (due == POLICY_LEASE_MS)
		served_look_soon(served);
	else if (due >= 0)
		timer_start(&served->look, due);
	server_wake(served->server);
}

struct scavenging {
	struct served *served;
	uint32_t pages;
};

static int scavenge_guarded(void *ctx)
{
	struct scavenging *s = ctx;

	s->pages = scavenger_turn(&s->served->core, s->served->config->scavenge_delay_ms);
	return 0;
}

static void on_scavenge(void *ctx)
{
	struct scavenging s = {.served = ctx};
	const struct config_heap *config = s.served->config;

	served_tick(s.served);
	if (guard_run(scavenge_guarded, &s))
		core_fence(&s.served->core);
	server_wake(s.served->server);
	timer_start(
	        &s.served->scavenge, policy_scavenge_pause(s.pages, config->scavenge_rate, config->scavenge_delay_ms));
}

void served_pressed(struct served *served)
{
	pressure_system(&served->core);
	timer_start(&served->scavenge, 0);
}

/* ---- opening ---- */

/* What an adopted heap brings with it. */
static void take_over(struct served *served)
{
	const struct objects *objects = &served->objects;
	uint64_t bytes = shmi_npages_bytes((shmi_npages){served->heap.img.geo.limit_pages});
	uint32_t alive = clients_adopt(&served->core);

	log_event(LEVEL_INFO, LOG_RECOVERED, log_bytes(core_about_heap(&served->core), bytes),
	        "took over heap '%s' of %llu MiB, instance '%s', with %u living clients", objects->heap,
	        (unsigned long long)(bytes >> 20), objects->instance, alive);
	if (served->heap.img.geo.limit_pages != shmi_npages_of(served->config->size).n)
		log_line(LEVEL_WARN, "heap '%s' keeps its size of %llu MiB; --size only counts for a new one",
		        objects->heap, (unsigned long long)(bytes >> 20));
	scavenger_drop_stale(&served->core);
	scavenger_look(&served->core);
}

static void open_leases(struct served *served)
{
	if (!leases_init(&served->leases, served->objects.fd[HEAP_DATA]))
		served->core.leases =
		        (struct core_leases){.ctx = &served->leases, .give = hook_give, .held = hook_held};
	else
		log_line(LEVEL_WARN,
		        "this system cannot tell whether a process has memory mapped: scoped blocks do not "
		        "outlive their process for those forked from it");
}

/* Tells clients, who map the data, whether to advise huge pages. */
static void set_advice(struct served *served)
{
	char why[256];
	bool huge = hugepages_advised(served->objects.fd[HEAP_DATA], served->config->huge, why, sizeof(why));

	shmi_store(&served->heap.img.super->advice, huge ? SHMI_ADVICE_HUGE : 0);
	if (*why)
		log_line(LEVEL_WARN, "heap '%s': %s", served->heap.name, why);
}

/* Returns 0, or 1 after the reason has been logged. */
static int open_core(struct served *served)
{
	const struct core_hooks hooks = {
	        .ctx = served, .watch = hook_watch, .finished = hook_finished, .replaced = hook_replaced};
	const struct limits limits = config_limits(served->config);
	struct event_base *base = served->server->base;
	struct objects *objects = &served->objects;
	char why[sizeof(objects->why)];

	served->heap.now = (uint32_t)timer_now_ms();
	int error = core_init(&served->core, &served->heap, &hooks, &limits);

	if (!error)
		error = timer_init(&served->look, base, on_look, served);
	if (!error)
		error = timer_init(&served->scavenge, base, on_scavenge, served);
	if (error) {
		snprintf(objects->why, sizeof(objects->why), "%s", strerror(-error));
		log_line(LEVEL_ERROR, "cannot open heap '%s': %s", objects->heap, objects->why);
		return 1;
	}
	served->core.uid = geteuid();
	served->core.connections = &served->server->fair;
	open_leases(served);
	set_advice(served);
	served_tick(served);
	if (!served->adopted)
		return 0;
	take_over(served);
	served->core.recovery_us = timer_now_us() - served->began_us;
	if (!selfcheck_run(&served->core, why, sizeof(why)))
		return 0;
	store_refuse(objects, why, "lists and counts were made anew, no block was touched");
	return 1;
}

int served_open(struct served *served, struct server *server, const struct config_heap *config)
{
	struct objects *objects = &served->objects;

	served->server = server;
	served->config = config;
	served->began_us = timer_now_us();
	served->leases.spare = -1;
	notify_status("opening heap '%s'", config->name);
	if (store_take(objects, &served->heap, server->config->instance, config, &served->adopted))
		return 1;
	served->open = true;
	served->descriptors[0] = objects->meta_readonly;
	served->descriptors[1] = objects->fd[HEAP_CTL];
	served->descriptors[2] = objects->fd[HEAP_DATA];
	if (!open_core(served)) {
		boots_opened(served->heap.state);
		return 0;
	}
	boots_refused(served->heap.state);
	if (!served->adopted)
		objects_unlink(objects);
	served_close(served);
	return 1;
}

void served_start(struct served *served)
{
	timer_start(&served->scavenge, POLICY_SCAVENGE_MS);
	served_look_soon(served);
}

void served_set(struct served *served)
{
	const struct limits limits = config_limits(served->config);

	limits_apply(&served->core, &limits);
	set_advice(served);
	timer_start(&served->scavenge, POLICY_SCAVENGE_MS); /* it may have been waiting for long */
}

/* ---- the end ---- */

/* Whether somebody may still want the heap: living clients, blocks, roots; or a person, if it is damaged. */
static bool is_wanted(struct served *served)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (served->core.client[i].state != CLIENT_FREE)
			return true;
	return store_has_blocks(&served->heap);
}

void served_finish(struct served *served, uint64_t deadline_ms)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		large_abort(&served->core, &served->core.client[i]);
	do
		served_tick(served);
	while (core_turn(&served->core) && timer_now_ms() < deadline_ms);
}

void served_end(struct served *served)
{
	store_end(&served->objects, &served->heap, is_wanted(served));
	served_close(served);
}

void served_close(struct served *served)
{
	if (!served->open)
		return;
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		hook_watch(served, i, -1);
	timer_deinit(&served->scavenge);
	timer_deinit(&served->look);
	leases_deinit(&served->leases);
	core_deinit(&served->core);
	objects_close(&served->objects);
	served->open = false;
}
