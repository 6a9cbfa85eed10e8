/* A library with a constructor that allocates, before any program has come to its main function, and a destructor that frees. */
#include <stdlib.h>
#include <string.h>

char *plugin_early, *plugin_kept;
char *plugin_text(const char *text);

__attribute__((constructor)) static void begin(void)
{
	plugin_early = malloc(2000);
	plugin_kept = strdup("kept to the end");
}

__attribute__((destructor)) static void end(void)
{
	char *more = malloc(3000);

	if (!more || strcmp(plugin_kept, "kept to the end") != 0)
		abort();
	free(more);
	free(plugin_kept);
}

char *plugin_text(const char *text)
{
	return strdup(text);
}
