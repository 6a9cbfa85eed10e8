#include "tests/stress/stepping/world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/log.h"
#include "proto/chan.h"
#include "shm/walk.h"

void world_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vfprintf(stderr, format, args);
	va_end(args);
	(void)fputc('\n', stderr);
	exit(1);
}

static void must(bool met, const char *what)
{
	if (!met)
		world_die("%s: %s", what, strerror(errno));
}

/* ---- floor and hooks ---- */

static unsigned char *at(struct world *w, enum heap_object object, uint64_t off)
{
	unsigned char *const start[] = {[HEAP_META] = w->memory.meta,
	        [HEAP_CTL] = w->memory.ctl,
	        [HEAP_DATA] = w->data,
	        [HEAP_STATE] = w->memory.state};

	return start[object] + off;
}

static int back(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	(void)ctx;
	(void)object;
	(void)off;
	(void)len;
	return 0;
}

static int unback(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	struct world *w = ctx;

	if (w->trial)
		return 0;
	if (object == HEAP_STATE)
		memset(at(w, object, off), 0, len);
	else
		must(fallocate(w->fd[object], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0,
		        "punch");
	return 0;
}

static int snapshot(void *ctx, enum heap_object object, uint64_t off, void *copy, uint64_t len)
{
	memcpy(copy, at(ctx, object, off), len);
	return 0;
}

/* Whole: what is backed here is not counted. */
static void measure(void *ctx, enum heap_object object, uint64_t *length, uint64_t *backed)
{
	const struct world *w = ctx;
	const uint64_t bytes[] = {[HEAP_META] = w->memory.meta_bytes,
	        [HEAP_CTL] = w->memory.ctl_bytes,
	        [HEAP_DATA] = (uint64_t)WORLD_PAGES << SHMI_PAGE_SHIFT,
	        [HEAP_STATE] = w->memory.state_bytes};

	*length = *backed = bytes[object];
}

static void on_watch(void *ctx, uint32_t client, int pidfd)
{
	(void)ctx;
	(void)client;
	(void)pidfd;
}

/* Sends what a move says to the victim, and tells the dialogue that it has gone. */
static void act(struct world *w, struct move move)
{
	const int fds[WIRE_FDS] = {w->fd[HEAP_META], w->fd[HEAP_CTL], w->fd[HEAP_DATA]};

	while (!move.drop && move.bytes) {
		if (!w->trial)
			must(shmi_chan_send(w->sock, move.bytes, move.len, move.descriptors ? fds : NULL,
			             move.descriptors ? WIRE_FDS : 0) == 0,
			        "send");
		move = dialogue_event(&w->victim, EVENT_FLUSHED);
	}
	if (!move.drop || w->trial)
		return;
	(void)close(w->sock);
	w->sock = -1;
}

static void decode(struct world *w, const unsigned char *bytes, size_t len)
{
	if (shmi_codec_decode(&w->reply, &w->scratch, bytes, len) != 0)
		world_die("an illegal reply");
	w->later = false;
}

static void on_finished(void *ctx, struct caller *caller, const struct answer *answer, bool last)
{
	struct world *w = ctx;
	struct move move = dialogue_finished(dialogue_of(caller), answer, last);

	if (caller == &w->victim.caller)
		act(w, move);
	else if (move.bytes)
		decode(w, move.bytes, move.len);
}

static void on_replaced(void *ctx, struct caller *caller)
{
	(void)ctx;
	(void)dialogue_event(dialogue_of(caller), EVENT_REPLACED);
}

/* ---- making ---- */

static void *map_object(struct world *w, enum heap_object object, uint64_t bytes)
{
	void *p;

	w->fd[object] = memfd_create("stepping", MFD_CLOEXEC);
	must(w->fd[object] >= 0 && ftruncate(w->fd[object], (off_t)bytes) == 0, "memfd");
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, w->fd[object], 0);
	must(p != MAP_FAILED, "mmap");
	return p;
}

static void listen_at(struct world *w)
{
	(void)snprintf(w->dir, sizeof(w->dir), "/tmp/stepping.XXXXXX");
	must(mkdtemp(w->dir) != NULL, "mkdtemp");
	(void)snprintf(w->note->socket, sizeof(w->note->socket), "%s/socket", w->dir);
	must(shmi_chan_listen(w->note->socket, 0600, 4, &w->listener) == 0, "listen");
	w->sock = -1;
}

static void make_heap(struct world *w)
{
	const struct heap_floor floor = {
	        .ctx = w, .back = back, .unback = unback, .snapshot = snapshot, .measure = measure};
	const struct core_hooks hooks = {.ctx = w, .watch = on_watch, .finished = on_finished, .replaced = on_replaced};
	const struct shmi_image_params params = {
	        .heap_id = 77, .base = 1ull << 45, .heap_name = "default", .limit_pages = WORLD_PAGES};
	struct shmi_geometry geo;

	shmi_geometry_init(&geo, WORLD_PAGES);
	w->memory = (struct heap_memory){
	        .meta_bytes = geo.meta_bytes, .ctl_bytes = geo.ctl_bytes, .state_bytes = sizeof(struct shmi_state)};
	w->memory.meta = map_object(w, HEAP_META, geo.meta_bytes);
	w->memory.ctl = map_object(w, HEAP_CTL, geo.ctl_bytes);
	w->data = map_object(w, HEAP_DATA, (uint64_t)WORLD_PAGES << SHMI_PAGE_SHIFT);
	w->memory.state = mmap(NULL, sizeof(struct shmi_state), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(w->memory.state != MAP_FAILED, "mmap");
	if (heap_create(&w->heap, &floor, &w->memory, &params) ||
	        core_init(&w->core, &w->heap, &hooks, &(struct limits){0}))
		world_die("no heap");
	(void)snprintf(w->config.name, sizeof(w->config.name), "default");
	w->heaps = (struct heaps){.n = 1, .entry = {{.config = &w->config, .core = &w->core}}};
	core_tick(&w->core, 1000);
}

struct world *world_new(void)
{
	struct world *w = mmap(NULL, sizeof(*w), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(w != MAP_FAILED, "mmap");
	log_set_level(LEVEL_ERROR);
	w->note = mmap(NULL, sizeof(*w->note), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(w->note != MAP_FAILED, "mmap");
	listen_at(w);
	make_heap(w);
	return w;
}

void world_free(struct world *w)
{
	char lock[128];

	core_deinit(&w->core);
	(void)munmap(w->memory.meta, w->memory.meta_bytes);
	(void)munmap(w->memory.ctl, w->memory.ctl_bytes);
	(void)munmap(w->memory.state, w->memory.state_bytes);
	(void)munmap(w->data, (uint64_t)WORLD_PAGES << SHMI_PAGE_SHIFT);
	for (enum heap_object o = HEAP_META; o <= HEAP_DATA; o++)
		(void)close(w->fd[o]);
	if (w->sock >= 0)
		(void)close(w->sock);
	(void)close(w->listener);
	(void)unlink(w->note->socket);
	(void)snprintf(lock, sizeof(lock), "%s.lock", w->note->socket);
	(void)unlink(lock);
	(void)rmdir(w->dir);
	(void)munmap(w->note, sizeof(*w->note));
	free(w->copies);
	(void)munmap(w, sizeof(*w));
}

/* ---- the victim's requests ---- */

static void accept_victim(struct world *w)
{
	struct peer peer = {.pid = w->pid, .uid = 1000, .gid = 1000, .pidfd = -1, .inode = (uint64_t)w->pid};

	w->sock = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (w->sock >= 0)
		dialogue_init(&w->victim, &w->heaps, &peer, NULL);
}

static void run_jobs(struct world *w, bool of_victim)
{
	for (uint32_t n = 0; core_has_jobs(&w->core); n++) {
		if (of_victim && w->moved)
			w->moved(w->ctx);
		(void)core_turn(&w->core);
		w->version++;
		if (n > 100000)
			world_die("the jobs do not end");
	}
}

void world_serve(void *world)
{
	static unsigned char packet[WIRE_MAX];
	struct world *w = world;
	size_t len;

	if (w->sock < 0)
		accept_victim(w);
	while (w->sock >= 0 && dialogue_listens(&w->victim)) {
		if (w->moved && world_request_waits(w))
			w->moved(w->ctx);
		int error = shmi_chan_recv(w->sock, packet, sizeof(packet), &len, NULL, NULL);

		if (error == CHAN_E_AGAIN)
			return;
		w->version++;
		act(w, error ? dialogue_event(&w->victim, EVENT_HANGUP) : dialogue_packet(&w->victim, packet, len));
		run_jobs(w, true);
		if (w->served)
			w->served(w->ctx);
	}
}

bool world_request_waits(struct world *w)
{
	unsigned char byte;

	return w->sock >= 0 && recv(w->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

uint32_t world_victim(const struct world *w)
{
	const struct client *client = w->sock >= 0 ? w->victim.caller.client : NULL;

	return client ? client->id : SHMI_NOBODY;
}

/* ---- other clients ---- */

void world_ask(struct world *w, struct other *o)
{
	static unsigned char bytes[WIRE_MAX];
	size_t len;

	w->req.serial = ++o->serial;
	if (shmi_codec_encode(&w->req, &w->scratch, bytes, sizeof(bytes), &len) != 0)
		world_die("an illegal request");
	w->later = true;
	struct move move = dialogue_packet(&o->dialogue, bytes, len);

	if (move.bytes)
		decode(w, move.bytes, move.len);
	run_jobs(w, false);
	if (w->later || w->reply.kind == WIRE_ERROR)
		world_die("another client's request failed: %s", w->later ? "no answer" : w->reply.u.error.text);
}

/* They live as long as we do. */
static struct peer living(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct stat st;

	must(fd >= 0 && fstat(fd, &st) == 0, "pidfd");
	(void)close(fd);
	return (struct peer){.pid = getpid(), .uid = 1000, .gid = 1000, .pidfd = -1, .inode = st.st_ino};
}

struct other *world_other(struct world *w)
{
	const struct peer peer = living();

	if (w->others == WORLD_OTHERS)
		world_die("too many other clients");
	struct other *o = &w->other[w->others++];

	dialogue_init(&o->dialogue, &w->heaps, &peer, NULL);
	w->req = (struct wire_msg){.kind = WIRE_HELLO};
	w->req.u.hello = (struct wire_hello){
	        .protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .version = "0.1.0", .label = "other"};
	world_ask(w, o);
	w->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	world_ask(w, o);
	w->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 1}};
	world_ask(w, o);
	o->thread = w->reply.u.thread_ok.thread;
	return o;
}

shmi_page world_span(struct world *w, struct other *o, uint32_t size, uint32_t attrs)
{
	w->req = (struct wire_msg){.kind = WIRE_REFILL};
	w->req.u.refill.n_wants = 1;
	w->req.u.refill.wants[0] =
	        (struct wire_want){.sclass = shmi_sclass_make(shmi_class_of(size), attrs).c, .spans = 1};
	world_ask(w, o);
	if (w->reply.u.refill_ok.n_grants != 1)
		world_die("no span");
	return (shmi_page){w->reply.u.refill_ok.grants[0].page};
}

uint64_t world_take(struct world *w, shmi_page page, uint32_t slot)
{
	const struct shmi_image *img = &w->heap.img;
	uint64_t size = img->classes[shmi_sclass_size_class(shmi_span_word(img, page).sclass)].size;
	uint64_t off = shmi_page_off(page).b + slot * size;

	if (!shmi_slots_take(shmi_bitmap_at(img, page), slot / 64, 1ull << slot % 64))
		world_die("slot %u of page %u is not free", slot, page.i);
	world_mark(w->data + off, off, size);
	return off;
}

void world_cache(struct world *w, struct other *o, shmi_page page, uint32_t word, uint64_t bits)
{
	const struct shmi_image *img = &w->heap.img;
	struct shmi_word state = shmi_span_word(img, page);
	const struct shmi_group group = {
	        .bits = bits, .span = page.i, .generation = state.generation, .word = word, .sclass = state.sclass.c};
	struct shmi_threadrec *rec = shmi_threadrec_at(img, o->thread);

	(void)shmi_threadrec_take(img, rec, shmi_magazine_at(img, rec, state.sclass), &group);
}

uint64_t world_large(struct world *w, struct other *o, uint32_t pages, uint32_t attrs)
{
	w->req = (struct wire_msg){.kind = WIRE_LARGE};
	w->req.u.large = (struct wire_large){
	        .bytes = (uint64_t)pages << SHMI_PAGE_SHIFT, .pages = pages, .align_pages = 1, .attrs = attrs};
	world_ask(w, o);
	uint64_t off = (uint64_t)w->reply.u.large_ok.page << SHMI_PAGE_SHIFT;

	world_mark(w->data + off, off, world_size_at(w, off));
	return off;
}

void world_kill_other(struct world *w, struct other *o)
{
	(void)core_client_died(&w->core, o->dialogue.caller.client->id);
	(void)dialogue_event(&o->dialogue, EVENT_DEATH);
	(void)dialogue_event(&o->dialogue, EVENT_HANGUP);
	run_jobs(w, false);
}

/* ---- patterns ---- */

static uint64_t pattern(uint64_t off, uint64_t where)
{
	return (off + where) * 0x9e3779b97f4a7c15ull | 1;
}

void world_mark(unsigned char *block, uint64_t off, uint64_t size)
{
	uint64_t first = pattern(off, 0), last = pattern(off, size);

	memcpy(block, &first, sizeof(first));
	memcpy(block + size - sizeof(last), &last, sizeof(last));
}

bool world_is_marked(const unsigned char *block, uint64_t off, uint64_t size)
{
	uint64_t first = pattern(off, 0), last = pattern(off, size);

	return memcmp(block, &first, sizeof(first)) == 0 &&
	       memcmp(block + size - sizeof(last), &last, sizeof(last)) == 0;
}

uint64_t world_size_at(const struct world *w, uint64_t off)
{
	const struct shmi_image *img = &w->heap.img;
	shmi_page page = shmi_off_page((shmi_off){off});
	shmi_sclass sclass = {shmi_load(shmi_page_class_at(img, page))};

	if (shmi_sclass_is_small(sclass))
		return img->classes[shmi_sclass_size_class(sclass)].size;
	return shmi_npages_bytes((shmi_npages){shmi_span_at(img, page)->pages});
}
