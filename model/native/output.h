// The output convolution, 3x3 to a few classes: its nine taps of every class are one matrix product a pixel, and a logit is
// the sum of nine of them from the pixels around.
#pragma once

#include "encode.h"

struct Output {
    int classes = 0;
    std::vector<float> taps;  // packed (CHANNELS x columns), column = class * TAPS + tap
    std::vector<float> bias;  // (classes)
    int columns() const { return (classes * TAPS + 15) / 16 * 16; }
};
constexpr int MOST_CLASSES = 8, MOST_COLUMNS = 80;
constexpr int OUTPUT_ROWS = 32;  // a thread's share; the rows above and below it are computed twice

template <int COLUMNS, class Storage>
void classify(Pool &pool, std::vector<Scratch> &scratch, const Output &output, const Map<Storage> &map, float *logits) {
    const int height = map.height, width = map.width;
    const size_t line = (size_t)(width + 2) * COLUMNS;  // a zero pixel at either side
    pool.run((height + OUTPUT_ROWS - 1) / OUTPUT_ROWS, [&](int index, int worker) {
        float *pixels = scratch[worker].tiles.data(), *products = scratch[worker].products.data();
        float *lines = scratch[worker].rows.data();
        auto at = [&](int y) { return lines + (size_t)((y + 3) % 3) * line; };
        auto fill = [&](int y) {
            float *to = at(y);
            if (y < 0 || y >= height) return (void)std::memset(to, 0, line * sizeof(float));
            std::memset(to, 0, COLUMNS * sizeof(float));
            std::memset(to + (size_t)(width + 1) * COLUMNS, 0, COLUMNS * sizeof(float));
            for (int x0 = 0; x0 < width; x0 += STRIP) {
                const int count = std::min(STRIP, width - x0);
                for (int channel = 0; channel < CHANNELS; channel += LANES) {
                    const Vec scale = load(map.scale + channel), shift = load(map.shift + channel);
                    for (int x = 0; x < count; x++)
                        store(pixels + x * CHANNELS + channel, leaky(load(map.at(y, x0 + x) + channel) * scale + shift));
                }
                multiply<COLUMNS>(pixels, CHANNELS, output.taps.data(), CHANNELS, products, count);
                std::memcpy(to + (size_t)(1 + x0) * COLUMNS, products, sizeof(float) * count * COLUMNS);
            }
        };
        const int from = index * OUTPUT_ROWS, until = std::min(height, from + OUTPUT_ROWS);
        fill(from - 1);
        fill(from);
        for (int y = from; y < until; y++) {
            fill(y + 1);
            for (int k = 0; k < output.classes; k++) {
                const float *above = at(y - 1) + k * TAPS, *here = at(y) + k * TAPS, *below = at(y + 1) + k * TAPS;
                float *to = logits + ((size_t)k * height + y) * width;
                for (int x = 0; x < width; x++, above += COLUMNS, here += COLUMNS, below += COLUMNS)
                    to[x] = output.bias[k] + above[0] + above[COLUMNS + 1] + above[2 * COLUMNS + 2] + here[3] +
                            here[COLUMNS + 4] + here[2 * COLUMNS + 5] + below[6] + below[COLUMNS + 7] +
                            below[2 * COLUMNS + 8];
            }
        }
    });
}
