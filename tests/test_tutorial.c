/* SPDX-License-Identifier: Apache-2.0 */
/* The program of docs/tutorial.md: every figure that the page shows. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <attn/attn.h>
#include <attn/ops.h>

#include <math.h>

enum { N = 5 };
static double x_values[N] = { 1, 2, 3, 4, 5 }, a_values[N], y_values[N], weight_value = 1.1;

static attn_tensor column(double *values) { return attn_dense(ATTN_F64, values, 2, (int64_t[]){ N, 1 }); }

static void assert_figures(const double *values, const double *figures) {
    for (int i = 0; i < N; i++) assert_true(fabs(values[i] - figures[i]) <= 5e-7);
}

/* a = 1.1 x, a linear layer from one feature to one. */
static int linear_layer(void **state) {
    (void)state;
    attn_matmul_args linear = { .a = column(x_values),
                                .b = attn_dense(ATTN_F64, &weight_value, 2, (int64_t[]){ 1, 1 }),
                                .c = column(a_values) };
    return attn_matmul(&linear, NULL);
}

static void the_linear_layer_scales_by_its_weight(void **state) {
    (void)state;
    assert_figures(a_values, (double[]){ 1.1, 2.2, 3.3, 4.4, 5.5 });
}

static void sigmoid_weights_gate_each_element_by_itself(void **state) {
    (void)state;
    attn_activation_args sigmoid = { .activation = ATTN_SIGMOID, .x = column(a_values), .y = column(y_values) };
    assert_int_equal(attn_activation(&sigmoid, NULL), ATTN_OK);
    assert_figures(y_values, (double[]){ 0.750260, 0.900250, 0.964429, 0.987872, 0.995930 });
    double sum = 0;
    for (int i = 0; i < N; i++) sum += y_values[i];
    assert_true(fabs(sum - 4.6) < 0.01);

    attn_gate_args gate = { .kind = ATTN_GATE_SIGMOID, .x = column(x_values), .g = column(a_values), .y = column(y_values) };
    assert_int_equal(attn_gate(&gate, NULL), ATTN_OK);
    assert_figures(y_values, (double[]){ 0.750260, 1.800499, 2.893286, 3.951486, 4.979649 });
}

static void softmax_over_the_axis_of_length_1_is_1(void **state) {
    (void)state;
    assert_int_equal(attn_softmax(&(attn_softmax_args){ .x = column(a_values), .y = column(y_values) }, NULL), ATTN_OK);
    for (int i = 0; i < N; i++) assert_true(y_values[i] == 1);
}

static const double softmax_figures[N] = { 0.008224, 0.024707, 0.074223, 0.222979, 0.669867 };

static void softmax_over_the_axis_of_length_5_is_not_the_sigmoid(void **state) {
    (void)state;
    attn_softmax_args softmax = { .x = attn_axis_last(column(a_values), 0), .y = attn_axis_last(column(y_values), 0) };
    assert_int_equal(attn_softmax(&softmax, NULL), ATTN_OK);
    assert_figures(y_values, softmax_figures);
}

static double attend(int32_t weighting, double *seen) {
    double mix = NAN;
    attn_attention_args attention = {
        .q = attn_bhsd(ATTN_F64, &weight_value, 1, 1, 1, 1),
        .k = attn_bhsd(ATTN_F64, x_values, 1, 1, N, 1),
        .v = attn_bhsd(ATTN_F64, x_values, 1, 1, N, 1),
        .out = attn_bhsd(ATTN_F64, &mix, 1, 1, 1, 1),
        .weighting = weighting,
        .see.weights = attn_bhsd(ATTN_F64, seen, 1, 1, 1, N),
    };
    assert_int_equal(attn_attention(&attention, NULL), ATTN_OK);
    return mix;
}

static void attention_by_softmax_mixes_by_these_weights(void **state) {
    (void)state;
    double seen[N], mix = attend(ATTN_WEIGHT_SOFTMAX, seen);
    assert_figures(seen, softmax_figures);
    assert_true(fabs(mix - 4.521557) <= 5e-7);
}

static void attention_by_the_normalised_sum_gives_fifteenths(void **state) {
    (void)state;
    double seen[N], mix = attend(ATTN_WEIGHT_NORMALIZED_SUM, seen);
    for (int i = 0; i < N; i++) assert_true(fabs(seen[i] - x_values[i] / 15) <= 1e-16);
    assert_true(fabs(mix - 55.0 / 15) <= 1e-15);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_linear_layer_scales_by_its_weight),
        cmocka_unit_test(sigmoid_weights_gate_each_element_by_itself),
        cmocka_unit_test(softmax_over_the_axis_of_length_1_is_1),
        cmocka_unit_test(softmax_over_the_axis_of_length_5_is_not_the_sigmoid),
        cmocka_unit_test(attention_by_softmax_mixes_by_these_weights),
        cmocka_unit_test(attention_by_the_normalised_sum_gives_fifteenths),
    };
    return cmocka_run_group_tests(tests, linear_layer, NULL);
}
