#include "daemon/stale.h"

#include "shm/span.h"

void stale_begin(struct heap *heap)
{
	heap->stale.next = 1;
	heap->stale.end = shmi_image_published(&heap->img);
}

bool stale_in(const struct heap *heap, const struct shmi_run *run)
{
	return run->first.i < heap->stale.end && run->first.i + run->pages.n > heap->stale.next;
}

static bool reaches(const struct shmi_image *img, uint32_t run, uint32_t page)
{
	return shmi_span_word(img, (shmi_page){run}).state != SHMI_SPAN_NONE &&
	       page - run < shmi_span_at(img, (shmi_page){run})->pages;
}

/* The run that `page` is in: that of the last turn, or one that begins further behind; no record inside of a run has a state. */
static shmi_page run_of(struct heap *heap, uint32_t page)
{
	uint32_t run = heap->stale.run;

	if (!run || run > page || !reaches(&heap->img, run, page))
		for (run = page; run > 1 && !reaches(&heap->img, run, page);)
			run--;
	heap->stale.run = run;
	return (shmi_page){run};
}

bool stale_step(struct heap *heap, uint32_t most)
{
	const struct shmi_image *img = &heap->img;

	while (heap->stale.next < heap->stale.end && most) {
		uint32_t page = heap->stale.next, n = 1;
		shmi_page run = run_of(heap, page);

		if (reaches(img, run.i, page))
			n = run.i + shmi_span_at(img, run)->pages - page;
		uint32_t state = shmi_span_word(img, run).state;

		if (state == SHMI_SPAN_RETURNED || state == SHMI_SPAN_SEIZED) {
			n = n < most ? n : most;
			if (heap_decommit(heap, (shmi_page){page}, (shmi_npages){n}))
				return false;
			most -= n;
		} else {
			/* Backed since, with what lay there. */
			if (shmi_span_word(img, run).state == SHMI_SPAN_FREE)
				shmi_span_at(img, run)->last_user = SHMI_SEVERAL_USERS;
			most--;
		}
		heap->stale.next = page + n;
	}
	return heap->stale.next < heap->stale.end;
}
