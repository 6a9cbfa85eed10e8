/* libshmalloc reads what a daemon says, whatever that is. The daemon here is the real core, without a socket, whose answers are altered,
 * lost, delayed, repeated or replaced on their way, and the program that uses the library does what the input says.
 *
 * What must hold: calls end, with a block or with an error; no two blocks share a byte, whatever is said of spans; memory beyond the
 * heap is never touched; meta stays whole. The library may end the process (shmi_misuse) only when the daemon has said that what was
 * freed is no block: that is all it can know of a double free by another process.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/heap.h"
#include "daemon/dialogue.h"
#include "daemon/log.h"
#include "proto/chan.h"
#include "shm/check.h"
#include "tests/fuzz/input.h"

#define PAGES 1024u
#define BLOCKS 64u
#define QUEUE 8u
#define STEPS 300u

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

struct packet {
	size_t len;
	bool descriptors;
	unsigned char bytes[WIRE_MAX];
};

static struct {
	struct input in;
	struct heap heap;
	struct core core;
	struct heaps heaps;
	struct heap_memory memory;
	int fd[HEAP_OBJECTS];
	struct dialogue d;
	bool open; /* the connection */
	int64_t now;
	uint32_t n;
	struct packet queue[QUEUE]; /* answers on their way */
	struct wire_msg msg;
	struct codec_scratch scratch;
	/* the program */
	struct shma_heap *client;
	unsigned char *block[BLOCKS];
	size_t size[BLOCKS];
	bool bad_free; /* the daemon has said that something was no block */
	bool in_table; /* attaching or detaching: the process could not be gone on with */
	sigjmp_buf out;
} s;

static void insist(bool holds, const char *what)
{
	input_insist(holds ? NULL : what);
}

/* ---- the daemon ---- */

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
	(void)ctx;
	return fallocate(s.fd[object], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) ? -errno : 0;
}

static int snapshot(void *ctx, enum heap_object object, uint64_t off, void *copy, uint64_t len)
{
	const unsigned char *from = object == HEAP_CTL ? s.memory.ctl : s.memory.state;

	(void)ctx;
	memcpy(copy, from + off, len);
	return 0;
}

static void measure(void *ctx, enum heap_object object, uint64_t *length, uint64_t *backed)
{
	(void)ctx;
	*length = object == HEAP_CTL ? s.memory.ctl_bytes : (uint64_t)PAGES << SHMI_PAGE_SHIFT;
	*backed = UINT64_MAX;
}

static void on_watch(void *ctx, uint32_t client, int pidfd)
{
	(void)ctx;
	(void)client;
	(void)pidfd;
}

static void hang_up(void)
{
	s.n = 0;
	if (!s.open)
		return;
	s.open = false;
	(void)dialogue_event(&s.d, EVENT_HANGUP);
	dialogue_deinit(&s.d);
}

static void *object(enum heap_object i, uint64_t bytes)
{
	s.fd[i] = memfd_create("fuzz", MFD_CLOEXEC);
	insist(s.fd[i] >= 0 && ftruncate(s.fd[i], (off_t)bytes) == 0, "no memfd");
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, s.fd[i], 0);

	insist(p != MAP_FAILED, "no memory");
	return p;
}

/* ---- answers, and what becomes of them ---- */

static uint32_t odd_number(uint32_t was)
{
	static const uint32_t numbers[] = {0, 1, PAGES - 1, PAGES, PAGES + 1, SHMI_NO_THREAD, SHMI_MAX_THREADS, 4095};
	uint32_t how = input_byte(&s.in);

	return how < 64 ? numbers[how % 8] : how < 128 ? was + 1 : how < 160 ? was - 1 : input_word(&s.in);
}

static void alter_grants(struct wire_refill_ok *ok)
{
	uint32_t i = input_byte(&s.in), what = input_byte(&s.in);

	if (what % 8 == 0 || !ok->n_grants) { /* one more, of whatever */
		i = ok->n_grants < WIRE_SPANS ? ok->n_grants++ : 0;
		ok->grants[i] = i ? ok->grants[i - 1] : (struct wire_grant){1, 1, 64, true};
		return;
	}
	struct wire_grant *g = &ok->grants[i % ok->n_grants];

	if (what & 1)
		g->page = odd_number(g->page);
	if (what & 2)
		g->generation = odd_number(g->generation);
	if (what & 4)
		g->sclass = odd_number(g->sclass);
	g->fresh = what & 8;
}

static void alter_attach(struct wire_attach_ok *ok)
{
	uint64_t *const numbers[] = {&ok->base, &ok->meta_bytes, &ok->ctl_bytes, &ok->data_bytes, &ok->nonce};
	uint32_t what = input_byte(&s.in);

	if (what < 64)
		ok->client = odd_number(ok->client);
	else if (what < 128)
		ok->thread = odd_number(ok->thread);
	else
		*numbers[what % 5] = what & 16 ? input_long(&s.in) : *numbers[what % 5] - 1 + 2 * (what & 1);
}

static void alter(void)
{
	switch (s.msg.kind) {
	case WIRE_REFILL_OK:
		alter_grants(&s.msg.u.refill_ok);
		break;
	case WIRE_LARGE_OK:
		if (input_byte(&s.in) & 1)
			s.msg.u.large_ok.page = odd_number(s.msg.u.large_ok.page);
		else
			s.msg.u.large_ok.generation = odd_number(s.msg.u.large_ok.generation);
		break;
	case WIRE_THREAD_OK:
		s.msg.u.thread_ok.thread = odd_number(s.msg.u.thread_ok.thread);
		break;
	case WIRE_ATTACH_OK:
		alter_attach(&s.msg.u.attach_ok);
		break;
	default: /* another kind altogether, of which nothing is known */
		s.msg.kind = (enum wire_kind)(input_byte(&s.in) % WIRE_KINDS);
		memset(&s.msg.u, 0, sizeof(s.msg.u));
		if (s.msg.kind == WIRE_THREAD_OK)
			s.msg.u.thread_ok.thread = odd_number(0);
	}
}

/* Puts s.msg in the queue. */
static void enqueue(bool descriptors)
{
	struct packet *p = &s.queue[s.n];

	if (s.n == QUEUE)
		return;
	p->descriptors = descriptors;
	if (shmi_codec_encode(&s.msg, &s.scratch, p->bytes, sizeof(p->bytes), &p->len))
		return; /* not a message: nothing comes */
	s.n++;
}

static void enqueue_raw(void)
{
	const unsigned char *bytes = input_bytes(&s.in, 1 + input_byte(&s.in), &s.queue[s.n % QUEUE].len);

	if (s.n == QUEUE || !s.queue[s.n].len)
		return;
	memcpy(s.queue[s.n].bytes, bytes, s.queue[s.n].len);
	s.queue[s.n++].descriptors = input_byte(&s.in) & 1;
}

static void answer(const unsigned char *bytes, size_t len, bool descriptors)
{
	uint32_t how = input_byte(&s.in);

	insist(!shmi_codec_decode(&s.msg, &s.scratch, bytes, len), "an illegal answer");
	if (how >= 160 && how < 200)
		alter();
	if (how >= 200 && how < 210) {
		enqueue_raw();
		return;
	}
	if (how >= 230 && how < 240) {
		s.msg.kind = WIRE_ERROR;
		s.msg.u.error = (struct wire_error){.code = 1 + input_byte(&s.in) % WIRE_E_EXISTS};
	}
	if (how >= 240 && how < 245)
		s.msg.serial = input_byte(&s.in);
	bool bad_free = s.msg.kind == WIRE_ERROR && s.msg.u.error.code == WIRE_E_BAD_FREE;

	s.bad_free |= bad_free && !s.in_table;
	if ((how >= 210 && how < 220) || (bad_free && s.in_table))
		hang_up();
	else if (how < 220 || how >= 230) /* else it is lost */
		enqueue(descriptors ^ (how == 254));
	if (how >= 245 && how < 250)
		enqueue(descriptors);
}

static void on_move(struct move move)
{
	static unsigned char copy[WIRE_MAX];

	while (!move.drop && move.bytes) {
		bool descriptors = move.descriptors;
		size_t len = move.len;

		memcpy(copy, move.bytes, len);
		core_drop_lease(&s.d.caller);
		move = dialogue_event(&s.d, EVENT_FLUSHED);
		answer(copy, len, descriptors);
		if (!s.open)
			return;
	}
	if (move.drop) {
		s.open = false;
		dialogue_deinit(&s.d);
	}
}

static void on_finished(void *ctx, struct caller *caller, const struct answer *a, bool last)
{
	(void)ctx;
	insist(caller == &s.d.caller, "an answer for somebody else");
	on_move(dialogue_finished(&s.d, a, last));
}

static void on_replaced(void *ctx, struct caller *caller)
{
	(void)ctx;
	(void)caller;
}

/* ---- the channel ---- */

int shmi_chan_connect(const char *path, int *sock)
{
	uint32_t how = input_byte(&s.in);
	const struct peer peer = {.pid = 1 << 28, .uid = 1000, .gid = 1000, .pidfd = -1, .inode = 7};

	(void)path;
	hang_up();
	*sock = -1;
	if (how > 250)
		return how & 1 ? -ECONNREFUSED : -EACCES;
	*sock = open("/dev/null", O_RDWR | O_CLOEXEC);
	dialogue_init(&s.d, &s.heaps, &peer, NULL);
	s.open = true;
	return *sock < 0 ? -errno : 0;
}

int shmi_chan_send(int sock, const void *bytes, size_t len, const int *fds, unsigned n_fds)
{
	(void)sock;
	(void)fds;
	(void)n_fds;
	if (!s.open)
		return CHAN_E_CLOSED;
	insist(!shmi_codec_decode(&s.msg, &s.scratch, bytes, len), "the library sends what is no message");
	if (dialogue_listens(&s.d))
		on_move(dialogue_packet(&s.d, bytes, len));
	while (s.open && s.n < QUEUE && core_turn(&s.core))
		;
	return 0;
}

int64_t shmi_chan_now_ns(void)
{
	return s.now += 1000000000;
}

int shmi_chan_wait(int sock, int write, int64_t deadline_ns)
{
	(void)sock;
	(void)deadline_ns;
	return write || s.n || !s.open ? 0 : -ETIMEDOUT;
}

int shmi_chan_recv(int sock, void *bytes, size_t room, size_t *len, int *fds, unsigned *n_fds)
{
	static const enum heap_object objects[WIRE_FDS] = {HEAP_META, HEAP_CTL, HEAP_DATA};
	struct packet *p = &s.queue[0];
	bool descriptors = p->descriptors;

	(void)sock;
	if (!s.n)
		return s.open ? CHAN_E_AGAIN : CHAN_E_CLOSED;
	insist(p->len <= room, "the library has no room for a message");
	memcpy(bytes, p->bytes, *len = p->len);
	memmove(p, p + 1, --s.n * sizeof(*p));
	if (n_fds)
		*n_fds = 0;
	if (!descriptors)
		return 0;
	if (!fds)
		return CHAN_E_TOO_LONG;
	for (unsigned i = 0; i < WIRE_FDS; i++)
		fds[i] = dup(s.fd[objects[i]]);
	*n_fds = WIRE_FDS;
	return 0;
}

_Noreturn void shmi_misuse(const struct shmi_tc_env *env, enum shmi_tc_free what, uint64_t off)
{
	if (!s.bad_free || s.in_table) {
		fprintf(stderr, "misuse %d at offset %llu\n", (int)what, (unsigned long long)off);
		input_insist("a misuse is seen that is none");
	}
	(void)env;
	siglongjmp(s.out, 1);
}

/* ---- the program ---- */

static void mark(uint32_t i)
{
	s.block[i][0] = s.block[i][s.size[i] - 1] = (unsigned char)(i + 1);
	s.block[i][s.size[i] / 2] = (unsigned char)(i + 1);
}

static void look(uint32_t i)
{
	insist(s.block[i][0] == i + 1 && s.block[i][s.size[i] - 1] == i + 1 && s.block[i][s.size[i] / 2] == i + 1,
	        "two blocks share a byte");
}

static void allocate(uint32_t i, uint32_t what)
{
	static const size_t sizes[] = {16, 48, 64, 200, 1000, 4000, 9000, 40000, 200000, 300000, 600000, 1100000};
	size_t size = sizes[what / 4 % 12] - input_byte(&s.in) % 16;
	unsigned flags = input_byte(&s.in) % 16;

	if (s.block[i])
		return;
	s.block[i] = shma_heap_alloc(s.client, size, what & 1 ? 4096 : 0, flags);
	if (!s.block[i])
		return;
	s.size[i] = size;
	insist(shma_usable_size(s.block[i]) >= size, "a block is too short");
	mark(i);
}

static void release(uint32_t i)
{
	unsigned char *block = s.block[i];

	if (!block)
		return;
	look(i);
	s.block[i] = NULL;
	shma_free(block);
}

static void resize(uint32_t i)
{
	size_t size = 1 + input_word(&s.in) * 4;
	unsigned char *moved = s.block[i] ? shma_heap_realloc(s.client, s.block[i], size, 0) : NULL;

	if (!moved)
		return;
	insist(moved[0] == i + 1, "what was in the block is not in it any more");
	s.block[i] = moved;
	s.size[i] = size;
	mark(i);
}

static void root(uint32_t i, uint32_t what)
{
	char name[8];

	snprintf(name, sizeof(name), "r%u", i % 4);
	if (what & 1 && s.block[i])
		(void)(what & 4 ? shma_root_add : shma_root_set)(s.client, name, s.block[i]);
	else if (what & 2)
		(void)shma_root_del(s.client, name);
	else
		(void)shma_root_get(s.client, name);
}

static void attach(void)
{
	const struct shma_options options = {
	        .size = sizeof(options), .socket = "/fuzz", .heap = "default", .label = "fuzz", .timeout_ms = 1};

	s.in_table = true;
	s.client = shma_attach(&options);
	s.in_table = false;
}

static void detach(void)
{
	if (!s.client)
		return;
	for (uint32_t i = 0; i < BLOCKS; i++)
		s.block[i] = NULL;
	s.in_table = true;
	(void)shma_detach(s.client);
	s.in_table = false;
	s.client = NULL;
}

static void step(void)
{
	uint32_t what = input_byte(&s.in), i = input_byte(&s.in) % BLOCKS;
	struct shma_stats stats = {.size = sizeof(stats)};

	if (!s.client)
		attach();
	if (!s.client)
		return;
	if (what < 128)
		allocate(i, what);
	else if (what < 190)
		release(i);
	else if (what < 205)
		resize(i);
	else if (what < 215)
		root(i, what);
	else if (what < 225)
		(void)shma_trim(s.client);
	else if (what < 235)
		(void)shma_stats_get(s.client, &stats);
	else if (what < 250)
		hang_up();
	else
		detach();
}

/* The process has ended in the middle of a call: its private memory goes, as a fork wipes it. */
static void abandon(void)
{
	struct shma_heap *heap = s.client;

	if (!heap)
		return;
	if (shmi_tls[heap->index] != &shmi_tcache_none)
		(void)munmap(shmi_tls[heap->index], sizeof(struct shmi_tcache));
	shmi_tls[heap->index] = &shmi_tcache_none;
	shmi_store_release(&shmi_heaps[heap->index], (struct shma_heap *)NULL);
	memset(heap->proc, 0, sizeof(*heap->proc));
	shmi_heap_drop(heap);
	s.client = NULL;
}

/* ---- one input ---- */

static void start_daemon(void)
{
	static const struct heap_floor floor = {
	        .back = back, .unback = unback, .snapshot = snapshot, .measure = measure};
	static const struct core_hooks hooks = {.watch = on_watch, .finished = on_finished, .replaced = on_replaced};
	const struct shmi_image_params params = {.heap_id = 77,
	        .base = heap_base_address("fuzz", "default", PAGES),
	        .heap_name = "default",
	        .limit_pages = PAGES};
	static struct config_heap config;
	struct shmi_geometry geo;

	shmi_geometry_init(&geo, PAGES);
	s.memory = (struct heap_memory){.meta = object(HEAP_META, geo.meta_bytes),
	        .ctl = object(HEAP_CTL, geo.ctl_bytes),
	        .state = object(HEAP_STATE, sizeof(struct shmi_state)),
	        .meta_bytes = geo.meta_bytes,
	        .ctl_bytes = geo.ctl_bytes,
	        .state_bytes = sizeof(struct shmi_state),
	        .instance = "fuzz",
	        .name = "default"};
	s.fd[HEAP_DATA] = memfd_create("fuzz", MFD_CLOEXEC);
	insist(s.fd[HEAP_DATA] >= 0 && ftruncate(s.fd[HEAP_DATA], (off_t)PAGES << SHMI_PAGE_SHIFT) == 0, "no memfd");
	insist(!heap_create(&s.heap, &floor, &s.memory, &params) &&
	                !core_init(&s.core, &s.heap, &hooks, &(struct limits){0}),
	        "no daemon");
	snprintf(config.name, sizeof(config.name), "default");
	s.heaps = (struct heaps){.n = 1, .entry = {{.config = &config, .core = &s.core}}};
	core_tick(&s.core, 1000);
}

/* Its clients die; meta must be whole then. */
static void end_daemon(void)
{
	struct shmi_image img = s.heap.img;
	struct shmi_violation found;

	hang_up();
	for (uint32_t id = 0; id < SHMI_MAX_CLIENTS; id++)
		if (s.core.client[id].state != CLIENT_FREE)
			(void)core_client_died(&s.core, id);
	while (core_turn(&s.core))
		;
	img.ctl = NULL;
	if (shmi_check(&img, NULL, 1, &found, 1)) {
		fprintf(stderr, "I%u, page %u: ", found.invariant, found.page);
		input_insist(found.text);
	}
	core_deinit(&s.core);
	(void)munmap(s.memory.meta, s.memory.meta_bytes);
	(void)munmap(s.memory.ctl, s.memory.ctl_bytes);
	(void)munmap(s.memory.state, s.memory.state_bytes);
	for (uint32_t i = 0; i < HEAP_OBJECTS; i++)
		(void)close(s.fd[i]);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	static bool quiet;

	if (!quiet)
		log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	quiet = true;
	log_set_level(LEVEL_ERROR);
	s.in = (struct input){bytes, len};
	s.n = 0;
	s.now = 0;
	s.open = s.bad_free = s.in_table = false;
	s.client = NULL;
	memset(s.block, 0, sizeof(s.block));
	start_daemon();
	if (!sigsetjmp(s.out, 0)) {
		for (uint32_t steps = 0; s.in.left && steps < STEPS; steps++)
			step();
		for (uint32_t i = 0; i < BLOCKS; i++)
			if (s.block[i])
				look(i);
		detach();
	} else {
		abandon();
	}
	end_daemon();
	return 0;
}
