// A plug-in that catches what its operators throw when there is no memory.
#include <cstddef>
#include <cstdint>
#include <new>

static volatile std::size_t huge = PTRDIFF_MAX;
static void *volatile made; // so that no pair of new and delete is left out
static int handled;

static void once()
{
	handled++;
	std::set_new_handler(nullptr);
}

template <typename F> static int throws(F allocate)
{
	try {
		made = allocate();
		return 0;
	} catch (const std::bad_alloc &) {
		return 1;
	}
}

extern "C" void *plugin_new(std::size_t size);
extern "C" int plugin_throws();

extern "C" void *plugin_new(std::size_t size)
{
	return operator new(size);
}

// How many of four did what they should.
extern "C" int plugin_throws()
{
	auto align = std::align_val_t(64);
	int right = throws([] { return operator new(huge); });

	std::set_new_handler(once);
	right += throws([] { return operator new[](huge); }) && handled == 1;
	right += throws([align] { return operator new(huge, align); });
	made = operator new(huge, std::nothrow);
	return right + !made;
}
