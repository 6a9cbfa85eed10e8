/* The heap's shared memory objects: made, found again, refused, cut short under our hands. */
#include "daemon/store.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/guard.h"
#include "daemon/log.h"
#include "daemon/stale.h"
#include "shm/central.h"
#include "shm/roots.h"
#include "tests/lib/instance.h"

struct fixture {
	struct config_heap config;
	char instance[64];
	struct objects objects;
	struct heap heap;
	bool adopted;
	int log; /* what was said */
};

static struct fixture *begin(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	cr_assert(f != NULL);
	f->log = memfd_create("log", MFD_CLOEXEC);
	log_set_fd(f->log);
	guard_install();
	instance_name(f->instance, sizeof(f->instance), "store");
	snprintf(f->config.name, sizeof(f->config.name), "h");
	f->config.size = 64u << 20;
	return f;
}

static const char *said(struct fixture *f)
{
	static char text[4096];
	ssize_t n = pread(f->log, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static void open_heap(struct fixture *f)
{
	cr_assert_eq(store_take(&f->objects, &f->heap, f->instance, &f->config, &f->adopted), 0, "%s", said(f));
}

static void leave(struct fixture *f)
{
	objects_close(&f->objects);
}

static void end(struct fixture *f)
{
	objects_close(&f->objects);
	objects_unlink(&f->objects);
	close(f->log);
	free(f);
}

static const char *object(const struct fixture *f, const char *which)
{
	static char name[160];

	snprintf(name, sizeof(name), "/shmalloc.%s.h.%s", f->instance, which);
	return name;
}

static int count_objects(const struct fixture *f)
{
	static const char *const which[] = {"meta", "ctl", "data", "state", "new"};
	int n = 0;

	for (int i = 0; i < 5; i++) {
		int fd = shm_open(object(f, which[i]), O_RDONLY | O_CLOEXEC, 0);

		n += fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	return n;
}

static shmi_page some_span(struct fixture *f)
{
	struct shmi_run run;
	bool clean;

	cr_assert_eq(heap_alloc(&f->heap, (shmi_npages){1}, (shmi_npages){1}, false, &run, &clean), 0);
	shmi_span_open(&f->heap.img, run, (shmi_sclass){4}, SHMI_NOBODY);
	return run.first;
}

Test(store, made_and_gone)
{
	struct fixture *f = begin();
	struct stat st;

	open_heap(f);
	cr_assert_not(f->adopted);
	cr_assert_eq(count_objects(f), 4);
	for (int i = 0; i < HEAP_OBJECTS; i++) {
		cr_assert_eq(fstat(f->objects.fd[i], &st), 0);
		cr_assert_eq(st.st_mode & 0777, 0600);
	}
	cr_assert_eq(fcntl(f->objects.meta_readonly, F_GETFL) & O_ACCMODE, O_RDONLY);
	cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f->objects.meta_readonly, 0), MAP_FAILED);
	cr_assert_not(store_has_blocks(&f->heap));
	store_end(&f->objects, &f->heap, false);
	cr_assert_eq(count_objects(f), 0);
	end(f);
}

Test(store, meta_has_no_holes_below_its_arenas)
{
	struct fixture *f = begin();
	struct stat st;

	open_heap(f);
	cr_assert_eq(fstat(f->objects.fd[HEAP_META], &st), 0);
	cr_assert_geq((uint64_t)st.st_blocks * 512, f->heap.img.geo.fixed_bytes);
	some_span(f);
	for (uint32_t part = 0; part < SHMI_ARENA_PARTS; part++) {
		uint64_t off, len;
		int fd = f->objects.fd[shmi_arena_part_in_ctl(part) ? HEAP_CTL : HEAP_META];

		shmi_geometry_arena_part(&f->heap.img.geo, part, 0, shmi_image_published(&f->heap.img), &off, &len);
		/* what is backed and never written counts as a hole to lseek: count blocks */
		cr_assert_eq(fstat(fd, &st), 0);
		cr_assert_geq((uint64_t)st.st_blocks * 512, len);
	}
	end(f);
}

Test(store, taken_over)
{
	struct fixture *f = begin();
	uint64_t base, id;

	open_heap(f);
	shmi_page page = some_span(f);

	cr_assert_eq(shmi_roots_set(&f->heap.img, "r", shmi_page_off(page), 0), 0);
	cr_assert(store_has_blocks(&f->heap));
	base = f->heap.img.super->base;
	id = f->heap.img.super->heap_id;
	leave(f);
	f->config.size = 128u << 20; /* only counts for a new heap */
	open_heap(f);
	cr_assert(f->adopted);
	cr_assert_eq(f->heap.img.geo.limit_pages, 8192);
	cr_assert_eq(f->heap.img.super->base, base);
	cr_assert_eq(f->heap.img.super->heap_id, id);
	cr_assert_eq(shmi_load(&f->heap.img.super->generation), 2);
	cr_assert_eq(shmi_load(&f->heap.state->boots), 2); /* neither start has served */
	cr_assert_eq(shmi_span_word(&f->heap.img, page).state, SHMI_SPAN_CENTRAL);
	store_end(&f->objects, &f->heap, true);
	cr_assert_eq(shmi_load(&f->heap.state->boots), 0);
	cr_assert_eq(shmi_load(&f->heap.img.super->dirty), 0);
	end(f);
}

Test(store, free_pages_lose_their_backing_after_adoption)
{
	struct fixture *f = begin();
	struct stat before, after;

	open_heap(f);
	some_span(f); /* 32 pages are backed for it */
	fstat(f->objects.fd[HEAP_DATA], &before);
	leave(f);
	open_heap(f);
	fstat(f->objects.fd[HEAP_DATA], &after);
	cr_assert_eq(after.st_blocks, 32 * 16, "a start does not wait for that");
	while (stale_step(&f->heap, 256))
		;
	fstat(f->objects.fd[HEAP_DATA], &after);
	cr_assert_eq(before.st_blocks, 32 * 16);
	cr_assert_eq(after.st_blocks, 1 * 16);
	end(f);
}

Test(store, reset)
{
	struct fixture *f = begin();

	open_heap(f);
	uint64_t id = f->heap.img.super->heap_id;

	leave(f);
	f->config.reset = true;
	open_heap(f);
	cr_assert_not(f->adopted);
	cr_assert_neq(f->heap.img.super->heap_id, id);
	end(f);
}

/* What a killed daemon left of a heap that was never there. */
Test(store, half_made)
{
	struct fixture *f = begin();

	open_heap(f);
	shm_unlink(object(f, "meta"));
	leave(f);
	close(shm_open(object(f, "new"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	open_heap(f);
	cr_assert_not(f->adopted);
	cr_assert_eq(count_objects(f), 4);
	end(f);
}

/* ---- refusals ---- */

/* Of the bytes that only a daemon writes, as far as they are there: a store through a mapping does not show in the times of a file. */
static uint64_t digest(const struct fixture *f)
{
	static const char *const which[] = {"meta", "state"};
	static uint64_t words[1 << 13];
	uint64_t hash = 0;

	for (int i = 0; i < 2; i++) {
		int fd = shm_open(object(f, which[i]), O_RDONLY | O_CLOEXEC, 0);
		ssize_t n;

		while (fd >= 0 && (n = read(fd, words, sizeof(words))) > 0)
			for (size_t w = 0; w < (size_t)n / 8; w++)
				hash = (hash ^ words[w]) * 0x9e3779b97f4a7c15ull + (unsigned)i;
		if (fd >= 0)
			close(fd);
	}
	return hash;
}

static void refuses(struct fixture *f, const char *which, const char *because)
{
	struct stat before, after;
	int fd = shm_open(object(f, which), O_RDWR | O_CLOEXEC, 0);
	uint64_t bytes = digest(f);

	if (fd >= 0)
		cr_assert_eq(fstat(fd, &before), 0);
	cr_assert_eq(store_take(&f->objects, &f->heap, f->instance, &f->config, &f->adopted), 1);
	cr_assert(strstr(said(f), because), "%s", said(f));
	cr_assert(strstr(said(f), "--reset"), "%s", said(f));
	cr_assert(strstr(said(f), f->instance));
	cr_assert_eq(digest(f), bytes, "it was written to");
	if (fd >= 0) {
		cr_assert_eq(fstat(fd, &after), 0);
		cr_assert(before.st_size == after.st_size && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec &&
		                  after.st_nlink == 1,
		        "it was touched");
		close(fd);
	}
	f->config.reset = true;
	cr_assert_eq(ftruncate(f->log, 0), 0);
	open_heap(f);
	end(f);
}

static struct fixture *left_behind(void)
{
	struct fixture *f = begin();

	open_heap(f);
	some_span(f);
	leave(f);
	return f;
}

static void cut(struct fixture *f, const char *which, off_t to)
{
	int fd = shm_open(object(f, which), O_RDWR | O_CLOEXEC, 0);

	cr_assert_eq(ftruncate(fd, to), 0);
	close(fd);
}

static void overwrite(struct fixture *f, const char *which, off_t at, uint64_t value)
{
	int fd = shm_open(object(f, which), O_RDWR | O_CLOEXEC, 0);

	cr_assert_eq(pwrite(fd, &value, sizeof(value), at), 8);
	close(fd);
}

#define CUT_TEST(name, which, to)                                                                                      \
	Test(store, name)                                                                                              \
	{                                                                                                              \
		struct fixture *f = left_behind();                                                                     \
		cut(f, which, to);                                                                                     \
		refuses(f, which, "short");                                                                            \
	}
CUT_TEST(meta_cut_to_nothing, "meta", 0)
CUT_TEST(meta_cut_in_its_header, "meta", 2000)
CUT_TEST(meta_cut_behind_its_header, "meta", 8192)
CUT_TEST(ctl_cut, "ctl", 1 << 20)
CUT_TEST(data_cut, "data", 1 << 20)
CUT_TEST(state_cut, "state", 4096)

Test(store, a_part_is_missing)
{
	struct fixture *f = left_behind();

	shm_unlink(object(f, "ctl"));
	refuses(f, "meta", "ctl");
}

Test(store, foreign)
{
	struct fixture *f = left_behind();

	overwrite(f, "meta", 0, 0x1234);
	refuses(f, "meta", "not an object of shmalloc");
}

Test(store, another_layout)
{
	struct fixture *f = left_behind();

	overwrite(f, "meta", offsetof(struct shmi_super, layout_hash), 0x1234);
	refuses(f, "meta", "another layout version");
}

Test(store, parts_of_different_heaps)
{
	struct fixture *f = left_behind();

	overwrite(f, "state", offsetof(struct shmi_state, heap_id), 0x1234);
	refuses(f, "state", "another heap");
}

Test(store, spans_that_overlap)
{
	struct fixture *f = begin();

	open_heap(f);
	some_span(f);
	shmi_page page = some_span(f);

	shmi_span_at(&f->heap.img, page)->pages = 99999;
	leave(f);
	refuses(f, "meta", "contradict");
}

Test(store, readable_for_others)
{
	struct fixture *f = left_behind();
	int fd = shm_open(object(f, "meta"), O_RDWR | O_CLOEXEC, 0);

	cr_assert_eq(fchmod(fd, 0644), 0);
	close(fd);
	refuses(f, "meta", "not ours");
}

Test(store, of_another_user)
{
	if (geteuid() != 0)
		cr_skip_test("needs root");
	struct fixture *f = left_behind();
	int fd = shm_open(object(f, "ctl"), O_RDWR | O_CLOEXEC, 0);

	cr_assert_eq(fchown(fd, 1234, 1234), 0);
	close(fd);
	refuses(f, "ctl", "not ours");
}

/* ---- names and places ---- */

Test(store, names)
{
	static const char *const good[] = {"a", "u1000", "system", "A-b_9"};
	static const char *const bad[] = {"", ".", "a.b", "a/b", "a b", "\xc3\xa4", "a\n"};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert(objects_name_ok(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_not(objects_name_ok(bad[i]), "'%s'", bad[i]);
}

Test(store, base_addresses)
{
	char name[16];

	for (uint32_t i = 0; i < 5000; i++) {
		uint32_t pages = i % 3 ? 524288 : SHMI_MAX_PAGES;

		snprintf(name, sizeof(name), "h%u", i);
		uint64_t base = heap_base_address("u1000", name, pages);

		cr_assert_eq(base % (1ull << 30), 0);
		cr_assert_geq(base, 0x200000000000ull);
		cr_assert_leq(base + ((uint64_t)pages << SHMI_PAGE_SHIFT), 0x500000000000ull);
		cr_assert_eq(base, heap_base_address("u1000", name, pages));
	}
	cr_assert_neq(heap_base_address("a", "bc", 8192), heap_base_address("ab", "c", 8192));
}

/* ---- the guard ---- */

static int touch(void *ctx)
{
	return *(volatile unsigned char *)ctx + 1;
}

static int touch_nested(void *ctx)
{
	return guard_run(touch, ctx) == GUARD_E_BUS ? 7 : 8;
}

static unsigned char *cut_mapping(void)
{
	int fd = memfd_create("cut", MFD_CLOEXEC);

	cr_assert_eq(ftruncate(fd, 8192), 0);
	unsigned char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	cr_assert_neq(map, MAP_FAILED);
	cr_assert_eq(ftruncate(fd, 4096), 0);
	return map;
}

Test(guard, a_fault_ends_the_function_and_not_the_process)
{
	unsigned char *map = cut_mapping();

	guard_install();
	cr_assert_eq(guard_watch(map, 8192), 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(guard_run(touch, map), 1);
		cr_assert_eq(guard_run(touch, map + 4096), GUARD_E_BUS);
		cr_assert_eq(guard_run(touch_nested, map + 4096), 7);
	}
}

Test(guard, elsewhere_it_is_a_fault, .signal = SIGBUS)
{
	unsigned char *map = cut_mapping(), *other = cut_mapping();

	guard_install();
	guard_watch(map, 8192);
	guard_run(touch, other + 4096);
}

Test(guard, outside_of_it_too, .signal = SIGBUS)
{
	unsigned char *map = cut_mapping();

	guard_install();
	guard_watch(map, 8192);
	touch(map + 4096);
}

Test(guard, ranges_are_bounded)
{
	static unsigned char some[GUARD_RANGES + 1];

	for (unsigned i = 0; i < GUARD_RANGES; i++)
		cr_assert_eq(guard_watch(&some[i], 1), 0);
	cr_assert_eq(guard_watch(&some[GUARD_RANGES], 1), -ENOSPC);
	guard_unwatch(&some[3]);
	cr_assert_eq(guard_watch(&some[GUARD_RANGES], 1), 0);
}
