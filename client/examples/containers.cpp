/* Words that processes count together, in a std::pmr::map that lies in the heap.
 *
 *	containers WORD...      counts the words
 *	containers              prints the counts, and removes the table
 *
 * Whoever comes first makes the table; of two who come at once both get the same one. A robust mutex beside the map guards it: who
 * finds that another process has died while it held the mutex cannot know what state the map is in, and says so. Print when
 * nobody counts any more: who waits for the mutex meanwhile would find it gone with the table.
 */
#include <shmalloc.hpp>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <system_error>

#include <pthread.h>

namespace
{

class shared_mutex
{
      public:
	shared_mutex()
	{
		pthread_mutexattr_t attributes;

		pthread_mutexattr_init(&attributes);
		pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
		pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
		pthread_mutex_init(&mutex_, &attributes);
		pthread_mutexattr_destroy(&attributes);
	}

	shared_mutex(const shared_mutex &) = delete;
	shared_mutex &operator=(const shared_mutex &) = delete;

	void lock()
	{
		int error = pthread_mutex_lock(&mutex_);

		if (error == EOWNERDEAD) /* and nobody makes it consistent: from now on all locks fail */
			pthread_mutex_unlock(&mutex_);
		if (error)
			throw std::system_error(error, std::generic_category(), "the table's mutex");
	}

	void unlock()
	{
		pthread_mutex_unlock(&mutex_);
	}

      private:
	pthread_mutex_t mutex_;
};

struct table {
	explicit table(std::pmr::memory_resource *resource) : counts(resource)
	{
	}

	shared_mutex mutex;
	std::pmr::map<std::pmr::string, long> counts; /* the strings get the map's resource by themselves */
};

void count(shma_heap *heap, char **words)
{
	auto *t = shma::find_or_construct<table>(heap, "words", shma::shared_resource(heap));
	std::lock_guard<shared_mutex> guard(t->mutex);

	for (; *words; words++)
		t->counts[*words]++;
}

void print(shma_heap *heap)
{
	(void)shma::shared_resource(heap); /* each process that frees what is in the table needs its own, too */
	auto *t = shma::find<table>(heap, "words");

	if (!t)
		return;
	{
		std::lock_guard<shared_mutex> guard(t->mutex);

		for (const auto &[word, n] : t->counts)
			std::printf("%ld %s\n", n, word.c_str());
	}
	shma::destroy<table>(heap, "words");
}

} /* namespace */

int main(int argc, char **argv)
try {
	shma::heap heap;

	if (argc > 1)
		count(heap, argv + 1);
	else
		print(heap);
	return 0;
} catch (const std::exception &e) {
	std::fprintf(stderr, "containers: %s\n", e.what());
	return 1;
}
