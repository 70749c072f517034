// Depthwise convolution over the frames of a row, with SiLU, and its gradient: channels are the vector lanes.
//
// A *step* counts frames in the order of time or, for a reversed filter, against it from the last real frame on.  In
// steps both kinds are the same causal filter.  A row's inputs are stored in steps, after the width - 1 initial ones.
// Padded frames are never read.
#include "../_groups.h"
#include "../_lanes.h"

#include <algorithm>
#include <vector>

using namespace zoo;

extern "C" {

struct Filter {
    int64_t width, reverse;
    const float* weight;        // (channels, width)
    const float* bias;          // (channels,), or null for zero
    const float* initial;       // (rows, width - 1, channels) in order of time, or null for zero
    float* y;                   // (rows, frames, channels), forward only
    const float* grad_y;        // backward only, as all fields below
    float* grad_weight;         // (groups, channels, width): every group of rows writes a partial sum
    float* grad_bias;           // (groups, channels), or null
    float* grad_initial;        // or null
};

struct Problem {
    int64_t rows, frames, channels, num_filters, rows_per_group, silu;
    int64_t row_stride, frame_stride;  // of x; its channels are adjacent, and everything else is contiguous
    const Filter* filters;
    const int64_t* lengths;     // (rows,), or null when all frames are real
    const float* x;
    float* grad_x;              // backward only
};
}

namespace {

// A block of neighbouring channels of one row, for one filter.
struct View {
    const Problem& problem;
    const Filter& filter;
    int64_t row, real, channel;
    int lanes;

    int64_t frame(int64_t step) const { return filter.reverse ? real - 1 - step : step; }
    int64_t spot(int64_t step) const {
        return (row * problem.frames + frame(step)) * problem.channels + channel;
    }
    // The distance to the same place in the next row.
    int64_t ahead() const { return problem.frames * problem.channels; }
    // The offset of the input `i` + 1 steps before the first one.
    int64_t initial_spot(int64_t i) const {
        const int64_t before = filter.width - 1, place = filter.reverse ? i : before - 1 - i;
        return (row * before + place) * problem.channels + channel;
    }

    void read_inputs(float* inputs) const {
        const int64_t before = filter.width - 1;
        for (int64_t i = 0; i < before; i++)
            store(inputs + (before - 1 - i) * kLanes,
                  filter.initial ? load(filter.initial + initial_spot(i), lanes) : Lanes{});
        for (int64_t k = 0; k < real; k++) {
            const float* x = problem.x + row * problem.row_stride + frame(k) * problem.frame_stride + channel;
            fetch<kRead>(x, problem.row_stride);
            store(inputs + (before + k) * kLanes, load(x, lanes));
        }
    }
};

// The parameters of one filter as lanes, per block `width` taps, oldest input first, and the bias.
struct Parameters {
    int64_t width, channels, blocks;
    Scratch values;

    Parameters(int64_t width, int64_t channels)
        : width(width), channels(channels), blocks(divide_up(channels, kLanes)), values(scratch(blocks * size())) {
        std::fill(values.get(), values.get() + blocks * size(), 0.0f);
    }
    int64_t size() const { return (width + 1) * kLanes; }
    float* block(int64_t channel) const { return values.get() + channel / kLanes * size(); }
    float& tap(int64_t channel, int64_t j) const { return block(channel)[j * kLanes + channel % kLanes]; }
    float& bias(int64_t channel) const { return tap(channel, width); }
};

Parameters read_parameters(const Filter& filter, int64_t channels) {
    Parameters parameters(filter.width, channels);
    for (int64_t c = 0; c < channels; c++) {
        for (int64_t j = 0; j < filter.width; j++) parameters.tap(c, j) = filter.weight[c * filter.width + j];
        if (filter.bias) parameters.bias(c) = filter.bias[c];
    }
    return parameters;
}

// sum_j taps[j] inputs[j], on top of `sum`.
inline Lanes weigh(const float* taps, const float* inputs, int64_t width, Lanes sum) {
    for (int64_t j = 0; j < width; j++) sum += load(taps + j * kLanes) * load(inputs + j * kLanes);
    return sum;
}

void forward_block(const View& view, const float* taps, float* inputs) {
    const int64_t width = view.filter.width;
    const Lanes bias = load(taps + width * kLanes);
    view.read_inputs(inputs);
    for (int64_t k = 0; k < view.real; k++) {
        Lanes y = weigh(taps, inputs + k * kLanes, width, bias);
        if (view.problem.silu) y *= sigmoid(y);
        fetch<kWrite>(view.filter.y + view.spot(k), view.ahead());
        store(view.filter.y + view.spot(k), y, view.lanes);
    }
}

// `inputs` is scratch for width - 1 + real steps, `grads` for twice width - 1 more.
void backward_block(const View& view, const float* taps, float* sums, float* inputs, float* grads, bool first) {
    const int64_t width = view.filter.width, before = width - 1, real = view.real;
    const Lanes bias = load(taps + width * kLanes);
    view.read_inputs(inputs);
    // The gradient of the input of SiLU, with zeros around it.
    std::fill(grads, grads + before * kLanes, 0.0f);
    std::fill(grads + (before + real) * kLanes, grads + (2 * before + real) * kLanes, 0.0f);
    Lanes grad_bias{};
    for (int64_t k = 0; k < real; k++) {
        fetch<kRead>(view.filter.grad_y + view.spot(k), view.ahead());
        Lanes g = load(view.filter.grad_y + view.spot(k), view.lanes);
        if (view.problem.silu) {
            const Lanes sum = weigh(taps, inputs + k * kLanes, width, bias), s = sigmoid(sum);
            g *= s * (1.0f + sum * (1.0f - s));
        }
        store(grads + (before + k) * kLanes, g);
        grad_bias += g;
    }
    store(sums + width * kLanes, load(sums + width * kLanes) + grad_bias);
    for (int64_t j = 0; j < width; j++) {
        Lanes grad_tap{};
        for (int64_t k = 0; k < real; k++)
            grad_tap += load(grads + (before + k) * kLanes) * load(inputs + (k + j) * kLanes);
        store(sums + j * kLanes, load(sums + j * kLanes) + grad_tap);
    }
    // Input i is in the sums of steps i - before .. i, with taps before .. 0.
    for (int64_t i = 0; i < before + real; i++) {
        if (i < before && !view.filter.grad_initial) continue;
        Lanes g{};
        for (int64_t j = 0; j < width; j++) g += load(taps + j * kLanes) * load(grads + (before + i - j) * kLanes);
        if (i < before) {
            store(view.filter.grad_initial + view.initial_spot(before - 1 - i), g, view.lanes);
        } else {
            float* to = view.problem.grad_x + view.spot(i - before);
            fetch<kWrite>(to, view.ahead());
            store(to, first ? g : g + load(to, view.lanes), view.lanes);
        }
    }
}

int64_t real_frames(const Problem& problem, int64_t row) {
    // Clamped, because the caller cannot always read the values; none may point outside of the row.
    return problem.lengths ? std::clamp<int64_t>(problem.lengths[row], 0, problem.frames) : problem.frames;
}

// Calls `work(view)` for every row and block of channels of a group of rows, for one filter.
template <class Work>
void each_block(const Problem& problem, const Filter& filter, int64_t row, Work work) {
    for (int64_t channel = 0; channel < problem.channels; channel += kLanes)
        work(View{problem, filter, row, real_frames(problem, row), channel,
                  (int)std::min<int64_t>(kLanes, problem.channels - channel)});
}

void clear_padding(const Problem& problem, int64_t row, float* values) {
    const int64_t size = problem.frames * problem.channels;
    std::fill(values + row * size + real_frames(problem, row) * problem.channels, values + (row + 1) * size, 0.0f);
}

int64_t widest(const Problem& problem) {
    int64_t width = 1;
    for (int64_t i = 0; i < problem.num_filters; i++) width = std::max(width, problem.filters[i].width);
    return width;
}
}

extern "C" {

EXPORT_SIZE(Problem)
EXPORT_SIZE(Filter)

void causal_conv_forward(const Problem* problem, int64_t group) {
    const int64_t begin = group * problem->rows_per_group;
    const int64_t end = std::min(problem->rows, begin + problem->rows_per_group);
    Scratch inputs = scratch((widest(*problem) + problem->frames) * kLanes);
    std::vector<Parameters> taps;
    for (int64_t i = 0; i < problem->num_filters; i++)
        taps.push_back(read_parameters(problem->filters[i], problem->channels));
    // Row by row, so that the inputs are in the cache for the second filter.
    for (int64_t row = begin; row < end; row++)
        for (int64_t i = 0; i < problem->num_filters; i++) {
            const Filter& filter = problem->filters[i];
            each_block(*problem, filter, row,
                       [&](const View& view) { forward_block(view, taps[i].block(view.channel), inputs.get()); });
            clear_padding(*problem, row, filter.y);
        }
}

void causal_conv_backward(const Problem* problem, int64_t group) {
    const int64_t begin = group * problem->rows_per_group;
    const int64_t end = std::min(problem->rows, begin + problem->rows_per_group);
    Scratch inputs = scratch((widest(*problem) + problem->frames) * kLanes);
    Scratch grads = scratch((2 * widest(*problem) + problem->frames) * kLanes);
    std::vector<Parameters> taps, sums;
    for (int64_t i = 0; i < problem->num_filters; i++) {
        taps.push_back(read_parameters(problem->filters[i], problem->channels));
        sums.emplace_back(problem->filters[i].width, problem->channels);
    }
    for (int64_t row = begin; row < end; row++) {
        for (int64_t i = 0; i < problem->num_filters; i++)
            each_block(*problem, problem->filters[i], row, [&](const View& view) {
                backward_block(view, taps[i].block(view.channel), sums[i].block(view.channel), inputs.get(),
                               grads.get(), i == 0);
            });
        clear_padding(*problem, row, problem->grad_x);
    }
    for (int64_t i = 0; i < problem->num_filters; i++) {
        const Filter& filter = problem->filters[i];
        for (int64_t c = 0; c < problem->channels; c++) {
            const int64_t spot = group * problem->channels + c;
            for (int64_t j = 0; j < filter.width; j++) filter.grad_weight[spot * filter.width + j] = sums[i].tap(c, j);
            if (filter.grad_bias) filter.grad_bias[spot] = sums[i].bias(c);
        }
    }
}
}
