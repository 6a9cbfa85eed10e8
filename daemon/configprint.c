/* What the command line asks to be shown of the settings. */
#include <stdio.h>
#include <string.h>

#include "daemon/settings.h"

static void print_option(const char *name, const char *argument, const char *help)
{
	char option[64];

	snprintf(option, sizeof(option), "--%s%s%s", name, argument ? " " : "", argument ? argument : "");
	printf("  %-26s %s\n", option, help);
}

static void print_options(bool of_heap)
{
	for (unsigned i = 0; i < n_settings; i++)
		if (settings[i].of_heap == of_heap)
			print_option(settings[i].name, settings[i].argument, settings[i].help);
}

void configprint_help(void)
{
	printf("usage: shmallocd [options]\nServes heaps of shared memory.\n\n");
	print_option("config", "FILE", "what to read in place of the usual file; see shmallocd.conf(5)");
	print_options(false);
	printf("\nOf a heap; before the first --heap for all heaps:\n\n");
	print_option("heap", "NAME", "a heap, to which the options after it belong; one called 'default' without any");
	print_options(true);
	printf("\nInstead of serving:\n\n");
	print_option("check-config", NULL, "say whether the configuration is good");
	print_option("print-config", NULL, "print the settings in effect, and where each comes from");
	print_option("version", NULL, "print the version");
	print_option("help", NULL, "print this");
	printf("\nVariables in the environment have the names of the options, as in $SHMALLOCD_USER_LIMIT. The command "
	       "line goes\n"
	       "before them, and they before the file.\n");
}

/* Where the value comes from, as a comment on a line of its own: one behind the value could make the line too long. */
static void print_origin(const struct config *config, struct config_origin origin, const char *name)
{
	switch (origin.layer) {
	case LAYER_FILE:
		printf("# %s:%u\n", config->path, origin.line);
		break;
	case LAYER_ENVIRONMENT:
		printf("# environment: %s\n", setting_variable(name).text);
		break;
	case LAYER_COMMAND:
		printf("# command line\n");
		break;
	default:
		printf("# built-in\n");
	}
}

static void print_settings(struct config *config, struct config_heap *heap)
{
	for (unsigned i = 0; i < n_settings; i++) {
		const struct setting *setting = &settings[i];

		if (setting->of_heap != !!heap || !(setting->places & PLACE_FILE))
			continue;
		print_origin(config, *setting_origin(setting, config, heap), setting->name);
		printf("%s = %s\n", setting->name, setting_print(setting, config, heap).text);
	}
}

void configprint_settings(struct config *config)
{
	printf("[daemon]\n");
	print_settings(config, NULL);
	for (uint32_t i = 0; i < config->heaps; i++) {
		printf("\n");
		print_origin(config, config->heap[i].named, "heap");
		printf("[heap %s]\n", config->heap[i].name);
		print_settings(config, &config->heap[i]);
	}
}
