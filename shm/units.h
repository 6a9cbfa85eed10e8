/* The units in which memory is counted. Each is a struct of one member, so that the compiler refuses to add a page
 * index to an offset. Shared structures store the bare integers; functions take and return these.
 *
 *	shmi_page    index of an 8 KiB page from the base of the data object; also the id of the span that begins there
 *	shmi_npages  a count of pages
 *	shmi_off     a byte offset from the base of the data object; 0 is none (page 0 is never handed out)
 *	shmi_sclass  a span class: size class and attributes, see shm/sizeclass.h
 */
#ifndef SHM_UNITS_H
#define SHM_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHMI_PAGE_SHIFT 13
#define SHMI_PAGE_SIZE ((uint64_t)1 << SHMI_PAGE_SHIFT)
#define SHMI_ARENA_PAGES 8192u /* 64 MiB */
#define SHMI_KIB 1024ull
#define SHMI_MIB (1024ull * 1024)

typedef struct {
	uint32_t i;
} shmi_page;

typedef struct {
	uint32_t n;
} shmi_npages;

typedef struct {
	uint64_t b;
} shmi_off;

typedef struct {
	uint16_t c;
} shmi_sclass;

#define SHMI_NO_PAGE ((shmi_page){0})

static inline shmi_off shmi_page_off(shmi_page page)
{
	return (shmi_off){(uint64_t)page.i << SHMI_PAGE_SHIFT};
}

/* The page that holds `off`. Offsets beyond the widest possible heap give a page beyond every limit. */
static inline shmi_page shmi_off_page(shmi_off off)
{
	uint64_t page = off.b >> SHMI_PAGE_SHIFT;

	return (shmi_page){page > UINT32_MAX ? UINT32_MAX : (uint32_t)page};
}

static inline shmi_page shmi_page_add(shmi_page page, shmi_npages by)
{
	return (shmi_page){page.i + by.n};
}

static inline uint64_t shmi_npages_bytes(shmi_npages pages)
{
	return (uint64_t)pages.n << SHMI_PAGE_SHIFT;
}

/* Pages that `bytes` need, rounded up; `bytes` is at most 2^44. */
static inline shmi_npages shmi_npages_of(uint64_t bytes)
{
	return (shmi_npages){(uint32_t)((bytes + SHMI_PAGE_SIZE - 1) >> SHMI_PAGE_SHIFT)};
}

#endif
