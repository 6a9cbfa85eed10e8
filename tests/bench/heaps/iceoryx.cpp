// iceoryx: the memory pools below its publishers' loan() and release(), in memory that forked processes share, without its daemon RouDi.
// The pools are of fixed sizes and numbers, made for the working set of the benchmark; a block is iceoryx's note of it.
#include <cstdio>
#include <new>

#include "iceoryx_hoofs/internal/posix_wrapper/shared_memory_object/allocator.hpp"
#include "iceoryx_posh/internal/mepoo/memory_manager.hpp"
#include "iceoryx_posh/internal/mepoo/shared_chunk.hpp"
#include "iceoryx_posh/mepoo/chunk_header.hpp"
#include "iceoryx_posh/mepoo/mepoo_config.hpp"
#include "tests/bench/micro/micro.h"

using namespace iox::mepoo;

static MemoryManager *manager;

// Twice what two working sets of 100,000 blocks need of a size on average, so that none runs out by chance.
static MePooConfig pools()
{
	static const struct {
		uint32_t bytes, count;
	} sizes_wanted[] = {{16, 40000}, {32, 110000}, {64, 110000}, {128, 70000}, {256, 45000}, {512, 25000},
	        {1024, 14000}, {2048, 6000}, {4096, 2000}, {8192, 1000}, {16384, 400}};
	MePooConfig config;

	for (const auto &pool : sizes_wanted)
		config.addMemPool({pool.bytes, pool.count * 2});
	return config;
}

bool heap_open(void)
{
	MePooConfig config = pools();
	uint64_t own = (sizeof(MemoryManager) + 4095) / 4096 * 4096;
	uint64_t notes = MemoryManager::requiredManagementMemorySize(config) + 4096;
	uint64_t chunks = MemoryManager::requiredChunkMemorySize(config) + 4096;
	char *memory = static_cast<char *>(pages_new(own + notes + chunks));
	iox::posix::Allocator for_notes(memory + own, notes), for_chunks(memory + own + notes, chunks);

	manager = new (memory) MemoryManager();
	manager->configureMemoryManager(config, for_notes, for_chunks);
	return true;
}

bool heap_is_shared(void)
{
	return true;
}

void *peer_alloc(size_t size)
{
	auto settings = ChunkSettings::create(static_cast<uint32_t>(size), 8);
	auto chunk = manager->getChunk(settings.value());

	return chunk.has_error() ? nullptr : chunk.value().release();
}

void peer_free(void *block)
{
	SharedChunk{static_cast<ChunkManagement *>(block)}; // the last owner's end frees it
}

void *peer_at(void *block)
{
	return static_cast<ChunkManagement *>(block)->m_chunkHeader->userPayload();
}
