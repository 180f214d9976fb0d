/* SPDX-License-Identifier: Apache-2.0 */
/* Linear attention (Katharopoulos et al. 2020), with decays (Yang et al. 2023), and the gated delta rule (Yang et al. 2024). With
 * S the state before token t, a = exp(decay) (1 without) and k, v, q of that token:
 *
 *     M = diag(a) S
 *     w = v                       or, delta rules,   beta (v - M^T k)
 *     S' = M + k w^T              o = scale * S'^T q */
#include "linear_attention.h"

#include <math.h>

static double decay_of(const ref_linear_attention *p, int64_t t, int64_t i) {
    return p->decay.data ? exp(ref_at(p->decay, t, p->each ? i : 0)) : 1;
}

static int64_t place(const ref_heads *h, int64_t g, int64_t t, int64_t i) {
    return g * h->head + t * h->first.row + i * h->first.col;
}
static double head_at(const ref_heads *h, int64_t g, int64_t t, int64_t i) {
    return ref_load(h->first.data, h->first.dtype, place(h, g, t, i));
}
static void head_set(const ref_heads *h, int64_t g, int64_t t, int64_t i, double x) {
    ref_store(h->first.data, h->first.dtype, place(h, g, t, i), x);
}

void ref_linear_step(const ref_linear_attention *p, int64_t t, double *state, double *value) {
    const int64_t dk = p->key_dim, dv = p->value_dim;
    for (int64_t j = 0; j < dv; j++) value[j] = ref_at(p->v, t, j);
    for (int64_t i = 0; i < dk; i++) {
        double a = decay_of(p, t, i), k = ref_at(p->k, t, i);
        for (int64_t j = 0; j < dv; j++) {
            if (p->decay.data) state[i * dv + j] *= a;
            if (p->delta) value[j] -= state[i * dv + j] * k;
        }
    }
    if (p->delta)
        for (int64_t j = 0; j < dv; j++) value[j] *= ref_get(p->beta, t);
    for (int64_t i = 0; i < dk; i++) {
        double k = ref_at(p->k, t, i);
        for (int64_t j = 0; j < dv; j++) state[i * dv + j] += k * value[j];
    }
}

void ref_linear_read(const ref_linear_attention *p, int64_t t, const double *state, ref_heads out) {
    for (int64_t g = 0; g < p->group; g++)
        for (int64_t j = 0; j < p->value_dim; j++) {
            double sum = 0;
            for (int64_t i = 0; i < p->key_dim; i++) sum += head_at(&p->q, g, t, i) * state[i * p->value_dim + j];
            head_set(&out, g, t, j, p->scale * sum);
        }
}

/* dS += scale q do^T and dq = scale S' do, over the heads that read; dout [value_dim] is for one row of it. */
static void read_backward(const ref_linear_attention *p, const ref_linear_grads *g, int64_t t, const double *after,
                          double *dstate, double *dout) {
    const int64_t dk = p->key_dim, dv = p->value_dim;
    for (int64_t h = 0; h < p->group; h++) {
        for (int64_t j = 0; j < dv; j++) dout[j] = head_at(&g->dout, h, t, j);
        for (int64_t i = 0; i < dk; i++) {
            double q = p->scale * head_at(&p->q, h, t, i), sum = 0;
            for (int64_t j = 0; j < dv; j++) {
                dstate[i * dv + j] += q * dout[j];
                sum += after[i * dv + j] * dout[j];
            }
            if (g->dq.first.data) head_set(&g->dq, h, t, i, p->scale * sum);
        }
    }
}

/* S' = M + k w^T:            dw = dS'^T k, dk = dS' w
 * w = beta (v - M^T k):      dv = beta dw, dbeta = dw (v - M^T k), dk -= M dv, dM = dS' - k dv^T
 * M = diag(a) S:             ddecay = sum dM M, dS = diag(a) dM */
void ref_linear_step_backward(const ref_linear_attention *p, const ref_linear_grads *g, int64_t t, const double *before,
                              const double *after, double *dstate, double *work) {
    const int64_t dk = p->key_dim, dv = p->value_dim;
    double *a = work, *dkey = a + dk, *left = dkey + dk, *dwritten = left + dv; /* left: v - M^T k */
    const double beta = p->delta ? ref_get(p->beta, t) : 1;
    double dbeta = 0, ddecay = 0;
    read_backward(p, g, t, after, dstate, left);
    for (int64_t i = 0; i < dk; i++) a[i] = decay_of(p, t, i);
    for (int64_t j = 0; j < dv; j++) {
        left[j] = ref_at(p->v, t, j);
        dwritten[j] = 0;
    }
    for (int64_t i = 0; i < dk; i++) {
        double k = ref_at(p->k, t, i);
        for (int64_t j = 0; j < dv; j++) {
            if (p->delta) left[j] -= a[i] * before[i * dv + j] * k;
            dwritten[j] += dstate[i * dv + j] * k;
        }
    }
    for (int64_t j = 0; j < dv; j++) {
        dbeta += dwritten[j] * left[j];
        if (g->dv.data) ref_set(g->dv, t, j, beta * dwritten[j]);
    }
    for (int64_t i = 0; i < dk; i++) {
        double k = ref_at(p->k, t, i), own = 0;
        dkey[i] = 0;
        for (int64_t j = 0; j < dv; j++) {
            double m = a[i] * before[i * dv + j], *d = &dstate[i * dv + j];
            dkey[i] += *d * beta * left[j];
            if (p->delta) {
                dkey[i] -= m * beta * dwritten[j];
                *d -= k * beta * dwritten[j];
            }
            own += *d * m;
            *d *= a[i];
        }
        if (g->dk.data) ref_set(g->dk, t, i, dkey[i]);
        if (g->ddecay.data && p->each) ref_set(g->ddecay, t, i, own);
        ddecay += own;
    }
    if (g->ddecay.data && !p->each) ref_set(g->ddecay, t, 0, ddecay);
    if (g->dbeta.data) ref_put(g->dbeta, t, dbeta);
}
