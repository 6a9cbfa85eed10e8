/* Calls before main and after exit: constructors, atexit, destructors; and libraries that come and go. */
#include "tests/preload/program.h"

extern char *plugin_early;
static char *left;

static void at_exit(void)
{
	char *block = malloc(500000);

	expect(block && strcmp(left, "left for the end") == 0);
	free(block);
	free(left);
}

static void come_and_go(const char *path)
{
	for (int i = 0; i < 20; i++) {
		void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		char *(*text)(const char *), *mine;

		expect(library);
		*(void **)&text = dlsym(library, "plugin_text");
		expect(text);
		mine = text("made there");
		expect(in_heap(mine));
		expect(dlclose(library) == 0);
		expect(strcmp(mine, "made there") == 0);
		free(mine);
	}
}

int main(int argc, char **argv)
{
	expect(argc == 2 && plugin_early && in_heap(plugin_early));
	memset(plugin_early, 7, 2000);
	free(plugin_early);
	left = strdup("left for the end");
	expect(atexit(at_exit) == 0);
	come_and_go(argv[1]);
	return 0;
}
