#include "proto/report/xml.h"

#include <string.h>

#include "proto/report/report.h"

void report_xml(const char *text, FILE *to)
{
	static const char special[] = "&<>\"'\\";
	static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "\\\\"};
	while (*text) {
		const char *found = strchr(special, *text);
		size_t n = report_char(text);

		if (found)
			fputs(entity[found - special], to);
		else if (n)
			fwrite(text, 1, n, to);
		else
			fprintf(to, "\\x%02x", (unsigned char)*text);
		text += n ? n : 1;
	}
}
