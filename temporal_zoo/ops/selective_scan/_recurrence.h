// Shared by forward and backward of the selective scan: the interface to Python, one direction as its rows, chunks and
// blocks of channels, and the recurrence.  `_cpu.cpp` explains the words.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../_lanes.h"

using namespace zoo;

extern "C" {

// One direction.  The gradients of A, skip and dt_bias are sums over rows: each group of rows writes a partial
// sum, so that the total does not depend on the distribution of groups over threads.
struct Direction {
    int64_t state, reverse;
    const float *u, *dt, *A, *B, *C, *skip, *dt_bias;
    const float* initial;       // (rows, channels, state), or null for zero
    float* final;               // the same, or null if not wanted
    float* checkpoints;         // (rows, chunks - 1, at least blocks x padded state x lanes), or null
    const float* grad_final;    // as `initial`; backward only, as all fields below
    float* grad_initial;        // or null
    float *grad_u, *grad_dt;
    float* grad_A;              // (groups, channels, state)
    float *grad_B, *grad_C;
    float *grad_skip, *grad_dt_bias;  // (groups, channels)
};

struct Problem {
    int64_t rows, frames, channels, num_directions, rows_per_group, frames_per_chunk;
    const Direction* directions;
    const int64_t* lengths;     // (rows,), or null when all frames are real
    const float* gate;          // or null
    float* y;                   // forward only
    const float* grad_y;        // backward only
    float* grad_gate;           // backward only, null without gate
};
}

namespace {

constexpr int kUnit = 4;                        // states are processed in units of 4
#ifdef ZOO_AVX512
constexpr int kMostStates = 16;                 // of 32 registers
#else
constexpr int kMostStates = 8;                  // of 16 registers
#endif

// B and C of the steps of one chunk, padded to whole units of states.
struct Coefficients {
    const float *B, *C;
    int64_t stride;
};

// One direction, with its sizes, and A laid out as lanes.
struct Sweep {
    const Direction& at;
    int64_t frames, channels, blocks, chunk, state, padded;
    Scratch rates, states, staging;             // rates: A log2(e)

    Sweep(const Problem& problem, const Direction& direction)
        : at(direction), frames(problem.frames), channels(problem.channels), blocks(divide_up(channels, kLanes)),
          chunk(std::min(problem.frames_per_chunk, problem.frames)), state(direction.state),
          padded(divide_up(state, kUnit) * kUnit), rates(scratch(blocks * block_size())),
          states(scratch(blocks * block_size())), staging(scratch(2 * chunk * padded)) {
        spread(direction.A, rates.get());
        for (int64_t i = 0; i < blocks * block_size(); i++) rates[i] *= kLog2E;
    }

    int64_t block_size() const { return padded * kLanes; }
    int lanes(int64_t block) const { return (int)std::min<int64_t>(kLanes, channels - block * kLanes); }

    // The frame of a step, of `real` ones.
    int64_t frame(int64_t step, int64_t real) const { return at.reverse ? real - 1 - step : step; }

    // (channels, state) to (blocks, padded state, lanes), zero in the padding; and the inverse.
    void spread(const float* from, float* to) const {
        std::fill(to, to + blocks * block_size(), 0.0f);
        if (from)
            for (int64_t c = 0; c < channels; c++)
                for (int64_t n = 0; n < state; n++)
                    to[c / kLanes * block_size() + n * kLanes + c % kLanes] = from[c * state + n];
    }

    void gather(const float* from, float* to) const {
        for (int64_t c = 0; c < channels; c++)
            for (int64_t n = 0; n < state; n++)
                to[c * state + n] = from[c / kLanes * block_size() + n * kLanes + c % kLanes];
    }

    // The distance to the same place in the next row, or in the next chunk of a long row.
    int64_t ahead(bool backward) const {
        if (frames == chunk) return frames * channels;
        return (at.reverse != backward ? -chunk : chunk) * channels;
    }

    const float* initial(int64_t row) const { return at.initial ? at.initial + row * channels * state : nullptr; }

    // The stored states at the start of a chunk; the first chunk has none.
    float* checkpoint(int64_t row, int64_t chunk_number) const {
        int64_t kept = divide_up(frames, chunk) - 1;
        return at.checkpoints + (row * kept + chunk_number - 1) * blocks * block_size();
    }

    Coefficients coefficients(int64_t row, int64_t first_step, int64_t steps, int64_t real) const {
        int64_t start = (row * frames + frame(first_step, real)) * state, stride = at.reverse ? -state : state;
        if (state == padded) return {at.B + start, at.C + start, stride};
        float *B = staging.get(), *C = B + chunk * padded;
        std::fill(B, C + chunk * padded, 0.0f);
        for (int64_t k = 0; k < steps; k++) {
            std::copy_n(at.B + start + k * stride, state, B + k * padded);
            std::copy_n(at.C + start + k * stride, state, C + k * padded);
        }
        return {B, C, padded};
    }
};

// Runs S states of one block over `steps`, adding their part to y.  With KEEP the decays and the states after each step
// are stored, rows of `block_size` apart.
template <int S, bool KEEP>
void advance(int64_t steps, const float* rates, Coefficients at, const float* delta, const float* inflow, float* y,
             float* state, float* decays, float* states, int64_t block_size) {
    Lanes h[S];
    for (int n = 0; n < S; n++) h[n] = load(state + n * kLanes);
    for (int64_t k = 0; k < steps; k++) {
        const Lanes d = load(delta + k * kLanes), in = load(inflow + k * kLanes);
        const float *B = at.B + k * at.stride, *C = at.C + k * at.stride;
        Lanes even = load(y + k * kLanes), odd{};
#pragma GCC unroll 16
        for (int n = 0; n < S; n++) {
            Lanes a = exp2(d * load(rates + n * kLanes));
            h[n] = a * h[n] + in * B[n];
            (n % 2 ? odd : even) += h[n] * C[n];
            if (KEEP) {
                store(decays + k * block_size + n * kLanes, a);
                store(states + k * block_size + n * kLanes, h[n]);
            }
        }
        store(y + k * kLanes, even + odd);
    }
    for (int n = 0; n < S; n++) store(state + n * kLanes, h[n]);
}

template <bool KEEP>
void advance_all(int64_t padded, int64_t steps, const float* rates, Coefficients at, const float* delta,
                 const float* inflow, float* y, float* state, float* decays, float* states) {
    auto run = [&](auto size, int64_t n) {
        advance<size(), KEEP>(steps, rates + n * kLanes, {at.B + n, at.C + n, at.stride}, delta, inflow, y,
                              state + n * kLanes, decays + n * kLanes, states + n * kLanes, padded * kLanes);
    };
    int64_t n = 0;
    for (; n + kMostStates <= padded; n += kMostStates) run(std::integral_constant<int, kMostStates>{}, n);
    for (; n + 8 <= padded; n += 8) run(std::integral_constant<int, 8>{}, n);
    for (; n < padded; n += kUnit) run(std::integral_constant<int, kUnit>{}, n);
}

int64_t real_frames(const Problem& problem, int64_t row) {
    // Clamped, because the caller cannot always read the values; none may point outside of the row.
    return problem.lengths ? std::clamp<int64_t>(problem.lengths[row], 0, problem.frames) : problem.frames;
}

}  // namespace
