// Boost.Interprocess: managed shared memory, with its default algorithm (a red-black tree, best fit) or with BOOST_SEQ_FIT the simple
// sequential one. The name is gone as soon as the memory is mapped; processes inherit the mapping.
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/interprocess/mem_algo/simple_seq_fit.hpp>
#include <cstdio>
#include <new>
#include <string>
#include <unistd.h>

#include "tests/bench/micro/heap.h"

namespace ipc = boost::interprocess;

#ifdef BOOST_SEQ_FIT
using segment = ipc::basic_managed_shared_memory<char, ipc::simple_seq_fit<ipc::mutex_family>, ipc::iset_index>;
#else
using segment = ipc::managed_shared_memory;
#endif

static segment *heap;

bool heap_open(void)
{
	std::string name = "bench-boost-" + std::to_string(getpid());

	heap = new segment(ipc::create_only, name.c_str(), size_t{512} << 20);
	ipc::shared_memory_object::remove(name.c_str());
	return true;
}

void heap_close(void)
{
	delete heap;
}

bool heap_is_shared(void)
{
	return true;
}

void *peer_alloc(size_t size)
{
	return heap->allocate(size, std::nothrow);
}

void peer_free(void *block)
{
	heap->deallocate(block);
}

void *peer_at(void *block)
{
	return block;
}
