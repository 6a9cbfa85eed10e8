#include "shm/image.h"

#include "tests/lib/image.h"
#include "tests/lib/random.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

TestSuite(image, .timeout = 60);

#define PAGES 300u

static int open_image(struct test_image *t, struct shmi_image *img)
{
	return shmi_image_open(img, t->view.meta, t->meta_len, t->view.ctl, t->img.geo.ctl_bytes);
}

TEST_ON_IMAGES(image, opens_what_was_made, PAGES)
{
	struct shmi_image img;

	cr_assert_eq(open_image(t, &img), 0);
	cr_assert_eq(memcmp(&img.geo, &t->img.geo, sizeof(img.geo)), 0);
	cr_assert_eq((unsigned char *)img.super, t->view.meta);
	cr_assert_eq((const unsigned char *)img.classes, t->view.meta + img.geo.classes);
	cr_assert_str_eq(img.super->heap_name, "test");
	cr_assert_eq(img.super->base, 1ull << 45);
	cr_assert_eq(img.super->heap_id, 0x1234);
	cr_assert_eq(shmi_image_published(&img), 0);
	cr_assert_eq(shmi_load(&img.super->pages.unpublished), PAGES);
	cr_assert_eq(shmi_thread_slot_at(&img, SHMI_MAX_THREADS - 1)->client, SHMI_NOBODY);
	cr_assert_not(shmi_image_page_ok(&img, (shmi_page){1}), "nothing is published");
	test_image_publish(t, 1);
	cr_assert_not(shmi_image_page_ok(&img, (shmi_page){0}));
	cr_assert(shmi_image_page_ok(&img, (shmi_page){1}));
	cr_assert(shmi_image_page_ok(&img, (shmi_page){PAGES - 1}));
	cr_assert_not(shmi_image_page_ok(&img, (shmi_page){PAGES}));

	cr_assert_eq(shmi_image_open(&img, t->view.meta, t->meta_len, NULL, 0), 0, "meta alone will do");
	cr_assert_null(img.ctl);
}

Test(image, long_heap_name_is_cut)
{
	struct shmi_geometry geo;
	struct shmi_image img;
	char name[100];

	memset(name, 'n', sizeof(name));
	name[99] = 0;
	shmi_geometry_init(&geo, 2);
	void *meta = calloc(1, geo.meta_bytes), *ctl = calloc(1, 4096);

	shmi_image_format(&img, meta, ctl, &(struct shmi_image_params){.heap_name = name, .limit_pages = 2});
	cr_assert_eq(strlen(img.super->heap_name), 63);
	cr_assert_eq(shmi_image_open(&img, meta, geo.meta_bytes, ctl, geo.ctl_bytes), 0);
	free(meta);
	free(ctl);
}

/* ---- hostile headers ---- */

/* What becomes of a superblock with one bit turned, by field; fields without a row may hold anything. */
static const struct {
	size_t from, to;
	int error;
} field_errors[] = {
        {offsetof(struct shmi_super, magic), 8, SHMI_E_IMAGE_FOREIGN},
        {offsetof(struct shmi_super, layout_version), 4, SHMI_E_IMAGE_VERSION},
        {offsetof(struct shmi_super, page_size), 4, SHMI_E_IMAGE_DAMAGED},
        {offsetof(struct shmi_super, layout_hash), 8, SHMI_E_IMAGE_VERSION},
        {offsetof(struct shmi_super, heap_id), 8, SHMI_E_IMAGE_FOREIGN}, /* ctl has another */
        {offsetof(struct shmi_super, geometry), sizeof(struct shmi_geometry), SHMI_E_IMAGE_DAMAGED},
};

/* A limit that is a little off may lead to the same geometry, as parts are rounded up: then there is no contradiction. */
static bool geometry_agrees(const struct shmi_super *super)
{
	struct shmi_geometry geo;

	if (super->geometry.limit_pages > SHMI_MAX_PAGES ||
	        shmi_load(&super->published_pages) > super->geometry.limit_pages)
		return false;
	shmi_geometry_init(&geo, super->geometry.limit_pages);
	return memcmp(&geo, &super->geometry, sizeof(geo)) == 0;
}

static int expected_error(const struct test_image *t, size_t byte, unsigned bit)
{
	if (byte / 4 == offsetof(struct shmi_super, geometry.limit_pages) / 4 && geometry_agrees(t->img.super))
		return 0;
	for (size_t i = 0; i < sizeof(field_errors) / sizeof(*field_errors); i++)
		if (byte >= field_errors[i].from && byte < field_errors[i].from + field_errors[i].to)
			return field_errors[i].error;
	size_t base = offsetof(struct shmi_super, base);

	if (byte >= base && byte * 8 + bit < base * 8 + SHMI_PAGE_SHIFT)
		return SHMI_E_IMAGE_DAMAGED; /* no multiple of a page */
	if (shmi_load(&t->img.super->published_pages) > t->limit)
		return SHMI_E_IMAGE_DAMAGED;
	return 0;
}

TEST_ON_IMAGES(image, every_bit_of_the_superblock, PAGES)
{
	struct shmi_image img;
	uint32_t refused = 0;

	test_image_publish(t, 1);
	for (size_t byte = 0; byte < sizeof(struct shmi_super); byte++)
		for (unsigned bit = 0; bit < 8; bit++) {
			t->img.meta[byte] ^= (unsigned char)(1u << bit);
			int error = open_image(t, &img), want = expected_error(t, byte, bit);

			cr_assert_eq(error, want, "byte %zu, bit %u: %d instead of %d", byte, bit, error, want);
			refused += error != 0;
			t->img.meta[byte] ^= (unsigned char)(1u << bit);
		}
	cr_assert_gt(refused, 8 * (8 + 4 + 4 + 8 + 8 + 132));
	cr_assert_eq(open_image(t, &img), 0);
}

TEST_ON_IMAGES(image, name_without_end, PAGES)
{
	struct shmi_image img;

	memset(t->img.super->heap_name, 'x', sizeof(t->img.super->heap_name));
	cr_assert_eq(open_image(t, &img), SHMI_E_IMAGE_DAMAGED);
}

TEST_ON_IMAGES(image, limits_out_of_range, PAGES)
{
	static const uint32_t limits[] = {0, 1, SHMI_MAX_PAGES + 1, UINT32_MAX};
	struct shmi_image img;

	/* A geometry that agrees with itself is of no help, as its limit is out of range, or the object is too short for it. */
	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		shmi_geometry_init(&t->img.super->geometry, limits[i]);
		cr_assert_eq(open_image(t, &img), SHMI_E_IMAGE_DAMAGED, "limit %u", limits[i]);
	}
	shmi_geometry_init(&t->img.super->geometry, SHMI_MAX_PAGES);
	cr_assert_eq(open_image(t, &img), SHMI_E_IMAGE_CUT);
}

TEST_ON_IMAGES(image, every_bit_of_the_class_table, PAGES)
{
	struct shmi_image img;

	for (uint64_t byte = 0; byte < sizeof(struct shmi_class) * SHMI_CLASSES; byte++) {
		unsigned char *p = t->img.meta + t->img.geo.classes + byte, bit = (unsigned char)(1u << byte % 8);

		*p ^= bit;
		cr_assert_eq(open_image(t, &img), SHMI_E_IMAGE_DAMAGED, "byte %lu", byte);
		*p ^= bit;
	}
	cr_assert_eq(open_image(t, &img), 0);
}

TEST_ON_IMAGES(image, every_bit_of_the_head_of_ctl, PAGES)
{
	struct shmi_image img;

	for (uint32_t bit = 0; bit < 8 * sizeof(struct shmi_ctl_head); bit++) {
		int want = bit < 8 * offsetof(struct shmi_ctl_head, unused) ? SHMI_E_IMAGE_FOREIGN : 0;

		t->img.ctl[bit / 8] ^= (unsigned char)(1u << bit % 8);
		cr_assert_eq(open_image(t, &img), want, "bit %u", bit);
		t->img.ctl[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
}

/* The memory ends where the object does, so that a sanitizer sees a step beyond. */
Test(image, cut_objects)
{
	struct test_image *t = test_image_new(TEST_MALLOC, PAGES);
	static const uint64_t short_of[] = {1, 4096, 8192, 16384, 65536};
	struct shmi_image img;

	for (size_t i = 0; i < sizeof(short_of) / sizeof(*short_of); i++) {
		uint64_t len = t->meta_len - short_of[i];
		unsigned char *meta = malloc(len);

		cr_assert_not_null(meta);
		memcpy(meta, t->img.meta, len);
		cr_assert_eq(shmi_image_open(&img, meta, len, NULL, 0), SHMI_E_IMAGE_CUT);
		free(meta);
	}
	for (uint64_t len = 0; len < 4096; len += 117) {
		unsigned char *meta = malloc(len + 1);

		memcpy(meta, t->img.meta, len);
		cr_assert_eq(shmi_image_open(&img, meta, len, NULL, 0), SHMI_E_IMAGE_CUT);
		free(meta);
	}
	cr_assert_eq(shmi_image_open(&img, t->img.meta, 4096, NULL, 0), SHMI_E_IMAGE_CUT);
	cr_assert_eq(shmi_image_open(&img, t->img.meta, t->meta_len, t->img.ctl, t->img.geo.ctl_bytes - 1),
	        SHMI_E_IMAGE_CUT);
	cr_assert_eq(shmi_image_open(&img, t->img.meta, t->meta_len, t->img.ctl, 0), SHMI_E_IMAGE_CUT);
	test_image_free(t);
}

TEST_ON_IMAGES(image, random_superblocks, PAGES)
{
	struct test_random random = test_random_init("random superblocks");
	unsigned char sound[4096];
	struct shmi_image img;

	memcpy(sound, t->img.meta, sizeof(sound));
	for (uint32_t i = 0; i < 20000; i++) {
		/* Garbage from some byte on: the beginning looks right more often than not. */
		uint32_t from = test_random_below(&random, sizeof(struct shmi_super));

		for (uint32_t byte = from; byte < sizeof(struct shmi_super); byte++)
			t->img.meta[byte] = (unsigned char)test_random_next(&random);
		int error = open_image(t, &img);

		if (from <= offsetof(struct shmi_super, geometry))
			cr_assert_neq(error, 0, "garbage from %u on was opened", from);
		memcpy(t->img.meta, sound, sizeof(sound));
	}
}

Test(image, errors_have_sentences)
{
	for (int error = SHMI_E_IMAGE_CUT; error <= SHMI_E_IMAGE_DAMAGED; error++)
		for (int other = SHMI_E_IMAGE_CUT; other < error; other++)
			cr_assert_str_neq(shmi_image_strerror(error), shmi_image_strerror(other));
	cr_assert_str_eq(shmi_image_strerror(77), "unknown reason");
}

/* ---- geometry ---- */

static void expect_in_order(const uint64_t *at, const uint64_t *len, size_t count, uint64_t end)
{
	for (size_t i = 0; i < count; i++) {
		cr_assert_eq(at[i] % 64, 0, "part %zu splits cache lines", i);
		cr_assert_leq(at[i] + len[i], i + 1 < count ? at[i + 1] : end, "part %zu runs into the next", i);
	}
}

Test(image, geometry_parts_do_not_overlap)
{
	static const uint32_t limits[] = {2, 3, 1000, SHMI_ARENA_PAGES, SHMI_ARENA_PAGES + 1, 524288, SHMI_MAX_PAGES};

	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
		struct shmi_geometry g;
		uint64_t n = limits[i];

		shmi_geometry_init(&g, limits[i]);
		const uint64_t meta[] = {0, g.classes, g.pageheap, g.central, g.owners, g.threads, g.roots,
		        g.page_class, g.page_span, g.spans};
		const uint64_t meta_len[] = {sizeof(struct shmi_super), sizeof(struct shmi_class) * SHMI_CLASSES,
		        sizeof(struct shmi_pageheap_heads), sizeof(struct shmi_central_lists) * SHMI_SPAN_CLASSES,
		        sizeof(struct shmi_owner) * SHMI_MAX_CLIENTS,
		        sizeof(struct shmi_thread_slot) * SHMI_MAX_THREADS, sizeof(struct shmi_root) * SHMI_MAX_ROOTS,
		        2 * n, 4 * n, 64 * n};
		const uint64_t ctl[] = {0, g.holders, g.bitmaps, g.records};
		const uint64_t ctl_len[] = {
		        sizeof(struct shmi_ctl_head), 4 * n, 64 * n, SHMI_MAX_THREADS * g.record_bytes};

		expect_in_order(meta, meta_len, 10, g.meta_bytes);
		expect_in_order(ctl, ctl_len, 4, g.ctl_bytes);
		cr_assert_leq(g.roots + sizeof(struct shmi_root) * SHMI_MAX_ROOTS, g.fixed_bytes);
		cr_assert_leq(g.fixed_bytes, g.page_class);
		cr_assert_eq(g.meta_bytes % 4096, 0);
		cr_assert_eq(g.ctl_bytes % 4096, 0);
		cr_assert_eq(g.record_bytes % 4096, 0);
	}
}

/* Arena by arena, what is backed covers the entries of its pages, and stays inside the object. */
Test(image, arena_parts_cover_their_pages)
{
	uint32_t limit = 3 * SHMI_ARENA_PAGES + 77;
	struct shmi_geometry g;

	shmi_geometry_init(&g, limit);
	const uint64_t at[SHMI_ARENA_PARTS] = {g.page_class, g.page_span, g.spans, g.holders, g.bitmaps};
	const uint64_t each[SHMI_ARENA_PARTS] = {2, 4, 64, 4, 64};

	for (uint32_t first = 0; first < limit; first += SHMI_ARENA_PAGES)
		for (uint32_t part = 0; part < SHMI_ARENA_PARTS; part++) {
			uint32_t pages = limit - first < SHMI_ARENA_PAGES ? limit - first : SHMI_ARENA_PAGES;
			uint64_t off, len;

			shmi_geometry_arena_part(&g, part, first, pages, &off, &len);
			cr_assert(off % 4096 == 0 && len % 4096 == 0 && len > 0);
			cr_assert_leq(off, at[part] + first * each[part]);
			cr_assert_geq(off + len, at[part] + (uint64_t)(first + pages) * each[part]);
			cr_assert_leq(off + len, shmi_arena_part_in_ctl(part) ? g.ctl_bytes : g.meta_bytes);
			cr_assert_leq(len, (uint64_t)pages * each[part] + 8192, "no more than widened");
		}
}

Test(image, layout_hash_is_stable)
{
	cr_assert_eq(shmi_layout_hash(), shmi_layout_hash());
	cr_assert_neq(shmi_layout_hash(), 0);
}
