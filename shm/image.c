#include "shm/image.h"

#include <string.h>

static uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static uint64_t fnv(uint64_t hash, const void *bytes, size_t len)
{
	const unsigned char *p = bytes;

	while (len--)
		hash = (hash ^ *p++) * 0x100000001b3ull;
	return hash;
}

uint64_t shmi_layout_hash(void)
{
	static const uint64_t shape[] = {SHMI_LAYOUT_VERSION, SHMI_PAGE_SIZE, SHMI_ARENA_PAGES, SHMI_MAX_CLIENTS,
	        SHMI_MAX_THREADS, SHMI_MAX_ROOTS, SHMI_SPAN_CLASSES, SHMI_EXACT_PAGES, SHMI_SPILL_MAX, SHMI_BIG_MAX,
	        SHMI_THREAD_HEAD_BYTES, SHMI_RESULT_MAX, sizeof(struct shmi_super),
	        offsetof(struct shmi_super, geometry), offsetof(struct shmi_super, published_pages),
	        offsetof(struct shmi_super, pages), offsetof(struct shmi_super, counters),
	        sizeof(struct shmi_pageheap_heads), sizeof(struct shmi_central_lists), sizeof(struct shmi_owner),
	        sizeof(struct shmi_thread_slot), sizeof(struct shmi_root), offsetof(struct shmi_root, name),
	        sizeof(struct shmi_span), offsetof(struct shmi_span, pages), offsetof(struct shmi_span, slots),
	        offsetof(struct shmi_span, bytes), sizeof(struct shmi_group), sizeof(struct shmi_intent),
	        sizeof(struct shmi_threadrec), offsetof(struct shmi_threadrec, intent),
	        offsetof(struct shmi_threadrec, spill), offsetof(struct shmi_threadrec, big),
	        sizeof(struct shmi_client_state), sizeof(struct shmi_state)};
	struct shmi_class table[SHMI_CLASSES];

	shmi_class_table(table);
	return fnv(fnv(0xcbf29ce484222325ull, shape, sizeof(shape)), table, sizeof(table));
}

const char *shmi_image_strerror(int error)
{
	switch (error) {
	case SHMI_E_IMAGE_CUT:
		return "it is shorter than its header says";
	case SHMI_E_IMAGE_FOREIGN:
		return "it is not an object of shmalloc";
	case SHMI_E_IMAGE_VERSION:
		return "it has another layout version";
	case SHMI_E_IMAGE_DAMAGED:
		return "its header contradicts itself";
	default:
		return "unknown reason";
	}
}

void shmi_geometry_init(struct shmi_geometry *geo, uint32_t limit_pages)
{
	struct shmi_class table[SHMI_CLASSES];
	uint64_t at = 4096, pages = limit_pages;

	shmi_class_table(table);
	*geo = (struct shmi_geometry){.limit_pages = limit_pages, .part_bytes = shmi_class_part_bytes(table)};
	geo->classes = at;
	at += round_up(sizeof(table), 4096);
	geo->pageheap = at;
	at += 4096;
	geo->central = at;
	at += round_up(SHMI_SPAN_CLASSES * sizeof(struct shmi_central_lists), 4096);
	geo->owners = at;
	at += SHMI_MAX_CLIENTS * sizeof(struct shmi_owner);
	geo->threads = at;
	at += SHMI_MAX_THREADS * sizeof(struct shmi_thread_slot);
	geo->roots = at;
	at += SHMI_MAX_ROOTS * sizeof(struct shmi_root);
	geo->fixed_bytes = at;
	geo->page_class = at;
	at += round_up(pages * sizeof(shmi_a16), 4096);
	geo->page_span = at;
	at += round_up(pages * sizeof(shmi_a32), 4096);
	geo->spans = at;
	at += round_up(pages * sizeof(struct shmi_span), 4096);
	geo->meta_bytes = at;

	at = 4096;
	geo->holders = at;
	at += round_up(pages * sizeof(shmi_a32), 4096);
	geo->bitmaps = at;
	at += round_up(pages * SHMI_BITMAP_BYTES_PER_PAGE, 4096);
	geo->records = at;
	geo->record_bytes = SHMI_THREAD_HEAD_BYTES + (uint64_t)SHMI_ATTRS * geo->part_bytes;
	geo->ctl_bytes = at + SHMI_MAX_THREADS * geo->record_bytes;
}

void shmi_geometry_arena_part(
        const struct shmi_geometry *geo, uint32_t part, uint32_t first, uint32_t pages, uint64_t *off, uint64_t *len)
{
	const struct {
		uint64_t at, each;
	} parts[SHMI_ARENA_PARTS] = {{geo->page_class, sizeof(shmi_a16)}, {geo->page_span, sizeof(shmi_a32)},
	        {geo->spans, sizeof(struct shmi_span)}, {geo->holders, sizeof(shmi_a32)},
	        {geo->bitmaps, SHMI_BITMAP_BYTES_PER_PAGE}};
	uint64_t from = (parts[part].at + first * parts[part].each) / 4096 * 4096;

	*off = from;
	*len = round_up(parts[part].at + (first + (uint64_t)pages) * parts[part].each, 4096) - from;
}

static void bind_image(struct shmi_image *img, void *meta, void *ctl, const struct shmi_geometry *geo)
{
	*img = (struct shmi_image){.meta = meta, .ctl = ctl, .super = meta, .geo = *geo};
	img->classes = (const struct shmi_class *)(const void *)(img->meta + geo->classes);
}

void shmi_image_format(struct shmi_image *img, void *meta, void *ctl, const struct shmi_image_params *params)
{
	struct shmi_super *super = meta;
	struct shmi_ctl_head *head = ctl;

	shmi_geometry_init(&super->geometry, params->limit_pages);
	bind_image(img, meta, ctl, &super->geometry);
	shmi_class_table((struct shmi_class *)(void *)(img->meta + img->geo.classes));
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++)
		shmi_thread_slot_at(img, t)->client = SHMI_NOBODY;
	super->layout_version = SHMI_LAYOUT_VERSION;
	super->page_size = (uint32_t)SHMI_PAGE_SIZE;
	super->layout_hash = shmi_layout_hash();
	super->heap_id = params->heap_id;
	super->base = params->base;
	super->created_ns = params->created_ns;
	strncpy(super->heap_name, params->heap_name, sizeof(super->heap_name) - 1);
	shmi_store(&super->pages.unpublished, params->limit_pages);
	*head = (struct shmi_ctl_head){
	        .magic = SHMI_CTL_MAGIC, .layout_hash = super->layout_hash, .heap_id = params->heap_id};
	atomic_thread_fence(memory_order_release);
	super->magic = SHMI_META_MAGIC;
}

/* Our own reckoning of the geometry must agree with the header in every word. */
static int check_super(const struct shmi_super *super, uint64_t meta_len, struct shmi_geometry *geo)
{
	if (super->magic != SHMI_META_MAGIC)
		return SHMI_E_IMAGE_FOREIGN;
	if (super->layout_version != SHMI_LAYOUT_VERSION || super->layout_hash != shmi_layout_hash())
		return SHMI_E_IMAGE_VERSION;
	uint32_t limit = super->geometry.limit_pages;

	if (limit < 2 || limit > SHMI_MAX_PAGES || super->page_size != SHMI_PAGE_SIZE || super->base % SHMI_PAGE_SIZE)
		return SHMI_E_IMAGE_DAMAGED;
	shmi_geometry_init(geo, limit);
	if (memcmp(geo, &super->geometry, sizeof(*geo)) != 0 || shmi_load(&super->published_pages) > limit ||
	        !memchr(super->heap_name, 0, sizeof(super->heap_name)))
		return SHMI_E_IMAGE_DAMAGED;
	return meta_len < geo->meta_bytes ? SHMI_E_IMAGE_CUT : 0;
}

int shmi_image_open(struct shmi_image *img, void *meta, uint64_t meta_len, void *ctl, uint64_t ctl_len)
{
	struct shmi_geometry geo;
	struct shmi_class table[SHMI_CLASSES];

	if (meta_len < 4096)
		return SHMI_E_IMAGE_CUT;
	int error = check_super(meta, meta_len, &geo);

	if (error)
		return error;
	bind_image(img, meta, ctl, &geo);
	shmi_class_table(table);
	if (memcmp(table, img->classes, sizeof(table)) != 0)
		return SHMI_E_IMAGE_DAMAGED;
	if (!ctl)
		return 0;
	const struct shmi_ctl_head *head = ctl;

	if (ctl_len < geo.ctl_bytes)
		return SHMI_E_IMAGE_CUT;
	if (head->magic != SHMI_CTL_MAGIC || head->layout_hash != img->super->layout_hash ||
	        head->heap_id != img->super->heap_id)
		return SHMI_E_IMAGE_FOREIGN;
	return 0;
}
