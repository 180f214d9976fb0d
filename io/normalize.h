/* SPDX-License-Identifier: Apache-2.0 */
/* One spelling per character: Unicode's normal forms and small letters, byte for byte as Hugging Face's normalizers, with a map
 * that leads from every byte of the result back to the bytes of the text that it came from. Linear in the text, however many
 * marks are piled up. */
#ifndef ATTN_IO_NORMALIZE_H
#define ATTN_IO_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

typedef enum { NORMALIZE_NFC, NORMALIZE_NFKC, NORMALIZE_NFD, NORMALIZE_NFKD, NORMALIZE_LOWERCASE } normalize_step;

typedef struct normalize_char {
    uint32_t c;
    uint32_t from, to; /* the bytes of the text it stands for */
} normalize_char;

/* A normalised text; zero it once, reuse it, normalize_free it. */
typedef struct normalized {
    char *bytes;
    size_t n;
    bool mapped;         /* false: byte i came from byte i */
    uint32_t *from, *to; /* when mapped: byte i came from the text's bytes [from[i], to[i]) */
    size_t byte_capacity, from_capacity, to_capacity;
    normalize_char *chars, *spare; /* the characters between steps */
    size_t char_capacity, spare_capacity;
} normalized;

/* Takes the steps one after the other. Texts of up to UINT32_MAX / 16 bytes. */
int normalize(const normalize_step *steps, size_t n_steps, const char *text, size_t length, normalized *out, io_error *error);

void normalize_free(normalized *out);

#endif
