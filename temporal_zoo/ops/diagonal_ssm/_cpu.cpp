// Diagonal state space models and their gradient, in two forms; neighbouring channels are the vector lanes.
//
// *Convolution*, for short rows: y[t] = sum_s taps[t - s] u[s] with the taps of all directions and the skip in one table.
// Frames are cut into tiles; between a tile of inputs and one of outputs all products run on registers.
//
// *Recurrence*, for long rows and for states: h[t] = a h[t-1] + u[t], y[t] = 2 Re sum_n c_n h_n[t], a few modes at a time
// in registers.  Backward stores nothing either.  The gradient of u is the same recurrence, run over that of y in the
// opposite sense.  Those of c and a are sum_t grad_y[t] h[t] and sum_t grad_y[t] p[t], where p = dh/da obeys a recurrence
// of its own, p[t] = a p[t-1] + h[t-1].
//
// Words: a *step* counts frames in the order in which a sweep visits them; a *block* is kLanes neighbouring channels.
// Frames behind the last real one are never read.
#include "../_groups.h"
#include "../_lanes.h"

#include <algorithm>
#include <type_traits>

using namespace zoo;

extern "C" {

// One direction.  Complex numbers are pairs; a complex gradient is that by the real part + i that by the imaginary part.
struct Direction {
    int64_t modes, reverse;
    const float *a, *c;         // (channels, modes)
    const float* initial;       // (rows, channels, modes), or null for zero
    float* final;               // the same, or null when nobody asks
    const float* grad_final;    // the same, or null for zero; backward only, as all that follow
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
    // Of a convolution: the taps of lags -ahead ... behind, either 0 or frames - 1, and partial sums of their gradients.
    int64_t ahead, behind, num_groups;
    float* taps;                // (ahead + 1 + behind, channels)
    float* grad_taps;           // (groups, ahead + 1 + behind, channels)
};
}

namespace {

#ifdef ZOO_AVX512               // as many as 32 registers hold
constexpr int kTile = 8;        // frames of a tile
constexpr int kMostModes = 8;   // of `advance`
constexpr int kMostTangents = 2;  // of `correlate`
#else                           // 16 registers
constexpr int kTile = 4;
constexpr int kMostModes = 4;
constexpr int kMostTangents = 1;
#endif
constexpr int kStrip = 8;       // blocks of a strip
constexpr int64_t kChunk = 64;  // steps whose inputs and outputs are laid out side by side: they fit the L1 cache

int64_t real_frames(const Problem& problem, int64_t row) {
    return problem.lengths ? problem.lengths[row] : problem.frames;
}

void clear_padding(const Problem& problem, int64_t row, float* values) {
    float* start = values + row * problem.frames * problem.channels;
    std::fill(start + real_frames(problem, row) * problem.channels, start + problem.frames * problem.channels, 0.0f);
}

// ---- Convolution.

// Powers in double precision: those of a rounded number would otherwise be the largest error.  The compiler makes vectors
// of the innermost loops.
typedef double Doubles[kLanes];

void add_taps(const Problem& problem, const Direction& at, int64_t channel, int lanes, Doubles* lag_zero) {
    for (int64_t n = 0; n < at.modes; n++) {
        Doubles a_re{}, a_im{}, z_re{}, z_im{};
        for (int i = 0; i < lanes; i++) {
            const float *a = at.a + 2 * ((channel + i) * at.modes + n), *c = at.c + 2 * ((channel + i) * at.modes + n);
            a_re[i] = a[0], a_im[i] = a[1], z_re[i] = 2.0 * c[0], z_im[i] = 2.0 * c[1];
        }
        for (int64_t lag = 0; lag < problem.frames; lag++) {
            double* tap = lag_zero[at.reverse ? -lag : lag];
            for (int i = 0; i < kLanes; i++) {
                const double re = z_re[i];
                tap[i] += re;
                z_re[i] = a_re[i] * re - a_im[i] * z_im[i];
                z_im[i] = a_re[i] * z_im[i] + a_im[i] * re;
            }
        }
    }
}

// Of a and c of one block of channels: with z = a^l and q = l a^(l-1), sums of conj(2 z) and conj(2 c q).
void through_taps(const Problem& problem, const Direction& at, int64_t channel, int lanes, const Doubles* lag_zero) {
    for (int64_t n = 0; n < at.modes; n++) {
        Doubles a_re{}, a_im{}, z_re{}, z_im{}, q_re{}, q_im{}, by_z_re{}, by_z_im{}, by_q_re{}, by_q_im{};
        for (int i = 0; i < lanes; i++) {
            const float* a = at.a + 2 * ((channel + i) * at.modes + n);
            a_re[i] = a[0], a_im[i] = a[1], z_re[i] = 1;
        }
        for (int64_t lag = 0; lag < problem.frames; lag++) {
            const double* slope = lag_zero[at.reverse ? -lag : lag];
            for (int i = 0; i < kLanes; i++) {
                const double z = z_re[i], q = q_re[i];
                by_z_re[i] += slope[i] * z, by_z_im[i] += slope[i] * z_im[i];
                by_q_re[i] += slope[i] * q, by_q_im[i] += slope[i] * q_im[i];
                q_re[i] = a_re[i] * q - a_im[i] * q_im[i] + z;
                q_im[i] = a_re[i] * q_im[i] + a_im[i] * q + z_im[i];
                z_re[i] = a_re[i] * z - a_im[i] * z_im[i];
                z_im[i] = a_re[i] * z_im[i] + a_im[i] * z;
            }
        }
        for (int i = 0; i < lanes; i++) {
            const int64_t place = 2 * ((channel + i) * at.modes + n);
            const double re = at.c[place], im = at.c[place + 1];
            at.grad_c[place] = (float)(2 * by_z_re[i]), at.grad_c[place + 1] = (float)(-2 * by_z_im[i]);
            at.grad_a[place] = (float)(2 * (re * by_q_re[i] - im * by_q_im[i]));
            at.grad_a[place + 1] = (float)(-2 * (re * by_q_im[i] + im * by_q_re[i]));
        }
    }
}

// Taps of neighbouring blocks for every lag between two frames of `tiles` whole tiles, zero where there is none.
struct Taps {
    int64_t reach;
    Scratch memory;

    explicit Taps(int64_t tiles) : reach(tiles * kTile), memory(scratch(kStrip * block_size())) {
        std::fill(memory.get(), memory.get() + kStrip * block_size(), 0.0f);
    }
    int64_t block_size() const { return 2 * reach * kLanes; }
    float* at(int block, int64_t lag) const { return memory.get() + block * block_size() + (lag + reach) * kLanes; }
};

// Up to kStrip neighbouring blocks: enough of them that frames are read and written in whole runs of cache lines.
struct Strip {
    const Problem& problem;
    int64_t channel, staged;    // the first channel; floats from one block of a staged row to the next
    int blocks, last;           // and the channels of the last block

    Strip(const Problem& problem, int64_t channel, int64_t staged)
        : problem(problem), channel(channel), staged(staged),
          blocks((int)std::min<int64_t>(kStrip, divide_up(problem.channels - channel, kLanes))),
          last((int)std::min<int64_t>(kLanes, problem.channels - channel - (blocks - 1) * kLanes)) {}

    // A frame of all blocks, `apart` floats between blocks in either place.
    void copy(const float* from, int64_t from_apart, float* to, int64_t to_apart) const {
        int b = 0;
        for (; b < blocks - 1; b++) store(to + b * to_apart, load(from + b * from_apart));
        store(to + b * to_apart, load(from + b * from_apart, last), last);
    }
    // The real frames of a row, block by block, with zero in the rest of the last tile; and back.
    void read(const float* from, int64_t row, float* to) const {
        const int64_t real = real_frames(problem, row);
        from += row * problem.frames * problem.channels + channel;
        for (int64_t t = 0; t < real; t++) copy(from + t * problem.channels, kLanes, to + t * kLanes, staged);
        for (int64_t t = real; t % kTile; t++)
            for (int b = 0; b < blocks; b++) store(to + b * staged + t * kLanes, Lanes{});
    }
    void write(const float* from, int64_t row, float* to) const {
        to += row * problem.frames * problem.channels + channel;
        for (int64_t t = 0; t < real_frames(problem, row); t++)
            copy(from + t * kLanes, staged, to + t * problem.channels, kLanes);
    }
    // A tap of every lag, of the other sign if `mirrored`; and back.
    void read_taps(const float* from, bool mirrored, const Taps& to) const {
        for (int64_t lag = -problem.ahead; lag <= problem.behind; lag++, from += problem.channels)
            copy(from + channel, kLanes, to.at(0, mirrored ? -lag : lag), to.block_size());
    }
    void write_taps(const Taps& from, float* to) const {
        for (int64_t lag = -problem.ahead; lag <= problem.behind; lag++, to += problem.channels)
            copy(from.at(0, lag), from.block_size(), to + channel, kLanes);
    }
};

// out[t] = sum_s taps[t - s] in[s], over all tiles of which the taps reach from one to the other; `taps` is at lag 0.
void convolve(int64_t tiles, bool ahead, bool behind, const float* taps, const float* in, float* out) {
    for (int64_t to = 0; to < tiles; to++) {
        Lanes sums[kTile]{};
        for (int64_t from = behind ? 0 : to; from < (ahead ? tiles : to + 1); from++) {
            const float *near = taps + (to - from) * kTile * kLanes, *x = in + from * kTile * kLanes;
#pragma GCC unroll 8
            for (int s = 0; s < kTile; s++) {
                const Lanes input = load(x + s * kLanes);
#pragma GCC unroll 8
                for (int t = 0; t < kTile; t++) sums[t] += input * load(near + (t - s) * kLanes);
            }
        }
        for (int t = 0; t < kTile; t++) store(out + (to * kTile + t) * kLanes, sums[t]);
    }
}

// grad_taps[t - s] += grad_out[t] in[s]: pairs of tiles equally far apart add to the same taps, which stay in registers.
void convolve_backward(int64_t tiles, bool ahead, bool behind, const float* in, const float* grad_out,
                       float* grad_taps) {
    for (int64_t apart = ahead ? 1 - tiles : 0; apart < (behind ? tiles : 1); apart++) {
        Lanes sums[2 * kTile - 1]{};
        const int64_t end = std::min(tiles, tiles + apart);
        for (int64_t to = std::max<int64_t>(0, apart); to < end; to++) {
            const float *g = grad_out + to * kTile * kLanes, *x = in + (to - apart) * kTile * kLanes;
#pragma GCC unroll 8
            for (int t = 0; t < kTile; t++) {
                const Lanes slope = load(g + t * kLanes);
#pragma GCC unroll 8
                for (int s = 0; s < kTile; s++) sums[t - s + kTile - 1] += slope * load(x + s * kLanes);
            }
        }
        float* to = grad_taps + (apart * kTile - kTile + 1) * kLanes;
        for (int i = 0; i < 2 * kTile - 1; i++) store(to + i * kLanes, load(to + i * kLanes) + sums[i]);
    }
}

// Everything of one group of rows: y, or the gradients.
template <bool BACKWARD>
void convolve_rows(const Problem& problem, int64_t group) {
    const int64_t begin = group * problem.rows_per_group, end = std::min(problem.rows, begin + problem.rows_per_group);
    const int64_t most_tiles = divide_up(problem.frames, kTile), staged = most_tiles * kTile * kLanes;
    const bool ahead = problem.ahead, behind = problem.behind;
    const Scratch memory = scratch(3 * kStrip * staged);
    std::fill(&memory[0], &memory[3 * kStrip * staged], 0.0f);  // lanes behind the last channel stay zero
    float *in = memory.get(), *slopes = in + kStrip * staged, *out = slopes + kStrip * staged;
    for (int64_t channel = 0; channel < problem.channels; channel += kStrip * kLanes) {
        const Strip strip(problem, channel, staged);
        const Taps taps(most_tiles), grad_taps(BACKWARD ? most_tiles : 0);
        // Backward goes from outputs to inputs, which is ahead where forward looks behind.
        strip.read_taps(problem.taps, BACKWARD, taps);
        for (int64_t row = begin; row < end; row++) {
            const int64_t tiles = divide_up(real_frames(problem, row), kTile);
            strip.read(problem.u, row, in);
            if (BACKWARD) strip.read(problem.grad_y, row, slopes);
            for (int b = 0; b < strip.blocks; b++) {
                const float *x = in + b * staged, *slope = slopes + b * staged;
                if (BACKWARD) {
                    convolve_backward(tiles, ahead, behind, x, slope, grad_taps.at(b, 0));
                    convolve(tiles, behind, ahead, taps.at(b, 0), slope, out + b * staged);
                } else {
                    convolve(tiles, ahead, behind, taps.at(b, 0), x, out + b * staged);
                }
            }
            strip.write(out, row, BACKWARD ? problem.grad_u : problem.y);
        }
        if (BACKWARD)
            strip.write_taps(grad_taps, problem.grad_taps + group * (problem.ahead + 1 + problem.behind) * problem.channels);
    }
    for (int64_t row = begin; row < end; row++) clear_padding(problem, row, BACKWARD ? problem.grad_u : problem.y);
}

// ---- Recurrence.

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

    // (channels, modes) in pairs to states, null to zero, and back; im is multiplied by `sign`.
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

// Where the frames of a chunk of steps lie.
struct Chunk {
    int64_t first, stride, steps;

    Chunk(const Problem& problem, int64_t row, int64_t start, bool reverse) {
        const int64_t real = real_frames(problem, row), frame = reverse ? real - 1 - start : start;
        first = (row * problem.frames + frame) * problem.channels;
        stride = reverse ? -problem.channels : problem.channels;
        steps = std::min(kChunk, real - start);
    }
    int64_t spot(int64_t step, int64_t block) const { return first + step * stride + block * kLanes; }
};

// Runs a direction over a row of `in`, in either sense, and writes its outputs, or adds them.  `fading`, where there is
// any, is a state that comes in beside and is read before it decays, with no readout but its real part.
void sweep_row(const Sweep& sweep, int64_t row, bool reverse, const float* in, float* out, bool add, float* states,
               float* fading) {
    const Problem& problem = sweep.problem;
    float inputs[kChunk * kLanes], outputs[kChunk * kLanes];
    for (int64_t start = 0; start < real_frames(problem, row); start += kChunk) {
        const Chunk chunk(problem, row, start, reverse);
        for (int64_t block = 0; block < sweep.blocks; block++) {
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

// Sums over the rows of a group that the gradients of a, c and skip are made of, as states and as a row of lanes.
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

// Adds what a row has to say; leaves its last states and tangents behind.
void correlate_row(const Sweep& sweep, int64_t row, float* states, float* tangents, Sums& sums) {
    const Problem& problem = sweep.problem;
    float inputs[kChunk * kLanes], slopes[kChunk * kLanes];
    std::fill(tangents, tangents + sweep.states_size(), 0.0f);
    for (int64_t start = 0; start < real_frames(problem, row); start += kChunk) {
        const Chunk chunk(problem, row, start, sweep.at.reverse);
        for (int64_t block = 0; block < sweep.blocks; block++) {
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

// Calls f(re a, im a, re 2c, im 2c, place of re, place of im) for every mode of every channel.
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
        // The gradient of the final state, conjugate, as all of backward is computed; it fades against the sweep.
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

extern "C" {

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
