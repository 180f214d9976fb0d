/* SPDX-License-Identifier: Apache-2.0 */
/* Pieces of a web page. See html.h. */
#include "html.h"

#include <stdlib.h>
#include <string.h>

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:62rem;margin:2rem auto;padding:0 1rem}\n"
    "h1{font-size:1.6rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem;border-bottom:1px solid #ddd}\n"
    "h3{font-size:1rem;margin:1.4rem 0 .4rem}p{margin:.4rem 0}code{background:#f4f2ee;padding:.1em .3em;border-radius:3px}\n"
    "table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:.15rem .55rem;text-align:right;border:1px solid #e4e0d8}th{font-weight:600;background:#faf8f4}\n"
    "th:first-child,td.name{text-align:left}.card td{text-align:left;border:0}.card "
    "th{text-align:left;border:0;background:none;white-space:nowrap;vertical-align:top}\n"
    "figure{display:inline-block;margin:.3rem .5rem .6rem 0;text-align:center;vertical-align:top}\n"
    "figure img{display:block;image-rendering:pixelated}figcaption{font-size:.8rem;color:#555}\n"
    ".words{line-height:2.1;font-size:1.05rem}.words span{padding:.15em 0;border-radius:2px}\n"
    ".legend{display:inline-block;width:9rem;height:.8rem;vertical-align:-.1rem;border:1px solid #ddd}\n"
    ".right{color:#17692d}.wrong{color:#a3231b}.small{font-size:.85rem;color:#555}.wide{overflow-x:auto}\n"
    "summary{cursor:pointer}@media print{details{display:block}h2{break-after:avoid}figure{break-inside:avoid}}\n";

void html_begin(text *out, const char *title) {
    text_add(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                  "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
    html_add_string(out, title);
    text_add(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", style);
}

void html_end(text *out) { text_add(out, "</main>\n</body>\n</html>\n"); }

void html_add(text *out, const char *bytes, size_t n) {
    for (size_t i = 0; i < n;) {
        size_t length = text_utf8_length(bytes + i, n - i);
        char c = bytes[i];
        if (length == 0)
            text_add(out, "\xef\xbf\xbd");
        else if (c == '<' || c == '>' || c == '&' || c == '"' || c == '\'')
            text_add(out, "&#%d;", c);
        else if (length == 1 && (unsigned char)c < ' ' && c != '\n' && c != '\t')
            text_add(out, "\xef\xbf\xbd");
        else
            text_add_bytes(out, bytes + i, length);
        i += length ? length : 1;
    }
}

void html_add_string(text *out, const char *string) { html_add(out, string, strlen(string)); }

static void add_base64(text *out, const unsigned char *bytes, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        unsigned group = (unsigned)bytes[i] << 16 | (left > 1 ? (unsigned)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0u);
        char four[4] = { digits[group >> 18], digits[group >> 12 & 63], left > 1 ? digits[group >> 6 & 63] : '=',
                         left > 2 ? digits[group & 63] : '=' };
        text_add_bytes(out, four, 4);
    }
}

int html_figure(text *out, const image *picture, const char *caption, io_error *error) {
    void *png = NULL;
    size_t size = 0;
    int failed = image_encode_png(picture, &png, &size, error);
    if (failed) return failed;
    text_add(out, "<figure><img width=\"%d\" height=\"%d\" alt=\"", (int)picture->width, (int)picture->height);
    html_add_string(out, caption ? caption : "");
    text_add(out, "\" src=\"data:image/png;base64,");
    add_base64(out, png, size);
    text_add(out, "\">");
    free(png);
    if (caption) {
        text_add(out, "<figcaption>");
        html_add_string(out, caption);
        text_add(out, "</figcaption>");
    }
    text_add(out, "</figure>\n");
    return IO_OK;
}

void html_style(text *out, colour c) {
    text_add(out, "background:#%02x%02x%02x;color:%s", c.red, c.green, c.blue, colour_is_dark(c) ? "#fff" : "#111");
}
