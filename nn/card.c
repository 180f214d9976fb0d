/* SPDX-License-Identifier: Apache-2.0 */
/* Writing README.md of a model folder. See card.h. */
#define _POSIX_C_SOURCE 200809L
#include "card.h"

#include <stdio.h>
#include <stdlib.h>

#include "file.h"
#include "layers.h"
#include "path.h"

static const char *architecture(const nn_config *c) {
    if (c->attention != NN_DOT || c->attention_pool) return "attn (the same scheme with another attention)";
    return c->modality == NN_TEXT ? "BertForSequenceClassification" : "ViTForImageClassification";
}

static void write_model(FILE *out, const nn_card *c) {
    const nn_config *m = &c->model->config;
    fprintf(out, "# A %s model\n\n", nn_config_task(m));
    fprintf(out, "Made by libattn %s. `attn eval`, `attn run` and `attn explain` read this folder", attn_version());
    if (m->attention == NN_DOT && !m->attention_pool)
        fprintf(out, "; so does transformers' AutoModelFor%sClassification", m->modality == NN_TEXT ? "Sequence" : "Image");
    fprintf(out, ".\n\n| model | |\n|---|---|\n| architecture | %s |\n| attention | %s, %d heads |\n", architecture(m),
            nn_attention_names[m->attention], m->heads);
    fprintf(out, "| blocks, width | %d, %lld |\n| parameters | %zu |\n", m->layers, (long long)m->width,
            nn_parameters_count(&c->model->parameters));
    if (m->modality == NN_TEXT)
        fprintf(out, "| tokens | byte-level BPE, %lld of them; a text has at most %lld |\n", (long long)m->vocabulary,
                (long long)m->positions);
    else
        fprintf(out, "| pictures | %lldx%lld, %d channels, patches of %lld |\n", (long long)m->image_width,
                (long long)m->image_height, m->channels, (long long)m->patch);
    fprintf(out, "| classes | %d |\n\n", m->n_labels);
}

static void write_figures(FILE *out, const nn_card *c) {
    const nn_figures *f = c->figures;
    const nn_config *m = &c->model->config;
    fprintf(out, "| figure | on %zu validation examples |\n|---|---|\n", f->n);
    fprintf(out, "| accuracy | %.2f %% (95 %% interval %.2f .. %.2f) |\n", 100 * f->accuracy, 100 * f->low, 100 * f->high);
    fprintf(out, "| macro-F1 | %.4f |\n| cross-entropy | %.4f |\n| calibration error (15 bins) | %.4f |\n\n", f->macro_f1,
            f->loss, f->ece);
    fprintf(out,
            "The best model was chosen by these examples, so the figures flatter it a little: measure on data of your own.\n\n");
    fprintf(out, "| class | precision | recall | F1 | examples |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < f->classes; i++) {
        const nn_class_figures *k = &f->per_class[i];
        fprintf(out, "| ");
        for (const char *l = m->labels[i]; *l; l++) fprintf(out, *l == '|' ? "\\%c" : "%c", (unsigned char)*l < ' ' ? ' ' : *l);
        fprintf(out, " | %.3f | %.3f | %.3f | %lld |\n", k->precision, k->recall, k->f1, (long long)k->support);
    }
    fprintf(out, "\n");
}

static void write_training(FILE *out, const nn_card *c) {
    const nn_progress *p = c->progress;
    fprintf(out, "Data: %s; %zu examples to learn from. Validation: %s.\n\n", c->data, c->n_train, c->validation);
    fprintf(out,
            "%s, %lld steps of %lld examples%s, learning rate %g with warm-up and cosine, weight decay %g, label smoothing %g, "
            "seed %llu; instruction set %s; %.0f s. The best model is that of step %lld.",
            c->optimizer == NN_MUON ? "Muon for the matrices of the blocks and AdamW" : "AdamW", (long long)p->step,
            (long long)c->batch, c->interrupted ? " (interrupted)" : "", c->rate, c->weight_decay, c->smoothing,
            (unsigned long long)c->seed, attn_isa(), p->seconds, (long long)p->best_step);
    if (p->ways_back)
        fprintf(out, " The loss stopped being a number %lld times; training went back and on.", (long long)p->ways_back);
    fprintf(out, "\n\nThe same again, bit for bit on the same build and instruction set with any number of threads:\n\n    %s\n",
            c->command);
}

int nn_card_write(const nn_card *c, const char *folder, io_error *error) {
    char path[4096];
    char *text = NULL;
    size_t size = 0;
    if (!path_join(folder, "README.md", path, sizeof path)) return io_fail(error, IO_NO_ROOM, "%s: the path is too long", folder);
    FILE *out = open_memstream(&text, &size);
    if (!out) return io_no_memory(error, "the model card", 4096);
    write_model(out, c);
    if (c->figures) write_figures(out, c);
    write_training(out, c);
    int failed = fclose(out) == 0 ? IO_OK : io_no_memory(error, "the model card", 4096);
    if (!failed) failed = io_write(path, text, size, error);
    free(text);
    return failed;
}
