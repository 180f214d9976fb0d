/* SPDX-License-Identifier: Apache-2.0 */
/* IDX: two zero bytes, the element type, the rank, the extents as big-endian 32-bit numbers, then the elements. See idx.h. */
#define _POSIX_C_SOURCE 200809L
#include "idx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "file.h"
#include "path.h"

enum { UNSIGNED_BYTE = 0x08 };

/* Most bytes read of one file: an endless pipe must not fill the memory. */
static const size_t max_size = (size_t)8 << 30;

/* ---- where the bytes come from: plain memory or gzip ------------------------------------------------------ */

typedef struct source {
    z_stream gzip;
    bool zipped, ended;         /* ended: the gzip data came to its end and its checksum was right */
    const unsigned char *bytes; /* what has not been taken yet: plain bytes, or gzip not yet handed to zlib */
    size_t left;
    const char *name;
} source;

static bool is_gzip(const unsigned char *bytes, size_t size) { return size >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b; }

static int source_open(source *s, const void *bytes, size_t size, const char *name, io_error *error) {
    *s = (source){ .bytes = bytes, .left = size, .name = name, .zipped = is_gzip(bytes, size) };
    if (!s->zipped) return IO_OK;
    int answer = inflateInit2(&s->gzip, 15 + 16); /* largest window, gzip wrapping */
    return answer == Z_OK ? IO_OK : io_no_memory(error, name, 1 << 16);
}

static void source_close(source *s) {
    if (s->zipped) inflateEnd(&s->gzip);
}

static uInt piece(size_t left) { return left < 1 << 30 ? (uInt)left : 1 << 30; }

/* Inflates until `to` is full or the data ends; members that follow each other are one stream, as gzip has it. */
static int inflate_some(source *s, unsigned char *to, size_t want, size_t *got, io_error *error) {
    *got = 0;
    while (*got < want && !s->ended) {
        uInt in = piece(s->left), out = piece(want - *got);
        s->gzip.next_in = (Bytef *)s->bytes;
        s->gzip.avail_in = in;
        s->gzip.next_out = to + *got;
        s->gzip.avail_out = out;
        int answer = inflate(&s->gzip, Z_NO_FLUSH);
        s->bytes += in - s->gzip.avail_in;
        s->left -= in - s->gzip.avail_in;
        *got += out - s->gzip.avail_out;
        if (answer == Z_STREAM_END) {
            s->ended = !is_gzip(s->bytes, s->left);
            if (s->ended) return IO_OK;
            if (inflateReset(&s->gzip) != Z_OK) return io_fail(error, IO_BAD_DATA, "%s: damaged gzip data", s->name);
        } else if (answer == Z_MEM_ERROR) {
            return io_no_memory(error, s->name, 1 << 16);
        } else if (answer == Z_BUF_ERROR || (answer == Z_OK && s->left == 0 && s->gzip.avail_out > 0)) {
            return IO_OK; /* the file ends within the gzip data: the caller sees that something is missing */
        } else if (answer != Z_OK) {
            return io_fail(error, IO_BAD_DATA, "%s: damaged gzip data%s%s", s->name, s->gzip.msg ? ": " : "",
                           s->gzip.msg ? s->gzip.msg : "");
        }
    }
    return IO_OK;
}

/* Takes up to `want` bytes. */
static int take(source *s, unsigned char *to, size_t want, size_t *got, io_error *error) {
    if (s->zipped) return inflate_some(s, to, want, got, error);
    *got = want < s->left ? want : s->left;
    memcpy(to, s->bytes, *got);
    s->bytes += *got;
    s->left -= *got;
    return IO_OK;
}

/* The data must end here, and gzip's checksum must have been reached. */
static int check_end(source *s, io_error *error) {
    unsigned char more;
    size_t got;
    int failed = take(s, &more, 1, &got, error);
    if (failed) return failed;
    if (s->zipped && !s->ended && got == 0) return io_fail(error, IO_BAD_DATA, "%s: the gzip data ends too early", s->name);
    if (got > 0 || s->left > 0) return io_fail(error, IO_BAD_DATA, "%s holds more data than its header declares", s->name);
    return IO_OK;
}

/* ---- the header --------------------------------------------------------------------------------------------- */

static const char *type_name(int type) {
    switch (type) {
    case 0x09: return "signed bytes";
    case 0x0b: return "16-bit integers";
    case 0x0c: return "32-bit integers";
    case 0x0d: return "32-bit floats";
    case 0x0e: return "64-bit floats";
    default: return NULL;
    }
}

static int read_magic(source *s, idx *out, io_error *error) {
    unsigned char magic[4];
    size_t got;
    int failed = take(s, magic, sizeof magic, &got, error);
    if (failed) return failed;
    if (got < sizeof magic || magic[0] != 0 || magic[1] != 0)
        return io_fail(error, IO_BAD_DATA, "%s is not an IDX file: it does not begin with two zero bytes, a type and a rank",
                       s->name);
    if (magic[2] != UNSIGNED_BYTE) {
        const char *type = type_name(magic[2]);
        if (type) return io_fail(error, IO_BAD_DATA, "%s holds %s; IDX files of unsigned bytes are read", s->name, type);
        return io_fail(error, IO_BAD_DATA, "%s is not an IDX file: there is no element type 0x%02x", s->name, magic[2]);
    }
    if (magic[3] < 1 || magic[3] > IDX_MAX_RANK)
        return io_fail(error, IO_BAD_DATA, "%s has rank %d; 1 to %d are read", s->name, magic[3], IDX_MAX_RANK);
    out->rank = magic[3];
    return IO_OK;
}

static int read_shape(source *s, idx *out, io_error *error) {
    unsigned char extents[4 * IDX_MAX_RANK];
    size_t want = 4 * (size_t)out->rank, got, size = 1;
    int failed = take(s, extents, want, &got, error);
    if (failed) return failed;
    if (got < want) return io_fail(error, IO_BAD_DATA, "%s ends within its header", s->name);
    bool empty = false, overflow = false;
    for (int i = 0; i < IDX_MAX_RANK; i++) {
        const unsigned char *e = extents + 4 * i;
        uint32_t extent = i < out->rank ? (uint32_t)e[0] << 24 | (uint32_t)e[1] << 16 | (uint32_t)e[2] << 8 | e[3] : 1;
        out->shape[i] = extent;
        empty |= extent == 0;
        overflow |= __builtin_mul_overflow(size, (size_t)extent, &size);
    }
    if (overflow && !empty) return io_fail(error, IO_BAD_DATA, "%s: its header declares more bytes than 64 bits count", s->name);
    out->size = empty ? 0 : size;
    return IO_OK;
}

/* Refuses a size that the bytes at hand cannot make up before memory is asked for: deflate grows data at most 1032 times. */
static int check_size(const source *s, size_t size, io_error *error) {
    size_t factor = s->zipped ? 1032 : 1, slack = s->zipped ? 1 << 16 : 0;
    if (size / factor > s->left + slack)
        return io_fail(error, IO_BAD_DATA, "%s declares %zu bytes of data, but holds only %zu", s->name, size, s->left);
    if (size > max_size)
        return io_fail(error, IO_BAD_DATA, "%s declares %zu bytes; at most %zu are read", s->name, size, max_size);
    return IO_OK;
}

static int read_data(source *s, idx *out, io_error *error) {
    int failed = check_size(s, out->size, error);
    if (failed) return failed;
    out->data = malloc(out->size ? out->size : 1);
    if (!out->data) return io_no_memory(error, s->name, out->size);
    size_t got;
    failed = take(s, out->data, out->size, &got, error);
    if (failed) return failed;
    if (got < out->size)
        return io_fail(error, IO_BAD_DATA, "%s declares %zu bytes of data, but holds only %zu", s->name, out->size, got);
    return check_end(s, error);
}

int idx_parse(const void *bytes, size_t size, const char *name, idx *out, io_error *error) {
    *out = (idx){ 0 };
    source s;
    int failed = source_open(&s, bytes, size, name, error);
    if (failed) return failed;
    failed = read_magic(&s, out, error);
    if (!failed) failed = read_shape(&s, out, error);
    if (!failed) failed = read_data(&s, out, error);
    source_close(&s);
    if (failed) idx_free(out);
    return failed;
}

int idx_read(const char *path, idx *out, io_error *error) {
    io_bytes bytes = { 0 };
    *out = (idx){ 0 };
    int failed = io_read(path, max_size, &bytes, error);
    if (!failed) failed = idx_parse(bytes.data, bytes.size, path, out, error);
    io_bytes_free(&bytes);
    return failed;
}

void idx_free(idx *a) {
    free(a->data);
    *a = (idx){ 0 };
}

bool idx_looks_like(const void *bytes, size_t size) {
    source s;
    idx header = { 0 };
    if (source_open(&s, bytes, size, "", NULL)) return false;
    bool yes = read_magic(&s, &header, NULL) == IO_OK;
    source_close(&s);
    return yes;
}

/* ---- names -------------------------------------------------------------------------------------------------- */

/* `name` with .gz or without, whichever is there; false and an empty string where neither is. */
static bool plain_or_gzip(const char *folder, const char *name, char *out, size_t room) {
    if (path_join(folder, name, out, room) && path_is_file(out)) return true;
    size_t n = strlen(out);
    if (n > 0 && n + sizeof ".gz" <= room && path_is_file(strcat(out, ".gz"))) return true;
    if (room > 0) out[0] = 0;
    return false;
}

/* The last place in `path` behind its last slash where `word` stands; NULL where there is none. */
static const char *last_word(const char *path, const char *word) {
    const char *slash = strrchr(path, '/'), *found = NULL;
    for (const char *at = slash ? slash + 1 : path; (at = strstr(at, word)); at++) found = at;
    return found;
}

int idx_labels_beside(const char *images, char *out, size_t room, io_error *error) {
    const char *word = last_word(images, "images");
    if (!word)
        return io_fail(error, IO_BAD_DATA,
                       "%s: labels are looked for beside a file named like train-images-idx3-ubyte; this one has "
                       "no \"images\" in its name",
                       images);
    char name[4096];
    const char *rest = word + strlen("images");
    size_t n = strlen(rest);
    bool gzip = n >= 3 && !strcmp(rest + n - 3, ".gz");
    int wrote = snprintf(name, sizeof name, "%.*slabels%.*s", (int)(word - images), images, (int)(gzip ? n - 3 : n), rest);
    if (wrote < 0 || (size_t)wrote >= sizeof name) return io_fail(error, IO_BAD_DATA, "%s: the path is too long", images);
    char *rank = strstr(name + (word - images), "idx");
    if (rank && (rank[3] == '3' || rank[3] == '4')) rank[3] = '1';
    if (plain_or_gzip("", name, out, room)) return IO_OK;
    return io_fail(error, IO_BAD_DATA, "%s: its labels are missing: there is neither %s nor %s.gz", images, name, name);
}

bool idx_in_folder(const char *folder, int half, char *out, size_t room) {
    static const char *const halves[] = { "train", NULL, "t10k", "test" };
    static const char *const tails[] = { "-idx3-ubyte", ".idx3-ubyte", "-idx4-ubyte", ".idx4-ubyte" };
    for (int i = half ? 2 : 0; i < 4 && halves[i]; i++) {
        for (int tail = 0; tail < 4; tail++) {
            char name[40];
            snprintf(name, sizeof name, "%s-images%s", halves[i], tails[tail]);
            if (plain_or_gzip(folder, name, out, room)) return true;
        }
    }
    return false;
}
