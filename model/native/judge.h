// The body of the judge (model/judge.py): chips in, pooled features out, in the caller's thread.
//
// Four convolutions with ReLU: 5x5 of stride 2, as products of gathered pixels, then three of 3x3 by Winograd's
// algorithm, the first two followed by 2x2 max-pooling; all in float32.  A few chips pass a layer together, so that its
// filters are read from memory once for all of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "gemm.h"
#include "map.h"
#include "winograd.h"

namespace dasnet::judge {

constexpr int SIDE = 48;  // of a chip
constexpr int KERNEL = 5, MARGIN = KERNEL / 2, PADDED = SIDE + 2 * MARGIN, FIRST = 32, HALF = SIDE / 2;
constexpr int FEATURES = 128;  // channels of the last layer; each is pooled by mean and maximum
constexpr int TOGETHER = 6;    // chips
constexpr int LEVELS = 256;
constexpr float DEVIATION_FLOOR = 4;  // as in model/judge.py

// A map (side, side, channels), with the border of zeros that 6x6 patches reach into.
constexpr int tiles_across(int side) { return (side + winograd::TILE - 1) / winograd::TILE; }
constexpr int padded_side(int side) { return winograd::TILE * tiles_across(side) + 2; }

INLINE Vec rectified(Vec value) { return larger(value, Vec{}); }

// A 3x3 convolution of maps of SIDES^2 pixels.
template <int INPUTS, int OUTPUTS, int SIDES> class Convolution {
  public:
    static constexpr int BLOCK = OUTPUTS % 64 ? 48 : 64;  // output channels of one product
    static constexpr int ACROSS = tiles_across(SIDES), TILES = ACROSS * ACROSS, ROW = padded_side(SIDES) * INPUTS;
    static constexpr size_t MAP = (size_t)padded_side(SIDES) * ROW;  // floats of one map
    static constexpr size_t WEIGHTS = (size_t)OUTPUTS * INPUTS * 9 + OUTPUTS;

    // weights: (OUTPUTS, INPUTS, 3, 3), then OUTPUTS biases.
    explicit Convolution(const float *weights)
        : filters_((size_t)winograd::POINTS * INPUTS * OUTPUTS), bias_(weights + WEIGHTS - OUTPUTS, weights + WEIGHTS) {
        using namespace winograd;
        for (int out = 0; out < OUTPUTS; out += LANES)
            for (int in = 0; in < INPUTS; in++) {
                Vec taps[9], rows[3][PATCH], points[PATCH][PATCH];
                for (int tap = 0; tap < 9; tap++)
                    for (int lane = 0; lane < LANES; lane++)
                        taps[tap][lane] = weights[((size_t)(out + lane) * INPUTS + in) * 9 + tap];
                for (int x = 0; x < 3; x++) filter(taps[x], taps[3 + x], taps[6 + x], rows[x]);
                for (int y = 0; y < PATCH; y++) filter(rows[0][y], rows[1][y], rows[2][y], points[y]);
                for (int point = 0; point < POINTS; point++)
                    for (int lane = 0; lane < LANES; lane++)
                        set(point, in, out + lane, points[point / PATCH][point % PATCH][lane]);
            }
    }

    // Scratch memory of one thread.
    struct Scratch {
        Buffer<float> tiles, products;
    };

    // Convolve `count` maps; `write(map, ty, tx, channel, out)` takes tiles of LANES channels, rectified.
    template <class Write> void run(const float *maps, int count, Scratch &scratch, Write write) const {
        using namespace winograd;
        const int rows = count * TILES, stride = rows + ROW_PADDING;
        scratch.tiles.reserve((size_t)POINTS * stride * INPUTS);
        scratch.products.reserve((size_t)POINTS * stride * BLOCK);
        for (int row = 0; row < rows; row++) {
            const int tile = row % TILES;
            const float *from = maps + row / TILES * MAP + TILE * (tile / ACROSS * ROW + tile % ACROSS * INPUTS);
            for (int channel = 0; channel < INPUTS; channel += LANES)
                load_tile(from + channel, scratch.tiles.data() + (size_t)row * INPUTS + channel, (size_t)stride * INPUTS);
        }
        for (int block = 0; block < OUTPUTS; block += BLOCK) {
            float *products = scratch.products.data();
            for (int point = 0; point < POINTS; point++)
                multiply<BLOCK>(scratch.tiles.data() + (size_t)point * stride * INPUTS, INPUTS,
                                filters_.data() + (size_t)(point * OUTPUTS + block) * INPUTS, INPUTS,
                                products + (size_t)point * stride * BLOCK, rows);
            for (int row = 0; row < rows; row++)
                for (int channel = 0; channel < BLOCK; channel += LANES) {
                    Vec out[TILE][TILE];
                    const float *from = products + (size_t)row * BLOCK + channel;
                    finish_tile(from, (size_t)stride * BLOCK, load(bias_.data() + block + channel), out);
                    write(row / TILES, row % TILES / ACROSS, row % ACROSS, block + channel, out);
                }
        }
    }

  private:
    std::vector<float> filters_, bias_;  // filters: (points, blocks), each a packed matrix (INPUTS x BLOCK)

    void set(int point, int in, int out, float value) {
        float *matrix = filters_.data() + (size_t)(point * OUTPUTS + out / BLOCK * BLOCK) * INPUTS;
        matrix[packed_index(in, out % BLOCK, INPUTS, BLOCK)] = value;
    }

    INLINE static void load_tile(const float *from, float *to, size_t point_stride) {
        using namespace winograd;
        Vec rows[PATCH][PATCH];
        UNROLL(6)
        for (int x = 0; x < PATCH; x++) {
            Vec column[PATCH], out[PATCH];
            UNROLL(6)
            for (int y = 0; y < PATCH; y++) column[y] = load(from + y * ROW + x * INPUTS);
            input(column, out);
            UNROLL(6)
            for (int y = 0; y < PATCH; y++) rows[y][x] = out[y];
        }
        UNROLL(6)
        for (int y = 0; y < PATCH; y++) {
            Vec out[PATCH];
            input(rows[y], out);
            UNROLL(6)
            for (int x = 0; x < PATCH; x++) store(to + (y * PATCH + x) * point_stride, out[x]);
        }
    }

    INLINE static void finish_tile(const float *from, size_t point_stride, Vec bias, Vec out[winograd::TILE][winograd::TILE]) {
        using namespace winograd;
        Vec rows[TILE][PATCH];
        UNROLL(6)
        for (int x = 0; x < PATCH; x++) {
            Vec column[PATCH], sums[TILE];
            UNROLL(6)
            for (int y = 0; y < PATCH; y++) column[y] = load(from + (y * PATCH + x) * point_stride);
            output(column, sums);
            UNROLL(4)
            for (int y = 0; y < TILE; y++) rows[y][x] = sums[y];
        }
        UNROLL(4)
        for (int y = 0; y < TILE; y++) {
            output(rows[y], out[y]);
            UNROLL(4)
            for (int x = 0; x < TILE; x++) out[y][x] = rectified(out[y][x] + bias);
        }
    }
};

// Max-pool 2x2 into the next layer's maps.
template <class Next, int CHANNELS> auto pooled_to(float *maps) {
    return [maps](int map, int ty, int tx, int channel, const Vec out[winograd::TILE][winograd::TILE]) {
        for (int y = 0; y < 2; y++)
            for (int x = 0; x < 2; x++)
                store(maps + map * Next::MAP + (2 * ty + y + 1) * Next::ROW + (2 * tx + x + 1) * CHANNELS + channel,
                      larger(larger(out[2 * y][2 * x], out[2 * y][2 * x + 1]),
                             larger(out[2 * y + 1][2 * x], out[2 * y + 1][2 * x + 1])));
    };
}

// The lower median of whole numbers of which there are `counts`.
inline int median(const int counts[LEVELS]) {
    int value = 0;
    for (int sum = counts[0]; sum < (SIDE * SIDE + 1) / 2; sum += counts[value]) value++;
    return value;
}

// Write what `normalised` in model/judge.py makes of each level of a chip, whose newest frame comes first.
inline void normalise(const uint8_t *chip, float table[LEVELS]) {
    int counts[LEVELS] = {}, deviations[LEVELS] = {};
    for (int i = 0; i < SIDE * SIDE; i++) counts[chip[i]]++;
    const int middle = median(counts);
    for (int level = 0; level < LEVELS; level++) deviations[std::abs(level - middle)] += counts[level];
    const float scale = 1.5f * (float)median(deviations) + DEVIATION_FLOOR;
    for (int level = 0; level < LEVELS; level++) {
        const float scaled = (float)(level - middle) / scale;
        table[level] = std::copysign(std::log1p(std::fabs(scaled)), scaled);
    }
}

class Network {
    using Second = Convolution<FIRST, 48, HALF>;
    using Third = Convolution<48, 96, HALF / 2>;
    using Fourth = Convolution<96, FEATURES, HALF / 4>;

  public:
    // weights: (32, frames, 5, 5) and 32 biases, then those of the other layers.
    Network(const float *weights, int frames)
        : frames_(frames), depth_(KERNEL * KERNEL * frames), first_((size_t)depth_ * FIRST),
          bias_(weights + first_.size(), weights + first_.size() + FIRST), second_(weights + first_.size() + FIRST),
          third_(weights + first_.size() + FIRST + Second::WEIGHTS),
          fourth_(weights + first_.size() + FIRST + Second::WEIGHTS + Third::WEIGHTS) {
        for (int out = 0; out < FIRST; out++)
            for (int frame = 0; frame < frames; frame++)
                for (int tap = 0; tap < KERNEL * KERNEL; tap++)
                    first_[packed_index(tap * frames + frame, out, depth_, FIRST)] =
                        weights[((size_t)out * frames + frame) * KERNEL * KERNEL + tap];
    }

    static size_t weights(int frames) {
        return (size_t)FIRST * (KERNEL * KERNEL * frames + 1) + Second::WEIGHTS + Third::WEIGHTS + Fourth::WEIGHTS;
    }

    // chips (count, frames, SIDE, SIDE) -> features (count, 2 * FEATURES).
    void run(const uint8_t *chips, int count, float *features) const {
        thread_local Memory memory;
        memory.reserve(frames_);
        const size_t chip = (size_t)frames_ * SIDE * SIDE;
        for (int first = 0; first < count; first += TOGETHER) {
            const int together = std::min(TOGETHER, count - first);
            for (int i = 0; i < together; i++) {
                convolve_first(chips + (first + i) * chip, memory);
                second_.run(memory.second.data(), 1, memory.of_second,
                            pooled_to<Third, 48>(memory.third.data() + i * Third::MAP));
            }
            for (int i = 0; i < together; i += TOGETHER / 2)
                third_.run(memory.third.data() + i * Third::MAP, std::min(TOGETHER / 2, together - i), memory.of_third,
                           pooled_to<Fourth, 96>(memory.fourth.data() + i * Fourth::MAP));
            pool_last(together, memory, features + (size_t)first * 2 * FEATURES);
        }
    }

  private:
    int frames_, depth_;
    std::vector<float> first_, bias_;
    Second second_;
    Third third_;
    Fourth fourth_;

    struct Memory {
        Buffer<float> chip, gathered, product, second, third, fourth;
        Second::Scratch of_second;
        Third::Scratch of_third;
        Fourth::Scratch of_fourth;

        int frames = 0;

        void reserve(int count) {
            const size_t values = (size_t)PADDED * PADDED * count;
            chip.reserve(values);
            if (count != frames) std::fill_n(chip.data(), values, 0.0f);  // the margin lies elsewhere
            frames = count;
            gathered.reserve((size_t)(HALF + ROW_PADDING) * KERNEL * KERNEL * frames);
            product.reserve((size_t)(HALF + ROW_PADDING) * FIRST);
            second.reserve(Second::MAP);
            third.reserve(TOGETHER * Third::MAP);
            fourth.reserve(TOGETHER * Fourth::MAP);
        }
    };

    void convolve_first(const uint8_t *chip, Memory &memory) const {
        float table[LEVELS];
        normalise(chip, table);
        float *padded = memory.chip.data(), *gathered = memory.gathered.data(), *product = memory.product.data();
        for (int frame = 0; frame < frames_; frame++)
            for (int y = 0; y < SIDE; y++)
                for (int x = 0; x < SIDE; x++) padded[((y + MARGIN) * PADDED + x + MARGIN) * frames_ + frame] = table[*chip++];
        const int run = KERNEL * frames_;  // adjacent values under one row of the kernel
        for (int y = 0; y < HALF; y++) {
            for (int x = 0; x < HALF; x++)
                for (int row = 0; row < KERNEL; row++)
                    std::copy_n(padded + ((2 * y + row) * PADDED + 2 * x) * frames_, run, gathered + x * depth_ + row * run);
            multiply<FIRST>(gathered, depth_, first_.data(), depth_, product, HALF);
            float *to = memory.second.data() + ((y + 1) * padded_side(HALF) + 1) * FIRST;
            for (int at = 0; at < HALF * FIRST; at += LANES)
                store(to + at, rectified(load(product + at) + load(bias_.data() + at % FIRST)));
        }
    }

    void pool_last(int count, Memory &memory, float *features) const {
        constexpr int side = HALF / 4;
        std::fill_n(features, (size_t)count * 2 * FEATURES, 0.0f);  // rectified values are not less
        fourth_.run(memory.fourth.data(), count, memory.of_fourth, [=](int map, int ty, int tx, int channel, const auto &out) {
            float *mean = features + (size_t)map * 2 * FEATURES + channel, *highest = mean + FEATURES;
            Vec sum{}, most{};
            for (int y = 0; y < std::min(winograd::TILE, side - winograd::TILE * ty); y++)
                for (int x = 0; x < std::min(winograd::TILE, side - winograd::TILE * tx); x++) {
                    sum += out[y][x];
                    most = larger(most, out[y][x]);
                }
            store(mean, load(mean) + sum * (1.0f / (side * side)));
            store(highest, larger(load(highest), most));
        });
    }
};

}  // namespace dasnet::judge
