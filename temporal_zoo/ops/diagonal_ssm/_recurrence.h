// The model as a recurrence, and its gradient, for long rows and for states; `_cpu.cpp` explains the words.
#pragma once

#include <type_traits>

#include "_problem.h"

namespace {

#ifdef ZOO_AVX512                 // as many as fit in 32 registers
constexpr int kMostModes = 8;     // of `advance`
constexpr int kMostTangents = 2;  // of `correlate`
#else                             // 16 registers
constexpr int kMostModes = 4;
constexpr int kMostTangents = 1;
#endif
constexpr int64_t kChunk = 64;    // steps whose inputs and outputs are stored together: they fit the L1 cache

// One direction, with its parameters laid out as lanes: per block and mode re a, im a, re 2c, -im 2c.
struct Sweep {
    const Problem& problem;
    const Direction& at;
    int64_t modes, channels, blocks;
    Scratch parameters;

    Sweep(const Problem& problem, const Direction& direction)
        : problem(problem), at(direction), modes(direction.modes), channels(problem.channels),
          blocks(divide_up(channels, kLanes)), parameters(scratch(2 * states_size())) {
        std::fill(&parameters[0], &parameters[2 * states_size()], 0.0f);
        for (int64_t channel = 0; channel < channels; channel++)
            for (int64_t n = 0; n < modes; n++) {
                const float *a = at.a + 2 * (channel * modes + n), *c = at.c + 2 * (channel * modes + n);
                float* to = &parameters[4 * (channel / kLanes * modes + n) * kLanes + channel % kLanes];
                to[0] = a[0], to[kLanes] = a[1], to[2 * kLanes] = 2 * c[0], to[3 * kLanes] = -2 * c[1];
            }
    }

    // States of all channels: (blocks, modes, re and im, lanes).
    int64_t block_size() const { return 2 * modes * kLanes; }
    int64_t states_size() const { return blocks * block_size(); }
    int64_t place(int64_t channel, int64_t n) const {
        return channel / kLanes * block_size() + 2 * n * kLanes + channel % kLanes;
    }
    const float* of_block(int64_t block) const { return &parameters[2 * block * block_size()]; }
    int lanes(int64_t block) const { return (int)std::min<int64_t>(kLanes, channels - block * kLanes); }

    // From (channels, modes) in pairs to states, from null to zero, and the inverse; im is multiplied by `sign`.
    void spread(const float* from, float* to, float sign = 1) const {
        std::fill(to, to + states_size(), 0.0f);
        if (from)
            for (int64_t channel = 0; channel < channels; channel++)
                for (int64_t n = 0; n < modes; n++, from += 2)
                    to[place(channel, n)] = from[0], to[place(channel, n) + kLanes] = sign * from[1];
    }
    void gather(const float* from, float* to, float sign = 1) const {
        for (int64_t channel = 0; channel < channels; channel++)
            for (int64_t n = 0; n < modes; n++, to += 2)
                to[0] = from[place(channel, n)], to[1] = sign * from[place(channel, n) + kLanes];
    }
    const float* of_row(const float* states, int64_t row) const {
        return states ? states + 2 * row * channels * modes : nullptr;
    }
    float* of_row(float* states, int64_t row) const { return states ? states + 2 * row * channels * modes : nullptr; }
};

// Calls f(number of modes as a constant, first mode) for all modes, up to MOST at a time.
template <int MOST, class Function>
void for_modes(int64_t modes, Function f) {
    int64_t n = 0;
    if constexpr (MOST >= 8)
        for (; n + 8 <= modes; n += 8) f(std::integral_constant<int, 8>{}, n);
    if constexpr (MOST >= 4)
        for (; n + 4 <= modes; n += 4) f(std::integral_constant<int, 4>{}, n);
    if constexpr (MOST >= 2)
        for (; n + 2 <= modes; n += 2) f(std::integral_constant<int, 2>{}, n);
    for (; n < modes; n++) f(std::integral_constant<int, 1>{}, n);
}

// h = a h + in;  out += Re(2c h).
template <int N>
void advance(int64_t steps, const float* parameters, const float* in, float* out, float* state) {
    Lanes re[N], im[N];
    for (int n = 0; n < N; n++) re[n] = load(state + 2 * n * kLanes), im[n] = load(state + (2 * n + 1) * kLanes);
    for (int64_t k = 0; k < steps; k++) {
        const Lanes x = load(in + k * kLanes);
        Lanes even = load(out + k * kLanes), odd{};
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            const float* p = parameters + 4 * n * kLanes;
            const Lanes a_re = load(p), a_im = load(p + kLanes), h = re[n];
            re[n] = a_re * h + (x - a_im * im[n]);
            im[n] = a_re * im[n] + a_im * h;
            even += load(p + 2 * kLanes) * re[n];
            odd += load(p + 3 * kLanes) * im[n];
        }
        store(out + k * kLanes, even + odd);
    }
    for (int n = 0; n < N; n++) store(state + 2 * n * kLanes, re[n]), store(state + (2 * n + 1) * kLanes, im[n]);
}

// p = a p + h;  h = a h + in;  by_h += slope h;  by_p += slope p.
template <int N>
void correlate(int64_t steps, const float* parameters, const float* in, const float* slopes, float* state,
               float* tangent, float* by_state, float* by_tangent) {
    Lanes h_re[N], h_im[N], p_re[N], p_im[N], sum_h_re[N]{}, sum_h_im[N]{}, sum_p_re[N]{}, sum_p_im[N]{};
    for (int n = 0; n < N; n++) {
        h_re[n] = load(state + 2 * n * kLanes), h_im[n] = load(state + (2 * n + 1) * kLanes);
        p_re[n] = load(tangent + 2 * n * kLanes), p_im[n] = load(tangent + (2 * n + 1) * kLanes);
    }
    for (int64_t k = 0; k < steps; k++) {
        const Lanes x = load(in + k * kLanes), slope = load(slopes + k * kLanes);
#pragma GCC unroll 2
        for (int n = 0; n < N; n++) {
            const Lanes a_re = load(parameters + 4 * n * kLanes), a_im = load(parameters + (4 * n + 1) * kLanes);
            const Lanes h = h_re[n], p = p_re[n];
            p_re[n] = a_re * p + (h - a_im * p_im[n]);
            p_im[n] = a_re * p_im[n] + (a_im * p + h_im[n]);
            h_re[n] = a_re * h + (x - a_im * h_im[n]);
            h_im[n] = a_re * h_im[n] + a_im * h;
            sum_h_re[n] += slope * h_re[n], sum_h_im[n] += slope * h_im[n];
            sum_p_re[n] += slope * p_re[n], sum_p_im[n] += slope * p_im[n];
        }
    }
    for (int n = 0; n < N; n++) {
        float *h = state + 2 * n * kLanes, *p = tangent + 2 * n * kLanes;
        float *to_h = by_state + 2 * n * kLanes, *to_p = by_tangent + 2 * n * kLanes;
        store(h, h_re[n]), store(h + kLanes, h_im[n]), store(p, p_re[n]), store(p + kLanes, p_im[n]);
        store(to_h, load(to_h) + sum_h_re[n]), store(to_h + kLanes, load(to_h + kLanes) + sum_h_im[n]);
        store(to_p, load(to_p) + sum_p_re[n]), store(to_p + kLanes, load(to_p + kLanes) + sum_p_im[n]);
    }
}

// out += Re e;  e = a e.
void fade(int64_t steps, int64_t modes, const float* parameters, float* out, float* state) {
    for (int64_t n = 0; n < modes; n++) {
        const Lanes a_re = load(parameters + 4 * n * kLanes), a_im = load(parameters + (4 * n + 1) * kLanes);
        Lanes re = load(state + 2 * n * kLanes), im = load(state + (2 * n + 1) * kLanes);
        for (int64_t k = 0; k < steps; k++) {
            store(out + k * kLanes, load(out + k * kLanes) + re);
            const Lanes e = re;
            re = a_re * e - a_im * im;
            im = a_re * im + a_im * e;
        }
        store(state + 2 * n * kLanes, re), store(state + (2 * n + 1) * kLanes, im);
    }
}

// The offsets of the frames of a chunk of steps.
struct Chunk {
    int64_t first, stride, steps;

    Chunk(const Problem& problem, int64_t row, int64_t start, bool reverse) {
        const int64_t real = real_frames(problem, row), frame = reverse ? real - 1 - start : start;
        first = (row * problem.frames + frame) * problem.channels;
        stride = reverse ? -problem.channels : problem.channels;
        steps = std::min(kChunk, real - start);
    }
    int64_t spot(int64_t step, int64_t block) const { return first + step * stride + block * kLanes; }
    // The next chunk of a sweep, in this row or at the start of another; after the last row its own start.
    static Chunk after(const Problem& problem, int64_t row, int64_t start, bool reverse) {
        if (start + kChunk < real_frames(problem, row)) return Chunk(problem, row, start + kChunk, reverse);
        return Chunk(problem, std::min(row + 1, problem.rows - 1), 0, reverse);
    }
    // Prefetches one of as many parts as there are blocks, during other computation.  It must be inlined: GCC removes
    // calls of a function that only prefetches, because it sees no effect.
    template <bool TO_WRITE>
    [[gnu::always_inline]] void fetch(const float* tensor, int64_t share, int64_t blocks) const {
        for (int64_t k = share * steps / blocks; k < (share + 1) * steps / blocks; k++)
            for (int64_t b = 0; b < blocks; b++) __builtin_prefetch(tensor + spot(k, b), TO_WRITE);
    }
};

// Runs a direction over a row of `in`, forward or backward in time, and writes or adds its outputs.  `fading`, if given,
// is an additional state that is read before it decays; its readout is its real part.
void sweep_row(const Sweep& sweep, int64_t row, bool reverse, const float* in, float* out, bool add, float* states,
               float* fading) {
    const Problem& problem = sweep.problem;
    float inputs[kChunk * kLanes], outputs[kChunk * kLanes];
    for (int64_t start = 0; start < real_frames(problem, row); start += kChunk) {
        const Chunk chunk(problem, row, start, reverse), next = Chunk::after(problem, row, start, reverse);
        for (int64_t block = 0; block < sweep.blocks; block++) {
            next.fetch<false>(in, block, sweep.blocks);
            next.fetch<true>(out, block, sweep.blocks);
            const int lanes = sweep.lanes(block);
            const float* parameters = sweep.of_block(block);
            const Lanes skip = problem.skip ? load(problem.skip + block * kLanes, lanes) : Lanes{};
            for (int64_t k = 0; k < chunk.steps; k++) {
                const int64_t spot = chunk.spot(k, block);
                const Lanes x = load(in + spot, lanes);
                store(inputs + k * kLanes, x);
                store(outputs + k * kLanes, add ? load(out + spot, lanes) : skip * x);
            }
            for_modes<kMostModes>(sweep.modes, [&](auto count, int64_t n) {
                advance<count()>(chunk.steps, parameters + 4 * n * kLanes, inputs, outputs,
                                 states + block * sweep.block_size() + 2 * n * kLanes);
            });
            if (fading) fade(chunk.steps, sweep.modes, parameters, outputs, fading + block * sweep.block_size());
            for (int64_t k = 0; k < chunk.steps; k++)
                store(out + chunk.spot(k, block), load(outputs + k * kLanes), lanes);
        }
    }
}

// Sums over the rows of a group for the gradients of a, c and skip, as states and as a row of lanes.
struct Sums {
    Scratch by_state, by_tangent, by_final, by_input;
    int64_t states, lanes;

    explicit Sums(const Sweep& sweep)
        : by_state(scratch(sweep.states_size())), by_tangent(scratch(sweep.states_size())),
          by_final(scratch(sweep.states_size())), by_input(scratch(sweep.blocks * kLanes)),
          states(sweep.states_size()), lanes(sweep.blocks * kLanes) {
        for (float* sum : {by_state.get(), by_tangent.get(), by_final.get()}) std::fill(sum, sum + states, 0.0f);
        std::fill(&by_input[0], &by_input[lanes], 0.0f);
    }
};

// Adds the sums of a row; stores its last states and tangents.
void correlate_row(const Sweep& sweep, int64_t row, float* states, float* tangents, Sums& sums) {
    const Problem& problem = sweep.problem;
    float inputs[kChunk * kLanes], slopes[kChunk * kLanes];
    std::fill(tangents, tangents + sweep.states_size(), 0.0f);
    for (int64_t start = 0; start < real_frames(problem, row); start += kChunk) {
        const Chunk chunk(problem, row, start, sweep.at.reverse);
        const Chunk next = Chunk::after(problem, row, start, sweep.at.reverse);
        for (int64_t block = 0; block < sweep.blocks; block++) {
            next.fetch<false>(problem.u, block, sweep.blocks);
            next.fetch<false>(problem.grad_y, block, sweep.blocks);
            const int lanes = sweep.lanes(block);
            Lanes by_input{};
            for (int64_t k = 0; k < chunk.steps; k++) {
                const int64_t spot = chunk.spot(k, block);
                const Lanes x = load(problem.u + spot, lanes), slope = load(problem.grad_y + spot, lanes);
                store(inputs + k * kLanes, x);
                store(slopes + k * kLanes, slope);
                by_input += x * slope;
            }
            float* to_input = &sums.by_input[block * kLanes];
            store(to_input, load(to_input) + by_input);
            for_modes<kMostTangents>(sweep.modes, [&](auto count, int64_t n) {
                const int64_t mode = block * sweep.block_size() + 2 * n * kLanes;
                correlate<count()>(chunk.steps, sweep.of_block(block) + 4 * n * kLanes, inputs, slopes, states + mode,
                                   tangents + mode, &sums.by_state[mode], &sums.by_tangent[mode]);
            });
        }
    }
}

// Calls f(re a, im a, re 2c, im 2c, index of re, index of im) for every mode of every channel.
template <class Function>
void for_each_mode(const Sweep& sweep, Function f) {
    for (int64_t i = 0; i < sweep.blocks * sweep.modes; i++) {
        const float* p = &sweep.parameters[4 * i * kLanes];
        f(load(p), load(p + kLanes), load(p + 2 * kLanes), -load(p + 3 * kLanes), 2 * i * kLanes, (2 * i + 1) * kLanes);
    }
}

void recur_backward_rows(const Sweep& sweep, int64_t begin, int64_t end, int64_t group, bool first) {
    const Problem& problem = sweep.problem;
    const Direction& to = sweep.at;
    const int64_t size = sweep.states_size();
    const Scratch memory = scratch(3 * size);
    float *states = memory.get(), *tangents = states + size, *fading = tangents + size;
    Sums sums(sweep);
    for (int64_t row = begin; row < end; row++) {
        sweep.spread(sweep.of_row(to.initial, row), states);
        correlate_row(sweep, row, states, tangents, sums);
        // The conjugate gradient of the final state (all of backward is conjugate); it decays against the sweep.
        sweep.spread(sweep.of_row(to.grad_final, row), fading, -1);
        if (to.grad_final)
            for_each_mode(sweep, [&](Lanes, Lanes, Lanes, Lanes, int64_t re, int64_t im) {
                const Lanes g_re = load(fading + re), g_im = load(fading + im);
                const Lanes p_re = load(tangents + re), p_im = load(tangents + im);
                store(&sums.by_final[re], load(&sums.by_final[re]) + (g_re * p_re - g_im * p_im));
                store(&sums.by_final[im], load(&sums.by_final[im]) + (g_re * p_im + g_im * p_re));
            });
        std::fill(states, states + size, 0.0f);
        sweep_row(sweep, row, !to.reverse, problem.grad_y, problem.grad_u, !first, states,
                  to.grad_final ? fading : nullptr);
        if (!to.grad_initial) continue;
        for_each_mode(sweep, [&](Lanes a_re, Lanes a_im, Lanes c_re, Lanes c_im, int64_t re, int64_t im) {
            const Lanes h_re = load(states + re), h_im = load(states + im);
            const Lanes g_re = c_re * h_re - c_im * h_im, g_im = c_re * h_im + c_im * h_re;
            store(states + re, a_re * g_re - a_im * g_im + load(fading + re));
            store(states + im, a_re * g_im + a_im * g_re + load(fading + im));
        });
        sweep.gather(states, sweep.of_row(to.grad_initial, row), -1);
    }
    for_each_mode(sweep, [&](Lanes, Lanes, Lanes c_re, Lanes c_im, int64_t re, int64_t im) {
        const Lanes p_re = load(&sums.by_tangent[re]), p_im = load(&sums.by_tangent[im]);
        store(&sums.by_tangent[re], c_re * p_re - c_im * p_im + load(&sums.by_final[re]));
        store(&sums.by_tangent[im], c_re * p_im + c_im * p_re + load(&sums.by_final[im]));
        store(&sums.by_state[re], 2.0f * load(&sums.by_state[re]));
        store(&sums.by_state[im], 2.0f * load(&sums.by_state[im]));
    });
    sweep.gather(sums.by_tangent.get(), sweep.of_row(to.grad_a, group), -1);
    sweep.gather(sums.by_state.get(), sweep.of_row(to.grad_c, group), -1);
    if (first && problem.grad_skip)
        std::copy_n(&sums.by_input[0], sweep.channels, problem.grad_skip + group * sweep.channels);
}

}  // namespace
