// The selective scan and its gradient: sequential over frames, parallel over channels, which are the vector lanes.
//
// Every row is split into chunks of frames, every chunk into blocks of kLanes channels.  Within a block the states stay
// in registers, up to 16 at a time, over all frames.  Forward can store the states between chunks;
// backward visits the chunks from last to first, recomputes the decays and states of one chunk into scratch memory that
// fits the L2 cache, and runs the adjoint recurrence over them.
//
// Words: a *step* counts frames in the order in which a direction visits them; `delta` = softplus(dt + dt_bias);
// `inflow` = delta u; `decay` = exp(delta A).  States are padded to a multiple of four, channels to whole blocks.
// Padded frames are never read.
#include "../_groups.h"
#include "_recurrence.h"

namespace {

constexpr int kTileSteps = 4;                   // 4 steps x 4 states: 16 products to be summed over channels at once
constexpr int64_t kScratchBytes = 320 << 10;    // for decays and states of one chunk: fits any recent L2 cache

void forward_row(const Problem& problem, const Sweep& sweep, int64_t row, bool first, bool last, float* lane_scratch) {
    const Direction& at = sweep.at;
    const int64_t real = real_frames(problem, row), chunk = sweep.chunk, channels = sweep.channels;
    const int64_t ahead = sweep.ahead(false);
    float *delta = lane_scratch, *inflow = delta + chunk * kLanes, *sum = inflow + chunk * kLanes;
    sweep.spread(sweep.initial(row), sweep.states.get());
    for (int64_t start = 0; start < real; start += chunk) {
        const int64_t steps = std::min(chunk, real - start);
        if (at.checkpoints && start)
            std::copy_n(sweep.states.get(), sweep.blocks * sweep.block_size(), sweep.checkpoint(row, start / chunk));
        const Coefficients coefficients = sweep.coefficients(row, start, steps, real);
        for (int64_t block = 0; block < sweep.blocks; block++) {
            const int64_t channel = block * kLanes;
            const int lanes = sweep.lanes(block);
            const Lanes bias = load(at.dt_bias + channel, lanes), skip = load(at.skip + channel, lanes);
            for (int64_t k = 0; k < steps; k++) {
                const int64_t spot = (row * sweep.frames + sweep.frame(start + k, real)) * channels + channel;
                fetch<kRead>(at.u + spot, ahead);
                fetch<kRead>(at.dt + spot, ahead);
                const Lanes u = load(at.u + spot, lanes), d = softplus(load(at.dt + spot, lanes) + bias);
                store(delta + k * kLanes, d);
                store(inflow + k * kLanes, d * u);
                store(sum + k * kLanes, first ? skip * u : skip * u + load(problem.y + spot, lanes));
            }
            advance_all<false>(sweep.padded, steps, &sweep.rates[block * sweep.block_size()], coefficients, delta,
                               inflow, sum, &sweep.states[block * sweep.block_size()], nullptr, nullptr);
            for (int64_t k = 0; k < steps; k++) {
                const int64_t spot = (row * sweep.frames + sweep.frame(start + k, real)) * channels + channel;
                Lanes y = load(sum + k * kLanes);
                fetch<kWrite>(problem.y + spot, ahead);
                if (last && problem.gate) {
                    fetch<kRead>(problem.gate + spot, ahead);
                    const Lanes z = load(problem.gate + spot, lanes);
                    y *= z * sigmoid(z);
                }
                store(problem.y + spot, y, lanes);
            }
        }
    }
    if (at.final) sweep.gather(sweep.states.get(), at.final + row * channels * sweep.state);
}

void clear_padding(const Problem& problem, int64_t row, float* values, int64_t width) {
    const int64_t real = real_frames(problem, row);
    std::fill(values + (row * problem.frames + real) * width, values + (row + 1) * problem.frames * width, 0.0f);
}

// Scratch memory of backward for one direction: recomputed values of one chunk of a few neighbouring blocks.
struct Tape {
    int64_t blocks;                                                // neighbouring blocks whose dB and dC are summed
    int64_t chunk, block_size;
    Scratch decays, states, lanes, adjoint, grad_rates, sum_rates, sum_skip, sum_bias, grad_B, grad_C;

    explicit Tape(const Sweep& sweep)
        : blocks(std::clamp<int64_t>(kScratchBytes / (8 * sweep.chunk * sweep.block_size()), 1, sweep.blocks)),
          chunk(sweep.chunk), block_size(sweep.block_size()), decays(scratch(blocks * chunk * block_size)),
          states(scratch(blocks * (chunk + 1) * block_size)), lanes(scratch(blocks * chunk * kLanes * 6)),
          adjoint(scratch(sweep.blocks * block_size)), grad_rates(scratch(blocks * block_size)),
          sum_rates(zeros(sweep.blocks * block_size)), sum_skip(zeros(sweep.blocks * kLanes)),
          sum_bias(zeros(sweep.blocks * kLanes)), grad_B(scratch(chunk * sweep.padded)),
          grad_C(scratch(chunk * sweep.padded)) {}

    static Scratch zeros(int64_t floats) {
        Scratch memory = scratch(floats);
        std::fill(memory.get(), memory.get() + floats, 0.0f);
        return memory;
    }

    // Quantities with one value per step and channel, of block b of the neighbours.
    enum Quantity { kDelta, kInflow, kSum, kGradSum, kGradInflow, kGradDelta };
    float* of(Quantity quantity, int64_t b) { return &lanes[(quantity * blocks + b) * chunk * kLanes]; }
    float* decay(int64_t b) { return &decays[b * chunk * block_size]; }
    float* state(int64_t b) { return &states[b * (chunk + 1) * block_size]; }
};

// The adjoint recurrence of 4 states of one block over up to 4 steps, the last of which is `last`:
//     g = g + grad_sum C;  grad_C += grad_sum h;  grad_B += g inflow;  grad_inflow += B g
//     g = g decay;         grad_delta += A g h_before;  grad_A += delta g h_before
// The products for grad_B and grad_C are stored in `by_B` and `by_C`, and summed over channels later.
inline void adjoint_tile(int64_t last, int steps, const float* rates, Coefficients at, const float* delta,
                         const float* inflow, const float* grad_sum, const float* decays, const float* states,
                         int64_t block_size, float* grad_inflow, float* grad_delta, float* adjoint, float* grad_rates,
                         Lanes* by_B, Lanes* by_C) {
    Lanes g[kUnit], grad_A[kUnit];
    for (int n = 0; n < kUnit; n++) g[n] = load(adjoint + n * kLanes), grad_A[n] = load(grad_rates + n * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < steps; i++) {
        const int64_t k = last - i;
        const float *B = at.B + k * at.stride, *C = at.C + k * at.stride;
        const float *decay = decays + k * block_size, *before = states + k * block_size, *h = before + block_size;
        const Lanes d = load(delta + k * kLanes), in = load(inflow + k * kLanes), gy = load(grad_sum + k * kLanes);
        Lanes to_inflow = load(grad_inflow + k * kLanes), to_delta = load(grad_delta + k * kLanes);
#pragma GCC unroll 4
        for (int n = 0; n < kUnit; n++) {
            g[n] += gy * C[n];
            by_C[i * kUnit + n] += gy * load(h + n * kLanes);
            by_B[i * kUnit + n] += g[n] * in;
            to_inflow += g[n] * B[n];
            g[n] *= load(decay + n * kLanes);
            const Lanes flow = g[n] * load(before + n * kLanes);
            to_delta += flow * load(rates + n * kLanes);
            grad_A[n] += flow * d;
        }
        store(grad_inflow + k * kLanes, to_inflow);
        store(grad_delta + k * kLanes, to_delta);
    }
    for (int n = 0; n < kUnit; n++) store(adjoint + n * kLanes, g[n]), store(grad_rates + n * kLanes, grad_A[n]);
}

// The adjoint recurrence of all states of `count` neighbouring blocks over one chunk.
void adjoint_chunk(const Sweep& sweep, Tape& tape, int64_t first_block, int64_t count, int64_t steps, Coefficients at) {
    std::fill(&tape.grad_rates[0], &tape.grad_rates[count * tape.block_size], 0.0f);
    for (int64_t n = 0; n < sweep.padded; n += kUnit)
        for (int64_t last = steps - 1; last >= 0; last -= kTileSteps) {
            const int tile = (int)std::min<int64_t>(kTileSteps, last + 1);
            const Coefficients here{at.B + n, at.C + n, at.stride};
            Lanes by_B[kTileSteps * kUnit]{}, by_C[kTileSteps * kUnit]{};
            for (int64_t b = 0; b < count; b++) {
                const int64_t lane = n * kLanes, block = (first_block + b) * tape.block_size + lane;
                auto run = [&](int size) {
                    adjoint_tile(last, size, &sweep.rates[block], here, tape.of(Tape::kDelta, b),
                                 tape.of(Tape::kInflow, b), tape.of(Tape::kGradSum, b), tape.decay(b) + lane,
                                 tape.state(b) + lane, tape.block_size, tape.of(Tape::kGradInflow, b),
                                 tape.of(Tape::kGradDelta, b), &tape.adjoint[block],
                                 &tape.grad_rates[b * tape.block_size + lane], by_B, by_C);
                };
                if (tile == kTileSteps) run(kTileSteps);  // a constant, so that the compiler unrolls the loop
                else run(tile);
            }
            float sums_B[kTileSteps * kUnit], sums_C[kTileSteps * kUnit];
            totals(by_B, sums_B);
            totals(by_C, sums_C);
            for (int i = 0; i < tile; i++) {
                const int64_t spot = (last - i) * sweep.padded + n;
                float *to_B = &tape.grad_B[spot], *to_C = &tape.grad_C[spot];
                store(to_B, load<Quad>(to_B) + load<Quad>(sums_B + i * kUnit));
                store(to_C, load<Quad>(to_C) + load<Quad>(sums_C + i * kUnit));
            }
        }
}

// All of `count` neighbouring blocks over one chunk: recompute, adjoint, and the gradients of u, dt and the gate.
void backward_blocks(const Problem& problem, const Sweep& sweep, Tape& tape, int64_t row,
                     int64_t start, int64_t steps, Coefficients at, int64_t first_block, int64_t count, bool first) {
    const Direction& to = sweep.at;
    const int64_t real = real_frames(problem, row), ahead = sweep.ahead(true);
    for (int64_t b = 0; b < count; b++) {
        const int64_t block = first_block + b, channel = block * kLanes;
        const int lanes = sweep.lanes(block);
        const Lanes bias = load(sweep.at.dt_bias + channel, lanes), skip = load(sweep.at.skip + channel, lanes);
        float *delta = tape.of(Tape::kDelta, b), *inflow = tape.of(Tape::kInflow, b), *sum = tape.of(Tape::kSum, b);
        float* grad_sum = tape.of(Tape::kGradSum, b);
        for (int64_t k = 0; k < steps; k++) {
            const int64_t spot = (row * sweep.frames + sweep.frame(start + k, real)) * sweep.channels + channel;
            fetch<kRead>(sweep.at.u + spot, ahead);
            fetch<kRead>(sweep.at.dt + spot, ahead);
            const Lanes u = load(sweep.at.u + spot, lanes), d = softplus(load(sweep.at.dt + spot, lanes) + bias);
            store(delta + k * kLanes, d);
            store(inflow + k * kLanes, d * u);
            store(sum + k * kLanes, skip * u);
        }
        std::copy_n(&sweep.states[block * tape.block_size], tape.block_size, tape.state(b));
        advance_all<true>(sweep.padded, steps, &sweep.rates[block * tape.block_size], at, delta, inflow, sum,
                          &sweep.states[block * tape.block_size], tape.decay(b), tape.state(b) + tape.block_size);
        for (int64_t k = 0; k < steps; k++) {
            const int64_t spot = (row * sweep.frames + sweep.frame(start + k, real)) * sweep.channels + channel;
            fetch<kRead>(problem.grad_y + spot, ahead);
            Lanes g = load(problem.grad_y + spot, lanes);
            if (problem.gate) {
                fetch<kRead>(problem.gate + spot, ahead);
                fetch<kWrite>(problem.grad_gate + spot, ahead);
                const Lanes z = load(problem.gate + spot, lanes), s = sigmoid(z);
                Lanes grad_z = g * load(sum + k * kLanes) * s * (1.0f + z * (1.0f - s));
                if (!first) grad_z += load(problem.grad_gate + spot, lanes);
                store(problem.grad_gate + spot, grad_z, lanes);
                g *= z * s;
            }
            store(grad_sum + k * kLanes, g);
            store(tape.of(Tape::kGradInflow, b) + k * kLanes, Lanes{});
            store(tape.of(Tape::kGradDelta, b) + k * kLanes, Lanes{});
        }
    }
    adjoint_chunk(sweep, tape, first_block, count, steps, at);
    for (int64_t b = 0; b < count; b++) {
        const int64_t block = first_block + b, channel = block * kLanes;
        const int lanes = sweep.lanes(block);
        const Lanes bias = load(sweep.at.dt_bias + channel, lanes), skip = load(sweep.at.skip + channel, lanes);
        Lanes grad_skip{}, grad_bias{};
        for (int64_t k = 0; k < steps; k++) {
            const int64_t spot = (row * sweep.frames + sweep.frame(start + k, real)) * sweep.channels + channel;
            const Lanes u = load(sweep.at.u + spot, lanes), g = load(tape.of(Tape::kGradSum, b) + k * kLanes);
            const Lanes in = load(tape.of(Tape::kGradInflow, b) + k * kLanes);
            fetch<kWrite>(to.grad_u + spot, ahead);
            fetch<kWrite>(to.grad_dt + spot, ahead);
            // grad_delta was summed with the rates, which are A log2(e).
            const Lanes grad_delta = in * u + load(tape.of(Tape::kGradDelta, b) + k * kLanes) * kLn2;
            const Lanes grad_dt = grad_delta * sigmoid(load(sweep.at.dt + spot, lanes) + bias);
            store(to.grad_u + spot, in * load(tape.of(Tape::kDelta, b) + k * kLanes) + g * skip, lanes);
            store(to.grad_dt + spot, grad_dt, lanes);
            grad_skip += g * u;
            grad_bias += grad_dt;
        }
        store(&tape.sum_skip[channel], load(&tape.sum_skip[channel]) + grad_skip);
        store(&tape.sum_bias[channel], load(&tape.sum_bias[channel]) + grad_bias);
        for (int64_t i = 0; i < tape.block_size; i++)
            tape.sum_rates[block * tape.block_size + i] += tape.grad_rates[b * tape.block_size + i];
    }
}

void backward_row(const Problem& problem, const Sweep& sweep, Tape& tape, int64_t row, bool first) {
    const int64_t real = real_frames(problem, row), chunk = sweep.chunk, states = sweep.blocks * tape.block_size;
    const Direction& to = sweep.at;
    const int64_t per_row = sweep.channels * sweep.state;
    sweep.spread(to.grad_final ? to.grad_final + row * per_row : nullptr, tape.adjoint.get());
    for (int64_t start = (divide_up(real, chunk) - 1) * chunk; start >= 0; start -= chunk) {
        const int64_t steps = std::min(chunk, real - start);
        if (start) std::copy_n(sweep.checkpoint(row, start / chunk), states, sweep.states.get());
        else sweep.spread(sweep.initial(row), sweep.states.get());
        const Coefficients at = sweep.coefficients(row, start, steps, real);
        std::fill(&tape.grad_B[0], &tape.grad_B[steps * sweep.padded], 0.0f);
        std::fill(&tape.grad_C[0], &tape.grad_C[steps * sweep.padded], 0.0f);
        for (int64_t block = 0; block < sweep.blocks; block += tape.blocks)
            backward_blocks(problem, sweep, tape, row, start, steps, at, block,
                            std::min(tape.blocks, sweep.blocks - block), first);
        for (int64_t k = 0; k < steps; k++) {
            const int64_t spot = (row * sweep.frames + sweep.frame(start + k, real)) * sweep.state;
            std::copy_n(&tape.grad_B[k * sweep.padded], sweep.state, to.grad_B + spot);
            std::copy_n(&tape.grad_C[k * sweep.padded], sweep.state, to.grad_C + spot);
        }
    }
    if (to.grad_initial) sweep.gather(tape.adjoint.get(), to.grad_initial + row * per_row);
}

}  // namespace

extern "C" {

EXPORT_SIZE(Problem)
EXPORT_SIZE(Direction)

void selective_scan_forward(const Problem* problem, int64_t group) {
    const int64_t begin = group * problem->rows_per_group;
    const int64_t end = std::min(problem->rows, begin + problem->rows_per_group);
    Scratch lanes = scratch(3 * kLanes * std::min(problem->frames_per_chunk, problem->frames));
    for (int64_t i = 0; i < problem->num_directions; i++) {
        Sweep sweep(*problem, problem->directions[i]);
        for (int64_t row = begin; row < end; row++)
            forward_row(*problem, sweep, row, i == 0, i == problem->num_directions - 1, lanes.get());
    }
    for (int64_t row = begin; row < end; row++) clear_padding(*problem, row, problem->y, problem->channels);
}

void selective_scan_backward(const Problem* problem, int64_t group) {
    const int64_t begin = group * problem->rows_per_group;
    const int64_t end = std::min(problem->rows, begin + problem->rows_per_group);
    for (int64_t i = 0; i < problem->num_directions; i++) {
        const Direction& to = problem->directions[i];
        Sweep sweep(*problem, problem->directions[i]);
        Tape tape(sweep);
        for (int64_t row = begin; row < end; row++) {
            backward_row(*problem, sweep, tape, row, i == 0);
            for (float* values : {to.grad_u, to.grad_dt}) clear_padding(*problem, row, values, sweep.channels);
            for (float* values : {to.grad_B, to.grad_C}) clear_padding(*problem, row, values, sweep.state);
        }
        sweep.gather(tape.sum_rates.get(), to.grad_A + group * sweep.channels * sweep.state);
        std::copy_n(tape.sum_skip.get(), sweep.channels, to.grad_skip + group * sweep.channels);
        std::copy_n(tape.sum_bias.get(), sweep.channels, to.grad_dt_bias + group * sweep.channels);
    }
    if (problem->grad_gate)
        for (int64_t row = begin; row < end; row++) clear_padding(*problem, row, problem->grad_gate, problem->channels);
}

}
