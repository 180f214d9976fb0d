/* SPDX-License-Identifier: Apache-2.0 */
/* Checks what is asked for beyond an attention call: gradients, tangents, second derivatives, received mass. */
#include "attention_check.h"

#include <inttypes.h>

/* ---- gradients ------------------------------------------------------------------------------------------- */

static attn_status check_dout(const attn_attention_plan *p, const attn_attention_grads *g) {
    attn_status s;
    const int64_t out[] = { p->batch, p->heads, p->q_len, p->v_dim };
    if (!attn_present(&g->dout)) return attn_fail(ATTN_BAD_ARGUMENT, "dout is missing: the backward starts from it");
    if ((s = attn_check_tensor("dout", &g->dout, 4, 4)) || (s = check_dtype_or_f32("dout", &g->dout, p->q.dtype)) ||
        (s = check_shape("dout", &g->dout, 4, out)))
        return s;
    if (!attn_present(&g->dlse)) return ATTN_OK;
    if (p->weighting != ATTN_WEIGHT_SOFTMAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "dlse is given, and only the softmax weighting has a log-sum-exp");
    if ((s = attn_check_tensor("dlse", &g->dlse, 3, 3)) || (s = check_seen_dtype("dlse", &g->dlse, p->q.dtype))) return s;
    return check_shape("dlse", &g->dlse, 3, out);
}

/* Beside a whole input: same shape, the input's dtype or f32. A gradient is written, a direction is read. */
static attn_status plan_beside_input(const char *name, const attn_tensor *t, const attn_tensor *input, bool written,
                                     attn_tensor *view) {
    attn_status s;
    if (!attn_present(t)) return ATTN_OK;
    if ((s = (written ? attn_check_output : attn_check_tensor)(name, t, 4, 4)) ||
        (s = check_dtype_or_f32(name, t, input->dtype)) || (s = check_shape(name, t, 4, input->shape)))
        return s;
    *view = *t;
    return ATTN_OK;
}

/* The gradient of an input that repeats: right-aligned to `shape`, each extent full or 1. Missing axes are extents of 1. */
static attn_status plan_summed_gradient(const char *name, const attn_tensor *t, const char *input_name, const attn_tensor *input,
                                        int32_t rank, const int64_t *shape, attn_tensor *view) {
    attn_status s;
    if (!attn_present(t)) return ATTN_OK;
    if (!attn_present(input)) return attn_fail(ATTN_BAD_ARGUMENT, "%s is asked for, and there is no %s", name, input_name);
    if ((s = attn_check_output(name, t, 0, rank)) || (s = check_dtype_or_f32(name, t, input->dtype)) ||
        (s = attn_broadcast(name, t, rank, shape, view)))
        return s;
    for (int32_t i = 0; i < rank; i++) {
        int32_t own = i - (rank - t->rank);
        view->shape[i] = own < 0 ? 1 : t->shape[own];
        view->stride[i] = own < 0 ? 0 : t->stride[own];
    }
    return ATTN_OK;
}

static attn_status plan_dalpha(const attn_attention_plan *p, const attn_tensor *t, attn_tensor *view) {
    attn_status s;
    if (!attn_present(t)) return ATTN_OK;
    if (p->weighting != ATTN_WEIGHT_ENTMAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "dalpha is asked for, and the weighting is not alpha-entmax");
    if ((s = attn_check_output("dalpha", t, 0, 1))) return s;
    if (t->dtype != ATTN_F32 && t->dtype != ATTN_F64)
        return attn_fail(ATTN_BAD_ARGUMENT, "dalpha is %s: it is f32 or f64", attn_dtype_name(t->dtype));
    if (t->rank == 1 && (s = check_shape("dalpha", t, 1, (const int64_t[]){ 1 }))) return s;
    *view = attn_dense(t->dtype, t->data, 1, (const int64_t[]){ 1 });
    return ATTN_OK;
}

static attn_status plan_gradients(const attn_attention_plan *p, attn_attention_plan_grads *grads, const attn_attention_args *a,
                                  const attn_attention_grads *g) {
    attn_status s;
    const int64_t scores[] = { p->batch, p->heads, p->q_len, p->kv_len }, weight[] = { p->heads, p->dim };
    const int64_t heads[] = { p->entries, p->heads };
    if ((s = check_dout(p, g))) return s;
    *grads = (attn_attention_plan_grads){ .dout = g->dout };
    if (attn_present(&g->dlse)) grads->dlse = g->dlse;
    if ((s = plan_beside_input("dq", &g->dq, &a->q, true, &grads->dq)) ||
        (s = plan_beside_input("dk", &g->dk, &a->k, true, &grads->dk)) ||
        (s = plan_beside_input("dv", &g->dv, &a->v, true, &grads->dv)) ||
        (s = plan_summed_gradient("dbias", &g->dbias, "bias", &a->bias, 4, scores, &grads->dbias)) ||
        (s = plan_summed_gradient("dalibi", &g->dalibi, "alibi", &a->alibi, 2, heads, &grads->dalibi)) ||
        (s = plan_summed_gradient("dsinks", &g->dsinks, "sink", &a->sinks, 2, heads, &grads->dsinks)) ||
        (s = plan_dalpha(p, &g->dalpha, &grads->dalpha)))
        return s;
    if ((s = plan_summed_gradient("dscore_weight", &g->dscore_weight, "score_weight", &a->score_weight, 2, weight,
                                  &grads->dscore_weight)))
        return s;
    if (grads->dscore_weight.rank && grads->dscore_weight.shape[1] != p->dim)
        return attn_fail(ATTN_BAD_SHAPE, "dscore_weight has size %" PRId64 ", q has head size %" PRId64,
                         grads->dscore_weight.shape[1], p->dim);
    return ATTN_OK;
}

static attn_attention_grads stood_in_grads(const attn_attention_grads *g) {
    attn_attention_grads with = *g;
    attn_tensor *all[] = { &with.dout,  &with.dlse,   &with.dq,     &with.dk,     &with.dv,
                           &with.dbias, &with.dsinks, &with.dalibi, &with.dalpha, &with.dscore_weight };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) attn_plan_stand_in(all[i]);
    return with;
}

/* Whatever else was asked for was checked, and is not computed. */
static void see_lse_alone(attn_attention_plan *plan) {
    const attn_tensor none = { 0 };
    plan->entropy = plan->received = plan->weights = plan->scores = plan->top_index = plan->top_weight = plan->pooled = none;
    plan->top_k = 0;
}

attn_status attn_attention_plan_backward(attn_attention_plan *plan, attn_attention_plan_grads *grads,
                                         const attn_attention_args *a, const attn_attention_grads *g, attn_plan_purpose purpose) {
    attn_status s;
    if (a == NULL || g == NULL)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is NULL", a == NULL ? "attn_attention_args" : "attn_attention_grads");
    bool question = purpose == ATTN_PLAN_QUESTION;
    attn_attention_args with = question ? attn_plan_stood_in(a) : *a;
    attn_attention_grads gradients = question ? stood_in_grads(g) : *g;
    if ((s = attn_check_reserved("attn_attention_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved)) ||
        (s = attn_plan_call(plan, &with, false, purpose)) || (s = plan_gradients(plan, grads, &with, &gradients)))
        return s;
    see_lse_alone(plan);
    return ATTN_OK;
}

/* ---- forward mode ---------------------------------------------------------------------------------------- */

static attn_status check_tangents_are_built(const attn_attention_plan *p) {
    if (p->score != ATTN_DOT)
        return attn_fail(ATTN_UNSUPPORTED, "score is %d: tangents and second derivatives are built for the dot score",
                         (int)p->score);
    if (p->weighting != ATTN_WEIGHT_SOFTMAX)
        return attn_fail(ATTN_UNSUPPORTED, "weighting is %d: tangents and second derivatives are built for the softmax",
                         (int)p->weighting);
    return ATTN_OK;
}

/* What q, k and v are moved along, and where the movements of out and lse go. `names` are those of the five. */
static attn_status plan_tangents(const attn_attention_plan *p, const char *const names[5], const attn_attention_args *a,
                                 const attn_attention_plan_tangents *t, attn_attention_plan_tangents *view) {
    attn_status s;
    const int64_t out[] = { p->batch, p->heads, p->q_len, p->v_dim };
    *view = (attn_attention_plan_tangents){ 0 };
    if ((s = plan_beside_input(names[0], &t->dq, &a->q, false, &view->dq)) ||
        (s = plan_beside_input(names[1], &t->dk, &a->k, false, &view->dk)) ||
        (s = plan_beside_input(names[2], &t->dv, &a->v, false, &view->dv)))
        return s;
    attn_tensor shaped = { .dtype = p->q.dtype, .rank = 4, .shape = { out[0], out[1], out[2], out[3] } };
    if ((s = plan_beside_input(names[3], &t->dout, &shaped, true, &view->dout))) return s;
    return plan_seen(names[4], &t->dlse, p->q.dtype, 3, out, &view->dlse);
}

static attn_status plan_dbias_tangent(const attn_attention_plan *p, const attn_tensor *t, attn_tensor *view) {
    attn_status s;
    const int64_t scores[] = { p->batch, p->heads, p->q_len, p->kv_len };
    if (!attn_present(t)) return ATTN_OK;
    if (!p->bias.rank) return attn_fail(ATTN_BAD_ARGUMENT, "dbias is given, and there is no bias");
    if ((s = attn_check_tensor("dbias", t, 0, 4)) || (s = check_dtype_or_f32("dbias", t, p->bias.dtype))) return s;
    return attn_broadcast("dbias", t, 4, scores, view);
}

attn_status attn_attention_plan_jvp(attn_attention_plan *plan, attn_attention_plan_tangents *tangents,
                                    const attn_attention_args *a, const attn_attention_tangents *t, attn_plan_purpose purpose) {
    static const char *const names[] = { "dq", "dk", "dv", "dout", "dlse" };
    attn_status s;
    if (a == NULL || t == NULL)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is NULL", a == NULL ? "attn_attention_args" : "attn_attention_tangents");
    bool question = purpose == ATTN_PLAN_QUESTION;
    attn_attention_args with = question ? attn_plan_stood_in(a) : *a;
    attn_attention_plan_tangents given = { t->dq, t->dk, t->dv, t->dbias, t->dout, t->dlse };
    attn_tensor *all[] = { &given.dq, &given.dk, &given.dv, &given.dbias, &given.dout, &given.dlse };
    for (int i = 0; question && i < 6; i++) attn_plan_stand_in(all[i]);
    if ((s = attn_check_reserved("attn_attention_tangents", t->reserved, sizeof t->reserved / sizeof *t->reserved)) ||
        (s = attn_plan_call(plan, &with, false, purpose)) || (s = check_tangents_are_built(plan)) ||
        (s = plan_tangents(plan, names, &with, &given, tangents)) ||
        (s = plan_dbias_tangent(plan, &given.dbias, &tangents->dbias)))
        return s;
    see_lse_alone(plan);
    return ATTN_OK;
}

/* ---- the second order ------------------------------------------------------------------------------------ */

attn_status attn_attention_plan_double_backward(attn_attention_plan *plan, attn_attention_plan_grads *grads,
                                                attn_attention_plan_tangents *tangents, const attn_attention_args *a,
                                                const attn_attention_double_grads *g, attn_plan_purpose purpose) {
    static const char *const names[] = { "ddq", "ddk", "ddv", "ddout", "ddlse" };
    attn_status s;
    if (a == NULL || g == NULL)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is NULL", a == NULL ? "attn_attention_args" : "attn_attention_double_grads");
    attn_attention_grads first = { .dout = g->dout, .dlse = g->dlse, .dq = g->dq, .dk = g->dk, .dv = g->dv };
    attn_attention_plan_tangents along = { .dq = g->ddq, .dk = g->ddk, .dv = g->ddv, .dout = g->ddout, .dlse = g->ddlse };
    attn_tensor *all[] = { &along.dq, &along.dk, &along.dv, &along.dout, &along.dlse };
    for (int i = 0; purpose == ATTN_PLAN_QUESTION && i < 5; i++) attn_plan_stand_in(all[i]);
    if ((s = attn_check_reserved("attn_attention_double_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved)) ||
        (s = attn_attention_plan_backward(plan, grads, a, &first, purpose)) || (s = check_tangents_are_built(plan)) ||
        (s = plan_tangents(plan, names, a, &along, tangents)))
        return s;
    grads->along = tangents;
    plan->out = plan->lse = (attn_tensor){ 0 }; /* computed again, beside ddout */
    return ATTN_OK;
}

/* ---- received mass --------------------------------------------------------------------------------------- */

static attn_status plan_received(const attn_attention_plan *p, const attn_received_args *r, attn_attention_plan_received *view) {
    attn_status s;
    const int64_t rows[] = { p->batch, p->heads, p->q_len }, keys[] = { p->batch, p->heads, p->kv_len };
    attn_tensor out = { .dtype = p->q.dtype, .rank = 4, .shape = { rows[0], rows[1], rows[2], p->v_dim } };
    *view = (attn_attention_plan_received){ .positive = r->positive != 0 };
    if (r->positive && !attn_present(&r->dout))
        return attn_fail(ATTN_BAD_ARGUMENT, "positive is %d, and there is no dout: weights are positive as they are",
                         (int)r->positive);
    if (!attn_present(&r->received)) return attn_fail(ATTN_BAD_ARGUMENT, "received is missing: it is what is worked out");
    if ((s = plan_beside_input("dout", &r->dout, &out, false, &view->dout)) ||
        (s = plan_seen("received", &r->received, p->q.dtype, 3, keys, &view->received)))
        return s;
    if (!attn_present(&r->by)) return ATTN_OK;
    if ((s = attn_check_tensor("by", &r->by, 0, 3)) || (s = check_seen_dtype("by", &r->by, p->q.dtype))) return s;
    return attn_broadcast("by", &r->by, 3, rows, &view->by);
}

attn_status attn_attention_plan_for_received(attn_attention_plan *plan, attn_attention_plan_received *received,
                                             const attn_attention_args *a, const attn_received_args *r,
                                             attn_plan_purpose purpose) {
    attn_status s;
    if (a == NULL || r == NULL)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is NULL", a == NULL ? "attn_attention_args" : "attn_received_args");
    attn_attention_args with = purpose == ATTN_PLAN_QUESTION ? attn_plan_stood_in(a) : *a;
    attn_received_args asked = *r;
    attn_tensor *all[] = { &asked.by, &asked.dout, &asked.received };
    for (int i = 0; purpose == ATTN_PLAN_QUESTION && i < 3; i++) attn_plan_stand_in(all[i]);
    if ((s = attn_check_reserved("attn_received_args", r->reserved, sizeof r->reserved / sizeof *r->reserved)) ||
        (s = attn_plan_call(plan, &with, false, purpose)) || (s = plan_received(plan, &asked, received)))
        return s;
    see_lse_alone(plan);
    plan->out = (attn_tensor){ 0 };
    return ATTN_OK;
}
