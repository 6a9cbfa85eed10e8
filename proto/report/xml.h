/* Any bytes as the text of an XML or HTML element, or of an attribute in double quotes. */
#ifndef PROTO_REPORT_XML_H
#define PROTO_REPORT_XML_H

#include <stdio.h>

/* What XML has its own use for is written as an entity; controls, what is not UTF-8, characters that XML does not allow and those
 * that change the direction of text become \xNN. */
void report_xml(const char *text, FILE *to);

#endif
