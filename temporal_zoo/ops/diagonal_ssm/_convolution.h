// The model as a convolution, and its gradient, for short rows; `_cpu.cpp` explains the words.
#pragma once

#include "_problem.h"

namespace {

#ifdef ZOO_AVX512               // as many as fit in 32 registers
constexpr int kTile = 8;        // frames of a tile
#else                           // 16 registers
constexpr int kTile = 4;
#endif
constexpr int kStrip = 8;       // blocks of a strip
constexpr int64_t kFrames = 64; // of the rows that are computed together at a block
constexpr int64_t kCrowd = 512; // frames at multiples of this many floats map to a few sets of the L1 cache

// Powers in double precision: otherwise the powers of a rounded number would be the largest error.  The compiler
// vectorises the innermost loops.
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

// The gradients of a and c of one block of channels: with z = a^l and q = l a^(l-1), sums of conj(2 z) and conj(2 c q).
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

// Up to kStrip neighbouring blocks: enough to read whole runs of cache lines per frame.
struct Strip {
    const Problem& problem;
    int64_t channel;            // the first one
    int blocks, last;           // and the channels of the last block

    Strip(const Problem& problem, int64_t channel)
        : problem(problem), channel(channel),
          blocks((int)std::min<int64_t>(kStrip, divide_up(problem.channels - channel, kLanes))),
          last((int)std::min<int64_t>(kLanes, problem.channels - channel - (blocks - 1) * kLanes)) {}

    int lanes(int block) const { return block < blocks - 1 ? kLanes : last; }
    // The first frame of a block of a row; frames are `problem.channels` apart.
    template <class Float>
    Float* place(Float* tensor, int64_t row, int block) const {
        return tensor + row * problem.frames * problem.channels + channel + block * kLanes;
    }
    // Prefetches one of as many parts of a row as there are blocks, during other computation.  It
    // must be inlined: GCC removes calls of a function that only prefetches, because it sees no effect.
    template <bool TO_WRITE>
    [[gnu::always_inline]] void fetch(const float* tensor, int64_t row, int share) const {
        const float* from = place(tensor, row, 0);
        for (int64_t t = share * problem.frames / blocks; t < (share + 1) * problem.frames / blocks; t++)
            for (int b = 0; b < blocks; b++) __builtin_prefetch(from + t * problem.channels + b * kLanes, TO_WRITE);
    }
    // The real frames of a block, kLanes apart, with zero in the rest of the last tile and after the last channel.
    void read(const float* from, int64_t real, int lanes, float* to) const {
        for (int64_t t = 0; t < real; t++) store(to + t * kLanes, load(from + t * problem.channels, lanes));
        for (int64_t t = real; t % kTile; t++) store(to + t * kLanes, Lanes{});
    }
    // The inverse.
    void write(const float* from, int64_t real, int lanes, float* to) const {
        for (int64_t t = 0; t < real; t++) store(to + t * problem.channels, load(from + t * kLanes), lanes);
    }
    // A tap of every lag, with the opposite lag if `mirrored`; and the inverse.
    void read_taps(const float* from, bool mirrored, const Taps& to) const {
        for (int64_t lag = -problem.ahead; lag <= problem.behind; lag++, from += problem.channels)
            for (int b = 0; b < blocks; b++)
                store(to.at(b, mirrored ? -lag : lag), load(from + channel + b * kLanes, lanes(b)));
    }
    void write_taps(const Taps& from, float* to) const {
        for (int64_t lag = -problem.ahead; lag <= problem.behind; lag++, to += problem.channels)
            for (int b = 0; b < blocks; b++) store(to + channel + b * kLanes, load(from.at(b, lag)), lanes(b));
    }
};

// out[t] = sum_s taps[t - s] in[s], over all pairs of tiles that the taps connect; `taps` is at lag 0,
// and frames are `stride` apart.
void convolve(int64_t tiles, bool ahead, bool behind, int64_t stride, const float* taps, const float* in, float* out) {
    for (int64_t to = 0; to < tiles; to++) {
        Lanes sums[kTile]{};
        for (int64_t from = behind ? 0 : to; from < (ahead ? tiles : to + 1); from++) {
            const float *near = taps + (to - from) * kTile * kLanes, *x = in + from * kTile * stride;
#pragma GCC unroll 8
            for (int s = 0; s < kTile; s++) {
                const Lanes input = load(x + s * stride);
#pragma GCC unroll 8
                for (int t = 0; t < kTile; t++) sums[t] += input * load(near + (t - s) * kLanes);
            }
        }
        for (int t = 0; t < kTile; t++) store(out + (to * kTile + t) * stride, sums[t]);
    }
}

// grad_taps[t - s] += grad_out[t] in[s]: pairs of tiles at the same distance add to the same taps, which stay in registers.
void convolve_backward(int64_t tiles, bool ahead, bool behind, int64_t stride, const float* in, const float* grad_out,
                       float* grad_taps) {
    for (int64_t apart = ahead ? 1 - tiles : 0; apart < (behind ? tiles : 1); apart++) {
        Lanes sums[2 * kTile - 1]{};
        const int64_t end = std::min(tiles, tiles + apart);
        for (int64_t to = std::max<int64_t>(0, apart); to < end; to++) {
            const float *g = grad_out + to * kTile * stride, *x = in + (to - apart) * kTile * stride;
#pragma GCC unroll 8
            for (int t = 0; t < kTile; t++) {
                const Lanes slope = load(g + t * stride);
#pragma GCC unroll 8
                for (int s = 0; s < kTile; s++) sums[t - s + kTile - 1] += slope * load(x + s * stride);
            }
        }
        float* to = grad_taps + (apart * kTile - kTile + 1) * kLanes;
        for (int i = 0; i < 2 * kTile - 1; i++) store(to + i * kLanes, load(to + i * kLanes) + sums[i]);
    }
}

// All results of one group of rows: y, or the gradients.  A few rows are computed one after the other at a block, whose
// taps stay in the L1 cache meanwhile.  The next rows are prefetched, because the processor cannot predict this order.
// Whole tiles of whole vectors are used in place; others, and those of two tensors that would evict each other from the
// cache, are copied first.
template <bool BACKWARD>
void convolve_rows(const Problem& problem, int64_t group) {
    const int64_t begin = group * problem.rows_per_group, end = std::min(problem.rows, begin + problem.rows_per_group);
    const int64_t most_tiles = divide_up(problem.frames, kTile), size = most_tiles * kTile * kLanes;
    const int64_t turns = std::max<int64_t>(1, kFrames / problem.frames);
    const bool ahead = problem.ahead, behind = problem.behind;
    const bool crowded = BACKWARD && problem.channels % kCrowd == 0;
    const Scratch memory = scratch(3 * size);
    float *in = memory.get(), *slopes = in + size, *out = slopes + size;
    float* result = BACKWARD ? problem.grad_u : problem.y;
    for (int64_t channel = 0; channel < problem.channels; channel += kStrip * kLanes) {
        const Strip strip(problem, channel);
        const Taps taps(most_tiles), grad_taps(BACKWARD ? most_tiles : 0);
        // Backward goes from outputs to inputs, so it looks ahead where forward looks behind.
        strip.read_taps(problem.taps, BACKWARD, taps);
        const auto turn = [&](int64_t row, int b) {
            const int64_t real = real_frames(problem, row), tiles = divide_up(real, kTile);
            const int lanes = strip.lanes(b);
            const float *x = strip.place(problem.u, row, b), *slope = nullptr;
            if (BACKWARD) slope = strip.place(problem.grad_y, row, b);
            float* y = strip.place(result, row, b);
            const bool in_place = !crowded && real % kTile == 0 && lanes == kLanes;
            if (!in_place) {
                strip.read(x, real, lanes, in), x = in;
                if (BACKWARD) strip.read(slope, real, lanes, slopes), slope = slopes;
            }
            const int64_t stride = in_place ? problem.channels : kLanes;
            float* to = in_place ? y : out;
            if (BACKWARD) {
                convolve_backward(tiles, ahead, behind, stride, x, slope, grad_taps.at(b, 0));
                convolve(tiles, behind, ahead, stride, taps.at(b, 0), slope, to);
            } else {
                convolve(tiles, ahead, behind, stride, taps.at(b, 0), x, to);
            }
            if (!in_place) strip.write(out, real, lanes, y);
        };
        for (int64_t first = begin; first < end; first += turns)
            for (int b = 0; b < strip.blocks; b++)
                for (int64_t row = first; row < std::min(end, first + turns); row++) {
                    if (const int64_t next = row + turns; next < problem.rows) {
                        strip.fetch<false>(problem.u, next, b);
                        if (BACKWARD) strip.fetch<false>(problem.grad_y, next, b);
                        strip.fetch<true>(result, next, b);
                    }
                    turn(row, b);
                }
        if (BACKWARD)
            strip.write_taps(grad_taps, problem.grad_taps + group * (problem.ahead + 1 + problem.behind) * problem.channels);
    }
    for (int64_t row = begin; row < end; row++) clear_padding(problem, row, result);
}

}  // namespace
