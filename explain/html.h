/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of a web page that stands alone: one file, no network, no script; prints well. */
#ifndef ATTN_EXPLAIN_HTML_H
#define ATTN_EXPLAIN_HTML_H

#include "colour.h"
#include "image.h"
#include "text.h"

void html_begin(text *out, const char *title);
void html_end(text *out);

/* Text as it is: markup in it is shown, not obeyed. What is not UTF-8 becomes U+FFFD. */
void html_add(text *out, const char *bytes, size_t n);
void html_add_string(text *out, const char *string);

/* The picture within the page, as base64 PNG, with a caption below it (NULL: none). */
int html_figure(text *out, const image *picture, const char *caption, io_error *error);

/* "background:#rrggbb;color:#000" for a cell or a word. */
void html_style(text *out, colour background);

#endif
