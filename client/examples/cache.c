/* A cache that survives its processes: the next one finds it warm. Bounded in bytes, with entries of any length.
 *
 *	cache get KEY...      for each key: hit or miss, the value's check sum and length; a miss computes the value
 *	cache limit BYTES     from now on it keeps at most so much; 1 MiB unless said
 *	cache show            what is in it
 *	cache drop            frees it, when the others have ended
 *
 * The root's block has a header, a robust mutex and the heads of the hash chains. It says which layout it has: a program that knows
 * another one refuses it. Values are computed without the mutex; who comes second with one finds the first one's there.
 *
 * What is in the cache is what the chains say: `bytes` follows from them. Any process may be killed at any instruction, with the
 * mutex or without, and each change of a chain is one store:
 *
 *	put     evict until there is room; allocate (1); fill; the chain's head := entry (2); bytes += size
 *	remove  the link to the entry := its next (3); bytes -= size; free (4)
 *
 *	killed after (1)   the chains are as before; the block stays allocated, as nobody knows it
 *	killed after (2)   the entry is in, whole; bytes is too low
 *	killed after (3)   the entry is out; bytes is too high, or right; the block stays allocated
 *	killed after (4)   all is done
 *
 * So who gets the mutex of a dead owner counts `bytes` anew and goes on; if it is killed before the mutex is consistent, the next one
 * does it again. One process has at most one block that nobody knows, as room is made before a block is allocated.
 *
 * Eviction is CLOCK: a hit marks its entry, and a hand goes round the chains, takes marks away, and takes out the first entry
 * without one. It needs no list besides the chains, whose order would be a second truth to be mended.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <shmalloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define CHAINS 1024u
#define LIMIT (1u << 20)
#define MAX_KEY 4096u
#define SLOWNESS 1000u /* rounds for 8 bytes of a value */
#define TRIES 12 /* of a call that the daemon did not answer in time; each waits for five seconds */
#define MAGIC 0x45484341434d4853ull /* "SHMCACHE" */
#define LAYOUT 1u /* of the structs below; to be changed with them */

struct entry {
	_Atomic shma_off next;
	uint32_t marked; /* used since the hand came by */
	uint32_t key_size;
	uint64_t value_size;
	unsigned char bytes[]; /* the key, then the value */
};

struct cache {
	uint64_t magic, layout;
	pthread_mutex_t lock; /* of all below */
	uint64_t limit;
	_Atomic uint64_t bytes; /* in entries */
	uint64_t hand; /* the chain that it is at */
	uint64_t hits, misses, evicted, mended;
	_Atomic shma_off chain[CHAINS];
};

static shma_heap *heap;
static struct cache *cache;

static void fail(const char *what)
{
	const char *hint = errno == EAGAIN ? " (the daemon is away: start it, and run this again)"
	                   : errno == ENOENT || errno == ECONNREFUSED ? " (start shmallocd, or set SHMALLOC_SOCKET)"
	                   : errno == ENOMEM                          ? " (the heap is full: lower the cache's limit)"
	                                                              : "";

	fprintf(stderr, "cache: %s: %s%s\n", what, strerror(errno), hint);
	exit(1);
}

/* ---- entries: with the lock held ---- */

static uint64_t hash_of(const void *bytes, size_t size)
{
	const unsigned char *byte = bytes;
	uint64_t hash = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ byte[i]) * 0x100000001b3ull;
	return hash ^ hash >> 29;
}

static uint64_t size_of(const struct entry *entry)
{
	return sizeof(*entry) + entry->key_size + entry->value_size;
}

static struct entry *entry_at(_Atomic shma_off *link)
{
	return shma_from_off(heap, *link);
}

static _Atomic shma_off *chain_of(const char *key)
{
	return &cache->chain[hash_of(key, strlen(key)) % CHAINS];
}

static struct entry *entry_find(const char *key)
{
	struct entry *entry = entry_at(chain_of(key));

	while (entry && (entry->key_size != strlen(key) || memcmp(entry->bytes, key, entry->key_size) != 0))
		entry = entry_at(&entry->next);
	return entry;
}

static void entry_remove(_Atomic shma_off *link)
{
	struct entry *entry = entry_at(link);

	*link = entry->next; /* killed from here until the block is free: it stays allocated */
	cache->bytes -= size_of(entry);
	shma_free(entry);
}

/* Until `room` bytes are there. In the second round no entry is marked. */
static void make_room(uint64_t room)
{
	for (uint64_t chains = 0; cache->bytes + room > cache->limit && chains <= 2 * CHAINS; chains++) {
		_Atomic shma_off *link = &cache->chain[cache->hand++ % CHAINS];

		while (*link && cache->bytes + room > cache->limit) {
			struct entry *entry = entry_at(link);

			if (entry->marked) {
				entry->marked = 0;
				link = &entry->next;
			} else {
				entry_remove(link);
				cache->evicted++;
			}
		}
	}
}

/* False and errno without memory, and then the caller has the value all the same. Where the daemon is away, others wait for the lock
 * until that is clear. */
static bool entry_put(const char *key, const unsigned char *value, uint64_t size)
{
	struct entry *entry, head = {.key_size = (uint32_t)strlen(key), .value_size = size};

	if (size_of(&head) > cache->limit)
		return true; /* as if it had been evicted at once */
	make_room(size_of(&head));
	entry = shma_malloc(size_of(&head));
	if (!entry)
		return false;
	*entry = head;
	entry->next = *chain_of(key);
	memcpy(entry->bytes, key, head.key_size);
	memcpy(entry->bytes + head.key_size, value, size);
	*chain_of(key) = shma_to_off(entry); /* the entry is in */
	cache->bytes += size_of(&head);
	return true;
}

/* Bytes in all entries, and how many these are. */
static uint64_t count(uint64_t *entries)
{
	uint64_t bytes = 0;

	*entries = 0;
	for (unsigned i = 0; i < CHAINS; i++) {
		for (struct entry *entry = entry_at(&cache->chain[i]); entry; entry = entry_at(&entry->next)) {
			bytes += size_of(entry);
			++*entries;
		}
	}
	return bytes;
}

/* ---- the cache ---- */

static void cache_lock(void)
{
	uint64_t entries;

	errno = pthread_mutex_lock(&cache->lock);
	if (errno == EOWNERDEAD) {
		cache->bytes = count(&entries);
		cache->mended++;
		errno = pthread_mutex_consistent(&cache->lock);
	}
	if (errno)
		fail("the lock");
}

static void cache_unlock(void)
{
	pthread_mutex_unlock(&cache->lock);
}

static void cache_make(void)
{
	struct cache *made = shma_heap_alloc(heap, sizeof(*made), 0, SHMA_ZERO);
	pthread_mutexattr_t robust;
	int rc = -1;

	if (!made)
		fail("make");
	pthread_mutexattr_init(&robust);
	pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&made->lock, &robust);
	made->magic = MAGIC;
	made->layout = LAYOUT;
	made->limit = LIMIT;
	for (int i = 0; i < TRIES && (rc = shma_root_set(heap, "cache", made)) != 0 && errno == EAGAIN;)
		i++;
	if (rc != 0)
		fail("make");
}

/* NULL: there is none. One that this program does not know is left alone. */
static struct cache *cache_find(void)
{
	struct cache *found = shma_root_get(heap, "cache");

	if (!found && errno != ENOENT)
		fail("the root");
	if (found && (shma_usable_size(found) < offsetof(struct cache, lock) || found->magic != MAGIC)) {
		fputs("cache: the root \"cache\" is not a cache's: use another heap\n", stderr);
		exit(1);
	}
	if (found && found->layout != LAYOUT) {
		fprintf(stderr,
		        "cache: this one has layout %llu, and the program knows layout %u: drop it with the program "
		        "that made it\n",
		        (unsigned long long)found->layout, LAYOUT);
		exit(1);
	}
	return found;
}

static void door_lock(int door, int how)
{
	if (flock(door, how) != 0)
		fail("/proc/self/exe");
}

/* Who uses the cache shares a lock on the program's own file for life, who makes or drops it has it alone: the kernel gives it back
 * whenever its holder ends. Between the two kinds it is let go, so one that was just made may have been dropped again. */
static void cache_open(bool drop)
{
	int door = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	door_lock(door, drop ? LOCK_EX : LOCK_SH);
	while ((cache = cache_find()) == NULL && !drop) {
		door_lock(door, LOCK_EX);
		if (!cache_find())
			cache_make();
		door_lock(door, LOCK_SH);
	}
}

/* ---- commands ---- */

/* Something slow that gives the same for the same key, of a length that depends on the key. */
static unsigned char *compute(const char *key, uint64_t *size)
{
	uint64_t state = hash_of(key, strlen(key));
	unsigned char *value;

	*size = (16 + state % 500) * sizeof(state);
	value = malloc(*size);
	if (!value)
		fail("compute");
	for (uint64_t i = 0; i < *size; i += sizeof(state)) {
		for (unsigned round = 0; round < SLOWNESS; round++)
			state = (state ^ state >> 27) * 0x3c79ac492ba7b653ull + round;
		memcpy(value + i, &state, sizeof(state));
	}
	return value;
}

/* A copy, as the entry may be evicted as soon as the lock is free. NULL: a miss. */
static unsigned char *look_up(const char *key, uint64_t *size)
{
	unsigned char *value = NULL;

	cache_lock();
	struct entry *entry = entry_find(key);

	if (entry) {
		*size = entry->value_size;
		value = malloc(*size);
		if (!value)
			fail(key);
		memcpy(value, entry->bytes + entry->key_size, *size);
		entry->marked = 1;
	}
	cache->hits += entry != NULL;
	cache->misses += entry == NULL;
	cache_unlock();
	return value;
}

static void get(const char *key)
{
	uint64_t size;
	unsigned char *value = look_up(key, &size);
	bool hit = value != NULL, kept = true;

	if (!hit) {
		value = compute(key, &size);
		cache_lock();
		kept = entry_find(key) || entry_put(key, value, size);
		cache_unlock();
	}
	if (!kept)
		fprintf(stderr, "cache: %s is not kept: %s\n", key, strerror(errno));
	printf("%s %s %016llx %llu\n", key, hit ? "hit" : "miss", (unsigned long long)hash_of(value, size),
	        (unsigned long long)size);
	fflush(stdout);
	free(value);
}

static void set_limit(uint64_t limit)
{
	cache_lock();
	cache->limit = limit;
	make_room(0);
	cache_unlock();
}

/* Status 1 if the count is not what the entries say. */
static int show(void)
{
	uint64_t entries, bytes, counted;

	cache_lock();
	counted = count(&entries);
	bytes = cache->bytes;
	printf("show: %llu entries, %llu of %llu bytes, %llu hits, %llu misses, %llu evicted, mended %llu times\n",
	        (unsigned long long)entries, (unsigned long long)counted, (unsigned long long)cache->limit,
	        (unsigned long long)cache->hits, (unsigned long long)cache->misses, (unsigned long long)cache->evicted,
	        (unsigned long long)cache->mended);
	cache_unlock();
	if (bytes != counted)
		fprintf(stderr, "cache: it counts %llu bytes\n", (unsigned long long)bytes);
	return bytes != counted;
}

/* Nobody else is there. With the lock, so that the next one counts if this is cut short; but its block must not be freed with it held. */
static void drop(void)
{
	int rc = -1;

	cache_lock();
	for (unsigned i = 0; i < CHAINS; i++)
		while (cache->chain[i])
			entry_remove(&cache->chain[i]);
	cache_unlock();
	for (int i = 0; i < TRIES && (rc = shma_root_del(heap, "cache")) != 0 && errno == EAGAIN;)
		i++;
	if (rc != 0 && errno != ENOENT) /* a deletion that was not answered may have come about */
		fail("drop");
	shma_free(cache);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	bool gets = strcmp(command, "get") == 0 && argc > 2, limits = strcmp(command, "limit") == 0 && argc == 3,
	     shows = strcmp(command, "show") == 0 && argc == 2, drops = strcmp(command, "drop") == 0 && argc == 2;
	char *end = NULL;
	uint64_t limit = limits ? strtoull(argv[2], &end, 10) : 0;

	if (!(gets || limits || shows || drops) || (limits && (*end || argv[2][0] < '0' || argv[2][0] > '9')))
		return fputs("usage: cache get KEY... | cache limit BYTES | cache show | cache drop\n", stderr), 2;
	for (int i = 2; gets && i < argc; i++)
		if (strlen(argv[i]) > MAX_KEY)
			return fprintf(stderr, "cache: a key has at most %u bytes\n", MAX_KEY), 2;
	heap = shma_default();
	if (!heap)
		fail("no heap");
	cache_open(drops);
	for (int i = 2; gets && i < argc; i++)
		get(argv[i]);
	if (limits)
		set_limit(limit);
	if (drops && cache)
		drop();
	return shows ? show() : 0;
}
