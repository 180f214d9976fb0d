/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for the answers, a team to find them. See predict.h. */
#include "predict.h"

#include <stdlib.h>

#include "array.h"
#include "team.h"

int predict(prediction *p, const nn_model *model, const nn_examples *examples, const attn_exec *exec, io_error *error) {
    nn_team team;
    size_t cells;
    *p = (prediction){ .n = examples->n, .classes = (size_t)model->config.n_labels };
    if (__builtin_mul_overflow(p->n, p->classes, &cells)) return io_no_memory(error, "the probabilities", SIZE_MAX);
    p->probabilities = array_new(cells, sizeof *p->probabilities);
    if (examples->labels) p->losses = array_new(p->n, sizeof *p->losses);
    int failed = p->probabilities && (p->losses || !examples->labels)
                     ? nn_team_open(&team, model, 0, exec, error)
                     : io_no_memory(error, "the probabilities", cells * sizeof *p->probabilities);
    if (!failed) {
        failed = nn_team_predict(&team, examples, p->probabilities, p->losses, error);
        nn_team_close(&team);
    }
    if (failed) prediction_free(p);
    return failed;
}

void prediction_free(prediction *p) {
    free(p->probabilities);
    free(p->losses);
    *p = (prediction){ 0 };
}
