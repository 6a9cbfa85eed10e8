#include "daemon/survey.h"

#include <errno.h>
#include <sys/mman.h>

#include "daemon/policy.h"
#include "shm/threadrec.h"
#include "shm/walk.h"

/* What looking at one of these costs, in words read. */
#define COST_RECORD 16u
#define COST_MAGAZINE 4u
#define COST_ENTRY 2u
#define COST_SPAN 8u

/* ---- the ledger ---- */

int survey_open(struct core *core)
{
	struct survey *survey = &core->survey;
	size_t bytes = core->heap->img.geo.limit_pages * sizeof(*survey->counted);

	TAILQ_INIT(&survey->waiting);
	survey->counted = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (survey->counted == MAP_FAILED) {
		survey->counted = NULL;
		return -ENOMEM;
	}
	shmi_ledger_open(&core->ledger, &core->heap->img, survey->counted);
	return 0;
}

void survey_close(struct core *core)
{
	struct survey *survey = &core->survey;

	for (uint32_t i = 0; i < SURVEY_KEPT; i++)
		snapshot_free(survey->kept[i]);
	core->heap->img.ledger = NULL;
	if (survey->counted)
		(void)munmap(survey->counted, core->heap->img.geo.limit_pages * sizeof(*survey->counted));
	survey->counted = NULL;
}

/* ---- thread records ---- */

static uint32_t take_off(uint32_t left, uint32_t cost)
{
	return left > cost ? left - cost : 0;
}

static uint32_t see_spill(const struct shmi_image *img, const struct shmi_threadrec *rec)
{
	uint32_t top = shmi_load_acquire(&rec->spill_top);

	if (top > SHMI_SPILL_MAX)
		top = SHMI_SPILL_MAX;
	for (uint32_t i = 0; i < top; i++) {
		struct shmi_group group = shmi_group_read(&rec->spill[i]);

		shmi_ledger_see_group(img, &group);
	}
	return top;
}

static uint32_t see_big(const struct shmi_image *img, const struct shmi_threadrec *rec)
{
	uint32_t top = shmi_load_acquire(&rec->big.top);

	if (top > SHMI_BIG_MAX)
		top = SHMI_BIG_MAX;
	for (uint32_t i = 0; i < top; i++)
		shmi_ledger_see_large(img, shmi_load(&rec->big.entry[i]));
	return top;
}

/* The magazine's entries from survey->entry on, `left` at most. True at its end. */
static bool see_magazine(struct survey *survey, const struct shmi_image *img, struct shmi_threadrec *rec,
        shmi_sclass sclass, uint32_t *left)
{
	struct shmi_magazine *mag = shmi_magazine_at(img, rec, sclass);
	uint32_t top = shmi_load_acquire(&mag->top), cap = img->classes[shmi_sclass_size_class(sclass)].mag_cap;

	if (top > cap)
		top = cap;
	for (; survey->entry < top && *left; survey->entry++, *left = take_off(*left, COST_ENTRY))
		shmi_ledger_see(img, sclass, shmi_load(&mag->entry[survey->entry]));
	return survey->entry >= top;
}

/* The record's magazines from survey->sclass on. True at the end of them. */
static bool see_record(struct survey *survey, const struct shmi_image *img, uint32_t *left)
{
	const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, survey->thread);
	struct shmi_threadrec *rec = shmi_threadrec_at(img, survey->thread);

	if (slot->client == SHMI_NOBODY || !slot->head)
		return true;
	if (!survey->sclass && !survey->entry)
		*left = take_off(*left, see_spill(img, rec) + see_big(img, rec) + COST_RECORD);
	for (; survey->sclass < SHMI_SPAN_CLASSES; survey->sclass++, survey->entry = 0) {
		shmi_sclass sclass = {(uint16_t)survey->sclass};

		if (!shmi_sclass_is_small(sclass) || !(slot->parts & 1u << shmi_sclass_attrs(sclass)))
			continue;
		if (!*left || !see_magazine(survey, img, rec, sclass, left))
			return false;
		*left = take_off(*left, COST_MAGAZINE);
	}
	return true;
}

/* True at the end of the records. */
static bool see_records(struct survey *survey, const struct shmi_image *img, uint32_t *left)
{
	for (; survey->thread < SHMI_MAX_THREADS; survey->thread++, survey->sclass = survey->entry = 0) {
		if (!*left || !see_record(survey, img, left))
			return false;
		*left = take_off(*left, 1);
	}
	return true;
}

/* ---- spans ---- */

/* True at the end of the heap. */
static bool count_spans(struct survey *survey, const struct shmi_image *img, uint32_t *left)
{
	struct shmi_walk walk = shmi_walk_from(img, survey->page);

	while (*left) {
		if (!shmi_walk_next(img, &walk))
			return true;
		shmi_ledger_count(img, walk.page);
		*left = take_off(*left, COST_SPAN);
		survey->page = walk.next;
	}
	return false;
}

/* ---- the end of a survey ---- */

/* How many are kept that the user has asked for. */
static uint32_t count_of(const struct survey *survey, uint32_t uid)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SURVEY_KEPT; i++)
		n += survey->kept[i] && survey->kept[i]->uid == uid;
	return n;
}

/* The place for another: an empty one, else that of the oldest snapshot of the user who has most. */
static struct snapshot **find_place(struct survey *survey)
{
	struct snapshot **place = &survey->kept[0];

	for (uint32_t i = 0; i < SURVEY_KEPT; i++) {
		struct snapshot **here = &survey->kept[i];

		if (!*here)
			return here;
		uint32_t n = count_of(survey, (*here)->uid), most = count_of(survey, (*place)->uid);

		if (n > most || (n == most && survey->last_id - (*here)->id > survey->last_id - (*place)->id))
			place = here;
	}
	return place;
}

static struct snapshot *keep(struct core *core, uint32_t uid)
{
	struct survey *survey = &core->survey;
	uint32_t id = ++survey->last_id ? survey->last_id : ++survey->last_id;
	struct snapshot **place = find_place(survey), *snapshot = snapshot_take(core, id);

	if (!snapshot)
		return NULL;
	snapshot->uid = uid;
	snapshot_free(*place);
	*place = snapshot;
	return snapshot;
}

/* Of those who wait for this survey, the user who has fewest snapshots. */
static uint32_t modest_user(const struct survey *survey)
{
	uint32_t uid = 0, least = UINT32_MAX;

	for (const struct survey_wait *wait = TAILQ_FIRST(&survey->waiting); wait; wait = TAILQ_NEXT(wait, link)) {
		uint32_t n = wait->round == survey->round ? count_of(survey, wait->uid) : UINT32_MAX;

		uid = n < least ? wait->uid : uid;
		least = n < least ? n : least;
	}
	return uid;
}

static void answer(struct core *core, struct survey_wait *wait, const struct snapshot *snapshot)
{
	if (wait->round)
		TAILQ_REMOVE(&core->survey.waiting, wait, link);
	wait->round = 0;
	wait->ready(core, wait, snapshot);
}

static void begin(struct core *core)
{
	struct survey *survey = &core->survey;

	survey->thread = survey->sclass = survey->entry = 0;
	survey->page = 1;
	survey->begun = false;
	survey->round++;
	core_queue(core, &survey->job);
}

/* Who asks for the next one is at the end of the line. */
static void end(struct core *core)
{
	struct survey *survey = &core->survey;
	struct survey_wait *wait = TAILQ_FIRST(&survey->waiting);

	if (!wait || wait->round != survey->round)
		return; /* nobody waits for it any more */
	const struct snapshot *snapshot = keep(core, modest_user(survey));

	while ((wait = TAILQ_FIRST(&survey->waiting)) != NULL && wait->round == survey->round)
		answer(core, wait, snapshot);
}

static bool step_survey(struct core *core, struct job *job)
{
	struct survey *survey = &core->survey;
	const struct shmi_image *img = &core->heap->img;
	uint32_t left = POLICY_SURVEY_WORK;

	(void)job;
	survey->begun = true;
	if (!core->heap->fenced && (!see_records(survey, img, &left) || !count_spans(survey, img, &left)))
		return false;
	end(core);
	survey->running = !TAILQ_EMPTY(&survey->waiting);
	if (survey->running)
		begin(core);
	return true;
}

/* ---- who asks ---- */

void survey_ask(struct core *core, struct survey_wait *wait)
{
	struct survey *survey = &core->survey;

	if (core->heap->fenced) {
		wait->round = 0;
		answer(core, wait, keep(core, wait->uid));
		return;
	}
	survey->job.step = step_survey;
	TAILQ_INSERT_TAIL(&survey->waiting, wait, link);
	if (!survey->running)
		begin(core);
	survey->running = true;
	wait->round = survey->begun ? survey->round + 1 : survey->round;
}

void survey_forget(struct core *core, struct survey_wait *wait)
{
	if (wait->round)
		TAILQ_REMOVE(&core->survey.waiting, wait, link);
	wait->round = 0;
}

const struct snapshot *survey_kept(const struct core *core, uint64_t cursor)
{
	uint32_t id = (uint32_t)(cursor >> 32);

	for (uint32_t i = 0; i < SURVEY_KEPT; i++)
		if (core->survey.kept[i] && core->survey.kept[i]->id == id)
			return core->survey.kept[i];
	return NULL;
}
