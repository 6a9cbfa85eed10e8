/* Deaths that did not happen: see world.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/clients.h"
#include "tests/stress/stepping/world.h"

static void add(struct world *w, void *live, size_t len)
{
	if (w->regions == WORLD_REGIONS)
		world_die("too many regions");
	w->region[w->regions++] = (struct region){.live = live, .len = len};
}

/* Records that are in use, head and backed parts: in a trial another client may die as well. */
static void add_records(struct world *w)
{
	const struct shmi_image *img = &w->heap.img;

	for (uint32_t t = 0; t < SHMI_MAX_THREADS && w->regions < WORLD_REGIONS - 8; t++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, t);
		unsigned char *record = (unsigned char *)shmi_threadrec_at(img, t) + SHMI_THREAD_HEAD_BYTES;

		if (slot->client == SHMI_NOBODY)
			continue;
		add(w, shmi_threadrec_at(img, t), SHMI_THREAD_HEAD_BYTES);
		for (uint32_t a = 0; a < SHMI_ATTRS; a++)
			if (slot->parts >> a & 1)
				add(w, record + a * img->geo.part_bytes, img->geo.part_bytes);
	}
}

static void find_regions(struct world *w)
{
	const struct shmi_geometry *geo = &w->heap.img.geo;
	size_t clients = offsetof(struct core, client), after = clients + sizeof(w->core.client);

	w->regions = 0;
	add(w, w->memory.meta, geo->meta_bytes);
	add(w, (unsigned char *)w->memory.ctl + geo->holders, geo->records - geo->holders);
	add_records(w);
	add(w, w->memory.state,
	        offsetof(struct shmi_state, clients) + WORLD_CLIENTS * sizeof(struct shmi_client_state));
	add(w, &w->heap, sizeof(w->heap));
	add(w, &w->core, clients + WORLD_CLIENTS * sizeof(struct client));
	add(w, (unsigned char *)&w->core + after, offsetof(struct core, scratch) - after);
	add(w, &w->victim, sizeof(w->victim));
	add(w, w->other, sizeof(w->other));
}

void world_save(struct world *w)
{
	size_t total = 0;

	find_regions(w);
	w->saved_version = w->version;
	for (uint32_t i = 0; i < w->regions; i++)
		total += w->region[i].len;
	if (total > w->room) {
		free(w->copies);
		w->copies = malloc(total);
		w->room = total;
	}
	if (!w->copies)
		world_die("no memory");
	total = 0;
	for (uint32_t i = 0; i < w->regions; i++) {
		w->region[i].copy = w->copies + total;
		memcpy(w->region[i].copy, w->region[i].live, w->region[i].len);
		total += w->region[i].len;
	}
}

/* Page by page where nothing has changed: reading is cheaper than writing. */
void world_restore(struct world *w)
{
	if (w->succeeded)
		core_deinit(&w->core);
	w->succeeded = false;
	for (uint32_t i = 0; i < w->regions; i++) {
		const struct region *r = &w->region[i];

		for (size_t at = 0, n; at < r->len; at += n) {
			n = r->len - at < 4096 ? r->len - at : 4096;
			if (memcmp(r->live + at, r->copy + at, n) != 0)
				memcpy(r->live + at, r->copy + at, n);
		}
	}
	w->trial = false;
	w->version = w->saved_version;
}

/* A packet that was sent before the death is read after it. */
static void read_waiting(struct world *w)
{
	static unsigned char packet[WIRE_MAX];
	ssize_t len = recv(w->sock, packet, sizeof(packet), MSG_PEEK | MSG_DONTWAIT);

	if (len > 0 && dialogue_listens(&w->victim))
		(void)dialogue_packet(&w->victim, packet, (size_t)len);
}

uint32_t world_reap(struct world *w)
{
	uint32_t id = world_victim(w), turns = 0;

	w->trial = true;
	if (w->sock < 0)
		return 0;
	if (id != SHMI_NOBODY) {
		struct caller *caller = core_client_died(&w->core, id);

		if (caller)
			(void)dialogue_event(dialogue_of(caller), EVENT_DEATH);
	}
	read_waiting(w);
	while (turns <= WORLD_TURNS && core_turn(&w->core))
		turns++;
	if (w->victim.state != SESSION_CLOSED)
		(void)dialogue_event(&w->victim, EVENT_HANGUP);
	while (turns <= WORLD_TURNS && core_turn(&w->core))
		turns++;
	return turns;
}

uint32_t world_succeed(struct world *w)
{
	const struct core_hooks hooks = w->core.hooks;
	const struct heap_floor floor = w->heap.floor;
	uint32_t turns = 0;
	const char *why;

	w->trial = w->succeeded = true;
	if (heap_adopt(&w->heap, &floor, &w->memory, (uint64_t)WORLD_PAGES << SHMI_PAGE_SHIFT, &why) != 0)
		world_die("the heap is not adopted: %s", why);
	if (core_init(&w->core, &w->heap, &hooks, &(struct limits){0}) != 0)
		world_die("no memory");
	core_tick(&w->core, 2000);
	(void)clients_adopt(&w->core);
	while (turns <= WORLD_TURNS && core_turn(&w->core))
		turns++;
	return turns;
}
