/* What each function of the family promises. */
#include <limits.h>
#include <malloc.h>

#include "tests/preload/program.h"

static void *volatile hidden; /* so that the compiler does not know what a block is */

static void *opaque(void *block)
{
	hidden = block;
	return hidden;
}

static volatile size_t huge = PTRDIFF_MAX, zero;

static int is_aligned(const void *block, size_t alignment)
{
	return ((uintptr_t)block & (alignment - 1)) == 0;
}

static int is_zero(const unsigned char *block, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (block[i])
			return 0;
	return 1;
}

static void malloc_and_calloc(void)
{
	for (size_t size = 0; size < 3000000; size += 1 + size / 3) {
		unsigned char *block = opaque(malloc(size)), *cleared;

		expect(block && in_heap(block) && is_aligned(block, 16));
		expect(malloc_usable_size(block) >= size);
		memset(block, 0xff, size);
		free(block);
		cleared = opaque(calloc(size, 1));
		expect(cleared && in_heap(cleared) && is_aligned(cleared, 16) && is_zero(cleared, size));
		free(cleared);
	}
	void *a = opaque(malloc(zero)), *b = opaque(malloc(zero));

	expect(a && b && a != b);
	free(a);
	free(b);
	free(opaque(NULL));
	expect(malloc_usable_size(NULL) == 0);
}

static void errors(void)
{
	void *volatile block = malloc(100);
	void *to = block;

	errno = 0;
	expect(!opaque(malloc(huge)) && errno == ENOMEM);
	errno = 0;
	expect(!opaque(calloc(huge, 3)) && errno == ENOMEM);
	errno = 0;
	expect(!opaque(calloc(SIZE_MAX / 16 + 2 + zero, 16)) &&
	        errno == ENOMEM); /* 16 by what is left of the product */
	errno = 0;
	expect(!opaque(reallocarray(block, SIZE_MAX / 16 + 2 + zero, 16)) && errno == ENOMEM);
	errno = 0;
	expect(!opaque(realloc(block, huge)) && errno == ENOMEM);
	errno = 0;
	expect(!opaque(reallocarray(block, huge, 3)) && errno == ENOMEM);
	errno = 0;
	expect(!opaque(memalign(zero - 1, 1)) && errno == EINVAL);
	errno = 0;
	expect(!opaque(pvalloc(zero - 1)) && errno == ENOMEM);
	errno = 7;
	expect(posix_memalign(&to, 4, 1) == EINVAL && posix_memalign(&to, 24, 1) == EINVAL &&
	        posix_memalign(&to, zero, 1) == EINVAL && posix_memalign(&to, 64, huge) == ENOMEM);
	expect(to == block && errno == 7);
	free(block);
	expect(errno == 7);
}

static void alignments(void)
{
	for (size_t alignment = 8; alignment <= 64 << 20; alignment *= 2)
		for (size_t size = 1; size < 400000; size = size * 5 + 3) {
			void *a = NULL, *b = opaque(aligned_alloc(alignment, size)),
			     *c = opaque(memalign(alignment, size));

			expect(posix_memalign(&a, alignment, size) == 0);
			expect(is_aligned(a, alignment) && is_aligned(b, alignment) && is_aligned(c, alignment));
			expect(a && in_heap(a) && b && in_heap(b) && c && in_heap(c));
			memset(a, 1, size);
			memset(b, 2, size);
			memset(c, 3, size);
			free(a);
			free(b);
			free(c);
		}
	void *far = opaque(aligned_alloc(1ul << 30, 100)), *odd = opaque(memalign(zero + 48, 100));

	expect(far && is_aligned(far, 1ul << 30) && odd && is_aligned(odd, 64));
	free(far);
	free(odd);
}

static void pages(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *a = opaque(valloc(10)), *b = opaque(pvalloc(page + 1));

	expect(is_aligned(a, page) && is_aligned(b, page) && in_heap(a) && in_heap(b));
	expect(malloc_usable_size(b) >= 2 * page);
	memset(b, 1, 2 * page);
	free(a);
	free(b);
}

static void resized(void)
{
	unsigned char *block = opaque(realloc(opaque(NULL), 10));

	expect(block && in_heap(block));
	for (size_t size = 10, next; size < 5000000; size = next) {
		memset(block, (int)size & 0xff, size);
		next = size * 2 + 7;
		block = opaque(realloc(block, next));
		expect(block && in_heap(block) && block[0] == (size & 0xff) && block[size - 1] == (size & 0xff));
	}
	memset(block, 5, 5000);
	block = opaque(realloc(block, 5000));
	expect(block && malloc_usable_size(block) < 10000 && block[0] == 5 && block[4999] == 5);
	block = opaque(reallocarray(block, 50, 3));
	expect(block && block[149] == 5);
	expect(!opaque(realloc(block, zero)));
}

extern void *__libc_malloc(size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* What the C library served can be used like all else, and stays its own. */
static void foreign(void)
{
	char *block = opaque(__libc_malloc(100)), *aligned = opaque(__libc_memalign(256, 100));

	expect(!in_heap(block) && malloc_usable_size(block) >= 100);
	strcpy(block, "mine");
	block = opaque(realloc(block, 100000));
	expect(block && !in_heap(block) && strcmp(block, "mine") == 0);
	free(block);
	free(aligned);
}

/* The old form, which the header warns of. */
static int narrow_uordblks(void)
{
	struct mallinfo (*old)(void);

	*(void **)&old = dlsym(RTLD_DEFAULT, "mallinfo");
	expect(old);
	return old().uordblks;
}

static void figures(void)
{
	void *block = opaque(malloc(50 << 20));
	struct mallinfo2 wide = mallinfo2();
	size_t left;

	expect(block && wide.uordblks >= 50 << 20 && wide.arena >= wide.uordblks);
	expect(narrow_uordblks() >= 50 << 20);
	free(block);
	left = mallinfo2().uordblks;
	expect(malloc_trim(0) == 1 && mallinfo2().uordblks < left);
	left = mallinfo2().uordblks;
	(void)malloc_trim(0); /* nothing of ours is left to be given back; the C library may find something each time */
	expect(left < 50 << 20 && mallinfo2().uordblks == left);
}

/* Whether a block lies in a mapping that core dumps leave out. */
static int is_left_out(const void *block)
{
	FILE *maps = fopen("/proc/self/smaps", "r");
	char line[600];
	unsigned long from, to;
	int within = 0;

	expect(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			within = (uintptr_t)block >= from && (uintptr_t)block < to;
		if (within && strncmp(line, "VmFlags:", 8) == 0)
			break;
	}
	fclose(maps);
	return within && strstr(line, " dd");
}

static void core(void)
{
	void *ours = opaque(malloc(100)), *foreign_block = opaque(__libc_malloc(100));

	expect(is_left_out(ours) && !is_left_out(foreign_block));
	free(ours);
	free(foreign_block);
}

/* A stream is opened without a word to the dynamic loader. */
static void loader(void)
{
	expect(!dlsym(RTLD_DEFAULT, "a_name_that_nobody_has"));
	FILE *stream = fopen("/dev/null", "r");

	expect(stream && dlerror());
	fclose(stream);
}

int main(void)
{
	malloc_and_calloc();
	errors();
	alignments();
	pages();
	resized();
	foreign();
	figures();
	core();
	loader();
	return 0;
}
