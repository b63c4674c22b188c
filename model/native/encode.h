// Encoder-only stages: the first convolution, from an image's three planes, and pooling between blocks.
#pragma once

#include "block.h"
#include "pool.h"
#include "convolve.h"

namespace dasnet {

constexpr int COLOURS = 3;
constexpr int TILES_PER_SHARE = 16;  // tiles per parallel-loop index

// Statistics of an image's planes, needed before the first convolution.
struct PlaneStats {
    std::vector<double> averages;
    bool is_grey;  // three identical planes, as from a thermal camera
};

inline PlaneStats plane_stats(ThreadPool &pool, const float *image, int height, int width) {
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

// Input transform B^T d B of `count` tiles from (ty, tx), laid out (tiles, POINTS, PLANES): columns of all tiles first,
// then the rows of each.
template <int PLANES> void load_planes(const float *image, int height, int width, int ty, int tx, int count, float *tiles) {
    using namespace winograd;
    constexpr int WIDE = (TILE * TILES_PER_SHARE + SHARED + LANES - 1) / LANES * LANES;
    const int y0 = TILE * ty - 1, x0 = TILE * tx - 1, wide = TILE * count + SHARED;
    const int left = std::max(0, -x0), right = std::min(wide, width - x0);
    for (int plane = 0; plane < PLANES; plane++) {
        alignas(64) float pixels[PATCH][WIDE] = {}, made[PATCH][WIDE];  // zero padding
        for (int y = std::max(0, -y0); y < std::min(PATCH, height - y0); y++)
            std::memcpy(pixels[y] + left, image + ((size_t)plane * height + y0 + y) * width + x0 + left,
                        sizeof(float) * (right - left));
        for (int x = 0; x < wide; x += LANES) {
            Vec in[PATCH], out[PATCH];
            for (int y = 0; y < PATCH; y++) in[y] = load(pixels[y] + x);
            input(in, out);
            for (int y = 0; y < PATCH; y++) store(made[y] + x, out[y]);
        }
        for (int tile = 0; tile < count; tile++)
            for (int y = 0; y < PATCH; y++) {
                float out[PATCH];
                input(made[y] + TILE * tile, out);
                for (int x = 0; x < PATCH; x++) tiles[((tile * PATCH + y) * PATCH + x) * PLANES + plane] = out[x];
            }
    }
}

// Filters per plane, (CHANNELS / LANES, POINTS, planes, LANES); for a single (grey) plane, the filters of all colours summed.
inline void transform_plane_filters(const Block &block, const float *attention, int planes, float *filters) {
    using namespace winograd;
    for (int channel = 0; channel < CHANNELS; channel += LANES)
        for (int colour = 0; colour < COLOURS; colour++) {
            Vec points[PATCH][PATCH];
            transform_filter(block, attention, colour, channel, points);
            for (int point = 0; point < POINTS; point++) {
                float *at = filters + (size_t)channel * POINTS * planes + (point * planes + colour % planes) * LANES;
                const Vec value = points[point / PATCH][point % PATCH];
                store(at, colour < planes ? value : load(at) + value);
            }
        }
}

// Products of few input planes, computed on demand: storing and reloading them would cost more.
template <int PLANES> struct PlaneProducts {
    const float *tiles, *filters;

    INLINE Vec at(int tile, int channel, int point) const {
        const float *pixel = tiles + (size_t)(tile * winograd::POINTS + point) * PLANES;
        const float *filter = filters + (size_t)channel * winograd::POINTS * PLANES + point * PLANES * LANES;
        Vec sum = load(filter) * pixel[0];
        UNROLL(3)
        for (int plane = 1; plane < PLANES; plane++) sum += load(filter + plane * LANES) * pixel[plane];
        return sum;
    }
};

template <int PLANES, class Storage> void convolve_planes(ThreadPool &pool, const Block &block, const float *attention,
                                                          const float *predicted_mean, const float *image, float *filters,
                                                          const Target<Storage> &target) {
    using namespace winograd;
    const int height = target.map.height, width = target.map.width, across = (width + TILE - 1) / TILE;
    const int shares = (across + TILES_PER_SHARE - 1) / TILES_PER_SHARE, count = shares * ((height + TILE - 1) / TILE);
    transform_plane_filters(block, attention, PLANES, filters);
    Sums sums(count);
    pool.run(count, [&](int index, int) {
        const int ty = index / shares, tx = index % shares * TILES_PER_SHARE, wide = std::min(TILES_PER_SHARE, across - tx);
        float tiles[TILES_PER_SHARE * POINTS * PLANES];
        load_planes<PLANES>(image, height, width, ty, tx, wide, tiles);
        const auto number = [first = ty * across + tx](int tile) { return first + tile; };
        store_tiles(PlaneProducts<PLANES>{tiles, filters}, target, block, predicted_mean, number, wide, sums.of(index));
    });
    set_norm(block, predicted_mean, sums.total(), (double)height * width, target.map);
}

// Convolve an image (3, height, width) into a feature map and its pooled map.  A grey image needs one plane with summed
// filters.  Always float32: in bfloat16, which has about as many bits as a pixel, masks of small targets changed.
template <class Storage>
void convolve_image(ThreadPool &pool, const Block &block, const float *image, float *filters, const Target<Storage> &target) {
    const PlaneStats stats = plane_stats(pool, image, target.map.height, target.map.width);
    float attention[KERNELS], predicted_mean[CHANNELS];
    kernel_attention(block, stats.averages.data(), attention);
    predict_means(block, attention, stats.averages.data(), predicted_mean);
    if (stats.is_grey)
        convolve_planes<1>(pool, block, attention, predicted_mean, image, filters, target);
    else
        convolve_planes<COLOURS>(pool, block, attention, predicted_mean, image, filters, target);
}

// Normalise a pooled map with its source's GroupNorm; return its averages.  Leaky ReLU is monotonic, so it may follow pooling.
template <class Storage>
std::vector<double> normalise_half(ThreadPool &pool, const FeatureMap<Storage> &map, FeatureMap<Storage> &half) {
    Sums sums(half.height, CHANNELS);
    const Norm norm(map);
    pool.run(half.height, [&](int y, int) {
        Vec sum[PARTS] = {};
        for (int x = 0; x < half.width; x++) UNROLL(8)
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

}  // namespace dasnet
