// The output convolution, 3x3 to a few classes: one-dimensional Winograd F(4, 3) along columns, direct along rows.  For four
// output rows, each of the six points is one matrix product per pixel (three taps of every class); there are too few classes
// for two-dimensional tiles to pay off.
#pragma once

#include "encode.h"

namespace dasnet {

struct Output {
    int classes = 0;
    Matrix taps[winograd::PATCH];  // per point: (CHANNELS x columns), column = dx * classes + class
    std::vector<float> bias;       // (CLASS_LANES), zero-padded
    int columns() const { return (classes * 3 + 15) / 16 * 16; }
};
constexpr int CLASS_LANES = 8, MAX_CLASSES = CLASS_LANES;
constexpr int OUTPUT_ROWS = 32;          // rows per parallel-loop index
constexpr int OUTPUT_STRIP = STRIP - 2;  // pixels of a row at a time; one neighbour on each side is read too
constexpr int STRIP_CAPACITY = STRIP + ROW_PADDING;
constexpr size_t OUTPUT_PRODUCTS_SIZE = (size_t)winograd::PATCH * STRIP_CAPACITY * 32;  // columns() are 16 or 32

typedef float ClassVec __attribute__((vector_size(4 * CLASS_LANES)));  // one value per class

INLINE ClassVec load_classes(const float *from) {
    ClassVec value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

// taps: (classes, CHANNELS, TAPS).
inline void transform_taps(const std::vector<float> &taps, Output &output) {
    using namespace winograd;
    const int classes = output.classes;
    std::vector<float> rows[PATCH];
    for (auto &of_point : rows) of_point.resize((size_t)3 * classes * CHANNELS);
    for (int k = 0; k < classes; k++)
        for (int c = 0; c < CHANNELS; c++)
            for (int dx = 0; dx < 3; dx++) {
                const float *tap = &taps[((size_t)k * CHANNELS + c) * TAPS + dx];
                Vec points[PATCH];
                filter(splat(tap[0]), splat(tap[3]), splat(tap[6]), points);
                for (int point = 0; point < PATCH; point++)
                    rows[point][((size_t)dx * classes + k) * CHANNELS + c] = points[point][0];
            }
    for (int point = 0; point < PATCH; point++)
        output.taps[point] = Matrix(rows[point], 3 * classes, CHANNELS, output.columns());
}

// Transform `count` columns of six pixels from (y0, x0), zero-padded, into pixels (PATCH, STRIP_CAPACITY, CHANNELS).
template <class Element, class Storage>
void transform_columns(const FeatureMap<Storage> &map, int y0, int x0, int count, Element *pixels) {
    using namespace winograd;
    const bool is_interior = y0 >= 0 && x0 >= 0 && y0 + PATCH <= map.height && x0 + count <= map.width;
    const ptrdiff_t stride = map.stride();
    const Norm norm(map);
    auto transform = [&](auto is_interior_tile) {
        const Storage *from = map.memory.data() + y0 * stride + (ptrdiff_t)x0 * CHANNELS;
        for (int x = 0; x < count; x++, from += CHANNELS) {
            auto inside = [&](int y) {
                return (unsigned)(y0 + y) < (unsigned)map.height && (unsigned)(x0 + x) < (unsigned)map.width;
            };
            for (int part = 0; part < PARTS; part++) {
                Vec in[PATCH], out[PATCH];
                UNROLL(6)
                for (int y = 0; y < PATCH; y++)
                    in[y] = is_interior_tile || inside(y) ? norm.of(from + y * stride, part) : Vec{};
                input(in, out);
                UNROLL(6)
                for (int point = 0; point < PATCH; point++)
                    store(pixels + ((size_t)point * STRIP_CAPACITY + x) * CHANNELS + part * LANES, out[point]);
            }
        }
    };
    if (is_interior)
        transform(std::true_type{});
    else
        transform(std::false_type{});
}

// Element is the type of the matrix products; runs(y, work) calls work(begin, end) for the columns to compute in the four rows
// from y.
template <int COLUMNS, class Element, class Storage, class Runs>
void output_convolution(ThreadPool &pool, std::vector<Scratch> &scratch, const Output &output, const FeatureMap<Storage> &map,
                        float *logits, Runs runs) {
    using namespace winograd;
    const int height = map.height, width = map.width, classes = output.classes;
    const ClassVec bias = load_classes(output.bias.data());
    pool.run((height + OUTPUT_ROWS - 1) / OUTPUT_ROWS, [&](int index, int worker) {
        [[maybe_unused]] const TileRegisters registers;
        Element *pixels = reinterpret_cast<Element *>(scratch[worker].tiles.data());
        float *products = scratch[worker].products.data();
        auto strip = [&](int y0, int x0, int count) {
            transform_columns(map, y0 - 1, x0 - 1, count + 2, pixels);
            for (int point = 0; point < PATCH; point++)
                multiply<COLUMNS>(pixels + (size_t)point * STRIP_CAPACITY * CHANNELS, CHANNELS,
                                  output.taps[point].as(Element{}), CHANNELS,
                                  products + (size_t)point * STRIP_CAPACITY * COLUMNS, count + 2);
            for (int x = 0; x < count; x++) {
                for (int y = 1; y <= TILE; y++)  // prefetched meanwhile
                    prefetch(map.at(std::min(y0 + y, height - 1), x0 + OUTPUT_STRIP + x));
                ClassVec sums[PATCH], out[TILE];
                UNROLL(6)
                for (int point = 0; point < PATCH; point++) {
                    const float *left = products + ((size_t)point * STRIP_CAPACITY + x) * COLUMNS;
                    sums[point] = load_classes(left) + load_classes(left + COLUMNS + classes) +
                                  load_classes(left + 2 * (COLUMNS + classes));
                }
                winograd::output(sums, out);
                for (int y = 0; y < TILE && y0 + y < height; y++)
                    for (int k = 0; k < classes; k++)
                        logits[((size_t)k * height + y0 + y) * width + x0 + x] = out[y][k] + bias[k];
            }
        };
        for (int y0 = index * OUTPUT_ROWS; y0 < std::min(height, (index + 1) * OUTPUT_ROWS); y0 += TILE)
            runs(y0, [&](int begin, int end) {
                for (int x0 = begin; x0 < end; x0 += OUTPUT_STRIP) strip(y0, x0, std::min(OUTPUT_STRIP, end - x0));
            });
    });
}

}  // namespace dasnet
