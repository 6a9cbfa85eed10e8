#include "daemon/journal.h"

#include <string.h>

#include "daemon/clients.h"
#include "daemon/log.h"
#include "daemon/policy.h"
#include "daemon/records.h"
#include "daemon/seizer.h"
#include "shm/central.h"
#include "shm/roots.h"

_Static_assert(SHMI_TAKEN_MAX >= POLICY_REPLY_SPANS, "all spans of a reply are noted");

static struct shmi_begun *begun_of(const struct core *core, const struct client *client)
{
	return &clients_entry(core, client)->begun;
}

void journal_begin(struct core *core, struct client *client, uint64_t serial)
{
	struct shmi_begun *begun = begun_of(core, client);

	shmi_store(&begun->taken, 0);
	shmi_store(&begun->thread, SHMI_NO_THREAD);
	shmi_store(&begun->leaving, 0);
	shmi_store(&begun->root, 0);
	begun->root_name[0] = 0;
	shmi_store_release(&clients_entry(core, client)->begun_serial, serial);
}

void journal_span(struct core *core, const struct client *client, shmi_page page)
{
	struct shmi_begun *begun = begun_of(core, client);
	uint32_t n = shmi_load(&begun->taken);

	if (n == SHMI_TAKEN_MAX) /* no request brings so many */
		return;
	begun->page[n] = page.i;
	shmi_store_release(&begun->taken, n + 1);
	shmi_then();
}

void journal_thread(struct core *core, const struct client *client, uint32_t thread)
{
	shmi_store_release(&begun_of(core, client)->thread, thread);
	shmi_then();
}

void journal_root(struct core *core, const struct client *client, const char *name, uint64_t off)
{
	struct shmi_begun *begun = begun_of(core, client);

	begun->root_off = off;
	strncpy(begun->root_name, name, sizeof(begun->root_name) - 1);
	shmi_store_release(&begun->root, 1);
	shmi_then();
}

void journal_leaving(struct core *core, const struct client *client)
{
	shmi_store_release(&begun_of(core, client)->leaving, 1);
	shmi_then();
}

/* ---- after a restart ---- */

static void undo_span(struct core *core, const struct client *client, shmi_page page)
{
	struct shmi_image *img = &core->heap->img;

	if (!shmi_image_page_ok(img, page))
		return;
	struct shmi_word word = shmi_span_word(img, page);

	if (word.owner != client->id)
		return; /* it did not come to that */
	if (word.state == SHMI_SPAN_OWNED)
		shmi_central_accept(img, page, core->heap->now); /* a fresh one is empty: its pages are free */
	else if (word.state == SHMI_SPAN_LARGE)
		core_close_large(core, page);
	else if (word.state == SHMI_SPAN_SEIZED)
		seizer_close(core, page);
}

static void undo_thread(struct core *core, struct client *client, uint32_t thread)
{
	if (thread < SHMI_MAX_THREADS && thread != clients_entry(core, client)->thread &&
	        shmi_thread_slot_at(&core->heap->img, thread)->client == client->id)
		records_drop(core, client, thread);
}

/* Whether the root is as the request wanted it. If it was so before as well, it makes no difference. */
static bool root_is_done(const struct core *core, const struct shmi_begun *begun)
{
	char name[sizeof(begun->root_name)];
	shmi_off off = {0};

	memcpy(name, begun->root_name, sizeof(name));
	name[sizeof(name) - 1] = 0;
	if (shmi_roots_get(&core->heap->img, name, &off))
		off.b = 0;
	return off.b == begun->root_off;
}

static void answer_root(struct core *core, struct client *client, uint64_t serial)
{
	core->reply.kind = WIRE_OK;
	core_finish(core, client, NULL, serial, false);
}

bool journal_settle(struct core *core, struct client *client)
{
	const struct shmi_client_state *entry = clients_entry(core, client);
	const struct shmi_begun *begun = &entry->begun;
	uint64_t serial = shmi_load(&entry->begun_serial);

	if (serial <= shmi_load(&entry->last_serial))
		return false;
	client->redo = serial;
	for (uint32_t i = 0; i < shmi_load(&begun->taken) && i < SHMI_TAKEN_MAX; i++)
		undo_span(core, client, (shmi_page){begun->page[i]});
	undo_thread(core, client, shmi_load(&begun->thread));
	if (shmi_load(&begun->root) && root_is_done(core, begun))
		answer_root(core, client, serial);
	client->reclaim.serial = serial;
	log_event(LEVEL_INFO, LOG_CLIENT, core_about(core, client),
	        "client %u (pid %d) had a request under way; what it had brought is taken back", client->id,
	        client->peer.pid);
	return shmi_load(&begun->leaving);
}
