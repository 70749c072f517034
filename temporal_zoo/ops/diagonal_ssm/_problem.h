// Shared by both forms of the diagonal state space model: the interface to Python, and padding.
#pragma once

#include <algorithm>

#include "../_lanes.h"

using namespace zoo;

extern "C" {

// One direction.  Complex numbers are pairs; a complex gradient is d/dRe + i d/dIm.
struct Direction {
    int64_t modes, reverse;
    const float *a, *c;         // (channels, modes)
    const float* initial;       // (rows, channels, modes), or null for zero
    float* final;               // the same, or null if not wanted
    const float* grad_final;    // the same, or null for zero; backward only, as all fields below
    float* grad_initial;        // or null
    float *grad_a, *grad_c;     // (groups, channels, modes): every group of rows writes a partial sum
};

struct Problem {
    int64_t rows, frames, channels, rows_per_group;
    const int64_t* lengths;     // (rows,), or null when all frames are real
    const float* u;             // (rows, frames, channels)
    float* y;                   // forward only
    const float* grad_y;        // backward only
    float* grad_u;              // backward only
    int64_t num_directions;
    const Direction* directions;
    const float* skip;          // (channels,), or null for zero
    float* grad_skip;           // (groups, channels), or null
    // For a convolution: the taps of lags -ahead ... behind, either 0 or frames - 1, and partial sums of their gradients.
    int64_t ahead, behind, num_groups;
    float* taps;                // (ahead + 1 + behind, channels)
    float* grad_taps;           // (groups, ahead + 1 + behind, channels)
};
}

namespace {

int64_t real_frames(const Problem& problem, int64_t row) {
    // Clamped, because the caller cannot always read the values; none may point outside of the row.
    return problem.lengths ? std::clamp<int64_t>(problem.lengths[row], 0, problem.frames) : problem.frames;
}

void clear_padding(const Problem& problem, int64_t row, float* values) {
    float* start = values + row * problem.frames * problem.channels;
    std::fill(start + real_frames(problem, row) * problem.channels, start + problem.frames * problem.channels, 0.0f);
}

}  // namespace
