// The encoder's own stages: the first convolution, from three planes, and the pooling between blocks.
#pragma once

#include "block.h"
#include "pool.h"
#include "convolve.h"

constexpr int COLOURS = 3;
constexpr int STRIP = 72;  // pixels that are multiplied at a time; a multiple of nearly every kernel's rows

inline std::vector<double> plane_averages(Pool &pool, const float *image, int height, int width) {
    Sums sums(height, COLOURS);
    pool.run(height, [&](int y, int) {
        for (int colour = 0; colour < COLOURS; colour++) {
            const float *row = image + ((size_t)colour * height + y) * width;
            double sum = 0;
            for (int x = 0; x < width; x++) sum += row[x];
            sums.of(y)[colour] = sum;
        }
    });
    std::vector<double> averages = sums.total();
    for (double &average : averages) average /= (double)height * width;
    return averages;
}

// Whether the planes are all the same, as a thermal camera's.
inline bool is_grey(const float *image, size_t plane) {
    const size_t bytes = sizeof(float) * plane;
    return !std::memcmp(image, image + plane, bytes) && !std::memcmp(image, image + 2 * plane, bytes);
}

// Planes (3, height, width) -> map: 27 inputs a pixel are too few for Winograd's form to pay.  Of a grey picture one plane
// is convolved, with the sum of the filters.
template <class Storage>
void convolve_planes(Pool &pool, std::vector<Scratch> &scratch, const Block &block, const float *image, Map<Storage> &map) {
    const int height = map.height, width = map.width;
    const int colours = is_grey(image, (size_t)height * width) ? 1 : COLOURS, depth = colours * TAPS;
    const std::vector<double> averages = plane_averages(pool, image, height, width);
    float mix[KERNELS];
    attend(block, averages.data(), mix);
    float expected[CHANNELS];
    expect(block, mix, averages.data(), expected);
    std::vector<float> filters((size_t)depth * CHANNELS);
    for (int i = 0; i < COLOURS; i++)
        for (int tap = 0; tap < TAPS; tap++)
            for (int column = 0; column < CHANNELS; column += LANES) {
                float *filter = &filters[packed(i % colours * TAPS + tap, column, depth, CHANNELS)];
                store(filter, load(filter) + mixed(block, mix, i, tap, column));
            }
    const bool streams = map.outgrows_caches();
    Sums sums(height);
    pool.run(height, [&](int y, int worker) {
        float *patches = scratch[worker].tiles.data(), *products = scratch[worker].products.data();
        float *lines = scratch[worker].rows.data();  // the nine rows that this one looks at, a zero pixel at either side
        const int line = width + 2;
        std::memset(lines, 0, sizeof(float) * colours * 3 * line);
        for (int i = 0; i < colours; i++)
            for (int dy = 0; dy < 3; dy++)
                if (y + dy - 1 >= 0 && y + dy - 1 < height)
                    std::memcpy(lines + (size_t)(i * 3 + dy) * line + 1, image + ((size_t)i * height + y + dy - 1) * width,
                                sizeof(float) * width);
        for (int x0 = 0; x0 < width; x0 += STRIP) {
            const int count = std::min(STRIP, width - x0);
            for (int x = 0; x < count; x++)
                for (int row = 0; row < colours * 3; row++)
                    std::memcpy(patches + (size_t)x * depth + row * 3, lines + (size_t)row * line + x0 + x, sizeof(float) * 3);
            multiply<CHANNELS>(patches, depth, filters.data(), depth, products, count);
            for (int channel = 0; channel < CHANNELS; channel += 2 * LANES) {
                Moments low(expected + channel), high(expected + channel + LANES);
                for (int x = 0; x < count; x++) {
                    const float *from = products + x * CHANNELS + channel;
                    const Vec values[2] = {load(from), load(from + LANES)};
                    store_line(map.at(y, x0 + x) + channel, values[0], values[1], streams);
                    low.add(values[0]);
                    high.add(values[1]);
                }
                low.add_to(sums.of(y) + channel);
                high.add_to(sums.of(y) + channel + LANES);
            }
        }
        if (streams) fence();
    });
    set_norm(block, expected, sums.total(), map);
}

// Normalised, and the largest of 2x2; returns the averages of the result.  Leaky ReLU grows, so it can come last.
template <class Storage>
std::vector<double> pool_halves(Pool &pool, const Map<Storage> &map, Map<Storage> &half) {
    Sums sums(half.height, CHANNELS);
    pool.run(half.height, [&](int y, int) {
        for (int channel = 0; channel < CHANNELS; channel += LANES) {
            const Vec scale = load(map.scale + channel), shift = load(map.shift + channel);
            Vec sum{};
            for (int x = 0; x < half.width; x++) {
                // At the end of an odd side the same pixels twice.
                const int right = 2 * x + 1 < map.width ? CHANNELS : 0;
                const Storage *above = map.at(2 * y, 2 * x) + channel;
                const Storage *below = 2 * y + 1 < map.height ? above + map.stride() : above;
                const Vec upper = larger(load(above) * scale + shift, load(above + right) * scale + shift);
                const Vec lower = larger(load(below) * scale + shift, load(below + right) * scale + shift);
                const Vec value = leaky(larger(upper, lower));
                store(half.at(y, x) + channel, value);
                sum += value;
            }
            add_lanes(sums.of(y) + channel, sum);
        }
    });
    std::vector<double> averages = sums.total();
    for (double &average : averages) average /= (double)half.height * half.width;
    return averages;
}
