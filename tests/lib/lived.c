#include "tests/lib/lived.h"

#include "shm/central.h"
#include "shm/roots.h"

struct shmi_magazine *lived_magazine(const struct lived *h, uint32_t thread, uint32_t size, uint32_t attrs)
{
	return shmi_magazine_at(&h->t->img, h->rec[thread], shmi_sclass_make(shmi_class_of(size), attrs));
}

struct shmi_group lived_group(const struct lived *h, shmi_page span, uint32_t word, uint64_t bits)
{
	struct shmi_word w = shmi_span_word(&h->t->img, span);

	return (struct shmi_group){
	        .bits = bits, .span = span.i, .generation = w.generation, .word = word, .sclass = w.sclass.c};
}

void lived_take(const struct lived *h, uint32_t thread, shmi_page span, uint32_t word, uint64_t bits)
{
	struct shmi_group g = lived_group(h, span, word, bits);

	shmi_threadrec_take(&h->t->img, h->rec[thread],
	        shmi_magazine_at(&h->t->img, h->rec[thread], (shmi_sclass){(uint16_t)g.sclass}), &g);
}

uint64_t lived_pop(struct shmi_magazine *mag)
{
	uint32_t top = shmi_load(&mag->top) - 1;

	shmi_store_release(&mag->top, top);
	return shmi_load(&mag->entry[top]);
}

void lived_push(struct shmi_magazine *mag, uint64_t off)
{
	uint32_t top = shmi_load(&mag->top);

	shmi_store(&mag->entry[top], off);
	shmi_store_release(&mag->top, top + 1);
}

static void give_record(struct lived *h, uint32_t thread, uint32_t client, uint32_t parts)
{
	*shmi_thread_slot_at(&h->t->img, thread) =
	        (struct shmi_thread_slot){.client = (uint16_t)client, .parts = (uint8_t)parts, .head = 1};
	h->rec[thread] = shmi_threadrec_at(&h->t->img, thread);
	shmi_threadrec_at(&h->t->img, thread)->client = client;
}

static shmi_page open_large(struct lived *h, uint32_t pages, uint32_t owner)
{
	struct shmi_run run = test_image_run(h->t, pages);

	shmi_span_open_large(&h->t->img, run, 0, owner, shmi_npages_bytes(run.pages) - 100, false);
	return run.first;
}

static void make_blocks(struct lived *h)
{
	struct shmi_magazine *mag;

	h->held = test_image_span(h->t, 64, 0, 1);
	lived_take(h, 0, h->held, 0, ~0ull);
	mag = lived_magazine(h, 0, 64, 0);
	for (uint32_t i = 0; i < 10; i++) {
		uint64_t off = lived_pop(mag);

		if (i < 3)
			lived_push(lived_magazine(h, 1, 64, 0), off);
	}
	h->scoped = test_image_span(h->t, 256, SHMI_SCOPED, 1);
	lived_take(h, 0, h->scoped, 0, (1ull << 32) - 1);
	lived_pop(lived_magazine(h, 0, 256, SHMI_SCOPED));
	lived_pop(lived_magazine(h, 0, 256, SHMI_SCOPED));

	h->wide = test_image_span(h->t, 2816, 0, 2);
	h->wide_pages = shmi_span_at(&h->t->img, h->wide)->pages;
	h->wide_slots = shmi_span_at(&h->t->img, h->wide)->slots;
	lived_take(h, 1, h->wide, 0, 15);
	lived_pop(lived_magazine(h, 1, 2816, 0));
	lived_pop(lived_magazine(h, 1, 2816, 0));
	shmi_span_at(&h->t->img, h->wide)->written_off = 1;
	shmi_span_at(&h->t->img, h->wide)->written_off_bits = 1;
	shmi_fetch_add(&h->t->img.super->counters.slots_written_off, 1);
}

static void make_central(struct lived *h)
{
	h->central_free = test_image_span(h->t, 16, 0, 1);
	lived_take(h, 0, h->central_free, 3, 1023);
	shmi_store(&lived_magazine(h, 0, 16, 0)->top, 0);
	shmi_central_accept(&h->t->img, h->central_free, 1);
	h->central_full = test_image_span(h->t, 8192, 0, 1);
	lived_take(h, 0, h->central_full, 0, 15);
	shmi_store(&lived_magazine(h, 0, 8192, 0)->top, 0);
	shmi_central_accept(&h->t->img, h->central_full, 1);
	h->odd = test_image_span(h->t, 128, 0, 1);
	shmi_span_quarantine(&h->t->img, h->odd);
}

static void make_large(struct lived *h)
{
	struct shmi_run run;

	h->cached_large = open_large(h, 40, 1);
	shmi_store(&h->rec[2]->big.entry[0],
	        h->cached_large.i | (uint64_t)shmi_span_word(&h->t->img, h->cached_large).generation << 32);
	shmi_store_release(&h->rec[2]->big.top, 1);
	h->orphan = open_large(h, 35, SHMI_NOBODY);
	shmi_pageheap_alloc(&h->t->img, &h->t->floor, (shmi_npages){50}, (shmi_npages){1}, true, 1, &run);
	shmi_span_open_large(&h->t->img, run, SHMI_NOSCAN, 1, 400000, true);
	h->lazy = run.first;
}

/* Runs that go free between others that stay. */
static void make_free(struct lived *h)
{
	struct shmi_run a = test_image_run(h->t, 150), b, c;

	h->large = open_large(h, 33, 2);
	b = test_image_run(h->t, 20);
	h->moving = test_image_run(h->t, 5).first;
	c = test_image_run(h->t, 10);
	open_large(h, 33, 2);
	h->long_free = a.first;
	h->short_free = b.first;
	h->short_returned = c.first;
	shmi_pageheap_put(&h->t->img, a, 2);
	shmi_pageheap_put(&h->t->img, b, 2);
	c.backed = false;
	test_image_return(h->t, c.first, c.pages);
	shmi_pageheap_put(&h->t->img, c, 2);
}

/* The oldest two of thread 1's three blocks of 64 bytes, on their way into the bitmap. */
static void make_spill(struct lived *h)
{
	struct shmi_magazine *mag = lived_magazine(h, 1, 64, 0);
	uint64_t bits = 0;

	for (uint32_t i = 0; i < 2; i++)
		bits |= 1ull << (shmi_load(&mag->entry[i]) - shmi_page_off(h->held).b) / 64;
	struct shmi_group g = lived_group(h, h->held, 0, bits);

	shmi_threadrec_spill(h->rec[1], mag, 2, &g, 1);
}

void lived_init(struct lived *h, struct test_image *t)
{
	*h = (struct lived){.t = t};
	test_image_publish(t, 1);
	shmi_owner_at(&t->img, 1)->in_use = 1;
	shmi_owner_at(&t->img, 2)->in_use = 1;
	give_record(h, 0, 1, 15);
	give_record(h, 1, 2, 1);
	give_record(h, 2, 1, 0);
	make_blocks(h);
	make_central(h);
	make_large(h);
	make_free(h);
	make_spill(h);
	shmi_roots_set(&t->img, "first", (shmi_off){shmi_page_off(h->held).b}, 1);
	shmi_roots_set(&t->img, "large", shmi_page_off(h->large), 2);
}
