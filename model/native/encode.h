// The encoder's own stages: the first convolution, from three planes, and the pooling between blocks.
#pragma once

#include "block.h"
#include "pool.h"
#include "convolve.h"

constexpr int COLOURS = 3;
constexpr int STRIP = 72;  // pixels that are multiplied at a time; a multiple of nearly every kernel's rows

// What is to be known of a picture's planes before they are convolved.
struct Seen {
    std::vector<double> averages;
    bool is_grey;  // all the same, as a thermal camera's
};

inline Seen look_at(Pool &pool, const float *image, int height, int width) {
    Sums sums(height, COLOURS);
    std::vector<char> coloured(height);
    pool.run(height, [&](int y, int) {
        const float *first = image + (size_t)y * width;
        for (int colour = 0; colour < COLOURS; colour++) {
            const float *row = first + (size_t)colour * height * width;
            Vec lanes{};
            int x = 0;
            for (; x + LANES <= width; x += LANES) lanes += load(row + x);
            float sum = sum_of(lanes);
            for (; x < width; x++) sum += row[x];
            sums.of(y)[colour] = sum;
            if (std::memcmp(first, row, sizeof(float) * width)) coloured[y] = true;
        }
    });
    std::vector<double> averages = sums.total();
    for (double &average : averages) average /= (double)height * width;
    return {averages, std::find(coloured.begin(), coloured.end(), true) == coloured.end()};
}

// The filters of a block whose inputs are planes, packed: input k is tap dy of plane k / 3 in column dx, and so are the pixels
// of a patch.  Of fewer planes than colours, the sum of the filters.
inline std::vector<float> plane_filters(const Block &block, const float *mix, int planes) {
    const int depth = planes * TAPS;
    std::vector<float> filters((size_t)depth * CHANNELS);
    for (int colour = 0; colour < COLOURS; colour++)
        for (int tap = 0; tap < TAPS; tap++)
            for (int out = 0; out < CHANNELS; out += LANES) {
                const int dy = tap / 3, dx = tap % 3, k = (dx * planes + colour % planes) * 3 + dy;
                float *filter = &filters[packed(k, out, depth, CHANNELS)];
                store(filter, load(filter) + mixed(block, mix, colour, tap, out));
            }
    return filters;
}

// Planes (3, height, width) -> map, and its half: 27 inputs a pixel are too few for Winograd's form to pay.  Of a grey picture
// one plane is convolved, with the sum of the filters.
template <class Storage>
void convolve_planes(Pool &pool, std::vector<Scratch> &scratch, const Block &block, const float *image,
                     const Target<Storage> &target) {
    Map<Storage> &map = target.map;
    const int height = map.height, width = map.width;  // even, both
    const Seen seen = look_at(pool, image, height, width);
    const int planes = seen.is_grey ? 1 : COLOURS, depth = planes * TAPS, tall = planes * 3;
    float mix[KERNELS], expected[CHANNELS];
    attend(block, seen.averages.data(), mix);
    expect(block, mix, seen.averages.data(), expected);
    const std::vector<float> filters = plane_filters(block, mix, planes);
    const bool streams = map.outgrows_caches();
    Sums sums(height / 2);
    pool.run(height / 2, [&](int index, int worker) {
        // What a row of patches looks at, a column of three pixels a plane after the other, zeros at either side: the patch of
        // a pixel is three columns.
        float *columns = scratch[worker].rows.data(), *products = scratch[worker].products.data();
        const size_t line = (size_t)(width + 2 + ROOM) * tall, strip = (size_t)(STRIP + ROOM) * CHANNELS;
        std::memset(columns, 0, sizeof(float) * 2 * line);
        for (int row = 0; row < 2; row++)
            for (int plane = 0; plane < planes; plane++)
                for (int dy = 0; dy < 3; dy++) {
                    const int y = 2 * index + row + dy - 1;
                    if (y < 0 || y >= height) continue;
                    const float *from = image + ((size_t)plane * height + y) * width;
                    float *to = columns + row * line + tall + plane * 3 + dy;
                    for (int x = 0; x < width; x++) to[x * tall] = from[x];
                }
        for (int x0 = 0; x0 < width; x0 += STRIP) {
            const int count = std::min(STRIP, width - x0);
            for (int row = 0; row < 2; row++)
                multiply<CHANNELS>(columns + row * line + x0 * tall, tall, filters.data(), depth, products + row * strip,
                                   count);
            for (int channel = 0; channel < CHANNELS; channel += 2 * LANES) {
                const Extreme extreme[2] = {Extreme(&block.gain[channel]), Extreme(&block.gain[channel + LANES])};
                Moments moments[2];
                for (int x = 0; x < count; x += 2) {
                    Vec values[2][2][2];  // part of the channels, row, column
#pragma GCC unroll 4
                    for (int at = 0; at < 4; at++) {
                        const float *from = products + at / 2 * strip + (size_t)(x + at % 2) * CHANNELS + channel;
#pragma GCC unroll 2
                        for (int part = 0; part < 2; part++) {
                            values[part][at / 2][at % 2] = load(from + part * LANES) - load(expected + channel + part * LANES);
                            moments[part].add(values[part][at / 2][at % 2]);
                        }
                        store_line(map.at(2 * index + at / 2, x0 + x + at % 2) + channel, values[0][at / 2][at % 2],
                                   values[1][at / 2][at % 2], streams);
                    }
                    Storage *to = target.half->at(index, (x0 + x) / 2) + channel;
#pragma GCC unroll 2
                    for (int part = 0; part < 2; part++)
                        store(to + part * LANES, extreme[part].of(values[part][0][0], values[part][0][1], values[part][1][0],
                                                                  values[part][1][1]));
                }
                for (int part = 0; part < 2; part++) moments[part].add_to(sums.of(index) + channel + part * LANES);
            }
        }
        if (streams) fence();
    });
    set_norm(block, expected, sums.total(), map);
}

// The half of a map, normalised as that map is to be; returns its averages.  Leaky ReLU grows, so it can come after pooling.
template <class Storage> std::vector<double> normalise_half(Pool &pool, const Map<Storage> &map, Map<Storage> &half) {
    Sums sums(half.height, CHANNELS);
    const Norm norm(map);
    pool.run(half.height, [&](int y, int) {
        Vec sum[PARTS] = {};
        for (int x = 0; x < half.width; x++)
#pragma GCC unroll 8
            for (int part = 0; part < PARTS; part++) {
                const Vec value = norm.of(half.at(y, x), part);
                store(half.at(y, x) + part * LANES, value);
                sum[part] += value;
            }
        for (int part = 0; part < PARTS; part++) add_lanes(sums.of(y) + part * LANES, sum[part]);
    });
    std::vector<double> averages = sums.total();
    for (double &average : averages) average /= (double)half.height * half.width;
    return averages;
}
