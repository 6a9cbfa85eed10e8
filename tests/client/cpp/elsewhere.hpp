/* A peer that has the heap at another address than everybody else. */
#ifndef TEST_CPP_ELSEWHERE_HPP
#define TEST_CPP_ELSEWHERE_HPP

#include "tests/client/cpp/turns.hpp"

#include <sys/mman.h>

inline shma_stats stats_of(shma_heap *heap)
{
	shma_stats stats{};

	stats.size = sizeof(stats);
	child_check(shma_stats_get(heap, &stats) == 0);
	return stats;
}

/* What to tell a peer. */
inline std::string base_of(shma_heap *heap)
{
	return std::to_string(stats_of(heap).base);
}

/* Takes the place before the heap can have it. */
inline shma::heap attach_elsewhere(const char *socket, const char *base)
{
	void *place = reinterpret_cast<void *>(std::stoul(base) + (std::size_t{1} << 20));
	void *taken = mmap(place, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	child_check(taken == place);
	shma::heap heap(nullptr, socket);

	child_check(!stats_of(heap).at_base && base_of(heap) != base);
	return heap;
}

#endif
