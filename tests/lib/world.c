#include "tests/lib/world.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SMALL_PAGE 4096ull

/* The daemon draws its numbers through this one: always the same, and stored where stores can be seen. */
ssize_t getrandom(void *at, size_t len, unsigned flags)
{
	static uint64_t last;
	unsigned char bytes[64] = {0};

	(void)flags;
	last = last * 6364136223846793005ull + 1442695040888963407ull;
	memcpy(bytes, &last, sizeof(last));
	memcpy(at, bytes, len < sizeof(bytes) ? len : sizeof(bytes));
	return (ssize_t)len;
}

/* ---- the floor ---- */

/* The floor of a core over these ranges: which ranges, the core does not know. */
struct world_floor {
	const struct world *w;
	const struct stores_range *ranges;
};

static unsigned char *book_at(const struct world_floor *f, enum heap_object object, uint64_t off)
{
	return f->ranges[WORLD_BOOK].start + f->w->book[object] + off / SMALL_PAGE;
}

static uint64_t small_pages(uint64_t off, uint64_t len)
{
	return (off + len + SMALL_PAGE - 1) / SMALL_PAGE - off / SMALL_PAGE;
}

static int back(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	stores_set(book_at(ctx, object, off), 1, small_pages(off, len));
	return 0;
}

/* Memory first, then the book, page for page, as the kernel does it. */
static int unback(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	const struct world_floor *f = ctx;

	for (uint64_t at = off; at < off + len; at += SMALL_PAGE - at % SMALL_PAGE) {
		unsigned char *backed = book_at(ctx, object, at);
		uint64_t rest = SMALL_PAGE - at % SMALL_PAGE;

		if (!*backed)
			continue;
		rest = rest < off + len - at ? rest : off + len - at;
		if (object != HEAP_DATA)
			stores_set(f->ranges[object].start + at, 0, rest);
		if (rest == SMALL_PAGE)
			stores_set(backed, 0, 1);
	}
	return 0;
}

static int snapshot(void *ctx, enum heap_object object, uint64_t off, void *copy, uint64_t len)
{
	const struct world_floor *f = ctx;
	unsigned char *to = copy;

	for (uint64_t at = off, n; at < off + len; at += n) {
		n = SMALL_PAGE - at % SMALL_PAGE;
		n = n < off + len - at ? n : off + len - at;
		if (*book_at(f, object, at)) /* a hole would be filled by looking at it */
			memcpy(to + (at - off), f->ranges[object].start + at, n);
		else
			memset(to + (at - off), 0, n);
	}
	return 0;
}

static uint64_t object_bytes(const struct world *w, enum heap_object object)
{
	switch (object) {
	case HEAP_META:
		return w->geo.meta_bytes;
	case HEAP_CTL:
		return w->geo.ctl_bytes;
	case HEAP_DATA:
		return (uint64_t)w->geo.limit_pages << SHMI_PAGE_SHIFT;
	default:
		return sizeof(struct shmi_state);
	}
}

static void measure(void *ctx, enum heap_object object, uint64_t *length, uint64_t *backed)
{
	const struct world_floor *f = ctx;
	const unsigned char *book = book_at(f, object, 0);
	uint64_t pages = 0, n, i = 0, eight;

	*length = object_bytes(f->w, object);
	n = small_pages(0, *length);
	for (; i + sizeof(eight) <= n; i += sizeof(eight)) {
		memcpy(&eight, book + i, sizeof(eight)); /* each byte is 0 or 1 */
		pages += (uint64_t)__builtin_popcountll(eight);
	}
	for (; i < n; i++)
		pages += book[i];
	*backed = pages * SMALL_PAGE;
}

bool world_backed(
        const struct world *w, const struct stores_range *ranges, enum heap_object object, uint64_t off, uint64_t len)
{
	const struct world_floor f = {w, ranges};

	for (uint64_t i = 0; i < small_pages(off, len); i++)
		if (!*book_at(&f, object, off + i * SMALL_PAGE))
			return false;
	return true;
}

/* ---- memory ---- */

static void *map(int fd, uint64_t len, int flags)
{
	void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);

	cr_assert_neq(at, MAP_FAILED);
	return at;
}

static void make_range(struct world *w, uint32_t i, uint64_t len)
{
	len = (len + SMALL_PAGE - 1) & ~(SMALL_PAGE - 1);
	w->fd[i] = memfd_create("world", MFD_CLOEXEC);
	cr_assert(w->fd[i] >= 0 && !ftruncate(w->fd[i], (off_t)len));
	w->master[i] = (struct stores_range){map(w->fd[i], len, MAP_SHARED), len};
	w->copy[i] = (struct stores_range){map(w->fd[i], len, MAP_PRIVATE), len};
}

void world_init(struct world *w, uint32_t limit)
{
	uint64_t book = 0;

	shmi_geometry_init(&w->geo, limit);
	for (uint32_t i = 0; i < HEAP_OBJECTS; i++) {
		w->book[i] = book;
		book += small_pages(0, object_bytes(w, i));
		if (i != HEAP_DATA)
			make_range(w, i, object_bytes(w, i));
	}
	make_range(w, WORLD_BOOK, book);

	struct world_floor f = {w, w->master};

	back(&f, HEAP_META, 0, w->geo.fixed_bytes);
	back(&f, HEAP_CTL, 0, SMALL_PAGE);
	back(&f, HEAP_STATE, 0, offsetof(struct shmi_state, clients));
}

void world_deinit(struct world *w)
{
	for (uint32_t i = 0; i < WORLD_RANGES; i++) {
		munmap(w->master[i].start, w->master[i].len);
		munmap(w->copy[i].start, w->copy[i].len);
		close(w->fd[i]);
	}
}

void world_fresh(struct world *w)
{
	for (uint32_t i = 0; i < WORLD_RANGES; i++)
		cr_assert_eq(madvise(w->copy[i].start, w->copy[i].len, MADV_DONTNEED), 0);
}

struct test_core *world_core(struct world *w, struct stores_range *ranges, uint32_t limit, const char **why)
{
	static struct world_floor floors[2]; /* over the master and over the copy */
	struct world_floor *f = &floors[ranges == w->copy];
	const struct heap_floor floor = {
	        .ctx = f, .back = back, .unback = unback, .snapshot = snapshot, .measure = measure};
	const struct heap_memory memory = {.meta = ranges[HEAP_META].start,
	        .ctl = ranges[HEAP_CTL].start,
	        .state = ranges[HEAP_STATE].start,
	        .meta_bytes = w->geo.meta_bytes,
	        .ctl_bytes = w->geo.ctl_bytes,
	        .state_bytes = sizeof(struct shmi_state)};

	*f = (struct world_floor){w, ranges};
	return test_core_over(&memory, &floor, limit, why);
}

/* ---- processes ---- */

struct peer world_living(uint32_t uid)
{
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	struct stat st;

	cr_assert(fd >= 0 && !fstat(fd, &st));
	close(fd);
	return (struct peer){.pid = getpid(), .uid = uid, .gid = uid, .pidfd = -1, .inode = st.st_ino};
}

struct peer world_dead(uint32_t uid)
{
	struct peer peer = world_living(uid);

	peer.inode++;
	return peer;
}
