#include "shm/dump.h"

#include "shm/text.h"
#include "shm/threadrec.h"
#include "shm/walk.h"

#define LINE_MAX 200

struct dump {
	const struct shmi_image *img;
	void (*line)(void *ctx, const char *text);
	void *ctx;
};

__attribute__((format(printf, 2, 3))) static void say(struct dump *d, const char *format, ...)
{
	char text[LINE_MAX + 1];
	va_list args;

	va_start(args, format);
	shmi_text_v(text, sizeof(text), format, args);
	va_end(args);
	d->line(d->ctx, text);
}

const char *shmi_state_name(uint32_t state)
{
	static const char *const names[] = {
	        "NONE", "FREE", "RETURNED", "MOVING", "CENTRAL", "OWNED", "LARGE", "QUARANTINE", "SEIZED"};

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "state?";
}

static void dump_super(struct dump *d)
{
	const struct shmi_super *super = d->img->super;
	const struct shmi_page_counts *pages = &super->pages;

	say(d, "heap %s: %u pages of %u bytes, %u published, base %lx, id %lx, generation %u%s", super->heap_name,
	        d->img->geo.limit_pages, super->page_size, shmi_image_published(d->img), super->base, super->heap_id,
	        shmi_load(&super->generation), shmi_load(&super->dirty) ? ", dirty" : "");
	say(d,
	        "pages: owned %lu, central %lu, free %lu, returned %lu, lazy %lu, moving %lu, seized %lu, unpublished "
	        "%lu",
	        shmi_load(&pages->owned), shmi_load(&pages->central), shmi_load(&pages->free),
	        shmi_load(&pages->returned), shmi_load(&pages->lazy), shmi_load(&pages->moving),
	        shmi_load(&pages->seized), shmi_load(&pages->unpublished));
}

static void dump_counters(struct dump *d)
{
	static const char *const names[] = {"refills", "spans_granted", "spans_returned", "spans_reported",
	        "large_granted", "large_freed", "no_memory", "committed_pages", "scavenged_pages", "deaths",
	        "reclaimed_pages", "slots_written_off", "quarantined_pages", "peak_backed_pages", "bad_words",
	        "mended_pages", "granted_pages", "given_pages", "remote_freed", "over_client", "over_user",
	        "over_share", "heap_full", "system_full", "trims", "seized_pages", "evictions", "recoveries",
	        "pressures"};
	const shmi_a64 *counters = (const shmi_a64 *)&d->img->super->counters;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (shmi_load(&counters[i]))
			say(d, "counter %s: %lu", names[i], shmi_load(&counters[i]));
}

static void dump_owners(struct dump *d)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		const struct shmi_owner *owner = shmi_owner_at(d->img, i);

		if (owner->in_use || owner->spans.count)
			say(d, "client %u: %u spans, %u pages%s", i, owner->spans.count, owner->pages,
			        owner->in_use ? "" : ", not in use");
	}
}

/* "(64 B scoped)" */
static const char *class_name(const struct dump *d, shmi_sclass sclass, char *buf, size_t room)
{
	uint32_t c = shmi_sclass_size_class(sclass), attrs = shmi_sclass_attrs(sclass);
	const char *scoped = attrs & SHMI_SCOPED ? " scoped" : "", *noscan = attrs & SHMI_NOSCAN ? " noscan" : "";

	if (shmi_sclass_is_small(sclass))
		shmi_text(buf, room, "(%u B%s%s)", d->img->classes[c].size, scoped, noscan);
	else
		shmi_text(buf, room, "(%s%s%s)", c == SHMI_CLASS_LARGE ? "large" : "class?", scoped, noscan);
	return buf;
}

static void dump_run(struct dump *d, const struct shmi_walk *walk)
{
	const struct shmi_span *span = shmi_span_at(d->img, walk->page);
	const char *state = shmi_state_name(walk->word.state);
	char class[40];

	if (!shmi_state_in_use(walk->word.state)) {
		say(d, "run %u: %s, %u pages, stamp %u", walk->page.i, state, walk->pages.n, span->stamp);
		return;
	}
	class_name(d, walk->word.sclass, class, sizeof(class));
	if (!shmi_sclass_is_small(walk->word.sclass)) {
		say(d, "run %u: %s, %u pages, class %u %s, owner %u, generation %u, %lu bytes%s", walk->page.i, state,
		        walk->pages.n, (unsigned)walk->word.sclass.c, class, walk->word.owner, walk->word.generation,
		        span->bytes, span->flags & SHMI_SPAN_LAZY ? ", lazy" : "");
		return;
	}
	const struct shmi_class *sizes = &d->img->classes[shmi_sclass_size_class(walk->word.sclass)];
	uint32_t free = d->img->ctl ? shmi_slots_count(shmi_bitmap_at(d->img, walk->page), sizes) : 0;

	say(d, "run %u: %s, %u pages, class %u %s, owner %u, generation %u, %u of %u slots free, %u written off",
	        walk->page.i, state, walk->pages.n, (unsigned)walk->word.sclass.c, class, walk->word.owner,
	        walk->word.generation, free, sizes->slots, (unsigned)span->written_off);
}

static void dump_runs(struct dump *d)
{
	struct shmi_walk walk = shmi_walk_start(d->img);
	uint32_t end = 1;

	for (; shmi_walk_next(d->img, &walk); end = walk.page.i + walk.pages.n) {
		if (walk.page.i != end)
			say(d, "pages %u to %u: no run", end, walk.page.i - 1);
		dump_run(d, &walk);
	}
	if (end < walk.end)
		say(d, "pages %u to %u: no run", end, walk.end - 1);
}

static void dump_central(struct dump *d)
{
	char class[40];

	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		const struct shmi_central_lists *lists = shmi_central_at(d->img, (shmi_sclass){(uint16_t)s});

		if (lists->free.count || lists->full.count || lists->free.head || lists->full.head)
			say(d, "central %u %s: %u with free slots, %u without", s,
			        class_name(d, (shmi_sclass){(uint16_t)s}, class, sizeof(class)), lists->free.count,
			        lists->full.count);
	}
}

static void dump_record(struct dump *d, uint32_t thread, const struct shmi_thread_slot *slot)
{
	static const char *const ops[] = {"none", "take", "put"};
	struct shmi_threadrec *rec = shmi_threadrec_at(d->img, thread);
	struct shmi_group g = shmi_group_read(&rec->intent.group);
	uint32_t op = shmi_load_acquire(&rec->intent.op);
	char class[40];

	if (op)
		say(d, "  intent: %s, span %u, generation %u, word %u, bits %lx", op <= 2 ? ops[op] : "op?", g.span,
		        g.generation, g.word, g.bits);
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		shmi_sclass sclass = {(uint16_t)s};

		if (!shmi_sclass_is_small(sclass) || !(slot->parts & 1u << shmi_sclass_attrs(sclass)))
			continue;
		uint32_t top = shmi_load_acquire(&shmi_magazine_at(d->img, rec, sclass)->top);

		if (top)
			say(d, "  magazine %u %s: %u", s, class_name(d, sclass, class, sizeof(class)), top);
	}
}

static void dump_threads(struct dump *d)
{
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		struct shmi_thread_slot slot = *shmi_thread_slot_at(d->img, t);

		if (slot.client == SHMI_NOBODY || !slot.head)
			continue;
		const struct shmi_threadrec *rec = shmi_threadrec_at(d->img, t);

		say(d, "thread %u: client %u, tid %u, parts %x, spill %u, big %u", t, (unsigned)slot.client, rec->tid,
		        (unsigned)slot.parts, shmi_load_acquire(&rec->spill_top), shmi_load_acquire(&rec->big.top));
		dump_record(d, t, &slot);
	}
}

static void dump_roots(struct dump *d)
{
	char name[SHMI_ROOT_NAME_MAX + 1];

	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++) {
		const struct shmi_root *root = shmi_root_at(d->img, r);
		uint64_t off = shmi_load(&root->off);

		if (!off)
			continue;
		memcpy(name, root->name, sizeof(name));
		name[SHMI_ROOT_NAME_MAX] = 0;
		shmi_page page = shmi_off_page((shmi_off){off});
		bool gone = !shmi_image_page_ok(d->img, page) || !shmi_load(shmi_page_class_at(d->img, page));

		say(d, "root %s: offset %lu, set by client %u%s", name, off, (unsigned)shmi_load(&root->client),
		        gone ? ", no block begins there" : "");
	}
}

void shmi_dump(const struct shmi_image *img, void (*line)(void *ctx, const char *text), void *ctx)
{
	struct dump d = {.img = img, .line = line, .ctx = ctx};

	dump_super(&d);
	dump_counters(&d);
	dump_owners(&d);
	dump_runs(&d);
	dump_central(&d);
	if (img->ctl)
		dump_threads(&d);
	dump_roots(&d);
}
