// The 3x3 convolution of a whole feature map.  The epilogue runs while a tile is in registers: store, accumulate the
// statistics of its GroupNorm, and max-pool.
#pragma once

#include "block.h"
#include "input.h"
#include "pool.h"

namespace dasnet {

constexpr size_t PRODUCTS_SIZE = winograd::POINTS * matrix_size<float>(CHANNELS);

// Matrix products of a block of tiles, stored in memory.
struct StoredProducts {
    const float *memory;

    INLINE Vec at(int tile, int channel, int point) const {
        return load(memory + point * matrix_size<float>(CHANNELS) + (size_t)tile * CHANNELS + channel);
    }
};

// Output transform A^T m A of one tile for LANES channels, minus the predicted mean.
template <class Products> INLINE void transform_products(const Products &products, int tile, int channel, Vec predicted_mean,
                                                         Vec out[winograd::TILE][winograd::TILE]) {
    using namespace winograd;
    Vec rows[TILE][PATCH];
    UNROLL(6)
    for (int x = 0; x < PATCH; x++) {
        Vec in[PATCH], column[TILE];
        UNROLL(6)
        for (int y = 0; y < PATCH; y++) in[y] = products.at(tile, channel, y * PATCH + x);
        output(in, column);
        UNROLL(4)
        for (int y = 0; y < TILE; y++) rows[y][x] = column[y];
    }
    UNROLL(4)
    for (int y = 0; y < TILE; y++) {
        output(rows[y], out[y]);
        UNROLL(4)
        for (int x = 0; x < TILE; x++) out[y][x] -= predicted_mean;
    }
}

// Sum and sum of squares for GroupNorm, of LANES channels.
struct Moments {
    Vec sum{}, squares{};

    INLINE void add(Vec difference) {
        sum += difference;
        squares += difference * difference;
    }
    void add_to(double *sums) const {
        add_lanes(sums, sum);
        add_lanes(sums + CHANNELS, squares);
    }
};

// 2x2 max-pooling before normalisation: GroupNorm follows, so channels whose gamma is negative take the minimum instead.
struct SignedMax {
    Vec sign;

    explicit SignedMax(const float *gamma) : sign(load(gamma) < 0.0f ? splat(-1.0f) : splat(1.0f)) {}
    INLINE Vec of(Vec a, Vec b, Vec c, Vec d) const {
        return larger(larger(a * sign, b * sign), larger(c * sign, d * sign)) * sign;
    }
};

// Destination of a convolution: the full-size map and, where the next level needs it, the pooled map.
template <class Storage> struct Target {
    FeatureMap<Storage> &map;
    FeatureMap<Storage> *half = nullptr;
};

// Store tile (ty, tx) for LANES channels, clipped to the map, and accumulate its statistics.
template <class Products, class Storage> INLINE void store_tile(const Products &products, const Target<Storage> &target, int ty,
                                                                int tx, int tile, int channel, const float *predicted_mean,
                                                                const SignedMax &signed_max, Moments &moments) {
    using namespace winograd;
    const FeatureMap<Storage> &map = target.map;
    Vec out[TILE][TILE];
    transform_products(products, tile, channel, load(predicted_mean + channel), out);
    const int high = std::min(TILE, map.height - TILE * ty), wide = std::min(TILE, map.width - TILE * tx);
    for (int y = 0; y < high; y++)
        for (int x = 0; x < wide; x++) {
            store(map.at(TILE * ty + y, TILE * tx + x) + channel, out[y][x]);
            moments.add(out[y][x]);
        }
    if (!target.half) return;
    for (int y = 0; y < high; y += 2)
        for (int x = 0; x < wide; x += 2) {
            const int below = std::min(y + 1, high - 1), right = std::min(x + 1, wide - 1);  // odd sides repeat the last pixel
            store(target.half->at((TILE * ty + y) / 2, (TILE * tx + x) / 2) + channel,
                  signed_max.of(out[y][x], out[y][right], out[below][x], out[below][right]));
        }
}

// The same for 2 * LANES channels of an interior tile, with non-temporal (streaming) stores.
template <class Products, class Storage>
INLINE void stream_tile(const Products &products, const Target<Storage> &target, int ty, int tx, int tile, int channel,
                        const float *predicted_mean, const SignedMax signed_max[2], Moments moments[2]) {
    using namespace winograd;
    Vec out[2][TILE][TILE];
    UNROLL(2)
    for (int part = 0; part < 2; part++) {
        const int from = channel + part * LANES;
        transform_products(products, tile, from, load(predicted_mean + from), out[part]);
        UNROLL(16)
        for (int at = 0; at < TILE * TILE; at++) moments[part].add(out[part][at / TILE][at % TILE]);
    }
    UNROLL(16)
    for (int at = 0; at < TILE * TILE; at++) {
        const int y = at / TILE, x = at % TILE;
        store_line(target.map.at(TILE * ty + y, TILE * tx + x) + channel, out[0][y][x], out[1][y][x], true);
    }
    if (!target.half) return;
    UNROLL(4)
    for (int at = 0; at < TILE; at++) {
        const int y = at / 2 * 2, x = at % 2 * 2;
        Storage *to = target.half->at((TILE * ty + y) / 2, (TILE * tx + x) / 2) + channel;
        UNROLL(2)
        for (int part = 0; part < 2; part++)
            store(to + part * LANES,
                  signed_max[part].of(out[part][y][x], out[part][y][x + 1], out[part][y + 1][x], out[part][y + 1][x + 1]));
    }
}

// Store a block of tiles for all channels; number(i) is the tile at index i of the block.
template <class Products, class Storage, class Number>
void store_tiles(const Products &products, const Target<Storage> &target, const Block &block, const float *predicted_mean,
                 Number number, int tiles, double *sums) {
    using namespace winograd;
    const FeatureMap<Storage> &map = target.map;
    const int across = (map.width + TILE - 1) / TILE;
    auto each_tile = [&](auto work) {
        for (int tile = 0; tile < tiles; tile++) work(number(tile) / across, number(tile) % across, tile);
    };
    constexpr bool is_whole = CHANNELS % (2 * LANES) == 0;  // lines are stored two vectors at a time
    if (is_whole && map.outgrows_caches() && map.height % TILE == 0 && map.width % TILE == 0) {
        for (int channel = 0; channel < CHANNELS; channel += 2 * LANES) {
            const SignedMax signed_max[2] = {SignedMax(&block.gamma[channel]), SignedMax(&block.gamma[channel + LANES])};
            Moments moments[2];
            each_tile([&](int ty, int tx, int tile) {
                stream_tile(products, target, ty, tx, tile, channel, predicted_mean, signed_max, moments);
            });
            for (int part = 0; part < 2; part++) moments[part].add_to(sums + channel + part * LANES);
        }
        fence();
    } else {
        for (int channel = 0; channel < CHANNELS; channel += LANES) {
            const SignedMax signed_max(&block.gamma[channel]);
            Moments moments;
            each_tile([&](int ty, int tx, int tile) {
                store_tile(products, target, ty, tx, tile, channel, predicted_mean, signed_max, moments);
            });
            moments.add_to(sums + channel);
        }
    }
}

// Scratch memory of one thread.
struct Scratch {
    Buffer<float> tiles, products, line;
};

// Convolve `count` tiles of `input` into `target`; number(i) is the i-th of them, in ascending order.  Filters come from
// transform_filters, predicted_mean from predict_means.  Return the sums of the tiles' statistics.
template <class Element, class Storage, class Input, class Number>
std::vector<double> convolve_tiles(ThreadPool &pool, std::vector<Scratch> &scratch, const Block &block, const Element *filters,
                                   const float *predicted_mean, const Input &input, const Target<Storage> &target, int count,
                                   Number number) {
    using namespace winograd;
    const int across = (target.map.width + TILE - 1) / TILE;
    // Small maps are split in two for any number of threads, so that sums are reduced identically.
    const int size = count >= 2 * BLOCK_TILES ? BLOCK_TILES : std::max(6, (count + 1) / 2);
    const int blocks = (count + size - 1) / size;
    Sums sums(blocks);
    pool.run(blocks, [&](int index, int worker) {
        const int first = index * size, tiles = std::min(size, count - first);
        const int next = number(std::min(first + size, count - 1));
        const Tiles<Element> inputs{reinterpret_cast<Element *>(scratch[worker].tiles.data()), block.inputs};
        float *products = scratch[worker].products.data();
        for (int tile = 0, in_row; tile < tiles; tile += in_row) {
            const int at = number(first + tile), ty = at / across, tx = at % across;
            const int left = std::min(tiles - tile, across - tx);
            for (in_row = 1; in_row < left && number(first + tile + in_row) == at + in_row;) in_row++;
            input.load(ty, tx, in_row, inputs, tile);
        }
        [[maybe_unused]] const TileRegisters registers;
        for (int point = 0; point < POINTS; point++) {
            input.prefetch(next / across, next % across, point);
            multiply<CHANNELS>(inputs.at(point, 0), block.inputs, filters + point * filters_size<Element>(block.inputs),
                               block.inputs, products + point * matrix_size<float>(CHANNELS), tiles);
        }
        auto in_block = [&](int tile) { return number(first + tile); };
        store_tiles(StoredProducts{products}, target, block, predicted_mean, in_block, tiles, sums.of(index));
    });
    return sums.total();
}

// Convolve all of `input`.
template <class Element, class Storage, class Input>
void convolve(ThreadPool &pool, std::vector<Scratch> &scratch, const Block &block, const Element *filters,
              const float *predicted_mean, const Input &input, const Target<Storage> &target) {
    using winograd::TILE;
    FeatureMap<Storage> &map = target.map;
    const int count = ((map.width + TILE - 1) / TILE) * ((map.height + TILE - 1) / TILE);
    const auto sums = convolve_tiles<Element>(pool, scratch, block, filters, predicted_mean, input, target, count,
                                              [](int tile) { return tile; });
    set_norm(block, predicted_mean, sums, (double)map.height * map.width, map);
}

// Convolve some tiles of `input`, and a sample of the others, which counts for all of these in the statistics.
template <class Element, class Storage, class Input>
void convolve_some(ThreadPool &pool, std::vector<Scratch> &scratch, const Block &block, const Element *filters,
                   const float *predicted_mean, const Input &input, const Target<Storage> &target,
                   const std::vector<int> &tiles, const std::vector<int> &sample) {
    using winograd::TILE;
    FeatureMap<Storage> &map = target.map;
    const int across = (map.width + TILE - 1) / TILE;
    auto convolve_listed = [&](const std::vector<int> &listed) {
        return convolve_tiles<Element>(pool, scratch, block, filters, predicted_mean, input, target, (int)listed.size(),
                                       [&](int at) { return listed[at]; });
    };
    auto area = [&](const std::vector<int> &listed) {
        double pixels = 0;
        for (int tile : listed)
            pixels += std::min(TILE, map.height - tile / across * TILE) * std::min(TILE, map.width - tile % across * TILE);
        return pixels;
    };
    const double pixels = (double)map.height * map.width, each = (pixels - area(tiles)) / area(sample);
    std::vector<double> sums = convolve_listed(tiles);
    const std::vector<double> of_sample = convolve_listed(sample);
    for (size_t at = 0; at < sums.size(); at++) sums[at] += each * of_sample[at];
    set_norm(block, predicted_mean, sums, pixels, map);
}

}  // namespace dasnet
