#include "tests/lib/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Not an assertion of the test library, which programs that use this need not link. */
static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "tests/lib/image: %s\n", what);
	abort();
}

/* ---- the floor ---- */

static bool fails_now(uint32_t *countdown)
{
	if (*countdown == TEST_NEVER || (*countdown)--)
		return false;
	*countdown = TEST_NEVER;
	return true;
}

static int commit(void *ctx, shmi_page first, shmi_npages pages)
{
	struct test_image *t = ctx;

	t->commits++;
	if (!first.i || !pages.n || first.i + pages.n > shmi_image_published(&t->img)) {
		t->wild++;
		return 1;
	}
	if (fails_now(&t->fail_commit_in))
		return 1;
	for (uint32_t i = first.i; i < first.i + pages.n; i++) {
		t->fresh += !t->backed[i];
		t->again += t->backed[i];
		t->backed[i] = 1;
	}
	return 0;
}

static int publish(void *ctx, shmi_page first, shmi_npages pages)
{
	struct test_image *t = ctx;

	t->publishes++;
	t->wild += first.i != shmi_image_published(&t->img) || pages.n != shmi_arena_next(&t->img).n || !pages.n;
	return fails_now(&t->fail_publish_in);
}

/* ---- memory ---- */

static void *map(int fd, uint64_t len, int prot)
{
	void *at = mmap(NULL, len, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);

	must(at != MAP_FAILED, "mmap failed");
	return at;
}

static int new_memfd(const char *name, uint64_t len)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	must(fd >= 0 && !ftruncate(fd, (off_t)len), "no memfd");
	return fd;
}

static void get_memory(struct test_image *t, void **meta, void **ctl)
{
	if (t->memory == TEST_MALLOC) {
		*meta = aligned_alloc(4096, t->meta_len);
		*ctl = aligned_alloc(4096, t->ctl_len);
		must(*meta && *ctl, "no memory");
		memset(*meta, 0, t->meta_len);
		memset(*ctl, 0, t->ctl_len);
		return;
	}
	t->meta_fd = new_memfd("meta", t->meta_len);
	t->ctl_fd = new_memfd("ctl", t->ctl_len);
	*meta = map(t->meta_fd, t->meta_len, PROT_READ | PROT_WRITE);
	*ctl = map(t->ctl_fd, t->ctl_len, PROT_READ | PROT_WRITE);
}

/* The second look: bound by hand, since shmi_image_open insists on a ctl of full length. */
static void map_view(struct test_image *t)
{
	t->view = t->img;
	if (t->memory != TEST_MEMFD_TWICE)
		return;
	t->view.meta = map(t->meta_fd, t->meta_len, PROT_READ);
	t->view.ctl = map(t->ctl_fd, t->ctl_len, PROT_READ | PROT_WRITE);
	t->view.super = (struct shmi_super *)(void *)t->view.meta;
	t->view.classes = (const struct shmi_class *)(const void *)(t->view.meta + t->view.geo.classes);
}

struct test_image *test_image_new(enum test_memory memory, uint32_t limit)
{
	struct test_image *t = calloc(1, sizeof(*t));
	struct shmi_geometry geo;
	void *meta, *ctl;

	must(t, "no memory");
	shmi_geometry_init(&geo, limit);
	*t = (struct test_image){.limit = limit,
	        .floor = {t, commit, publish},
	        .fail_commit_in = TEST_NEVER,
	        .fail_publish_in = TEST_NEVER,
	        .memory = memory,
	        .meta_len = geo.meta_bytes,
	        .ctl_len = geo.records + TEST_IMAGE_THREADS * geo.record_bytes,
	        .meta_fd = -1,
	        .ctl_fd = -1};
	t->backed = calloc(limit, 1);
	must(t->backed, "no memory");
	get_memory(t, &meta, &ctl);
	shmi_image_format(&t->img, meta, ctl,
	        &(struct shmi_image_params){
	                .heap_id = 0x1234, .base = 1ull << 45, .heap_name = "test", .limit_pages = limit});
	map_view(t);
	return t;
}

void test_image_free(struct test_image *t)
{
	if (t->memory == TEST_MALLOC) {
		free(t->img.meta);
		free(t->img.ctl);
	} else {
		munmap(t->img.meta, t->meta_len);
		munmap(t->img.ctl, t->ctl_len);
		close(t->meta_fd);
		close(t->ctl_fd);
	}
	if (t->memory == TEST_MEMFD_TWICE) {
		munmap(t->view.meta, t->meta_len);
		munmap(t->view.ctl, t->ctl_len);
	}
	free(t->backed);
	free(t);
}

/* ---- verbs ---- */

void test_image_publish(struct test_image *t, uint32_t arenas)
{
	while (arenas--)
		shmi_arena_publish(&t->img, shmi_arena_next(&t->img), 0);
}

struct shmi_run test_image_run(struct test_image *t, uint32_t pages)
{
	struct shmi_run run;

	must(!shmi_pageheap_alloc(&t->img, &t->floor, (shmi_npages){pages}, (shmi_npages){1}, false, 0, &run),
	        "no run");
	if (!run.backed)
		must(!shmi_pageheap_commit(&t->img, &t->floor, run.first, run.pages, run.pages), "no commit");
	run.backed = true;
	return run;
}

shmi_page test_image_span(struct test_image *t, uint32_t size, uint32_t attrs, uint32_t owner)
{
	uint32_t class = shmi_class_of(size);
	struct shmi_run run = test_image_run(t, t->img.classes[class].pages);

	shmi_span_open(&t->img, run, shmi_sclass_make(class, attrs), owner);
	return run.first;
}

void test_image_return(struct test_image *t, shmi_page first, shmi_npages pages)
{
	t->wild += !first.i || first.i + pages.n > shmi_image_published(&t->img);
	memset(t->backed + first.i, 0, pages.n);
}

static bool all_are(const struct test_image *t, shmi_page first, shmi_npages pages, uint8_t value)
{
	for (uint32_t i = first.i; i < first.i + pages.n; i++)
		if (t->backed[i] != value)
			return false;
	return true;
}

bool test_image_all_backed(const struct test_image *t, shmi_page first, shmi_npages pages)
{
	return all_are(t, first, pages, 1);
}

bool test_image_none_backed(const struct test_image *t, shmi_page first, shmi_npages pages)
{
	return all_are(t, first, pages, 0);
}
