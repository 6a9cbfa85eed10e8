#include "daemon/limits.h"

#include "daemon/log.h"
#include "daemon/policy.h"
#include "daemon/pressure.h"

static void set_limits(struct client *client, const struct limit *limit)
{
	if (client->state == CLIENT_FREE)
		return;
	account_change(&client->account, limit);
	if (client->evicted || (client->state != CLIENT_ATTACHED && client->state != CLIENT_DETACHED))
		account_waive(&client->account);
}

void limits_apply(struct core *core, const struct limits *limits)
{
	core->limits = *limits;
	core->users.limit = limits->user;
	core->all.soft = limits->heap_soft;
	for (uint32_t i = 0; i < ACCOUNT_USERS; i++)
		if (core->users.user[i].refs)
			account_change(&core->users.user[i].account, &limits->user);
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		set_limits(&core->client[i], &limits->client);
}

/* ---- shares ---- */

void limits_promised(struct core *core)
{
	uint64_t promised = 0, limit = core->heap->img.geo.limit_pages;

	if (core->overpromised || (!core->limits.user.guaranteed && !core->limits.client.guaranteed))
		return;
	for (uint32_t i = 0; i < ACCOUNT_USERS; i++) {
		uint64_t user = core->limits.user.guaranteed,
		         clients = core->users.user[i].refs * core->limits.client.guaranteed;

		promised += core->users.user[i].refs == 0 ? 0 : user > clients ? user : clients;
	}
	if (promised <= limit)
		return;
	core->overpromised = true;
	log_line(LEVEL_WARN,
	        "heap '%s': %llu MiB are guaranteed to its clients and users, of a heap of %llu MiB: that cannot all "
	        "be kept",
	        core->heap->name, (unsigned long long)(promised << SHMI_PAGE_SHIFT >> 20),
	        (unsigned long long)(limit << SHMI_PAGE_SHIFT >> 20));
}

uint64_t limits_share(const struct core *core, const struct client *client)
{
	if (!core->all.below) /* nothing is reserved for anybody */
		return UINT64_MAX;
	return account_share(&client->account, pressure_room(core));
}

/* ---- soft limits ---- */

static bool is_over(const struct account *account)
{
	return account->soft && account->used > account->soft;
}

/* Whether to tell the clients of this account. */
static bool is_due(const struct core *core, struct account *account)
{
	if (!is_over(account) || (account->told_ms && core->now_ms - account->told_ms < POLICY_TELL_MS))
		return false;
	account->told_ms = core->now_ms;
	return true;
}

static void tell_all(struct core *core, const struct account *account)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		struct client *client = &core->client[i];

		if (client->state != CLIENT_FREE && (account == &core->all || account == &client->user->account))
			pressure_tell(core, client);
	}
}

void limits_watch(struct core *core, struct client *client)
{
	if (is_due(core, &client->account))
		pressure_tell(core, client);
	if (is_due(core, &client->user->account))
		tell_all(core, &client->user->account);
	if (is_due(core, &core->all))
		tell_all(core, &core->all);
}

void limits_watch_all(struct core *core)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (core->client[i].state != CLIENT_FREE)
			limits_watch(core, &core->client[i]);
}

/* ---- refusals ---- */

enum limits_why limits_which(const struct client *client)
{
	const struct account *own = &client->account, *user = &client->user->account;
	uint64_t room = account_room(own);

	return own->limit && (own->used < own->limit ? own->limit - own->used : 0) == room ? LIMITS_CLIENT
	       : user->limit                                                               ? LIMITS_USER
	                                                                                   : LIMITS_CLIENT;
}

enum limits_why limits_no_memory(const struct core *core)
{
	return core->heap->starved ? LIMITS_SYSTEM : LIMITS_HEAP;
}

static shmi_a64 *counter_of(struct core *core, enum limits_why why)
{
	struct shmi_counters *counters = &core->heap->img.super->counters;
	shmi_a64 *const of[] = {[LIMITS_CLIENT] = &counters->over_client,
	        [LIMITS_USER] = &counters->over_user,
	        [LIMITS_SHARE] = &counters->over_share,
	        [LIMITS_HEAP] = &counters->heap_full,
	        [LIMITS_SYSTEM] = &counters->system_full};

	return of[why];
}

enum outcome limits_refuse(struct core *core, struct client *client, enum limits_why why, uint32_t pages)
{
	static const struct {
		enum wire_error_code code;
		enum log_kind kind;
		const char *text;
	} of[] = {[LIMITS_CLIENT] = {WIRE_E_LIMIT, LOG_LIMIT, "over the limit of this client"},
	        [LIMITS_USER] = {WIRE_E_LIMIT, LOG_LIMIT, "over the limit of this user"},
	        [LIMITS_SHARE] = {WIRE_E_LIMIT, LOG_LIMIT, "what is left is guaranteed to others"},
	        [LIMITS_HEAP] = {WIRE_E_NO_MEMORY, LOG_MEMORY, "the heap is full"},
	        [LIMITS_SYSTEM] = {WIRE_E_NO_MEMORY, LOG_MEMORY, "the system has no memory left"}};

	shmi_bump(&core->heap->img.super->counters.no_memory, 1);
	shmi_bump(counter_of(core, why), 1);
	log_event(LEVEL_WARN, of[why].kind,
	        log_bytes(core_about(core, client), shmi_npages_bytes((shmi_npages){pages})),
	        "no memory of %u pages for client %u (pid %d, uid %u): %s", pages, client->id, client->peer.pid,
	        client->peer.uid, of[why].text);
	return core_fail(core, of[why].code, "no memory of %u pages: %s", pages, of[why].text);
}
