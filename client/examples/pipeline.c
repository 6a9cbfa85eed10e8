/* A pipeline of three processes on one heap.
 *
 *	pipeline make TRACE.zst SECONDS     allocates records as a recorded program did, and passes on those it would free
 *	pipeline work                       checks each record and changes every byte of it
 *	pipeline drop                       checks it again and frees it
 *
 * Records go from process to process through two rings. A ring is a block of the heap, like the records; it is found by its
 * name. What is passed on is an offset, so it does not matter where each process has the heap. The stages may be started in any
 * order. Each ends with a line that says what it did, and with status 1 if a byte was not what it should be.
 */
#include <errno.h>
#include <semaphore.h>
#include <shmalloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#define RING_ITEMS 256u
#define PATIENCE_S 60 /* a neighbour that says nothing for so long is gone */

struct item {
	shma_off block; /* 0: that was all */
	uint64_t size;
	unsigned char fill;
};

/* One process pushes and one pops; the semaphores count items and free places. */
struct ring {
	sem_t items, places;
	uint32_t pushed, popped;
	struct item item[RING_ITEMS];
};

static shma_heap *heap;
static uint64_t records, bytes, wrong;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- rings ---- */

static void ring_make(const char *name)
{
	struct ring *ring = shma_calloc(1, sizeof(*ring));

	if (!ring || sem_init(&ring->items, 1, 0) != 0 || sem_init(&ring->places, 1, RING_ITEMS) != 0 ||
	        shma_root_set(heap, name, ring) != 0)
		fail(name);
}

/* Waits until somebody has made it. */
static struct ring *ring_find(const char *name)
{
	struct timespec tick = {.tv_nsec = 10000000};
	struct ring *ring;

	for (int tries = 0; (ring = shma_root_get(heap, name)) == NULL; tries++) {
		if (errno != ENOENT || tries == PATIENCE_S * 100)
			fail(name);
		nanosleep(&tick, NULL);
	}
	return ring;
}

static void ring_wait(sem_t *semaphore)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	while (sem_timedwait(semaphore, &until) != 0)
		if (errno != EINTR)
			fail("the neighbour");
}

static void ring_push(struct ring *ring, struct item item)
{
	ring_wait(&ring->places);
	ring->item[ring->pushed++ % RING_ITEMS] = item;
	sem_post(&ring->items);
}

static struct item ring_pop(struct ring *ring)
{
	ring_wait(&ring->items);
	struct item item = ring->item[ring->popped++ % RING_ITEMS];

	sem_post(&ring->places);
	return item;
}

/* ---- the trace: tests/data/README.md ---- */

struct event {
	uint8_t op, lg_align;
	uint16_t thread;
	uint32_t id;
	uint64_t size;
};

enum { OP_REALLOC = 3, OP_FREE = 4, HEADER = 128 };

static struct event *trace_read(const char *path, uint64_t *events, uint32_t *ids)
{
	FILE *f = fopen(path, "rb");
	long packed_size = -1;

	if (!f || fseek(f, 0, SEEK_END) != 0 || (packed_size = ftell(f)) < 0)
		fail(path);
	rewind(f);
	char *packed = malloc((size_t)packed_size + 1);

	if (!packed || fread(packed, 1, (size_t)packed_size, f) != (size_t)packed_size)
		fail(path);
	fclose(f);
	unsigned long long size = ZSTD_getFrameContentSize(packed, (size_t)packed_size);
	char *text = size >= HEADER && size < 1ull << 32 ? malloc(size) : NULL;

	if (!text || ZSTD_decompress(text, size, packed, (size_t)packed_size) != size ||
	        memcmp(text, "SHMTRACE", 8) != 0) {
		fprintf(stderr, "%s is not a trace\n", path);
		exit(1);
	}
	free(packed);
	*events = (size - HEADER) / sizeof(struct event);
	memcpy(ids, text + 24, sizeof(*ids));
	memmove(text, text + HEADER, size - HEADER);
	return (struct event *)(void *)text;
}

/* ---- the stages ---- */

/* A byte that tells records apart. */
static unsigned char fill_of(uint32_t id)
{
	return (unsigned char)(id * 167 + 13);
}

static void pass_on(struct ring *out, struct item *record)
{
	records++;
	bytes += record->size;
	ring_push(out, *record);
	*record = (struct item){0};
}

static void make_event(const struct event *e, struct item *record, struct ring *out)
{
	char *block = shma_from_off(heap, record->block);

	if (e->op == OP_FREE) {
		if (block)
			pass_on(out, record);
		return;
	}
	char *grown = shma_realloc(block, e->size ? e->size : 1);

	if (!grown)
		fail("make");
	if (e->size > record->size)
		memset(grown + record->size, fill_of(e->id), e->size - record->size);
	*record = (struct item){.block = shma_to_off(grown), .size = e->size, .fill = fill_of(e->id)};
}

static void stage_make(const char *path, long seconds)
{
	uint64_t events;
	uint32_t ids;
	struct event *event = trace_read(path, &events, &ids);
	struct item *record = calloc(ids, sizeof(*record));
	time_t end = time(NULL) + seconds;

	if (!record)
		fail("make");
	ring_make("pipeline.made");
	ring_make("pipeline.worked");
	struct ring *out = ring_find("pipeline.made");

	do {
		for (uint64_t i = 0; i < events; i++)
			make_event(&event[i], &record[event[i].id], out);
		for (uint32_t id = 0; id < ids; id++) /* what the recorded program never freed */
			if (record[id].block)
				pass_on(out, &record[id]);
	} while (time(NULL) < end);
	ring_push(out, (struct item){0});
	free(record);
	free(event);
}

/* The record's bytes, all of which should be item->fill. */
static unsigned char *look_at(const struct item *item)
{
	unsigned char *block = shma_from_off(heap, item->block);

	if (!block)
		fail("a record");
	if (item->size && (block[0] != item->fill || memcmp(block, block + 1, item->size - 1) != 0))
		wrong++;
	records++;
	bytes += item->size;
	return block;
}

static void stage_work(void)
{
	struct ring *in = ring_find("pipeline.made"), *out = ring_find("pipeline.worked");

	for (struct item item; (item = ring_pop(in)).block != 0; ring_push(out, item)) {
		unsigned char *block = look_at(&item);

		item.fill ^= 0xff;
		for (uint64_t i = 0; i < item.size; i++)
			block[i] ^= 0xff;
	}
	ring_push(out, (struct item){0});
}

static void ring_drop(const char *name)
{
	struct ring *ring = ring_find(name);

	shma_root_del(heap, name);
	shma_free(ring);
}

static void stage_drop(void)
{
	struct ring *in = ring_find("pipeline.worked");

	for (struct item item; (item = ring_pop(in)).block != 0;)
		shma_free(look_at(&item));
	ring_drop("pipeline.made");
	ring_drop("pipeline.worked");
}

int main(int argc, char **argv)
{
	struct shma_options options = {.size = sizeof(options), .label = argc > 1 ? argv[1] : NULL};

	heap = shma_attach(&options);
	if (!heap)
		fail("no heap");
	if (argc == 4 && strcmp(argv[1], "make") == 0)
		stage_make(argv[2], strtol(argv[3], NULL, 10));
	else if (argc == 2 && strcmp(argv[1], "work") == 0)
		stage_work();
	else if (argc == 2 && strcmp(argv[1], "drop") == 0)
		stage_drop();
	else
		return fputs("usage: pipeline make TRACE.zst SECONDS | pipeline work | pipeline drop\n", stderr), 2;
	printf("%s: %llu records, %llu MiB, %llu wrong\n", argv[1], (unsigned long long)records,
	        (unsigned long long)(bytes >> 20), (unsigned long long)wrong);
	return wrong != 0;
}
