/* A bounded queue of blocks between processes, any number of producers and consumers, each of which may be killed at any
 * instruction.
 *
 *	queue put N [SIZE]    sends N messages of SIZE bytes
 *	queue take [N]        takes N messages, and waits for them; without N, those that are there
 *	queue list [N]        the same, with a line for each: taker, producer, number
 *	queue drop            frees the queue and what is in it
 *
 * Position p of the queue is slot p % SLOTS in turn p / SLOTS. A slot's word {turn, state, member} goes through FREE, FILLING, FULL,
 * TAKEN, and FREE of the next turn; it only grows, so a compare-and-exchange cannot mistake an old turn for a new one. In FILLING
 * and TAKEN the slot and its block are the member's whom the word names, else nobody's. `head` and `tail` are hints: who finds that
 * a position has been passed advances them. A message is handed over at most once: the one that a killed consumer had taken is lost.
 *
 * A member holds the robust mutex of its place for life. Who waits longer than LOOK_MS for a slot tries the mutex of the member that
 * has it: EBUSY: it lives. EOWNERDEAD: it is dead, and whoever got the mutex mends the member's slots: one that was FILLING becomes
 * FULL without a block, which consumers skip; one that was TAKEN becomes FREE; the block of either is freed. If the one that mends
 * is killed, the mutex is once more that of a dead owner, and the next one finds the slots that are left as they were.
 *
 * What a death leaves: a block is unknown to all from its allocation until the slot names it, and from the clearing of its offset
 * until it is free. A process has one block at a time in such a state, mending included: so at most one block stays allocated for
 * each that is killed, as the heap itself may leave one, and none is freed twice, as none is freed that a slot still names.
 *
 * All members are in one pid namespace: the owner of a robust mutex is a thread id.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <shmalloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 64u
#define MEMBERS 64u
#define LOOK_MS 100
#define TRIES 12 /* of a call that the daemon did not answer in time; each waits for five seconds */

enum { FREE, FILLING, FULL, TAKEN };

struct slot {
	_Atomic uint64_t word; /* turn << 16 | state << 14 | member */
	_Atomic shma_off block; /* 0: none */
	_Atomic uint64_t size;
};

struct queue {
	uint64_t slots, members; /* as they were compiled in */
	_Atomic uint64_t head, tail; /* positions */
	_Atomic uint32_t filled, freed; /* futex words: counts of events */
	_Atomic uint64_t joined; /* members so far */
	pthread_mutex_t alive[MEMBERS];
	struct slot slot[SLOTS];
};

struct message {
	uint64_t producer, number, size;
	unsigned char pattern[];
};

static shma_heap *heap;
static struct queue *queue;
static unsigned me; /* our place */
static uint64_t my_id; /* and the number that nobody else has had */

static void fail(const char *what)
{
	const char *hint = errno == EAGAIN ? " (the daemon is away: start it, and run this again)"
	                   : errno == ENOENT || errno == ECONNREFUSED ? " (start shmallocd, or set SHMALLOC_SOCKET)"
	                   : errno == ENOMEM                          ? " (the heap is full: take or drop messages)"
	                                                              : "";

	fprintf(stderr, "queue: %s: %s%s\n", what, strerror(errno), hint);
	exit(1);
}

/* ---- slots ---- */

static uint64_t word_of(uint64_t turn, unsigned state, unsigned member)
{
	return turn << 16 | (uint64_t)state << 14 | member;
}

static unsigned state_of(uint64_t word)
{
	return word >> 14 & 3;
}

static unsigned member_of(uint64_t word)
{
	return word & 0x3fff;
}

static void announce(_Atomic uint32_t *events)
{
	atomic_fetch_add(events, 1);
	syscall(SYS_futex, events, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
}

/* Ends FILLING: the slot is the consumers'. */
static void slot_publish(struct slot *slot)
{
	slot->word = word_of(slot->word >> 16, FULL, 0);
	announce(&queue->filled);
}

static void slot_empty(struct slot *slot)
{
	void *block = shma_from_off(heap, slot->block);

	slot->block = 0; /* killed from here until the block is free: it stays allocated */
	shma_free(block);
}

/* Ends TAKEN: the slot is the producers', in the next turn. */
static void slot_release(struct slot *slot)
{
	slot_empty(slot);
	slot->word = word_of((slot->word >> 16) + 1, FREE, 0);
	announce(&queue->freed);
}

/* The next slot in state `from` becomes ours in state `to`. NULL: none is; *in_the_way is the word that has to change first. */
static struct slot *claim(_Atomic uint64_t *hint, unsigned from, unsigned to, uint64_t *in_the_way)
{
	for (;;) {
		uint64_t at = *hint, turn = at / SLOTS, want = word_of(turn, from, 0) >> 14;
		struct slot *slot = &queue->slot[at % SLOTS];
		uint64_t word = slot->word;

		if (word >> 14 < want) {
			*in_the_way = word;
			return NULL;
		}
		bool ours =
		        word >> 14 == want && atomic_compare_exchange_strong(&slot->word, &word, word_of(turn, to, me));

		if (ours || word >> 14 > want)
			atomic_compare_exchange_strong(hint, &at, at + 1);
		if (ours)
			return slot;
	}
}

/* ---- members ---- */

static void mend(unsigned member)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &queue->slot[i];
		uint64_t word = slot->word;

		if (member_of(word) != member)
			continue;
		if (state_of(word) == FILLING) {
			slot_empty(slot);
			slot_publish(slot);
		} else if (state_of(word) == TAKEN) {
			slot_release(slot);
		}
	}
}

/* True, with the mutex of the place held, if nobody is there; what a dead member left is mended. */
static bool place_lock(unsigned member)
{
	int error = pthread_mutex_trylock(&queue->alive[member]);

	if (error == EOWNERDEAD) {
		mend(member);
		error = pthread_mutex_consistent(&queue->alive[member]);
	}
	errno = error;
	if (error && error != EBUSY)
		fail("a member's mutex");
	return error == 0;
}

/* Waits for an event after `seen`; if there is none, looks at the member that has the slot in the way. */
static void await(_Atomic uint32_t *events, uint32_t seen, uint64_t in_the_way)
{
	struct timespec patience = {.tv_nsec = LOOK_MS * 1000000};
	bool timeout = syscall(SYS_futex, events, FUTEX_WAIT, seen, &patience, NULL, 0) != 0 && errno == ETIMEDOUT;

	if (timeout && (state_of(in_the_way) == FILLING || state_of(in_the_way) == TAKEN) &&
	        place_lock(member_of(in_the_way)))
		pthread_mutex_unlock(&queue->alive[member_of(in_the_way)]);
}

/* ---- the queue ---- */

static struct queue *queue_make(void)
{
	struct queue *made = shma_heap_alloc(heap, sizeof(*made), 0, SHMA_ZERO); /* zeros: all slots FREE in turn 0 */
	pthread_mutexattr_t robust;
	int rc = -1;

	if (!made)
		fail("make");
	pthread_mutexattr_init(&robust);
	pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
	for (unsigned i = 0; i < MEMBERS; i++)
		pthread_mutex_init(&made->alive[i], &robust);
	made->slots = SLOTS;
	made->members = MEMBERS;
	for (int i = 0; i < TRIES && (rc = shma_root_set(heap, "queue", made)) != 0 && errno == EAGAIN;)
		i++;
	if (rc != 0)
		fail("make");
	return made;
}

/* Who joins, makes or drops the queue holds the lock on the program's own file meanwhile: no new file is needed, and the kernel
 * gives it back whenever its holder ends. */
static int door_open(void)
{
	int door = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	if (door < 0 || flock(door, LOCK_EX) != 0)
		fail("/proc/self/exe");
	return door;
}

/* With the door's lock held. NULL: there is none. */
static struct queue *queue_find(void)
{
	struct queue *found = shma_root_get(heap, "queue");

	if (!found && errno != ENOENT)
		fail("the root");
	if (found && (shma_usable_size(found) < sizeof(*found) || found->slots != SLOTS || found->members != MEMBERS)) {
		fputs("queue: the root is not a queue of this program: drop it with the one that made it\n", stderr);
		exit(1);
	}
	return found;
}

/* Takes a free place, and mends what the dead have left in any. */
static void queue_join(void)
{
	int door = door_open();

	queue = queue_find();
	if (!queue)
		queue = queue_make();
	me = MEMBERS;
	for (unsigned i = 0; i < MEMBERS; i++) {
		if (!place_lock(i))
			continue;
		if (me == MEMBERS)
			me = i;
		else
			pthread_mutex_unlock(&queue->alive[i]);
	}
	errno = EUSERS;
	if (me == MEMBERS)
		fail("all places are taken: end a member");
	my_id = atomic_fetch_add(&queue->joined, 1);
	close(door);
}

static void queue_leave(void)
{
	pthread_mutex_unlock(&queue->alive[me]);
}

/* ---- commands ---- */

static unsigned char pattern_of(const struct message *m, uint64_t i)
{
	return (unsigned char)(m->producer * 31 + m->number * 7 + i);
}

/* The slot is passed on even without a block, as consumers wait for it. */
static struct message *put_one(uint64_t number, uint64_t size)
{
	uint64_t in_the_way;
	struct slot *slot;

	for (uint32_t seen; seen = queue->freed, (slot = claim(&queue->tail, FREE, FILLING, &in_the_way)) == NULL;)
		await(&queue->freed, seen, in_the_way);
	struct message *m =
	        shma_malloc(sizeof(*m) + size); /* killed from here until the slot names it: it stays allocated */
	int error = errno;

	slot->block = shma_to_off(m);
	slot->size = sizeof(*m) + size;
	if (m)
		*m = (struct message){.producer = my_id, .number = number, .size = size};
	for (uint64_t i = 0; m && i < size; i++)
		m->pattern[i] = pattern_of(m, i);
	slot_publish(slot);
	errno = error;
	return m;
}

static void put(uint64_t n, uint64_t size)
{
	for (uint64_t number = 0, tries = 0; number < n;) {
		if (put_one(number, size))
			number++, tries = 0;
		else if (errno != EAGAIN || ++tries == TRIES)
			fail("put");
	}
	printf("put: producer %llu, %llu messages of %llu bytes\n", (unsigned long long)my_id, (unsigned long long)n,
	        (unsigned long long)size);
}

static bool whole(const struct message *m, uint64_t size)
{
	bool good = size >= sizeof(*m) && m->size == size - sizeof(*m);

	for (uint64_t i = 0; good && i < m->size; i++)
		good = m->pattern[i] == pattern_of(m, i);
	return good;
}

/* Without `wait` ends when no position is left that a producer has claimed. */
static uint64_t take(uint64_t n, bool wait, bool list)
{
	uint64_t taken = 0, bytes = 0, torn = 0, skipped = 0, in_the_way;

	while (taken < n) {
		uint32_t seen = queue->filled;
		struct slot *slot = claim(&queue->head, FULL, TAKEN, &in_the_way);
		const struct message *m = slot ? shma_from_off(heap, slot->block) : NULL;

		if (!slot && !wait && state_of(in_the_way) != FILLING)
			break;
		if (!slot) {
			await(&queue->filled, seen, in_the_way);
			continue;
		}
		if (m) {
			bool good = whole(m, slot->size);

			taken++, bytes += slot->size, torn += !good;
			if (list)
				printf("%llu %llu %llu%s\n", (unsigned long long)my_id, (unsigned long long)m->producer,
				        (unsigned long long)m->number, good ? "" : " torn");
			fflush(stdout);
		} else {
			skipped++;
		}
		slot_release(slot);
	}
	printf("take: taker %llu, %llu messages, %llu bytes, %llu torn, %llu skipped\n", (unsigned long long)my_id,
	        (unsigned long long)taken, (unsigned long long)bytes, (unsigned long long)torn,
	        (unsigned long long)skipped);
	return torn;
}

/* Nobody is in any place, and nobody can come in: all is ours. What is freed must hold no mutex of ours. */
static void drop(void)
{
	unsigned left = 0;
	int door = door_open(), rc = -1;

	queue = queue_find();
	for (unsigned i = 0; queue && i < MEMBERS; i++) {
		errno = EBUSY;
		if (!place_lock(i))
			fail("drop: end the producers and consumers first");
	}
	for (unsigned i = 0; queue && i < SLOTS; i++) {
		left += queue->slot[i].block != 0;
		slot_empty(&queue->slot[i]);
	}
	printf("drop: %llu positions taken, %u messages dropped\n", queue ? (unsigned long long)queue->head : 0, left);
	for (unsigned i = 0; queue && i < MEMBERS; i++)
		pthread_mutex_unlock(&queue->alive[i]);
	for (int i = 0; queue && i < TRIES && (rc = shma_root_del(heap, "queue")) != 0 && errno == EAGAIN;)
		i++;
	if (queue && rc != 0 && errno != ENOENT) /* a deletion that was not answered may have come about */
		fail("drop");
	shma_free(queue);
	close(door);
}

static uint64_t number_of(const char *text)
{
	char *end;
	uint64_t number = strtoull(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || number > UINT32_MAX) {
		fprintf(stderr, "queue: %s is not a number up to %u\n", text, UINT32_MAX);
		exit(2);
	}
	return number;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	bool list = strcmp(command, "list") == 0, takes = list || strcmp(command, "take") == 0;
	uint64_t n = argc > 2 ? number_of(argv[2]) : UINT64_MAX, size = argc > 3 ? number_of(argv[3]) : 200, torn = 0;
	bool puts_ = strcmp(command, "put") == 0 && argc > 2 && argc < 5;

	if (!puts_ && !(takes && argc < 4) && !(strcmp(command, "drop") == 0 && argc == 2))
		return fputs("usage: queue put N [SIZE] | queue take [N] | queue list [N] | queue drop\n", stderr), 2;
	heap = shma_default();
	if (!heap)
		fail("no heap");
	if (!puts_ && !takes)
		return drop(), 0;
	queue_join();
	if (puts_)
		put(n, size);
	else
		torn = take(n, argc > 2, list);
	queue_leave();
	return torn != 0;
}
