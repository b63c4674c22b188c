// Inputs of a 3x3 convolution: tiles are loaded, normalised, gated or upsampled on the fly, and transformed (B^T d B).
//
// A tile is 4x4 output pixels; it needs a patch of 6x6 input pixels, which overlaps its right neighbour's by two columns:
//
//     patch of tile t        patch of tile t + 1
//     x: 0 1 2 3 4 5
//                x: 0 1 2 3 4 5
//        . T T T|T .|.              T = output pixels of tile t (columns 1 to 4)
//                |   |              columns 4 and 5 of one patch are columns 0 and 1 of the next:
//                +---+              their column transforms are kept (SharedColumns) for the next tile.
//
// So only four of six columns per tile are loaded and transformed, except at the start of a row.
#pragma once

#include <algorithm>
#include <type_traits>

#include "gemm.h"
#include "map.h"
#include "upsample.h"

namespace dasnet {

// Tiles per block: their 36 input and output matrices plus the filters about fill the L2 cache, which is larger on
// processors with AMX.
#if defined(DASNET_AMX)
constexpr int BLOCK_TILES = 32;
#else
constexpr int BLOCK_TILES = 12;
#endif

// Stride between a block's 36 matrices, padded by one cache line: otherwise the same element of all of them would alias to
// the same cache sets.
template <class Element> constexpr size_t matrix_size(int depth) {
    return (size_t)(BLOCK_TILES + ROW_PADDING) * depth + 64 / sizeof(Element);
}

// Transformed tiles of one block: 36 matrices (tiles x depth).  Their stride is that of the deepest input, a compile-time
// constant, so that addresses need one instruction.
template <class Element> struct Tiles {
    static constexpr size_t STEP = matrix_size<Element>(2 * CHANNELS);  // between points
    Element *memory;
    int depth;
    Element *at(int point, int tile) const { return memory + point * STEP + (size_t)tile * depth; }
};
constexpr size_t TILES_SIZE = winograd::POINTS * Tiles<float>::STEP;

// Column transforms shared with the next tile; see the picture above.
constexpr int SHARED = winograd::PATCH - winograd::TILE;
using SharedColumns = Vec[PARTS][SHARED][winograd::PATCH];

// Transform `count` tiles from (ty, tx) into rows `tile`... of `tiles`, channels `to`...: columns of a patch first, then its
// rows.  patch_at(y, x, channel) returns a function (y, x) that loads LANES channels relative to that pixel.
template <class Element, class PatchAt> INLINE void load_tiles(PatchAt patch_at, int height, int width, int ty, int tx,
                                                               int count, const Tiles<Element> &tiles, int tile, int to) {
    using namespace winograd;
    const int y0 = TILE * ty - 1;
    SharedColumns shared_columns;
    for (int index = 0; index < count; index++) {
        const int x0 = TILE * (tx + index) - 1;
        const bool is_interior = y0 >= 0 && x0 >= 0 && y0 + PATCH <= height && x0 + PATCH <= width;
        for (int channel = 0; channel < CHANNELS; channel += LANES) {
            Element *at = tiles.at(0, tile + index) + to + channel;
            const auto pixel = patch_at(y0, x0, channel);
            auto column = [&](auto is_interior_tile, int x, Vec out[PATCH]) {
                auto inside = [&](int y) {
                    return (unsigned)(y0 + y) < (unsigned)height && (unsigned)(x0 + x) < (unsigned)width;
                };
                Vec in[PATCH];
                UNROLL(6)
                for (int y = 0; y < PATCH; y++) in[y] = is_interior_tile || inside(y) ? pixel(y, x) : Vec{};  // zero padding
                input(in, out);
            };
            auto &left = shared_columns[channel / LANES];
            if (!index)
                for (int x = 0; x < SHARED; x++) column(std::false_type{}, x, left[x]);
            auto transform = [&](auto is_interior_tile) {
                Vec rows[PATCH][PATCH];
                UNROLL(6)
                for (int x = 0; x < PATCH; x++) {
                    Vec made[PATCH];
                    if (x >= SHARED) column(is_interior_tile, x, made);
                    UNROLL(6)
                    for (int y = 0; y < PATCH; y++) {
                        rows[y][x] = x < SHARED ? left[x][y] : made[y];
                        if (x >= TILE) left[x - TILE][y] = made[y];
                    }
                }
                UNROLL(6)
                for (int y = 0; y < PATCH; y++) {
                    Vec out[PATCH];
                    input(rows[y], out);
                    UNROLL(6)
                    for (int x = 0; x < PATCH; x++) store(at + (y * PATCH + x) * tiles.STEP, out[x]);
                }
            };
            if (is_interior)
                transform(std::true_type{});
            else
                transform(std::false_type{});
        }
    }
}

// Prefetch into L1 the COLUMNS that the right neighbour's patch needs beyond this one, once per cache line.
template <int SIDE, int COLUMNS, class Storage>
INLINE void prefetch_right(const Storage *patch, ptrdiff_t stride, int channel) {
    if (channel * sizeof(Storage) % 64) return;
    UNROLL(6)
    for (int y = 0; y < SIDE; y++) UNROLL(4)
    for (int x = SIDE; x < SIDE + COLUMNS; x++) __builtin_prefetch(patch + y * stride + x * CHANNELS);
}

// Prefetch one point's share of the next block's pixels; after all points the whole block has been requested.
template <class Storage> INLINE void prefetch(const FeatureMap<Storage> &map, int ty, int tx, int point) {
    using namespace winograd;
    constexpr int pixels = BLOCK_TILES * TILE / PATCH;
    const int y = std::clamp(TILE * ty - 1 + point % PATCH, 0, map.height - 1);
    const int x = std::clamp(TILE * tx - 1 + point / PATCH * pixels, 0, std::max(0, map.width - pixels));
    for (int at = 0; at < pixels; at++) dasnet::prefetch(map.at(y, x) + at * CHANNELS);
}

// Inputs share one interface: load() transforms `count` tiles from (ty, tx) into rows `tile`... of `tiles`.

// A feature map as it is, already normalised.
template <class Storage> struct PlainInput {
    const FeatureMap<Storage> &map;

    template <class Element> void load(int ty, int tx, int count, const Tiles<Element> &tiles, int tile) const {
        const ptrdiff_t stride = map.stride();
        auto patch_at = [this, stride](int y0, int x0, int channel) {
            const Storage *from = map.memory.data() + y0 * stride + (ptrdiff_t)x0 * CHANNELS + channel;
            prefetch_right<winograd::PATCH, winograd::TILE>(from, stride, channel);
            return [from, stride](int y, int x) { return dasnet::load(from + y * stride + x * CHANNELS); };
        };
        load_tiles(patch_at, map.height, map.width, ty, tx, count, tiles, tile, 0);
    }

    void prefetch(int ty, int tx, int point) const { dasnet::prefetch(map, ty, tx, point); }
};

// Decoder input: the low-resolution map, normalised and upsampled, concatenated with the gated, normalised skip connection.
template <class Storage> struct DecoderInput {
    const FeatureMap<Storage> &low, &skip;
    const float *gates;
    const UpsampleAxis &rows, &columns;  // upsampling weights

    template <class Element> void load(int ty, int tx, int count, const Tiles<Element> &tiles, int tile) const {
        load_upsampled(ty, tx, count, tiles, tile);
        load_gated(ty, tx, count, tiles, tile);
    }

    void prefetch(int ty, int tx, int point) const { dasnet::prefetch(skip, ty, tx, point); }

  private:
    template <class Element> void load_gated(int ty, int tx, int count, const Tiles<Element> &tiles, int tile) const {
        const ptrdiff_t stride = skip.stride(), width = skip.width;
        auto patch_at = [this, stride, width](int y0, int x0, int channel) {
            const Storage *from = skip.memory.data() + y0 * stride + (ptrdiff_t)x0 * CHANNELS + channel;
            prefetch_right<winograd::PATCH, winograd::TILE>(from, stride, channel);
            const float *gate = gates + y0 * width + x0;
            const Vec scale = dasnet::load(skip.scale + channel), shift = dasnet::load(skip.shift + channel);
            return [from, stride, gate, width, scale, shift](int y, int x) {
                return leaky(dasnet::load(from + y * stride + x * CHANNELS) * scale + shift) * gate[y * width + x];
            };
        };
        load_tiles(patch_at, skip.height, skip.width, ty, tx, count, tiles, tile, CHANNELS);
    }

    // Apply the upsampling composed with the input transform: columns first, then rows.
    template <class Element> void load_upsampled(int ty, int tx, int count, const Tiles<Element> &tiles, int tile) const {
        using namespace winograd;
        const float *vertical = &rows.matrix[(size_t)ty * PATCH * TILE];
        const ptrdiff_t stride = low.stride();
        SharedColumns shared_columns;
        for (int index = 0; index < count; index++) {
            const int base = columns.base[tx + index];
            const bool follows = index && base == columns.base[tx + index - 1] + SHARED;
            const float *horizontal = &columns.matrix[(size_t)(tx + index) * PATCH * TILE];
            for (int channel = 0; channel < CHANNELS; channel += LANES) {
                Element *at = tiles.at(0, tile + index) + channel;
                const Storage *from = low.at(rows.base[ty], base) + channel;
                prefetch_right<TILE, SHARED>(from, stride, channel);
                const Vec scale = dasnet::load(low.scale + channel), shift = dasnet::load(low.shift + channel);
                auto column = [&](int x, Vec out[PATCH]) {
                    Vec in[TILE];
                    UNROLL(4)
                    for (int y = 0; y < TILE; y++)
                        in[y] = leaky(dasnet::load(from + y * stride + x * CHANNELS) * scale + shift);
                    UNROLL(6)
                    for (int y = 0; y < PATCH; y++) {
                        const float *m = vertical + y * TILE;
                        out[y] = in[0] * m[0] + in[1] * m[1] + in[2] * m[2] + in[3] * m[3];
                    }
                };
                auto &left = shared_columns[channel / LANES];
                if (!follows)
                    for (int x = 0; x < SHARED; x++) column(x, left[x]);
                Vec right[SHARED][PATCH];
                UNROLL(2)
                for (int x = 0; x < SHARED; x++) column(SHARED + x, right[x]);
                UNROLL(6)
                for (int y = 0; y < PATCH; y++) {
                    UNROLL(6)
                    for (int x = 0; x < PATCH; x++) {
                        const float *m = horizontal + x * TILE;
                        store(at + (y * PATCH + x) * tiles.STEP,
                              left[0][y] * m[0] + left[1][y] * m[1] + right[0][y] * m[2] + right[1][y] * m[3]);
                    }
                    left[0][y] = right[0][y];
                    left[1][y] = right[1][y];
                }
            }
        }
    }
};

}  // namespace dasnet
