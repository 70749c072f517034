// Diagonal state space models and their gradient, in two forms; neighbouring channels are the vector lanes.
//
// *Convolution*, for short rows: y[t] = sum_s taps[t - s] u[s] with the taps of all directions and the skip in one table.
// Frames are split into tiles; all products between a tile of inputs and a tile of outputs use registers.
//
// *Recurrence*, for long rows and for states: h[t] = a h[t-1] + u[t], y[t] = 2 Re sum_n c_n h_n[t], a few modes at a time
// in registers.  Backward stores nothing either.  The gradient of u is the same recurrence, over the gradient of y in the
// opposite direction.  The gradients of c and a are sum_t grad_y[t] h[t] and sum_t grad_y[t] p[t], where p = dh/da has the
// recurrence p[t] = a p[t-1] + h[t-1].
//
// Words: a *step* counts frames in the order in which a sweep visits them; a *block* is kLanes neighbouring channels.
// Padded frames are never read.
#include "../_groups.h"
#include "_convolution.h"
#include "_recurrence.h"

extern "C" {

EXPORT_SIZE(Problem)
EXPORT_SIZE(Direction)

int64_t diagonal_ssm_lanes() { return kLanes; }

// These two are called for every block of channels, not for groups of rows.
void diagonal_ssm_taps(const Problem* problem, int64_t block) {
    const int64_t channel = block * kLanes, count = problem->ahead + 1 + problem->behind;
    const int lanes = (int)std::min<int64_t>(kLanes, problem->channels - channel);
    const std::unique_ptr<Doubles[]> taps(new Doubles[count]{});
    for (int i = 0; problem->skip && i < lanes; i++) taps[problem->ahead][i] = problem->skip[channel + i];
    for (int64_t i = 0; i < problem->num_directions; i++)
        add_taps(*problem, problem->directions[i], channel, lanes, &taps[problem->ahead]);
    for (int64_t k = 0; k < count; k++)
        for (int i = 0; i < lanes; i++) problem->taps[k * problem->channels + channel + i] = (float)taps[k][i];
}

void diagonal_ssm_taps_backward(const Problem* problem, int64_t block) {
    const int64_t channel = block * kLanes, count = problem->ahead + 1 + problem->behind;
    const int lanes = (int)std::min<int64_t>(kLanes, problem->channels - channel);
    const std::unique_ptr<Doubles[]> slopes(new Doubles[count]{});
    for (int64_t k = 0; k < problem->num_groups * count; k++)
        for (int i = 0; i < lanes; i++) slopes[k % count][i] += problem->grad_taps[k * problem->channels + channel + i];
    for (int i = 0; problem->grad_skip && i < lanes; i++)
        problem->grad_skip[channel + i] = (float)slopes[problem->ahead][i];
    for (int64_t i = 0; i < problem->num_directions; i++)
        through_taps(*problem, problem->directions[i], channel, lanes, &slopes[problem->ahead]);
}

void diagonal_ssm_convolve(const Problem* problem, int64_t group) { convolve_rows<false>(*problem, group); }

void diagonal_ssm_convolve_backward(const Problem* problem, int64_t group) { convolve_rows<true>(*problem, group); }

void diagonal_ssm_recur(const Problem* problem, int64_t group) {
    const int64_t begin = group * problem->rows_per_group, end = std::min(problem->rows, begin + problem->rows_per_group);
    for (int64_t i = 0; i < problem->num_directions; i++) {
        const Direction& at = problem->directions[i];
        const Sweep sweep(*problem, at);
        const Scratch states = scratch(sweep.states_size());
        for (int64_t row = begin; row < end; row++) {
            sweep.spread(sweep.of_row(at.initial, row), states.get());
            sweep_row(sweep, row, at.reverse, problem->u, problem->y, i > 0, states.get(), nullptr);
            if (at.final) sweep.gather(states.get(), sweep.of_row(at.final, row));
        }
    }
    for (int64_t row = begin; row < end; row++) clear_padding(*problem, row, problem->y);
}

void diagonal_ssm_recur_backward(const Problem* problem, int64_t group) {
    const int64_t begin = group * problem->rows_per_group, end = std::min(problem->rows, begin + problem->rows_per_group);
    for (int64_t i = 0; i < problem->num_directions; i++)
        recur_backward_rows(Sweep(*problem, problem->directions[i]), begin, end, group, i == 0);
    for (int64_t row = begin; row < end; row++) clear_padding(*problem, row, problem->grad_u);
}

}
