/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG through libjpeg, from memory. libjpeg reports failure by longjmp; a file or a scan that ends too early is a failure here, where
 * libjpeg would fill the rest with gray. The orientation that cameras note beside the pixels is not applied. */
#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs FILE */
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "image_codec.h"

/* A progressive picture comes in a dozen scans, each a pass over all pixels; a hostile one in thousands. */
enum { MAX_SCANS = 64 };

typedef struct jpeg_job {
    struct jpeg_decompress_struct jpeg; /* first: libjpeg's callbacks get its address */
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    char why[JMSG_LENGTH_MAX];
    const char *name;
    io_error *error;
    image *out;
} jpeg_job;

bool image_is_jpeg(const void *bytes, size_t size) { return size >= 3 && !memcmp(bytes, "\xff\xd8\xff", 3); }

static void on_error(j_common_ptr jpeg) {
    jpeg_job *job = (jpeg_job *)jpeg;
    jpeg->err->format_message(jpeg, job->why);
    longjmp(job->failed, 1);
}

static void on_message(j_common_ptr jpeg, int level) {
    if (level < 0 && (jpeg->err->msg_code == JWRN_JPEG_EOF || jpeg->err->msg_code == JWRN_HIT_MARKER)) on_error(jpeg);
}

static void on_progress(j_common_ptr jpeg) {
    jpeg_job *job = (jpeg_job *)jpeg;
    if (job->jpeg.input_scan_number <= MAX_SCANS) return;
    snprintf(job->why, sizeof job->why, "more than %d scans", MAX_SCANS);
    longjmp(job->failed, 1);
}

static int start(jpeg_job *job, const void *bytes, size_t size) {
    job->jpeg.err = jpeg_std_error(&job->errors);
    job->errors.error_exit = on_error;
    job->errors.emit_message = on_message;
    if (setjmp(job->failed)) return io_fail(job->error, IO_BAD_DATA, "%s: not a valid JPEG: %s", job->name, job->why);
    jpeg_create_decompress(&job->jpeg);
    job->progress.progress_monitor = on_progress;
    job->jpeg.progress = &job->progress;
    jpeg_mem_src(&job->jpeg, bytes, (unsigned long)size);
    jpeg_read_header(&job->jpeg, TRUE);
    return IO_OK;
}

static int check_header(jpeg_job *job) {
    if (job->jpeg.jpeg_color_space == JCS_CMYK || job->jpeg.jpeg_color_space == JCS_YCCK)
        return io_fail(job->error, IO_BAD_DATA, "%s is a JPEG in CMYK, made for printing; save it as RGB", job->name);
    return image_check_size(job->jpeg.image_width, job->jpeg.image_height, job->name, job->error);
}

static int read_rows(jpeg_job *job) {
    struct jpeg_decompress_struct *jpeg = &job->jpeg;
    bool gray = jpeg->jpeg_color_space == JCS_GRAYSCALE;
    int failed = image_new((int32_t)jpeg->image_width, (int32_t)jpeg->image_height, gray ? 1 : 3, job->out, job->error);
    if (failed) return failed;
    if (setjmp(job->failed)) return io_fail(job->error, IO_BAD_DATA, "%s: not a valid JPEG: %s", job->name, job->why);
    jpeg->out_color_space = gray ? JCS_GRAYSCALE : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW; /* the same pixels on every machine */
    jpeg_start_decompress(jpeg);
    size_t row = (size_t)job->out->width * (size_t)job->out->channels;
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW to = job->out->pixels + jpeg->output_scanline * row;
        jpeg_read_scanlines(jpeg, &to, 1);
    }
    jpeg_finish_decompress(jpeg);
    return IO_OK;
}

int image_decode_jpeg(const void *bytes, size_t size, const char *name, image *out, io_error *error) {
    jpeg_job job = { .name = name, .error = error, .out = out };
    int failed = start(&job, bytes, size);
    if (!failed) failed = check_header(&job);
    if (!failed) failed = read_rows(&job);
    jpeg_destroy_decompress(&job.jpeg);
    if (failed) image_free(out);
    return failed;
}
