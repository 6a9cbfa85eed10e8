/* A program in C, and its plug-in in C++: the operators are the heap's, and what they throw is caught where there is no memory. */
#include "tests/preload/program.h"

int main(int argc, char **argv)
{
	void *(*make)(size_t);
	int (*throws)(void);

	expect(argc == 2 && !dlsym(RTLD_DEFAULT, "__cxa_throw"));
	void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);

	expect(plugin);
	*(void **)&make = dlsym(plugin, "plugin_new");
	*(void **)&throws = dlsym(plugin, "plugin_throws");
	expect(make && throws && in_heap(make(100)));
	expect(throws() == 4);
	return 0;
}
