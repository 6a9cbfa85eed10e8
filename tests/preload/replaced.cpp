// A program's own base operators, whose blocks have a header: arrays, nothrow forms and deletes with a size come to them as well.
#include <cstdlib>
#include <new>
#include <string>

#include "tests/preload/program.h"

#pragma GCC diagnostic ignored "-Wsized-deallocation" // that it has none of those is what this is about

namespace
{

struct alignas(16) header {
	std::size_t magic;
};

const std::size_t magic = 0x5ead;
int made, gone;

struct item {
	int numbers[9];
	~item()
	{
	}
};

} // namespace

void *operator new(std::size_t size)
{
	auto *h = static_cast<header *>(std::malloc(sizeof(header) + size));

	expect(h && in_heap(h));
	h->magic = magic;
	made++;
	return h + 1;
}

void operator delete(void *block) noexcept
{
	if (!block)
		return;
	auto *h = static_cast<header *>(block) - 1;

	expect(h->magic == magic);
	h->magic = 0;
	gone++;
	std::free(h);
}

static void *volatile hidden; // so that no pair of new and delete is left out

template <typename T> static T *opaque(T *block)
{
	hidden = block;
	return static_cast<T *>(hidden);
}

int main()
{
	delete opaque(new item);
	delete[] opaque(new item[20]);
	delete[] opaque(new char[300]);
	operator delete(opaque(operator new(40)), std::size_t(40));
	operator delete[](opaque(operator new[](40)), std::size_t(40));
	operator delete(opaque(operator new(50, std::nothrow)), std::nothrow);
	operator delete[](opaque(operator new[](50, std::nothrow)), std::nothrow);
	expect(made == 7 && gone == 7);
	for (int i = 1; i < 100; i++)
		std::string(static_cast<std::size_t>(i) * 50, 'x');
	expect(made == gone && made > 7);

	auto align = std::align_val_t(128); // ours: it is a base form of its own
	void *aligned = opaque(operator new[](1000, align));
	expect(in_heap(aligned) && reinterpret_cast<uintptr_t>(aligned) % 128 == 0);
	operator delete[](aligned, 1000, align);
	expect(made == gone);
	return 0;
}
