#include "daemon/records.h"

#include "daemon/clients.h"
#include "daemon/journal.h"
#include "daemon/policy.h"
#include "shm/threadrec.h"

static uint32_t find_record(const struct core *core)
{
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++)
		if (shmi_thread_slot_at(&core->heap->img, t)->client == SHMI_NOBODY)
			return t;
	return SHMI_NO_THREAD;
}

int records_add(struct core *core, struct client *client, uint32_t parts, uint32_t *thread)
{
	struct heap *heap = core->heap;
	uint32_t t = client->threads < POLICY_THREADS_PER_CLIENT ? find_record(core) : SHMI_NO_THREAD;
	uint32_t pages = heap_record_pages(heap, parts);

	if (t == SHMI_NO_THREAD)
		return RECORDS_E_FULL;
	if (account_room(&client->account) < pages)
		return RECORDS_E_LIMIT;
	if (heap_back_record(heap, t, true, parts)) {
		heap_drop_record(heap, t);
		return SHMI_E_NOMEM;
	}
	shmi_threadrec_at(&heap->img, t)->client = client->id; /* all else is zero, which is empty */
	journal_thread(core, client, t);
	struct shmi_thread_slot *slot = shmi_thread_slot_at(&heap->img, t);

	slot->parts = (uint8_t)parts;
	slot->head = 1;
	shmi_then(); /* complete before it is the client's */
	slot->client = (uint16_t)client->id;
	client->threads++;
	client->record_pages += pages;
	clients_settle(core, client->id);
	*thread = t;
	return 0;
}

int records_grow(struct core *core, struct client *client, uint32_t thread, uint32_t parts)
{
	struct shmi_thread_slot *slot = shmi_thread_slot_at(&core->heap->img, thread);
	uint32_t more = parts & ~(uint32_t)slot->parts;
	uint32_t before = heap_record_pages(core->heap, slot->parts);
	uint32_t after = heap_record_pages(core->heap, slot->parts | more);

	if (account_room(&client->account) < after - before)
		return RECORDS_E_LIMIT;
	if (heap_back_record(core->heap, thread, false, more))
		return SHMI_E_NOMEM;
	slot->parts = (uint8_t)(slot->parts | more);
	client->record_pages += after - before;
	clients_settle(core, client->id);
	return 0;
}

void records_drop(struct core *core, struct client *client, uint32_t thread)
{
	struct shmi_thread_slot *slot = shmi_thread_slot_at(&core->heap->img, thread);

	client->record_pages -= heap_record_pages(core->heap, slot->parts);
	client->threads--;
	heap_drop_record(core->heap, thread);
	slot->parts = slot->head = 0;
	shmi_then();
	slot->client = SHMI_NOBODY;
	clients_settle(core, client->id);
}

void records_count(struct core *core)
{
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(&core->heap->img, t);

		if (slot->client >= SHMI_MAX_CLIENTS)
			continue;
		core->client[slot->client].threads++;
		core->client[slot->client].record_pages += heap_record_pages(core->heap, slot->parts);
	}
}
