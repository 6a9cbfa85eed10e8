/* The colours of the picture, light and dark.
 *
 * Kinds and owners have those of Okabe and Ito, which people who see fewer colours tell apart; what is free has none, and is light or
 * dark only. Classes have a ramp from dark to light (viridis), by rising size, so that lightness alone says which is larger. How full
 * a span is shows in its opacity: pale is empty.
 */
#include "proto/report/mapdraw.h"

static const struct {
	const char *light, *dark;
} kind_colours[REPORT_KINDS] = {
        [REPORT_FREE] = {"#9aa3ad", "#6e7781"},
        [REPORT_RETURNED] = {"#e4e8ec", "#262d36"},
        [REPORT_MOVING] = {"#f0e442", "#f0e442"},
        [REPORT_CENTRAL] = {"#e69f00", "#f0ad1f"},
        [REPORT_OWNED] = {"#0072b2", "#3d9be0"},
        [REPORT_LARGE] = {"#009e73", "#1cbf92"},
        [REPORT_QUARANTINED] = {"#d55e00", "#ff7a2a"},
        [REPORT_SEIZED] = {"#cc79a7", "#d98db8"},
        [REPORT_UNKNOWN] = {"#1b1f24", "#f0f3f6"},
};

static const char *const hues[MAP_HUES] = {
        "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#7a4fa3"};

static void kinds(FILE *to)
{
	for (unsigned k = 0; k < REPORT_KINDS; k++)
		fprintf(to, ".report-map .k%u{fill:%s}\n", k, kind_colours[k].light);
	for (unsigned f = 0; f <= MAP_FILLS; f++)
		fprintf(to, ".report-map .f%u{fill-opacity:%.2f}\n", f, 0.28 + 0.72 * f / MAP_FILLS);
}

static unsigned between(unsigned a, unsigned b, double part)
{
	return (unsigned)(a + ((double)b - a) * part + 0.5);
}

/* The ramp at `x`, which is from 0 to 1. */
static void print_ramp(double x, FILE *to)
{
	static const unsigned char ramp[][3] = {{0x46, 0x32, 0x7e}, {0x3b, 0x52, 0x8b}, {0x2c, 0x72, 0x8e},
	        {0x21, 0x91, 0x8c}, {0x28, 0xae, 0x80}, {0x5e, 0xc9, 0x62}, {0xad, 0xdc, 0x30}, {0xe8, 0xd8, 0x20}};
	unsigned last = sizeof(ramp) / sizeof(ramp[0]) - 1, i = (unsigned)(x * last);

	if (i == last)
		i--;
	double part = x * last - i;

	fprintf(to, "#%02x%02x%02x", between(ramp[i][0], ramp[i + 1][0], part), between(ramp[i][1], ramp[i + 1][1], part),
	        between(ramp[i][2], ramp[i + 1][2], part));
}

static void classes(const struct report_map *map, FILE *to)
{
	uint32_t used = 0, rank = 0;

	for (uint32_t c = 0; c < WIRE_SCLASSES; c++)
		used += map->classes[c].pages != 0;
	fprintf(to, ".by-class .k%d,.by-class .k%d{fill:#808890}\n.by-class .k%d{fill:#cc79a7}\n", REPORT_OWNED, REPORT_CENTRAL,
	        REPORT_LARGE);
	for (uint32_t c = 0; c < WIRE_SCLASSES; c++) {
		if (!map->classes[c].pages)
			continue;
		fprintf(to, ".by-class .c%u{fill:", c);
		print_ramp(used > 1 ? (double)rank++ / (used - 1) : 0.5, to);
		fputs("}\n", to);
	}
}

static void owners(const struct report_map *map, FILE *to)
{
	uint32_t ids[MAP_HUES], n = report_map_holders(map, ids, MAP_HUES);

	fprintf(to, ".by-owner .k%d,.by-owner .k%d,.by-owner .other{fill:#57606a}\n.by-owner .k%d{fill:#b9a77c}\n", REPORT_OWNED,
	        REPORT_LARGE, REPORT_CENTRAL);
	for (uint32_t i = 0; i < n; i++)
		fprintf(to, ".by-owner .w%u{fill:%s}\n", ids[i], hues[i]);
}

static void dark(FILE *to)
{
	fputs("@media (prefers-color-scheme:dark){\n"
	      ".report-map .bg{fill:#0d1117}\n.report-map text{fill:#e6edf3}\n.report-map .mute{fill:#9aa4af}\n"
	      ".report-map .line{stroke:#30363d}\n.report-map .near path{stroke:#0d1117}\n",
	        to);
	for (unsigned k = 0; k < REPORT_KINDS; k++)
		fprintf(to, ".by-kind .k%u{fill:%s}\n", k, kind_colours[k].dark);
	for (unsigned k = REPORT_FREE; k <= REPORT_RETURNED; k++)
		fprintf(to, ".by-class .k%u,.by-owner .k%u{fill:%s}\n", k, k, kind_colours[k].dark);
	fputs("}\n", to);
}

void map_style(const struct report_map *map, FILE *to)
{
	fputs("<style>\n"
	      ".report-map{font:14px system-ui,sans-serif}\n.report-map .bg{fill:#fff}\n.report-map text{fill:#1b1f24}\n"
	      ".report-map .mute{fill:#57606a}\n.report-map .head{font-weight:600}\n.report-map .title{font-size:20px;font-weight:600}\n"
	      ".report-map .small{font-size:12px}\n.report-map .end{text-anchor:end}\n.report-map .mid{text-anchor:middle}\n"
	      ".report-map .line{stroke:#d0d7de;fill:none}\n.report-map .cells path{shape-rendering:crispEdges}\n"
	      ".report-map .near path{stroke:#fff;stroke-width:.6;vector-effect:non-scaling-stroke}\n"
	      ".report-map .legend{display:none}\n",
	        to);
	for (unsigned by = 0; by < REPORT_BYS; by++)
		fprintf(to, ".by-%s .legend-%s{display:inline}\n", report_by_name(by), report_by_name(by));
	kinds(to);
	classes(map, to);
	owners(map, to);
	dark(to);
	fputs("</style>\n", to);
}
