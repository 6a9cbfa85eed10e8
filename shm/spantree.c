#include "shm/spantree.h"

/* Two children by side, so that what is done on one side need not be written again for the other. */
enum side { LEFT, RIGHT };

static uint32_t *child(const struct shmi_image *img, uint32_t node, enum side side)
{
	struct shmi_span *span = shmi_span_at(img, (shmi_page){node});

	return side == LEFT ? &span->next : &span->prev;
}

static uint32_t *parent(const struct shmi_image *img, uint32_t node)
{
	return &shmi_span_at(img, (shmi_page){node})->parent;
}

static enum side side_of(const struct shmi_image *img, uint32_t node)
{
	return *child(img, *parent(img, node), LEFT) == node ? LEFT : RIGHT;
}

/* A bijection, so that no two nodes have the same (the finalizer of MurmurHash3). */
static uint32_t priority(uint32_t node)
{
	node = (node ^ node >> 16) * 0x85ebca6bu;
	node = (node ^ node >> 13) * 0xc2b2ae35u;
	return node ^ node >> 16;
}

static bool before(const struct shmi_image *img, uint32_t a, uint32_t b)
{
	uint32_t pages_a = shmi_span_at(img, (shmi_page){a})->pages, pages_b = shmi_span_at(img, (shmi_page){b})->pages;

	return pages_a != pages_b ? pages_a < pages_b : a < b;
}

/* The word that refers to `node`: a link of its parent, or the root. */
static uint32_t *link_to(const struct shmi_image *img, uint32_t *root, uint32_t node)
{
	uint32_t up = *parent(img, node);

	return up ? child(img, up, side_of(img, node)) : root;
}

/* Turns `node` and its parent about, which keeps the order and lifts `node` by one.
 *
 *	    p            n
 *	   / \          / \
 *	  n   c  --->  a   p       and the mirror image
 *	 / \              / \
 *	a   b            b   c
 */
static void lift(struct shmi_image *img, uint32_t *root, uint32_t node)
{
	uint32_t up = *parent(img, node);
	enum side side = side_of(img, node), other = side == LEFT ? RIGHT : LEFT;
	uint32_t between = *child(img, node, other);

	*link_to(img, root, up) = node;
	*parent(img, node) = *parent(img, up);
	*child(img, up, side) = between;
	if (between)
		*parent(img, between) = up;
	*child(img, node, other) = up;
	*parent(img, up) = node;
}

void shmi_spantree_insert(struct shmi_image *img, uint32_t *root, shmi_page page)
{
	uint32_t up = 0, *link = root;

	while (*link) {
		up = *link;
		link = child(img, up, before(img, page.i, up) ? LEFT : RIGHT);
	}
	*link = page.i;
	*parent(img, page.i) = up;
	*child(img, page.i, LEFT) = *child(img, page.i, RIGHT) = 0;
	while ((up = *parent(img, page.i)) && priority(up) < priority(page.i))
		lift(img, root, page.i);
}

void shmi_spantree_remove(struct shmi_image *img, uint32_t *root, shmi_page page)
{
	uint32_t left, right;

	while ((left = *child(img, page.i, LEFT)) | (right = *child(img, page.i, RIGHT)))
		lift(img, root, !left || (right && priority(left) < priority(right)) ? right : left);
	*link_to(img, root, page.i) = 0;
	*parent(img, page.i) = 0;
}

shmi_page shmi_spantree_best(const struct shmi_image *img, uint32_t root, shmi_npages pages)
{
	uint32_t best = 0;

	while (root) {
		bool fits = shmi_span_at(img, (shmi_page){root})->pages >= pages.n;

		if (fits)
			best = root;
		root = *child(img, root, fits ? LEFT : RIGHT);
	}
	return (shmi_page){best};
}

static uint32_t outermost(const struct shmi_image *img, uint32_t node, enum side side)
{
	uint32_t next;

	while ((next = *child(img, node, side)))
		node = next;
	return node;
}

shmi_page shmi_spantree_last(const struct shmi_image *img, uint32_t root)
{
	return (shmi_page){root ? outermost(img, root, RIGHT) : 0};
}

/* The neighbour in order on `side`: below if there is a child, else the first ancestor that lies on that side. */
static shmi_page step(const struct shmi_image *img, uint32_t node, enum side side)
{
	enum side other = side == LEFT ? RIGHT : LEFT;
	uint32_t down = *child(img, node, side), up;

	if (down)
		return (shmi_page){outermost(img, down, other)};
	while ((up = *parent(img, node)) && side_of(img, node) == side)
		node = up;
	return (shmi_page){up};
}

shmi_page shmi_spantree_next(const struct shmi_image *img, shmi_page page)
{
	return step(img, page.i, RIGHT);
}

shmi_page shmi_spantree_prev(const struct shmi_image *img, shmi_page page)
{
	return step(img, page.i, LEFT);
}
