// new and delete in all forms, and what happens when there is no memory.
#include <cstdlib>
#include <map>
#include <new>
#include <string>
#include <vector>

#include "tests/preload/program.h"

static volatile std::size_t huge = PTRDIFF_MAX;
static int handled;

static void no_more()
{
	if (++handled == 3)
		std::set_new_handler(nullptr);
}

static void throwing()
{
	throw std::bad_alloc();
}

template <typename F> static bool throws(F allocate)
{
	try {
		allocate();
		return false;
	} catch (const std::bad_alloc &) {
		return true;
	}
}

static void usual(std::size_t size)
{
	auto align = std::align_val_t(128);
	void *plain[] = {operator new(size), operator new[](size), operator new(size, std::nothrow),
	                                                           operator new[](size, std::nothrow)};
	void *aligned[] =
	        {operator new(size, align), operator new[](size, align), operator new(size, align, std::nothrow),
	                                                                 operator new[](size, align, std::nothrow)};

	for (int i = 0; i < 4; i++) {
		expect(plain[i] && in_heap(plain[i]) && aligned[i] && in_heap(aligned[i]));
		expect(reinterpret_cast<uintptr_t>(aligned[i]) % 128 == 0);
	}
	operator delete(plain[0]);
	operator delete[](plain[1], size);
	operator delete(plain[2], std::nothrow);
	operator delete[](plain[3], std::nothrow);
	operator delete(aligned[0], align);
	operator delete[](aligned[1], size, align);
	operator delete(aligned[2], align, std::nothrow);
	operator delete[](aligned[3], align, std::nothrow);
	operator delete(operator new(size), size);
	operator delete[](operator new[](size));
	operator delete(operator new(size, align), size, align);
	operator delete[](operator new[](size, align), align);
	operator delete(nullptr);
}

static void exhausted()
{
	auto align = std::align_val_t(64);

	expect(throws([] { operator delete(operator new(huge)); }));
	expect(throws([] { operator delete[](operator new[](huge)); }));
	expect(throws([align] { operator delete(operator new(huge, align), align); }));
	expect(throws([align] { operator delete[](operator new[](huge, align), align); }));
	expect(!operator new(huge, std::nothrow) && !operator new[](huge, std::nothrow));
	expect(!operator new(huge, align, std::nothrow) && !operator new[](huge, align, std::nothrow));
	std::set_new_handler(no_more);
	expect(throws([] { operator delete(operator new(huge)); }) && handled == 3);
	std::set_new_handler(throwing);
	expect(!operator new(huge, std::nothrow) && !operator new(huge, align, std::nothrow));
	std::set_new_handler(nullptr);
}

int main()
{
	std::map<std::string, std::vector<int>> words;

	for (std::size_t size = 0; size < 1000000; size = size * 3 + 1)
		usual(size);
	exhausted();
	for (int i = 0; i < 20000; i++)
		words[std::string(40, 'x') + std::to_string(i % 5000)].push_back(i);
	expect(words.size() == 5000 && in_heap(&words.begin()->second.front()));
	return 0;
}
