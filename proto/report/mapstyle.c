/* The colours of the picture as a style sheet, light and dark. */
#include "proto/report/mapdraw.h"

static void rule(FILE *to, const char *what, unsigned number, uint32_t colour)
{
	fprintf(to, "%s%u{fill:#%06x}\n", what, number, colour);
}

static void kinds(FILE *to)
{
	for (unsigned k = 0; k < REPORT_KINDS; k++)
		rule(to, ".report-map .k", k, map_kind_colour(k, false));
	for (unsigned f = 0; f <= MAP_FILLS; f++)
		fprintf(to, ".report-map .f%u{fill-opacity:%.2f}\n", f, map_opacity((double)f / MAP_FILLS));
}

static void classes(const struct report_palette *palette, FILE *to)
{
	rule(to, ".by-class .k", REPORT_OWNED, MAP_OTHER);
	rule(to, ".by-class .k", REPORT_CENTRAL, MAP_OTHER);
	rule(to, ".by-class .k", REPORT_LARGE, MAP_LARGE);
	for (uint32_t c = 0; c < WIRE_SCLASSES; c++)
		if (palette->rank[c])
			rule(to, ".by-class .c", c, map_class_colour(palette, c));
}

static void owners(const struct report_palette *palette, FILE *to)
{
	rule(to, ".by-owner .k", REPORT_OWNED, MAP_OTHER);
	rule(to, ".by-owner .k", REPORT_LARGE, MAP_OTHER);
	rule(to, ".by-owner .k", REPORT_CENTRAL, MAP_NOBODY);
	fprintf(to, ".by-owner .other{fill:#%06x}\n", MAP_OTHER);
	for (uint32_t i = 0; i < palette->n_holders; i++)
		rule(to, ".by-owner .w", palette->holders[i], map_owner_colour(palette, palette->holders[i]));
}

static void dark(FILE *to)
{
	fputs("@media (prefers-color-scheme:dark){\n.report-map{background:#0d1117}\n"
	      ".report-map .bg{fill:#0d1117}\n.report-map text{fill:#e6edf3}\n.report-map .mute{fill:#9aa4af}\n"
	      ".report-map .line{stroke:#30363d}\n.report-map .near path{stroke:#0d1117}\n",
	        to);
	for (unsigned k = 0; k < REPORT_KINDS; k++)
		rule(to, ".by-kind .k", k, map_kind_colour(k, true));
	for (unsigned k = REPORT_FREE; k <= REPORT_RETURNED; k++) {
		rule(to, ".by-class .k", k, map_kind_colour(k, true));
		rule(to, ".by-owner .k", k, map_kind_colour(k, true));
	}
	fputs("}\n", to);
}

void map_style(const struct report_map *map, FILE *to)
{
	struct report_palette palette;

	report_palette_of(map, &palette);
	fputs("<style>\n"
	      ".report-map{font:14px system-ui,sans-serif;background:#fff}\n.report-map .bg{fill:#fff}\n.report-map "
	      "text{fill:#1b1f24}\n"
	      ".report-map .mute{fill:#57606a}\n.report-map .head{font-weight:600}\n.report-map "
	      ".title{font-size:20px;font-weight:600}\n"
	      ".report-map .small{font-size:12px}\n.report-map .end{text-anchor:end}\n.report-map "
	      ".mid{text-anchor:middle}\n"
	      ".report-map .line{stroke:#d0d7de;fill:none}\n.report-map .cells path{shape-rendering:crispEdges}\n"
	      ".report-map .near path{stroke:#fff;stroke-width:.6;vector-effect:non-scaling-stroke}\n"
	      ".report-map .legend{display:none}\n",
	        to);
	for (unsigned by = 0; by < REPORT_BYS; by++)
		fprintf(to, ".by-%s .legend-%s{display:inline}\n", report_by_name(by), report_by_name(by));
	kinds(to);
	classes(&palette, to);
	owners(&palette, to);
	dark(to);
	fputs("</style>\n", to);
}
