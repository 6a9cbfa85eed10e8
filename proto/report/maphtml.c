/* The picture as a page: the SVG with what a person does to it (zoom, drag, other colours), and a list of who holds most.
 *
 * The script is a convenience: without it the page shows the same picture. It changes the class of the SVG's root for other
 * colours, and the viewBox of the inner <svg class="view"> to zoom.
 */
#include "proto/report/mapdraw.h"
#include "proto/report/report.h"
#include "proto/report/xml.h"

#define HOLDERS 64u

static const char style[] =
        "<style>\n"
        "body{margin:0;padding:16px;font:15px system-ui,sans-serif;background:#fff;color:#1b1f24}\n"
        "nav{display:flex;flex-wrap:wrap;gap:8px;align-items:center;margin-bottom:8px}\n"
        "button{font:inherit;padding:4px 12px;border:1px solid "
        "#8c959f;border-radius:6px;background:#f6f8fa;color:inherit;cursor:pointer}\n"
        "button[aria-pressed=true]{background:#0a53a8;border-color:#0a53a8;color:#fff}\n"
        "button:focus-visible,.view:focus-visible{outline:3px solid #e69f00}\n"
        "nav .hint{color:#57606a}\n"
        ".report-map{max-width:100%;height:auto;display:block}\n"
        ".view{cursor:grab;touch-action:none}\n.view.drag{cursor:grabbing}\n"
        "#tip{position:fixed;z-index:1;max-width:30em;padding:6px "
        "10px;border-radius:6px;background:#1b1f24;color:#fff;font-size:14px;"
        "pointer-events:none;overflow-wrap:anywhere}\n"
        "table{border-collapse:collapse;margin-top:8px}\n"
        "th,td{padding:3px 14px 3px 0;text-align:right}\nth{font-weight:600;border-bottom:1px solid #8c959f}\n"
        "th.name,td.name{text-align:left;overflow-wrap:anywhere;max-width:40em}\n"
        "@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}button{background:#21262d}"
        "nav .hint{color:#9aa4af}#tip{background:#e6edf3;color:#0d1117}}\n"
        "</style>\n";

static const char script[] =
        "<script>\n"
        "'use strict';\n"
        "const root = document.querySelector('.report-map'), view = root.querySelector('.view'), cells = "
        "view.querySelector('.cells');\n"
        "const whole = view.viewBox.baseVal, home = [whole.x, whole.y, whole.width, whole.height];\n"
        "const tip = document.getElementById('tip'), near = parseFloat(cells.dataset.near);\n"
        "let box = home.slice(), from = null;\n"
        "function show() {\n"
        "  view.setAttribute('viewBox', box.join(' '));\n"
        "  cells.classList.toggle('near', home[2] / box[2] >= near);\n"
        "}\n"
        "function zoom(factor, x, y) {\n"
        "  const width = Math.min(home[2], Math.max(home[2] / 4096, box[2] * factor)), by = width / box[2];\n"
        "  box = [x - (x - box[0]) * by, y - (y - box[1]) * by, width, box[3] * by];\n"
        "  move(0, 0);\n"
        "}\n"
        "function move(dx, dy) {\n"
        "  box[0] = Math.min(home[0] + home[2] - box[2], Math.max(home[0], box[0] + dx));\n"
        "  box[1] = Math.min(home[1] + home[3] - box[3], Math.max(home[1], box[1] + dy));\n"
        "  show();\n"
        "}\n"
        "function at(event) {\n"
        "  const r = view.getBoundingClientRect();\n"
        "  const m = root.getScreenCTM(), left = m.e + view.x.baseVal.value * m.a, top = m.f + view.y.baseVal.value * "
        "m.d;\n"
        "  const scale = box[2] / (view.width.baseVal.value * m.a);\n"
        "  return [box[0] + (event.clientX - left) * scale, box[1] + (event.clientY - top) * scale, scale];\n"
        "}\n"
        "view.addEventListener('wheel', e => {\n"
        "  e.preventDefault();\n"
        "  const [x, y] = at(e);\n"
        "  zoom(Math.exp(Math.max(-100, Math.min(100, e.deltaY)) / 250), x, y);\n"
        "}, {passive: false});\n"
        "view.addEventListener('pointerdown', e => { from = [e.clientX, e.clientY]; "
        "view.setPointerCapture(e.pointerId); "
        "view.classList.add('drag'); });\n"
        "view.addEventListener('pointerup', () => { from = null; view.classList.remove('drag'); });\n"
        "view.addEventListener('pointercancel', () => { from = null; view.classList.remove('drag'); });\n"
        "view.addEventListener('pointermove', e => {\n"
        "  if (from) {\n"
        "    const scale = at(e)[2];\n"
        "    move((from[0] - e.clientX) * scale, (from[1] - e.clientY) * scale);\n"
        "    from = [e.clientX, e.clientY];\n"
        "  }\n"
        "  const cell = from ? null : e.target.closest('.cells path'), title = cell && cell.querySelector('title');\n"
        "  if (title) { cell.dataset.tip = title.textContent; title.remove(); } /* or the browser would show it as "
        "well */\n"
        "  tip.hidden = !cell;\n"
        "  if (!cell) return;\n"
        "  tip.textContent = cell.dataset.tip;\n"
        "  tip.style.left = Math.min(e.clientX + 14, innerWidth - tip.offsetWidth - 8) + 'px';\n"
        "  tip.style.top = (e.clientY + 18 + tip.offsetHeight > innerHeight ? e.clientY - 12 - tip.offsetHeight : "
        "e.clientY + 18) + 'px';\n"
        "});\n"
        "view.addEventListener('pointerleave', () => { tip.hidden = true; });\n"
        "view.addEventListener('dblclick', () => { box = home.slice(); show(); });\n"
        "view.setAttribute('tabindex', '0');\n"
        "view.addEventListener('keydown', e => {\n"
        "  const x = box[0] + box[2] / 2, y = box[1] + box[3] / 2, dx = box[2] / 8, dy = box[3] / 8;\n"
        "  const keys = {'+': () => zoom(1 / 1.5, x, y), '-': () => zoom(1.5, x, y), '0': () => { box = home.slice(); "
        "show(); },\n"
        "    ArrowLeft: () => move(-dx, 0), ArrowRight: () => move(dx, 0), ArrowUp: () => move(0, -dy), ArrowDown: () "
        "=> move(0, dy)};\n"
        "  if (keys[e.key]) { e.preventDefault(); keys[e.key](); }\n"
        "});\n"
        "const buttons = document.querySelectorAll('button[data-by]');\n"
        "function colour(by) {\n"
        "  root.setAttribute('class', 'report-map by-' + by);\n"
        "  for (const b of buttons) b.setAttribute('aria-pressed', b.dataset.by === by);\n"
        "}\n"
        "for (const b of buttons) b.addEventListener('click', () => colour(b.dataset.by));\n"
        "if (/^#(kind|class|owner)$/.test(location.hash)) colour(location.hash.slice(1));\n"
        "</script>\n";

static void draw_buttons(const struct report_map_look *look, FILE *to)
{
	fputs("<nav>Colours:\n", to);
	for (unsigned by = 0; by < REPORT_BYS; by++)
		fprintf(to, "<button type=\"button\" data-by=\"%s\" aria-pressed=\"%s\">by %s</button>\n",
		        report_by_name(by), by == look->by ? "true" : "false", report_by_name(by));
	fputs("<span class=\"hint\">Wheel: zoom; drag: move; double click: all. Keys + - 0 and arrows do the "
	      "same.</span></nav>\n",
	        to);
}

static void draw_holder(const struct report_map *map, uint32_t id, FILE *to)
{
	const struct report_share *share = &map->owners[id];
	const struct report_client *client = report_map_client(map, id);
	char size[32];

	fputs("<tr><td class=\"name\">", to);
	if (client)
		report_xml(client->label, to);
	else
		fputs(id == REPORT_OWNERS - 1 ? "nobody" : "not attached any more", to);
	fputs("</td>", to);
	if (id == REPORT_OWNERS - 1)
		fputs("<td></td>", to);
	else
		fprintf(to, "<td>%u</td>", id);
	if (client)
		fprintf(to, "<td>%u</td><td>%u</td>", client->pid, client->uid);
	else
		fputs("<td></td><td></td>", to);
	report_human(share->pages * REPORT_PAGE_BYTES, size, sizeof(size));
	fprintf(to, "<td>%s</td><td>%.1f %%</td><td>%llu</td><td>%.1f %%</td></tr>\n", size,
	        100.0 * (double)share->pages / (map->end - 1), (unsigned long long)share->runs,
	        100 * share->live / (double)share->pages);
}

static void draw_holders(const struct report_map *map, FILE *to)
{
	uint32_t ids[HOLDERS], n = report_map_holders(map, ids, HOLDERS);

	fputs("<h2>Who holds most</h2>\n<table><thead><tr><th "
	      "class=\"name\">label</th><th>client</th><th>pid</th><th>uid</th>"
	      "<th>held</th><th>of the heap</th><th>runs</th><th>slots in use</th></tr></thead><tbody>\n",
	        to);
	for (uint32_t i = 0; i < n; i++)
		draw_holder(map, ids[i], to);
	fputs(n ? "</tbody></table>\n" : "</tbody></table>\n<p>Nobody holds anything.</p>\n", to);
}

void report_map_html(const struct report_map *map, const struct report_map_look *look, FILE *to)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
	      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" "
	      "content=\"light dark\">\n"
	      "<title>Heap ",
	        to);
	report_xml(look->heap, to);
	fputs("</title>\n", to);
	fputs(style, to);
	fputs("</head>\n<body>\n", to);
	draw_buttons(look, to);
	report_map_svg(map, look, to);
	draw_holders(map, to);
	fputs("<div id=\"tip\" role=\"status\" hidden></div>\n", to);
	fputs(script, to);
	fputs("</body>\n</html>\n", to);
}
