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

// The filters of a block whose inputs are planes, packed, in the order of a patch's pixels: column by column, and in a column
// plane by plane.  Of fewer planes than colours, the sum of the filters.
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

// What the patches of row y look at, into zeros: a column of three pixels a plane, and the next; the patch of pixel x is
// columns x, x + 1 and x + 2.
inline void lay_columns(const float *image, int planes, int height, int width, int y, float *columns) {
    const int tall = planes * 3;
    for (int plane = 0; plane < planes; plane++)
        for (int dy = std::max(0, 1 - y); dy < std::min(3, height + 1 - y); dy++) {
            const float *from = image + ((size_t)plane * height + y + dy - 1) * width;
            float *to = columns + tall + plane * 3 + dy;
            for (int x = 0; x < width; x++) to[x * tall] = from[x];
        }
}

// 2x2 pixels from (y, x) on, 2 * LANES channels, less what is expected; products has them in two rows, a strip apart.
template <class Storage>
INLINE void store_square(const float *products, size_t strip, const float *expected, const Target<Storage> &target, int y,
                         int x, int channel, const Extreme extreme[2], Moments moments[2]) {
    const bool streams = target.map.outgrows_caches();
    Vec out[2][4];
#pragma GCC unroll 4
    for (int at = 0; at < 4; at++) {
        const float *from = products + at / 2 * strip + at % 2 * CHANNELS;
#pragma GCC unroll 2
        for (int part = 0; part < 2; part++) {
            out[part][at] = load(from + part * LANES) - load(expected + part * LANES);
            moments[part].add(out[part][at]);
        }
        store_line(target.map.at(y + at / 2, x + at % 2) + channel, out[0][at], out[1][at], streams);
    }
    Storage *half = target.half->at(y / 2, x / 2) + channel;
#pragma GCC unroll 2
    for (int part = 0; part < 2; part++)
        store(half + part * LANES, extreme[part].of(out[part][0], out[part][1], out[part][2], out[part][3]));
}

// Planes (3, height, width) -> map, and its half: 27 inputs a pixel are too few for Winograd's form to pay.  Of a grey
// picture one plane is convolved, with the sum of the filters.  In float32 always: bfloat16 has as few bits as a pixel, and
// the masks of small targets moved.
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
    Sums sums(height / 2);
    pool.run(height / 2, [&](int index, int worker) {
        float *columns = scratch[worker].rows.data(), *products = scratch[worker].products.data();
        const size_t line = (size_t)(width + 2 + ROOM) * tall, strip = (size_t)(STRIP + ROOM) * CHANNELS;
        std::memset(columns, 0, sizeof(float) * 2 * line);
        for (int row = 0; row < 2; row++) lay_columns(image, planes, height, width, 2 * index + row, columns + row * line);
        for (int x0 = 0; x0 < width; x0 += STRIP) {
            const int count = std::min(STRIP, width - x0);
            for (int row = 0; row < 2; row++)
                multiply<CHANNELS>(columns + row * line + x0 * tall, tall, filters.data(), depth, products + row * strip,
                                   count);
            for (int channel = 0; channel < CHANNELS; channel += 2 * LANES) {
                const Extreme extreme[2] = {Extreme(&block.gain[channel]), Extreme(&block.gain[channel + LANES])};
                Moments moments[2];
                for (int x = 0; x < count; x += 2)
                    store_square(products + (size_t)x * CHANNELS + channel, strip, expected + channel, target, 2 * index,
                                 x0 + x, channel, extreme, moments);
                for (int part = 0; part < 2; part++) moments[part].add_to(sums.of(index) + channel + part * LANES);
            }
        }
        if (map.outgrows_caches()) fence();
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
