/* Every function of the public header, against a real daemon: sizes, alignments, flags, realloc, references. */
#include "tests/client/api.h"

#include <stdint.h>
#include <unistd.h>

TestSuite(api, .timeout = 60);

static struct test_daemon d;
static shma_heap *heap;

#define HEAP_BYTES (512 * MIB)

static void start(void)
{
	static const char *const args[] = {"--size=512MiB", NULL};

	api_start(&d, args);
	heap = shma_attach(NULL);
	cr_assert_not_null(heap);
}

static void end(void)
{
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}

/* ---- sizes ---- */

/* 0, 1, each class's size and its neighbours, and some above. Returns how many. */
static size_t interesting_sizes(size_t *sizes)
{
	static const size_t large[] = {
	        256 * KIB + 1, 300 * KIB, MIB - 1, MIB, MIB + 1, 3 * MIB + 5, 4 * MIB, 4 * MIB + 1, 9 * MIB};
	struct shmi_class table[SHMI_CLASSES];
	size_t n = 0;

	shmi_class_table(table);
	sizes[n++] = 0;
	sizes[n++] = 1;
	for (uint32_t c = 1; c < SHMI_CLASS_LARGE; c++) {
		sizes[n++] = table[c].size - 1;
		sizes[n++] = table[c].size;
		if (c + 1 < SHMI_CLASS_LARGE)
			sizes[n++] = table[c].size + 1;
	}
	for (size_t i = 0; i < sizeof(large) / sizeof(*large); i++)
		sizes[n++] = large[i];
	return n;
}

static void expect_usable(const void *block, size_t size)
{
	size_t usable = shma_usable_size(block), page = SHMI_PAGE_SIZE;

	cr_assert_geq(usable, size ? size : 1);
	if (size > SHMI_SMALL_MAX)
		cr_assert_lt(usable, size + page, "a fresh large block has whole pages");
	else if (size > 128)
		cr_assert_leq(usable, size + size / 7 + 16);
	else
		cr_assert_lt(usable, size + 17);
}

Test(api, sizes, .init = start, .fini = end)
{
	static size_t sizes[SHMI_CLASSES * 3 + 20];
	static void *block[SHMI_CLASSES * 3 + 20];
	size_t n = interesting_sizes(sizes), sum = 0;

	for (size_t i = 0; i < n; i++) {
		block[i] = shma_malloc(sizes[i]);
		cr_assert_not_null(block[i], "%zu bytes", sizes[i]);
		cr_assert_eq((uintptr_t)block[i] % 16, 0);
		expect_usable(block[i], sizes[i]);
		api_fill(block[i], shma_usable_size(block[i]), i);
		sum += shma_usable_size(block[i]);
	}
	cr_expect_eq(api_live(heap), sum);
	for (size_t i = 0; i < n; i++) {
		cr_assert(api_filled(block[i], shma_usable_size(block[i]), i), "%zu bytes", sizes[i]);
		shma_free(block[i]);
	}
	api_expect_empty(heap);
}

Test(api, a_block_of_no_bytes_is_a_block, .init = start, .fini = end)
{
	void *a = shma_malloc(0), *b = shma_calloc(0, 8), *c = shma_heap_alloc(heap, 0, 0, 0);
	void *e = shma_aligned_alloc(64 * KIB, 0);

	cr_assert(a && b && c && e);
	cr_expect(a != b && b != c && a != c);
	cr_expect_eq((uintptr_t)e % (64 * KIB), 0);
	shma_free(a);
	shma_free(b);
	shma_free(c);
	shma_free(e);
	shma_free(NULL);
	api_expect_empty(heap);
}

Test(api, too_much_is_no_memory, .init = start, .fini = end)
{
	volatile size_t sizes[] = {HEAP_BYTES - 8192, HEAP_BYTES - 1, HEAP_BYTES, HEAP_BYTES + 1, (size_t)1 << 40,
	        SIZE_MAX / 2, SIZE_MAX - 8192, SIZE_MAX - 15, SIZE_MAX - 1, SIZE_MAX};
	void *kept = shma_malloc(100);

	api_fill(kept, 100, 1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		errno = 0;
		cr_expect_null(shma_malloc(sizes[i]), "%zu", sizes[i]);
		cr_expect_eq(errno, ENOMEM, "malloc of %zu: %s", sizes[i], strerror(errno));
		errno = 0;
		cr_expect_null(shma_calloc(1, sizes[i]));
		cr_expect_eq(errno, ENOMEM, "calloc of %zu: %s", sizes[i], strerror(errno));
		errno = 0;
		cr_expect_null(shma_aligned_alloc(64, sizes[i]));
		cr_expect_eq(errno, ENOMEM, "aligned_alloc of %zu: %s", sizes[i], strerror(errno));
		errno = 0;
		cr_expect_null(shma_realloc(kept, sizes[i]));
		cr_expect_eq(errno, ENOMEM, "realloc to %zu: %s", sizes[i], strerror(errno));
		errno = 0;
		cr_expect_null(shma_heap_alloc(heap, sizes[i], 0, SHMA_LAZY));
		cr_expect_eq(errno, ENOMEM, "lazy %zu: %s", sizes[i], strerror(errno));
	}
	cr_expect(api_filled(kept, 100, 1), "a failed realloc leaves the block alone");
	shma_free(kept);
	api_expect_empty(heap);
}

/* ---- errno ---- */

Test(api, errno_is_kept_on_success)
{
	static const size_t sizes[] = {0, 16, 1000, 100000, 300000, 6 * MIB};

	api_start(&d, NULL);
	errno = 77; /* the very first call attaches */
	void *first = shma_malloc(1);

	cr_assert_not_null(first);
	cr_expect_eq(errno, 77, "attaching: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		void *block = shma_malloc(sizes[i]), *zero = shma_calloc(1, sizes[i]);

		cr_expect_eq(errno, 77, "malloc of %zu: %s", sizes[i], strerror(errno));
		block = shma_realloc(block, sizes[i] * 3 + 1);
		cr_expect_eq(errno, 77, "realloc of %zu: %s", sizes[i], strerror(errno));
		shma_free(block);
		shma_free(zero);
		cr_expect_eq(errno, 77, "free of %zu: %s", sizes[i], strerror(errno));
	}
	shma_free(NULL);
	shma_free(first);
	cr_expect_eq(errno, 77);
	api_expect_empty(shma_default());
	api_end(&d);
}

/* ---- zeroed blocks ---- */

Test(api, calloc_overflow, .init = start, .fini = end)
{
	volatile size_t counts[][2] = {{SIZE_MAX, 2}, {2, SIZE_MAX}, {SIZE_MAX / 2 + 1, 2},
	        {(size_t)1 << 33, (size_t)1 << 33}, {SIZE_MAX, SIZE_MAX}};

	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		errno = 0;
		cr_expect_null(shma_calloc(counts[i][0], counts[i][1]));
		cr_expect_eq(errno, ENOMEM);
	}
	api_expect_empty(heap);
}

/* Takes blocks, writes to all of them and frees them: what comes next reuses them. */
static void soil(size_t size)
{
	void *block[20];

	for (size_t i = 0; i < 20; i++) {
		block[i] = shma_malloc(size);
		cr_assert_not_null(block[i]);
		memset(block[i], 0xff, shma_usable_size(block[i]));
	}
	for (size_t i = 0; i < 20; i++)
		shma_free(block[i]);
}

static void expect_zeroed(size_t size)
{
	void *block[20];

	for (size_t i = 0; i < 20; i++) {
		block[i] =
		        i % 2 ? shma_calloc(size / 10 + 1, 10) : shma_heap_alloc(heap, size, i % 4 ? 64 : 0, SHMA_ZERO);
		cr_assert_not_null(block[i]);
		cr_expect(api_zero(block[i], i % 2 ? (size / 10 + 1) * 10 : size), "%zu bytes, block %zu", size, i);
	}
	for (size_t i = 0; i < 20; i++)
		shma_free(block[i]);
}

Test(api, zeroed_blocks_are_zero_wherever_they_come_from, .init = start, .fini = end)
{
	static const size_t sizes[] = {1, 16, 100, 1000, 8192, 100000, 256 * KIB, 256 * KIB + 1, MIB, 3 * MIB, 5 * MIB};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		expect_zeroed(sizes[i]);
		soil(sizes[i]);
		expect_zeroed(sizes[i]); /* from the caches */
		soil(sizes[i]);
		cr_assert_eq(shma_trim(heap), 0);
		expect_zeroed(sizes[i]); /* from the daemon */
		cr_assert_eq(shma_trim(heap), 0);
	}
	api_expect_empty(heap);
}

/* ---- alignment ---- */

Test(api, alignments, .init = start, .fini = end)
{
	static const size_t sizes[] = {0, 1, 100, 5000, 100000, 300000, 5 * MIB};
	enum { SIZES = sizeof(sizes) / sizeof(*sizes) };
	void *block[SIZES][3];

	for (size_t align = 1; align <= 64 * MIB; align *= 2) {
		for (size_t i = 0; i < SIZES * 3; i++) {
			size_t size = sizes[i / 3];
			void *b = i % 3 ? shma_aligned_alloc(align, size)
			                : shma_heap_alloc(heap, size, align, SHMA_SCOPED);

			cr_assert_not_null(b, "%zu bytes aligned to %zu: %s", size, align, strerror(errno));
			cr_expect_eq((uintptr_t)b % align, 0, "%zu bytes aligned to %zu", size, align);
			cr_expect_eq((uintptr_t)b % 16, 0);
			cr_expect_geq(shma_usable_size(b), size);
			api_fill(b, size, i);
			block[i / 3][i % 3] = b;
			if (align > 4 * MIB) /* the heap has only so many places for these */
				shma_free(b);
		}
		for (size_t i = 0; align <= 4 * MIB && i < SIZES * 3; i++) {
			cr_expect(api_filled(block[i / 3][i % 3], sizes[i / 3], i));
			shma_free(block[i / 3][i % 3]);
		}
	}
	api_expect_empty(heap);
}

Test(api, alignments_that_are_none, .init = start, .fini = end)
{
	volatile size_t bad[] = {3, 6, 24, 48, 4095, 8193, 64 * MIB + 1, SIZE_MAX};
	volatile size_t tall[] = {128 * MIB, (size_t)1 << 40, (size_t)1 << 63};

	errno = 0;
	cr_expect_null(shma_aligned_alloc(0, 16));
	cr_expect_eq(errno, EINVAL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		errno = 0;
		cr_expect_null(shma_aligned_alloc(bad[i], 16));
		cr_expect_eq(errno, EINVAL, "%zu", bad[i]);
		errno = 0;
		cr_expect_null(shma_heap_alloc(heap, 300000, bad[i], 0));
		cr_expect_eq(errno, EINVAL, "%zu", bad[i]);
	}
	for (size_t i = 0; i < sizeof(tall) / sizeof(*tall); i++) {
		errno = 0;
		cr_expect_null(shma_aligned_alloc(tall[i], 16));
		cr_expect_eq(errno, ENOMEM, "%zu: %s", tall[i], strerror(errno));
	}
	api_expect_empty(heap);
}

/* ---- realloc ---- */

Test(api, realloc_in_every_direction, .init = start, .fini = end)
{
	static const size_t sizes[] = {1, 24, 500, 9000, 250000, 256 * KIB, 300000, MIB, 6 * MIB};
	enum { SIZES = sizeof(sizes) / sizeof(*sizes) };

	for (size_t i = 0; i < SIZES * SIZES; i++) {
		size_t from = sizes[i / SIZES], to = sizes[i % SIZES], least = from < to ? from : to;
		void *block = shma_realloc(NULL, from);

		cr_assert_not_null(block);
		api_fill(block, from, i);
		block = shma_realloc(block, to);
		cr_assert_not_null(block);
		cr_expect(api_filled(block, least, i), "%zu to %zu", from, to);
		cr_expect_geq(shma_usable_size(block), to);
		cr_expect_leq(
		        shma_usable_size(block) / 2, to > 32 ? to + to / 4 : 32, "%zu to %zu: far too long", from, to);
		api_fill(block, to, i + 1);
		shma_free(block);
	}
	void *block = shma_malloc(100);

	cr_expect_null(shma_realloc(block, 0), "is free");
	cr_expect_null(shma_heap_realloc(heap, shma_malloc(300000), 0, 0), "is free");
	api_expect_empty(heap);
}

static const unsigned kinds[] = {0, SHMA_SCOPED, SHMA_NOSCAN, SHMA_SCOPED | SHMA_NOSCAN};

Test(api, realloc_keeps_the_attributes, .init = start, .fini = end)
{
	static const size_t sizes[] = {20, 3000, 100, 400000, 2 * MIB, 300000, 50};

	for (unsigned k = 0; k < 4; k++) {
		void *block = shma_heap_alloc(heap, 10, 0, kinds[k]);

		for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			block = shma_realloc(block, sizes[i]);
			cr_assert_not_null(block);
			cr_expect_eq(
			        shmi_sclass_attrs(api_sclass(heap, block)), kinds[k], "%u at %zu bytes", k, sizes[i]);
		}
		shma_free(block);
	}
	api_expect_empty(heap);
}

/* Of the size it has, but of another kind: a scoped block that is to outlive its process must move. */
Test(api, heap_realloc_gives_what_it_is_asked_for, .init = start, .fini = end)
{
	static const size_t sizes[] = {100, 300000};
	enum { KINDS = sizeof(kinds) / sizeof(*kinds) };

	for (size_t i = 0; i < 2 * KINDS * KINDS; i++) {
		size_t size = sizes[i % 2];
		unsigned from = kinds[i / 2 % KINDS], to = kinds[i / 2 / KINDS];
		void *block = shma_heap_alloc(heap, size, 0, from);

		cr_assert_not_null(block);
		api_fill(block, size, i);
		block = shma_heap_realloc(heap, block, size, to);
		cr_assert_not_null(block);
		cr_expect_eq(shmi_sclass_attrs(api_sclass(heap, block)), to);
		cr_expect(api_filled(block, size, i));
		shma_free(block);
	}
	api_expect_empty(heap);
}

/* The bytes beyond the old block are zero, whatever was there before. */
Test(api, realloc_with_zero, .init = start, .fini = end)
{
	static const size_t sizes[] = {16, 1024, 8192, 256 * KIB, MIB};

	for (size_t i = 0; i + 1 < sizeof(sizes) / sizeof(*sizes); i++) {
		soil(sizes[i + 1]);
		char *block = shma_heap_realloc(heap, NULL, sizes[i], SHMA_ZERO);
		size_t old = shma_usable_size(block);

		cr_assert(api_zero(block, sizes[i]));
		api_fill(block, old, i);
		block = shma_heap_realloc(heap, block, sizes[i + 1], SHMA_ZERO);
		cr_assert_not_null(block);
		cr_expect(api_filled(block, old, i));
		cr_expect(api_zero(block + old, sizes[i + 1] - old), "%zu", sizes[i + 1]);
		shma_free(block);
	}
	api_expect_empty(heap);
}

/* ---- flags ---- */

Test(api, flags_choose_the_span_class, .init = start, .fini = end)
{
	static const size_t sizes[] = {16, 5000, 256 * KIB, 256 * KIB + 1, 6 * MIB};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes) * 4; i++) {
		void *block = shma_heap_alloc(heap, sizes[i / 4], 0, kinds[i % 4] | SHMA_ZERO);

		cr_assert_not_null(block);
		cr_expect_eq(shmi_sclass_attrs(api_sclass(heap, block)), kinds[i % 4], "%zu", sizes[i / 4]);
		cr_expect(api_zero(block, sizes[i / 4]));
		memset(block, 0xff, sizes[i / 4]);
		shma_free(block);
	}
	api_expect_empty(heap);
}

Test(api, unknown_flags, .init = start, .fini = end)
{
	void *block = shma_malloc(10);

	for (unsigned bit = 4; bit < 32; bit++) {
		errno = 0;
		cr_expect_null(shma_heap_alloc(heap, 16, 0, 1u << bit));
		cr_expect_eq(errno, EINVAL);
		errno = 0;
		cr_expect_null(shma_heap_realloc(heap, block, 16, 1u << bit | SHMA_ZERO));
		cr_expect_eq(errno, EINVAL);
	}
	errno = 0;
	cr_expect_null(shma_heap_alloc(NULL, 16, 0, 0));
	cr_expect_eq(errno, EINVAL);
	errno = 0;
	cr_expect_null(shma_heap_realloc(NULL, NULL, 16, 0));
	cr_expect_eq(errno, EINVAL);
	shma_free(block);
	api_expect_empty(heap);
}

Test(api, lazy_blocks_are_backed_on_touch, .init = start, .fini = end)
{
	uint64_t backed = api_stats(heap).backed;
	char *block = shma_heap_alloc(heap, 200 * MIB, 0, SHMA_LAZY);

	cr_assert_not_null(block);
	cr_expect_eq(api_sums(heap).lazy, 200 * MIB);
	cr_expect_leq(api_stats(heap).backed, backed + MIB, "none of it is backed");
	cr_expect_eq(api_live(heap), 200 * MIB);
	for (size_t at = 0; at < 200 * MIB; at += 10 * MIB)
		cr_expect(api_zero(block + at, 8192));
	memset(block, 0xff, 20 * MIB);
	shma_free(block);
	cr_expect_eq(api_sums(heap).lazy, 0, "it is not kept for the next");
	cr_expect_eq(api_live(heap), 0);
	block = shma_heap_alloc(heap, 200 * MIB, 0, SHMA_LAZY | SHMA_ZERO | SHMA_SCOPED);
	cr_assert_not_null(block);
	for (size_t at = 0; at < 200 * MIB; at += MIB)
		cr_expect(api_zero(block + at, 8192));
	shma_free(block);
	block = shma_heap_alloc(heap, 1000, 0, SHMA_LAZY);
	cr_assert_not_null(block, "a small block is as any other");
	cr_expect_eq(api_sums(heap).lazy, 0);
	shma_free(block);
	api_expect_empty(heap);
}

/* ---- references ---- */

Test(api, offsets, .init = start, .fini = end)
{
	char *block = shma_malloc(1000), *large = shma_malloc(MIB), local;
	shma_off limit = api_stats(heap).limit, off = shma_to_off(block);

	cr_expect_eq(off, (uint64_t)(uintptr_t)block - api_stats(heap).base);
	cr_expect_eq(shma_from_off(heap, off), block);
	cr_expect_eq(shma_to_off(block + 500), off + 500, "the middle of a block too");
	cr_expect_eq(shma_from_off(heap, shma_to_off(large + MIB - 1)), large + MIB - 1);
	cr_expect_eq(shma_to_off(NULL), 0);
	cr_expect_eq(shma_to_off(&local), 0);
	errno = 77;
	cr_expect_null(shma_from_off(heap, 0));
	cr_expect_eq(errno, 77, "none is no error");
	for (size_t i = 0; i < 6; i++) {
		shma_off bad[] = {1, SHMI_PAGE_SIZE - 1, limit, limit + 1, UINT64_MAX, (uint64_t)(uintptr_t)block};

		errno = 0;
		cr_expect_null(shma_from_off(heap, bad[i]));
		cr_expect_eq(errno, EINVAL, "%zu", i);
	}
	cr_expect_eq(shma_from_off(heap, limit - 1), (char *)(uintptr_t)(api_stats(heap).base + limit - 1));
	shma_free(block);
	shma_free(large);
	api_expect_empty(heap);
}

Test(api, usable_size_of_what_is_no_block, .init = start, .fini = end)
{
	char local;

	cr_expect_eq(shma_usable_size(NULL), 0);
	cr_expect_eq(shma_usable_size(&local), 0);
	cr_expect_eq(shma_usable_size((char *)(uintptr_t)api_stats(heap).base), 0);
	cr_expect_eq(shma_usable_size((char *)(uintptr_t)(api_stats(heap).base + HEAP_BYTES - 16)), 0);
}

Test(api, version)
{
	cr_expect_str_eq(shma_version(), "0.1.0");
}

/* ---- roots ---- */

Test(api, root_names, .init = start, .fini = end)
{
	char name[97], local;
	void *a = shma_malloc(1), *b = shma_malloc(300000);

	memset(name, 'n', sizeof(name));
	for (size_t len = 1; len <= 96; len += len < 94 ? 31 : 1) {
		name[len] = 0;
		errno = 0;
		cr_expect_eq(shma_root_set(heap, name, a), len > 95 ? -1 : 0, "%zu", len);
		cr_expect_eq(errno, len > 95 ? EINVAL : 0, "%zu", len);
		cr_expect_eq(shma_root_get(heap, name), len > 95 ? NULL : a, "%zu", len);
		name[len] = 'n';
	}
	const char *bad[] = {"", NULL};

	for (size_t i = 0; i < 2; i++) {
		errno = 0;
		cr_expect(shma_root_set(heap, bad[i], a) == -1 && errno == EINVAL);
		errno = 0;
		cr_expect(!shma_root_get(heap, bad[i]) && errno == EINVAL);
		errno = 0;
		cr_expect(shma_root_del(heap, bad[i]) == -1 && errno == EINVAL);
	}
	cr_expect_eq(shma_root_set(heap, "n", b), 0, "replaces");
	cr_expect_eq(shma_root_get(heap, "n"), b);
	errno = 0;
	cr_expect(shma_root_set(heap, "n", &local) == -1 && errno == EINVAL);
	errno = 0;
	cr_expect(shma_root_set(heap, "n", NULL) == -1 && errno == EINVAL);
	cr_expect_eq(shma_root_get(heap, "n"), b);
	cr_expect_eq(shma_root_del(heap, "n"), 0);
	errno = 0;
	cr_expect(!shma_root_get(heap, "n") && errno == ENOENT);
	errno = 0;
	cr_expect(shma_root_del(heap, "n") == -1 && errno == ENOENT);
	shma_free(a);
	shma_free(b);
	api_expect_empty(heap);
}

Test(api, as_many_roots_as_there_are, .init = start, .fini = end)
{
	char name[20];
	char *block = shma_malloc(2000);

	for (int i = 0; i < 1024; i++) {
		(void)snprintf(name, sizeof(name), "root %d", i);
		cr_assert_eq(shma_root_set(heap, name, block + i), 0, "%d: %s", i, strerror(errno));
	}
	errno = 0;
	cr_expect_eq(shma_root_set(heap, "one more", block), -1);
	cr_expect_eq(errno, ENOSPC, "%s", strerror(errno));
	cr_expect_null(shma_root_get(heap, "one more"));
	cr_expect_eq(shma_root_set(heap, "root 5", block + 7), 0, "there is room to replace");
	cr_expect_eq(shma_root_del(heap, "root 9"), 0);
	cr_expect_eq(shma_root_set(heap, "one more", block), 0);
	for (int i = 0; i < 1024; i++) {
		(void)snprintf(name, sizeof(name), "root %d", i);
		cr_expect_eq(shma_root_get(heap, name), i == 9 ? NULL : i == 5 ? block + 7 : block + i);
	}
	for (int i = 0; i < 1024; i++) {
		(void)snprintf(name, sizeof(name), "root %d", i);
		cr_expect_eq(shma_root_del(heap, name), i == 9 ? -1 : 0);
	}
	shma_free(block);
	api_expect_empty(heap);
}

static int find_in_child(void *arg)
{
	shma_heap *mine = shma_default();
	unsigned char *block = shma_root_get(mine, "shared");

	child_check(block && block == arg);
	child_check(api_filled(block, 5000, 3));
	child_check(api_stats(mine).client != 0 || !mine->proc->attached);
	child_check(shma_root_set(mine, "from the child", block + 16) == 0);
	child_check(shma_root_del(mine, "shared") == 0);
	return 0;
}

Test(api, roots_are_seen_by_other_processes, .init = start, .fini = end)
{
	unsigned char *block = shma_malloc(5000);

	api_fill(block, 5000, 3);
	cr_assert_eq(shma_root_set(heap, "shared", block), 0);
	cr_expect_eq(child_run(find_in_child, block), 0);
	cr_expect_null(shma_root_get(heap, "shared"));
	cr_expect_eq(shma_root_get(heap, "from the child"), block + 16, "it outlives who set it");
	cr_expect_eq(shma_root_del(heap, "from the child"), 0);
	shma_free(block);
	api_expect_empty(heap);
}

static int add_in_child(void *arg)
{
	int *start = arg;
	char go;
	unsigned char *block = shma_malloc(64);

	(void)close(start[1]);
	child_check(block && read(start[0], &go, 1) == 0); /* all are let go at once, by a hang-up */
	if (shma_root_add(shma_default(), "added", block) == 0)
		return 1;
	child_check(errno == EEXIST && shma_root_get(shma_default(), "added") != block);
	shma_free(block);
	return 0;
}

Test(api, of_all_who_add_a_root_one_is_first, .init = start, .fini = end)
{
	enum { CHILDREN = 8 };
	pid_t pid[CHILDREN];
	int gate[2], first = 0;

	cr_assert_eq(pipe(gate), 0);
	for (int i = 0; i < CHILDREN; i++)
		pid[i] = child_start(add_in_child, gate);
	(void)close(gate[0]);
	(void)close(gate[1]);
	for (int i = 0; i < CHILDREN; i++) {
		int status = child_join(pid[i]);

		cr_expect(status == 0 || status == 1, "%d", status);
		first += status;
	}
	cr_expect_eq(first, 1);
	void *block = shma_root_get(heap, "added");

	cr_assert_not_null(block);
	errno = 0;
	cr_expect(shma_root_add(heap, "added", block) == -1 && errno == EEXIST);
	cr_expect_eq(shma_root_del(heap, "added"), 0);
	cr_expect_eq(shma_root_add(heap, "added", block), 0);
	cr_expect_eq(shma_root_del(heap, "added"), 0);
	shma_free(block);
	api_expect_empty(heap);
}

/* ---- a page of one's own ---- */

static int see_a_copy(void *arg)
{
	char *page = arg;

	child_check(strcmp(page, "the parent's") == 0);
	child_check(shma_own_page(shma_default()) == page);
	child_check(strcmp(page, "the parent's") == 0);
	strcpy(page, "the child's");
	return 0;
}

static int see_nothing(void *arg)
{
	char *page;

	child_check(shma_detach(shma_default()) == 0);
	page = shma_own_page(shma_default());
	child_check(page == arg);
	for (size_t i = 0; i < 4096; i++)
		child_check(!page[i]);
	return 0;
}

Test(api, a_page_of_ones_own, .init = start, .fini = end)
{
	char *page = shma_own_page(heap);

	cr_assert_eq((uintptr_t)page, api_stats(heap).base);
	cr_expect_eq(page[0] | page[4095], 0);
	strcpy(page, "the parent's");
	cr_expect_eq(shma_own_page(heap), page);
	cr_expect_eq(child_run(see_a_copy, page), 0);
	cr_expect_eq(child_run(see_nothing, page), 0);
	cr_expect_str_eq(page, "the parent's");
	cr_expect_eq(shma_heap_of(page), heap);
	cr_expect_null(shma_heap_of(&page));
	cr_expect_null(shma_heap_of(NULL));
}

/* ---- statistics ---- */

Test(api, stats_of_an_older_caller, .init = start, .fini = end)
{
	struct shma_stats stats;

	memset(&stats, 0xaa, sizeof(stats));
	stats.size = offsetof(struct shma_stats, backed);
	cr_expect_eq(shma_stats_get(heap, &stats), 0);
	cr_expect_eq(stats.size, offsetof(struct shma_stats, backed));
	cr_expect_eq(stats.limit, HEAP_BYTES);
	cr_expect_eq(stats.backed, 0xaaaaaaaaaaaaaaaaull, "not a byte more than there is room for");
	stats.size = sizeof(stats) + 100;
	cr_expect_eq(shma_stats_get(heap, &stats), 0, "a newer caller");
	cr_expect_eq(stats.at_base, 1);
	for (size_t i = 0; i < 2; i++) {
		stats.size = i * 7;
		errno = 0;
		cr_expect(shma_stats_get(heap, &stats) == -1 && errno == EINVAL);
	}
	errno = 0;
	cr_expect(shma_stats_get(heap, NULL) == -1 && errno == EINVAL);
	stats.size = sizeof(stats);
	errno = 0;
	cr_expect(shma_stats_get(NULL, &stats) == -1 && errno == EINVAL);
}

Test(api, stats_say_what_happens, .init = start, .fini = end)
{
	struct shma_stats before = api_stats(heap), after;
	void *block = shma_malloc(10 * MIB);

	after = api_stats(heap);
	cr_expect_eq(after.messages, before.messages + 1);
	cr_expect_eq(after.owned, before.owned + 10 * MIB);
	cr_expect_eq(after.process_owned, before.process_owned + 10 * MIB);
	cr_expect_eq(after.backed, after.owned + after.central + after.free);
	cr_expect_geq(after.peak_backed, 10 * MIB);
	cr_expect_eq(after.base, (uint64_t)(uintptr_t)block - shma_to_off(block));
	before = after;
	cr_expect_eq(api_stats(heap).messages, before.messages, "asking sends none");
	shma_free(block);
	after = api_stats(heap);
	cr_expect_eq(after.process_owned, before.process_owned - 10 * MIB);
	cr_expect_geq(after.free, 10 * MIB);
	cr_expect_geq(after.peak_backed, 10 * MIB);
	api_expect_empty(heap);
}

Test(api, calls_without_a_heap, .init = start, .fini = end)
{
	void *block = shma_malloc(10);

	errno = 0;
	cr_expect(shma_trim(NULL) == -1 && errno == EINVAL);
	errno = 0;
	cr_expect(shma_root_set(NULL, "a", block) == -1 && errno == EINVAL);
	cr_expect(shma_root_add(NULL, "a", block) == -1 && errno == EINVAL);
	cr_expect(!shma_own_page(NULL) && errno == EINVAL);
	errno = 0;
	cr_expect(!shma_root_get(NULL, "a") && errno == EINVAL);
	errno = 0;
	cr_expect(shma_root_del(NULL, "a") == -1 && errno == EINVAL);
	errno = 0;
	cr_expect(!shma_from_off(NULL, 8192) && errno == EINVAL);
	errno = 0;
	cr_expect(shma_detach(NULL) == -1 && errno == EINVAL);
	shma_free(block);
}

/* ---- a program, at random ---- */

struct held_block {
	unsigned char *at;
	size_t len, seed;
};

static void random_step(struct test_random *random, struct held_block *b)
{
	static const unsigned more[] = {0, SHMA_SCOPED, SHMA_NOSCAN, SHMA_SCOPED | SHMA_NOSCAN, SHMA_ZERO};
	size_t len = test_random_length(random, test_random_one_in(random, 100) ? 2 * MIB : 4000);
	unsigned flags = more[test_random_below(random, 5)];

	if (!b->at) {
		b->at = shma_heap_alloc(heap, len, (size_t)1 << test_random_below(random, 10), flags);
		child_check(b->at && (!(flags & SHMA_ZERO) || api_zero(b->at, len)));
	} else {
		child_check(api_filled(b->at, b->len, b->seed));
		if (test_random_one_in(random, 3)) {
			b->at = shma_realloc(b->at, len);
			child_check(b->at && api_filled(b->at, b->len < len ? b->len : len, b->seed));
		} else {
			shma_free(b->at);
			b->at = NULL;
			return;
		}
	}
	b->len = len;
	b->seed = (size_t)test_random_next(random);
	api_fill(b->at, b->len, b->seed);
}

static void random_program(const char *what, unsigned steps)
{
	enum { N = 500 };
	static struct held_block block[N];
	struct test_random random = test_random_init(what);

	for (unsigned i = 0; i < steps; i++) {
		random_step(&random, &block[test_random_below(&random, N)]);
		if (test_random_one_in(&random, 10000))
			cr_assert_eq(shma_trim(heap), 0);
	}
	for (unsigned i = 0; i < N; i++)
		shma_free(block[i].at);
	api_expect_empty(heap);
}

Test(api, a_random_program, .init = start, .fini = end)
{
	random_program("api random", 200000);
}

Test(api, a_random_program_hardened)
{
	static const char *const args[] = {"--size=512MiB", NULL};

	api_start(&d, args);
	setenv("SHMALLOC_HARDEN", "1", 1);
	heap = shma_attach(NULL);
	cr_assert(heap && heap->env.harden);
	random_program("api hardened", 100000);
	end();
}
