// The model as a convolution, and its gradient, for short rows; `_cpu.cpp` explains the words.
#pragma once

#include "_problem.h"

namespace {

#ifdef ZOO_AVX512               // as many as 32 registers hold
constexpr int kTile = 8;        // frames of a tile
#else                           // 16 registers
constexpr int kTile = 4;
#endif
constexpr int kStrip = 8;       // blocks of a strip

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

}  // namespace
