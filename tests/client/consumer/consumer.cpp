// The same in C++, by the C header and by the one for C++ where there is one.
#include <shmalloc.h>
#if __has_include(<shmalloc.hpp>)
#include <shmalloc.hpp>
#endif
#include <cstdio>
#include <new>
#include <string>

struct Point {
	int x, y;
};

int main()
{
	void *room = shma_malloc(sizeof(Point));

	if (!room) {
		std::perror("consumer: shma_malloc");
		return 1;
	}
	Point *point = new (room) Point{3, 4};
	shma_off off = shma_to_off(point);

	if (!off || shma_from_off(shma_default(), off) != room || point->x + point->y != 7)
		return 1;
	shma_free(room);
	std::puts((std::string("shmalloc ") + shma_version()).c_str());
	return 0;
}
