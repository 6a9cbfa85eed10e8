/* What a child of a fork gets: copies of its own.
 *
 * The heap's pages are shared with whoever has them mapped, the child included: without this, parent and child would write to the
 * same memory. So before the fork the parent copies all pages of the spans that it owns into private memory, laid out like the
 * heap; the child moves that copy to the heap's place, one mremap, and the parent unmaps its own view of it. From then on the child
 * has left the heap: what it allocates is the C library's, a free of an inherited block does nothing, and realloc of one copies. In
 * between, where the pages of others are, it reads zeros; what lies behind the published part of the heap is closed to it.
 *
 * The copy is made before the fork and not in the child after it: so nobody waits, and a child that is killed in between stops nobody.
 * In the child, too, there would be no earlier moment: what the C library does there before its handlers run comes first either way.
 *
 * Our prepare handler is the last of all (we are the first to register), so what other libraries lock and settle before a fork is
 * done; the forking thread does not run meanwhile, as it is here. Other threads do: of what they write the child may see a part, which it
 * has no use for, as a child of a process with threads may only go on to exec.
 *
 * The spans are found in meta by their owner, from one record to the next: what comes and goes meanwhile, for other threads, may
 * be missed or found, and leads nowhere else, since each length is checked. So what is read may have become a hole of the heap, or
 * another's; with SHMA_LAZY there were holes from the start. A load from a hole is a SIGBUS where the system has no page left: so the
 * pages are mapped first, by a call that fails instead, and where that fails the system does the reading, at three times the cost; what
 * cannot be read is zeros in the child. (What becomes a hole between the look and the copy of a few MiB, with the last page of the
 * system taken by then, is still a SIGBUS.) After that the records are looked at once more: what is not ours any more is dropped, and
 * only what is has sizes. Memory that cannot be had makes the copy fail as a whole, here and not at a store to it: the parent goes on,
 * and the child ends with a line.
 *
 * What the C library writes to in the child before its handlers run must not be in the heap: preloadaside.c. A stack that lies there
 * cannot be helped, since the child runs on it at once, as its parent does: such a fork ends the process.
 *
 * vfork, posix_spawn, system and popen run no handlers, and need none: the child is in the parent's memory until it calls exec. A clone
 * without CLONE_VM that goes around the handlers (_Fork, the bare system call) cannot be helped; at its first allocation or free
 * such a process finds its thread cache wiped, though it has not left the heap, and ends.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/preload.h"

#define LARGE 0x80000000u /* in sizes: so many pages */
#define ALIGN (2 * SHMI_MIB) /* so that whole tables of pages are moved */
#define STEP (4 * SHMI_MIB) /* is looked at and copied at a time */
#define WASTE 4u /* huge pages are used for the copy if they make it so many times as large at most */

/* Of the fork under way in this thread. */
struct copy {
	bool cloned; /* the process itself came about without fork(): there is nothing to copy, and its child has no more */
	char *room; /* NULL: none could be made */
	uint64_t room_bytes;
	char *pages; /* in it, like the heap's first `bytes` */
	uint64_t bytes;
	uint32_t *sizes; /* one per page, behind the pages */
};

static __thread struct copy copy __attribute__((tls_model("initial-exec")));

static _Noreturn void end_with(const char *why)
{
	shmi_preload_self.inside++; /* dprintf allocates, which is what this process cannot do any more */
	(void)dprintf(STDERR_FILENO, "shmalloc: %d: %s\n", (int)getpid(), why);
	abort();
}

_Noreturn void shmi_preload_cloned(void)
{
	end_with("this process was cloned without fork(), so it has no memory of its own: run the program without the "
	         "preloaded heap");
}

size_t shmi_inherited_size(uint32_t page)
{
	uint32_t size = page < shmi_preload.n_sizes ? shmi_preload.sizes[page] : 0;

	if (!size)
		end_with("invalid pointer: no block of the parent of this process begins there");
	return size & LARGE ? shmi_npages_bytes((shmi_npages){size & ~LARGE}) : size;
}

/* ---- before ---- */

/* Room for the pages and the sizes, placed like the heap within its tables of pages. */
static bool make_room(struct shma_heap *heap, uint32_t pages)
{
	uint64_t bytes = shmi_npages_bytes((shmi_npages){pages});
	uint64_t room_bytes = bytes + ALIGN + pages * sizeof(*copy.sizes);
	void *room = mmap(NULL, room_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return false;
	uint64_t lead = (heap->env.base - (uint64_t)(uintptr_t)room) & (ALIGN - 1);

	copy = (struct copy){.room = room, .room_bytes = room_bytes, .pages = (char *)room + lead, .bytes = bytes};
	copy.sizes = (uint32_t *)(void *)(copy.pages + bytes);
	return true;
}

/* The pages of the copy, at once, not page by page. False without memory; where the call is not known or not allowed, they come as they
 * are written. */
static bool back(char *to, uint64_t bytes)
{
#ifdef MADV_POPULATE_WRITE
	return madvise(to, bytes, MADV_POPULATE_WRITE) == 0 || errno == EINVAL || errno == EPERM || errno == ENOSYS;
#else
	(void)to, (void)bytes;
	return true;
#endif
}

/* Page by page what is there. False if the system refuses it. */
static bool read_safely(char *to, uint64_t from, uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	for (uint64_t at = 0, step; at < bytes; at += step) {
		struct iovec local = {to + at, bytes - at}, remote = {(void *)(uintptr_t)(from + at), bytes - at};
		ssize_t n = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

		if (n < 0 && errno != EFAULT && errno != ENOMEM)
			return false;
		step = n > 0 ? (uint64_t)n : page;
	}
	return true;
}

/* Whether all of it is mapped now. */
static bool map_again(uint64_t from, uint64_t bytes)
{
#ifdef MADV_POPULATE_READ
	return madvise((void *)(uintptr_t)from, bytes, MADV_POPULATE_READ) == 0;
#else
	(void)from, (void)bytes;
	return false;
#endif
}

/* In steps, so that little time passes between the look and the copy. Without any help of the system it is a copy and nothing else. */
static void read_pages(char *to, uint64_t from, uint64_t bytes)
{
	for (uint64_t at = 0, step; at < bytes; at += step) {
		step = bytes - at < STEP ? bytes - at : STEP;
		if (map_again(from + at, step) || !read_safely(to + at, from + at, step))
			memcpy(to + at, (const char *)(uintptr_t)(from + at), step);
	}
}

/* How long the blocks of a span are that the child may ask about. */
static void note_sizes(const struct shma_heap *heap, uint32_t page, uint32_t pages, shmi_sclass sclass)
{
	uint32_t size = shmi_sclass_is_small(sclass) ? heap->env.img.classes[shmi_sclass_size_class(sclass)].size : 0;

	if (!size)
		copy.sizes[page] = LARGE | pages;
	for (uint32_t p = page; size && p < page + pages; p++)
		copy.sizes[p] = size;
}

/* Whether a span of ours that has blocks begins there, and in any case how many pages further the next record is. */
static bool is_own(const struct shma_heap *heap, uint32_t page, uint32_t end_page, uint32_t *pages, shmi_sclass *sclass)
{
	struct shmi_word word = shmi_span_word(&heap->env.img, (shmi_page){page});
	bool some = word.state != SHMI_SPAN_NONE;

	*pages = some ? shmi_span_at(&heap->env.img, (shmi_page){page})->pages : 1;
	if (!*pages || *pages > end_page - page)
		*pages = 1;
	*sclass = word.sclass;
	return shmi_state_has_blocks(word.state) && word.owner == heap->proc->client;
}

/* What is not ours is nobody's business. */
static void drop(uint32_t page, uint32_t pages)
{
	(void)madvise(copy.pages + shmi_page_off((shmi_page){page}).b, shmi_npages_bytes((shmi_npages){pages}),
	        MADV_DONTNEED);
}

/* Adjacent spans, at once. False without memory. */
static bool copy_run(const struct shma_heap *heap, uint32_t from, uint32_t to)
{
	uint64_t at = shmi_page_off((shmi_page){from}).b, bytes = shmi_page_off((shmi_page){to}).b - at;
	uint32_t pages;
	shmi_sclass sclass;

	if (from >= to)
		return true;
	if (!back(copy.pages + at, bytes))
		return false;
	read_pages(copy.pages + at, heap->env.base + at, bytes);
	for (uint32_t page = from ? from : 1; page < to; page += pages) {
		if (is_own(heap, page, to, &pages, &sclass))
			note_sizes(heap, page, pages, sclass);
		else
			drop(page, pages);
	}
	return true;
}

/* Whether what we own lies so close together that huge pages waste little. They make the copy some twenty times as fast. */
static bool is_dense(const struct shma_heap *heap, uint32_t end_page)
{
	uint32_t in_block = (uint32_t)(ALIGN >> SHMI_PAGE_SHIFT), own = 0, blocks = 0,
	         counted = 0; /* blocks up to here */
	uint32_t pages;
	shmi_sclass sclass;

	for (uint32_t page = 1; page < end_page; page += pages) {
		if (!is_own(heap, page, end_page, &pages, &sclass))
			continue;
		uint32_t first = page / in_block, end_block = (page + pages - 1) / in_block + 1;

		own += pages;
		blocks += end_block - (first < counted ? counted : first);
		counted = end_block;
	}
	return (uint64_t)blocks * in_block <= (uint64_t)own * WASTE;
}

static bool copy_spans(const struct shma_heap *heap, uint32_t end_page)
{
	uint32_t from = heap->own_page ? 0 : 1, pages; /* what has not been copied yet begins here */
	shmi_sclass sclass;
	bool copied = true;

	if (is_dense(heap, end_page))
		(void)madvise(copy.pages, copy.bytes, MADV_HUGEPAGE); /* all of it: mremap moves what is of one kind */
	for (uint32_t page = 1; page < end_page && copied; page += pages) {
		if (is_own(heap, page, end_page, &pages, &sclass))
			continue;
		copied = copy_run(heap, from, page);
		from = page + pages;
	}
	return copied && copy_run(heap, from, end_page);
}

static void drop_copy(void)
{
	if (copy.room)
		(void)munmap(copy.room, copy.room_bytes);
	copy = (struct copy){0};
}

static void prepare(void)
{
	struct shma_heap *heap = shmi_preload.heap;
	int keep = errno;

	if (heap && shmi_preload_is_ours(__builtin_frame_address(0)))
		end_with("fork() on a stack that malloc gave, which parent and child would share: run the "
		         "program without the preloaded heap");
	copy.cloned = heap && !shmi_load_acquire(&heap->proc->attached);
	if (heap && !copy.cloned) {
		uint32_t pages = shmi_image_published(&heap->env.img);

		if (make_room(heap, pages) && !copy_spans(heap, pages))
			drop_copy();
	}
	errno = keep;
}

/* ---- after ---- */

static void parent(void)
{
	int keep = errno;

	drop_copy();
	errno = keep;
}

/* What says that this process is a client goes; the addresses stay, and are no mapping of the heap any more: its lease has ended. */
static void leave(struct shma_heap *heap)
{
	heap->env.base = 0;
	shmi_store(&shmi_heaps[heap->index], (struct shma_heap *)NULL);
	shmi_thread_leave(heap);
	shmi_heap_drop(heap);
	shmi_preload.heap = NULL;
}

static void child(void)
{
	char *base = (char *)(uintptr_t)shmi_preload.base;
	uint64_t rest = shmi_preload.bytes - copy.bytes;
	int keep = errno;

	if (!shmi_preload.heap || copy.cloned)
		return;
	if (!copy.room)
		end_with("no memory for a copy of what the parent of this process holds");
	if ((copy.bytes && mremap(copy.pages, copy.bytes, copy.bytes, MREMAP_MAYMOVE | MREMAP_FIXED, base) != base) ||
	        (rest && mmap(base + copy.bytes, rest, PROT_NONE,
	                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED))
		end_with("the copy of what the parent of this process holds could not be put in its place");
	shmi_preload.sizes = copy.sizes;
	shmi_preload.n_sizes = (uint32_t)(copy.bytes >> SHMI_PAGE_SHIFT);
	copy = (struct copy){0};
	leave(shmi_preload.heap);
	errno = keep;
}

void shmi_preload_watch_forks(void)
{
	if (pthread_atfork(prepare, parent, child) != 0)
		end_with("no memory for the handlers of a fork");
}
