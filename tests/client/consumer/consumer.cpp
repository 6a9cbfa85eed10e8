// The same in C++, by both headers.
#include <shmalloc.h>
#include <shmalloc.hpp>
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
	if (shma::make_unique<Point>(Point{5, 6})->y != 6)
		return 1;
	std::puts((std::string("shmalloc ") + shma_version()).c_str());
	return 0;
}
