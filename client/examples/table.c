/* A hash table that a pool of processes fills, each of which may be killed at any instruction.
 *
 *	table run NUMBERS [WORKERS]    factorizes so many numbers, each asked for twice, and says what came out
 *	table drop                     frees the table
 *
 * What is kept are results of a slow function that gives the same for the same number, whoever computes it and however often: so a
 * worker looks a number up, computes what is not there without a lock, and puts it in if it is still absent. Workers take ranges of
 * requests from a counter. In the place of one that was killed the parent starts another, and what it had left undone of its range a
 * last pass finds, which asks for every number once more. The table stays under a root: the next run finds all there.
 *
 * A shard is a robust mutex and an array of cells with open addressing. Each change is published by one store: an entry by its
 * result's offset, a cell without one being empty whatever its number is; a grown array, filled beforehand, by the array's offset.
 * So a shard is consistent at every instruction, and who gets the mutex of a dead owner goes on with it as it is. Only the count of
 * used cells may be behind, which is why it is counted anew. Results are never changed or freed while the table is there.
 *
 * A worker has at most one block that nobody else knows: a result or a larger array before it is published, or the old array between
 * that and its free. So at most one stays allocated for each that is killed. The references are offsets, and so the table works in
 * a process that has the heap at another address; they cost an addition.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <shmalloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHARDS 16u
#define FIRST_CELLS 16u /* of a shard; powers of two from here on */
#define FIRST_NUMBER 4000000000ull
#define MAX_FACTORS 64u /* of a number of 64 bits */
#define RANGE 32u /* requests that a worker takes at a time */
#define MAX_WORKERS 64u
#define TRIES 12 /* of a call that the daemon did not answer in time; each waits for five seconds */

struct result {
	uint64_t n;
	uint64_t factor[]; /* primes, the smallest first */
};

struct cell {
	uint64_t number;
	_Atomic shma_off result; /* stored last; 0: the cell is empty */
};

struct cells {
	uint64_t count; /* a power of two */
	struct cell cell[];
};

struct shard {
	pthread_mutex_t lock;
	_Atomic shma_off cells; /* 0: none yet */
	uint64_t used;
};

struct table {
	uint64_t size; /* of this struct, as it was compiled in */
	_Atomic uint64_t next; /* request of this run */
	_Atomic uint64_t computed, found, adopted; /* in all runs; adopted: shards whose owner had died */
	struct shard shard[SHARDS];
};

static shma_heap *heap;
static struct table *table;

static void fail(const char *what)
{
	const char *hint = errno == EAGAIN ? " (the daemon is away: start it, and run this again)"
	                   : errno == ENOENT || errno == ECONNREFUSED ? " (start shmallocd, or set SHMALLOC_SOCKET)"
	                   : errno == ENOMEM ? " (the heap is full: drop the table, or take fewer numbers)"
	                                     : "";

	fprintf(stderr, "table: %s: %s%s\n", what, strerror(errno), hint);
	exit(1);
}

static void *alloc(size_t size)
{
	void *block = NULL;

	for (int i = 0; i < TRIES && (block = shma_heap_alloc(heap, size, 0, SHMA_ZERO)) == NULL && errno == EAGAIN;)
		i++;
	if (!block)
		fail("no memory"); /* with a shard's mutex, perhaps: the next one finds its owner dead, and the shard as it is */
	return block;
}

/* ---- shards ---- */

/* Where the number is, or the empty cell where it would be. There is an empty one, as at most three of four are used. */
static struct cell *cell_of(struct cells *cells, uint64_t number)
{
	uint64_t at = (number * 0x9e3779b97f4a7c15ull) >> 20;

	while (cells->cell[at & (cells->count - 1)].result && cells->cell[at & (cells->count - 1)].number != number)
		at++;
	return &cells->cell[at & (cells->count - 1)];
}

static void shard_count(struct shard *shard)
{
	struct cells *cells = shma_from_off(heap, shard->cells);

	shard->used = 0;
	for (uint64_t i = 0; cells && i < cells->count; i++)
		shard->used += cells->cell[i].result != 0;
}

/* Of a dead owner's shard all but the count is good as it is. Killed here, before the mutex is consistent: the next one counts. */
static struct shard *shard_lock(uint64_t number)
{
	struct shard *shard = &table->shard[number * 0x9e3779b97f4a7c15ull >> 60];

	errno = pthread_mutex_lock(&shard->lock);
	if (errno == EOWNERDEAD) {
		shard_count(shard);
		atomic_fetch_add(&table->adopted, 1);
		errno = pthread_mutex_consistent(&shard->lock);
	}
	if (errno)
		fail("a shard's mutex");
	return shard;
}

static void shard_unlock(struct shard *shard)
{
	pthread_mutex_unlock(&shard->lock);
}

/* Twice as many cells, if more than three of four would be used. */
static void shard_make_room(struct shard *shard)
{
	struct cells *old = shma_from_off(heap, shard->cells), *grown;
	uint64_t count = old ? old->count : 0;

	if ((shard->used + 1) * 4 <= count * 3)
		return;
	count = count ? count * 2 : FIRST_CELLS;
	grown = alloc(sizeof(*grown) + count * sizeof(struct cell));
	grown->count = count;
	for (uint64_t i = 0; old && i < old->count; i++) {
		struct cell *to = cell_of(grown, old->cell[i].number);

		if (!old->cell[i].result)
			continue;
		to->number = old->cell[i].number;
		to->result = old->cell[i].result;
	}
	shard->cells = shma_to_off(grown); /* killed before: the larger array stays allocated; after: the old one */
	shma_free(old);
}

/* NULL: it is not there. */
static const struct result *table_get(uint64_t number)
{
	struct shard *shard = shard_lock(number);
	struct cells *cells = shma_from_off(heap, shard->cells);
	const struct result *result = cells ? shma_from_off(heap, cell_of(cells, number)->result) : NULL;

	shard_unlock(shard);
	return result;
}

/* If absent: another worker may have been faster, with the same result. Room is made first, so that there is no second block that
 * nobody knows, and the result is made under the lock, so that none is made in vain. */
static const struct result *table_put(uint64_t number, const uint64_t *factor, uint64_t n)
{
	struct shard *shard = shard_lock(number);

	shard_make_room(shard);
	struct cell *cell = cell_of(shma_from_off(heap, shard->cells), number);
	struct result *result = shma_from_off(heap, cell->result);

	if (!result) {
		result = alloc(sizeof(*result) + n * sizeof(*factor));
		result->n = n;
		memcpy(result->factor, factor, n * sizeof(*factor));
		cell->number = number;
		cell->result =
		        shma_to_off(result); /* killed before: the result stays allocated; after: the count is behind */
		shard->used++;
	}
	shard_unlock(shard);
	return result;
}

/* ---- the table ---- */

static struct table *table_make(void)
{
	struct table *made = alloc(sizeof(*made));
	pthread_mutexattr_t robust;
	int rc = -1;

	pthread_mutexattr_init(&robust);
	pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
	for (unsigned i = 0; i < SHARDS; i++)
		pthread_mutex_init(&made->shard[i].lock, &robust);
	made->size = sizeof(*made);
	for (int i = 0; i < TRIES && (rc = shma_root_set(heap, "table", made)) != 0 && errno == EAGAIN;)
		i++;
	if (rc != 0)
		fail("make");
	return made;
}

/* NULL: there is none. A run and a drop wait for each other, by a lock on the program's own file that the kernel gives back when
 * its last holder has ended: a run's workers have it as well, so they do not meet the table's end when their parent is killed. */
static struct table *table_open(void)
{
	int door = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	if (door < 0 || flock(door, LOCK_EX) != 0)
		fail("/proc/self/exe");
	struct table *found = shma_root_get(heap, "table");

	if (!found && errno != ENOENT)
		fail("the root");
	if (found && (shma_usable_size(found) < sizeof(*found) || found->size != sizeof(*found))) {
		fputs("table: the root is not a table of this program: drop it with the one that made it\n", stderr);
		exit(1);
	}
	return found;
}

/* Each block is taken out before it is freed: a drop that was cut short can be run again, and a run in between computes again what is
 * gone. */
static void table_drop(void)
{
	uint64_t results = 0;
	int rc = -1;

	table = table_open();
	for (unsigned i = 0; table && i < SHARDS; i++) {
		struct cells *cells = shma_from_off(heap, table->shard[i].cells);

		for (uint64_t c = 0; cells && c < cells->count; c++) {
			void *result = shma_from_off(heap, cells->cell[c].result);

			results += result != NULL;
			cells->cell[c].result = 0;
			shma_free(result);
		}
		table->shard[i].cells = 0;
		shma_free(cells);
	}
	for (int i = 0; table && i < TRIES && (rc = shma_root_del(heap, "table")) != 0 && errno == EAGAIN;)
		i++;
	if (table && rc != 0 && errno != ENOENT) /* a deletion that was not answered may have come about */
		fail("drop");
	shma_free(table);
	printf("drop: %llu results\n", (unsigned long long)results);
}

/* ---- work ---- */

static uint64_t factorize(uint64_t number, uint64_t *factor)
{
	uint64_t n = 0;

	for (uint64_t p = 2; p * p <= number; p += p == 2 ? 1 : 2)
		for (; number % p == 0; number /= p)
			factor[n++] = p;
	if (number > 1)
		factor[n++] = number;
	return n;
}

/* Looked up, or computed and put in; then *computed counts. */
static const struct result *result_of(uint64_t number, _Atomic uint64_t *computed)
{
	const struct result *result = table_get(number);
	uint64_t factor[MAX_FACTORS];

	if (result) {
		atomic_fetch_add(&table->found, 1);
		return result;
	}
	atomic_fetch_add(computed, 1);
	return table_put(number, factor, factorize(number, factor));
}

/* Ends with its parent. */
static void work(uint64_t numbers, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		exit(1);
	for (uint64_t at; (at = atomic_fetch_add(&table->next, RANGE)) < numbers * 2;)
		for (uint64_t i = at; i < at + RANGE && i < numbers * 2; i++)
			result_of(FIRST_NUMBER + i % numbers, &table->computed);
	exit(0);
}

static void worker_start(uint64_t numbers)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		fail("fork");
	if (pid == 0)
		work(numbers, parent);
	printf("worker %d\n", (int)pid);
	fflush(stdout);
}

/* Until all workers have ended by themselves. Returns how many were killed. */
static unsigned pool(uint64_t numbers, uint64_t workers)
{
	unsigned killed = 0;
	int status;

	for (uint64_t i = 0; i < workers; i++)
		worker_start(numbers);
	while (wait(&status) > 0) {
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
			killed++;
			worker_start(numbers);
		} else if (status != 0) {
			fputs("table: a worker failed; what it said is above\n", stderr);
			exit(1);
		}
	}
	return killed;
}

static bool right(const struct result *result, uint64_t number)
{
	uint64_t product = 1, last = 2;
	bool rising = true;

	for (uint64_t i = 0; i < result->n; i++) {
		rising = rising && result->factor[i] >= last;
		last = result->factor[i];
		product *= last;
	}
	return rising && product == number;
}

static int run(uint64_t numbers, uint64_t workers)
{
	_Atomic uint64_t undone = 0;
	uint64_t factors = 0, wrong = 0;

	table = table_open();
	if (!table)
		table = table_make();
	table->next = 0;
	unsigned killed = pool(numbers, workers);

	for (uint64_t i = 0; i < numbers; i++) {
		const struct result *result = result_of(FIRST_NUMBER + i, &undone);

		factors += result->n;
		wrong += !right(result, FIRST_NUMBER + i);
	}
	printf("run: %llu numbers, %llu prime factors, %llu wrong, %u workers killed, %llu numbers left undone; "
	       "in all runs %llu computed, %llu found, %llu shards adopted\n",
	        (unsigned long long)numbers, (unsigned long long)factors, (unsigned long long)wrong, killed,
	        (unsigned long long)undone, (unsigned long long)table->computed, (unsigned long long)table->found,
	        (unsigned long long)table->adopted);
	return wrong != 0;
}

/* 0: it is not a number from 1 to `most`. */
static uint64_t number_of(const char *text, uint64_t most)
{
	char *end;
	uint64_t number = strtoull(text, &end, 10);

	return *text >= '0' && *text <= '9' && !*end && number <= most ? number : 0;
}

int main(int argc, char **argv)
{
	bool drops = argc == 2 && strcmp(argv[1], "drop") == 0;
	uint64_t numbers = argc > 2 && strcmp(argv[1], "run") == 0 ? number_of(argv[2], UINT32_MAX) : 0;
	uint64_t workers = argc > 3 ? number_of(argv[3], MAX_WORKERS) : 4;

	if (!drops && (argc > 4 || !numbers || !workers))
		return fprintf(stderr, "usage: table run NUMBERS [WORKERS (1 to %u)] | table drop\n", MAX_WORKERS), 2;
	heap = shma_default();
	if (!heap)
		fail("no heap");
	if (!drops)
		return run(numbers, workers);
	table_drop();
	return 0;
}
