// The output convolution, 3x3 to a few classes: its nine taps of every class are one matrix product a pixel, and a logit is
// the sum of nine of them from the pixels around.
#pragma once

#include "encode.h"

struct Output {
    int classes = 0;
    Matrix taps;              // (CHANNELS x columns), column = tap * classes + class
    std::vector<float> bias;  // (CLASS_LANES), the last ones 0
    int columns() const { return (classes * TAPS + 15) / 16 * 16; }
};
constexpr int CLASS_LANES = 8, MOST_CLASSES = CLASS_LANES, MOST_COLUMNS = 80;
constexpr int OUTPUT_ROWS = 32;  // a thread's share; the rows above and below it are computed twice

typedef float ClassVec __attribute__((vector_size(4 * CLASS_LANES)));  // a number for each class

INLINE ClassVec load_classes(const float *from) {
    ClassVec value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

// Element is what the products are computed in.
template <int COLUMNS, class Element, class Storage>
void classify(Pool &pool, std::vector<Scratch> &scratch, const Output &output, const Map<Storage> &map, float *logits) {
    const int height = map.height, width = map.width;
    const size_t line = (size_t)(width + 2 + ROOM) * COLUMNS;  // a zero pixel at either side, and what products overrun
    pool.run((height + OUTPUT_ROWS - 1) / OUTPUT_ROWS, [&](int index, int worker) {
        Element *pixels = reinterpret_cast<Element *>(scratch[worker].tiles.data());
        [[maybe_unused]] const TileRegisters registers;
        float *lines = scratch[worker].rows.data();
        auto at = [&](int y) { return lines + (size_t)((y + 3) % 3) * line; };
        auto fill = [&](int y) {
            float *to = at(y);
            if (y < 0 || y >= height) return (void)std::memset(to, 0, line * sizeof(float));
            std::memset(to, 0, COLUMNS * sizeof(float));
            for (int x0 = 0; x0 < width; x0 += STRIP) {
                const int count = std::min(STRIP, width - x0);
                for (int channel = 0; channel < CHANNELS; channel += LANES) {
                    const Vec scale = load(map.scale + channel), shift = load(map.shift + channel);
                    for (int x = 0; x < count; x++)
                        store(pixels + x * CHANNELS + channel, leaky(load(map.at(y, x0 + x) + channel) * scale + shift));
                }
                multiply<COLUMNS>(pixels, CHANNELS, output.taps.as(Element{}), CHANNELS, to + (1 + x0) * COLUMNS, count);
            }
            std::memset(to + (size_t)(width + 1) * COLUMNS, 0, COLUMNS * sizeof(float));
        };
        const int from = index * OUTPUT_ROWS, until = std::min(height, from + OUTPUT_ROWS);
        fill(from - 1);
        fill(from);
        for (int y = from; y < until; y++) {
            fill(y + 1);
            const float *above = at(y - 1), *here = at(y), *below = at(y + 1);
            const ClassVec bias = load_classes(output.bias.data());
            const Storage *next = map.at(std::min(y + 2, height - 1), 0);  // brought near meanwhile
            for (int x = 0; x < width; x++, above += COLUMNS, here += COLUMNS, below += COLUMNS) {
                prefetch(next + x * CHANNELS);
                ClassVec sum = bias;
                for (int dx = 0; dx < 3; dx++) {
                    const int tap = dx * (COLUMNS + output.classes);  // of the pixel at dx, its own column
                    sum += load_classes(above + tap) + load_classes(here + tap + 3 * output.classes) +
                           load_classes(below + tap + 6 * output.classes);
                }
                for (int k = 0; k < output.classes; k++) logits[((size_t)k * height + y) * width + x] = sum[k];
            }
        }
    });
}
