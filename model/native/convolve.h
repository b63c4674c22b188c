// The 3x3 convolution of a whole map, with everything around it done while a tile is in the registers: what is read is
// normalised, gated or upsampled as it is loaded; what is written is summed for its own norm.
#pragma once

#include "block.h"
#include "pool.h"
#include "upsample.h"

// 36 inputs and outputs of so many tiles, and the filters, about fill the second-level cache, which is larger where there
// are tile registers.
#if defined(DASNET_AMX)
constexpr int BLOCK_TILES = 32;
#else
constexpr int BLOCK_TILES = 12;
#endif

// Where the tiles of one block stand between transform and product: 36 matrices (tiles x depth).  A line of the caches lies
// between them, or the same element of all of them would fall into the same few sets.
template <class Element> constexpr size_t matrix_size(int depth) {
    return (size_t)(BLOCK_TILES + ROOM) * depth + 64 / sizeof(Element);
}
template <class Element> struct Tiles {
    Element *memory;
    int depth;
    Element *at(int point, int tile) const { return memory + point * matrix_size<Element>(depth) + (size_t)tile * depth; }
};
constexpr size_t TILES_SIZE = winograd::POINTS * matrix_size<float>(2 * CHANNELS);
constexpr size_t PRODUCTS_SIZE = winograd::POINTS * matrix_size<float>(CHANNELS);

// B^T d B for LANES channels; d(row, column) gives a pixel of the patch.
template <class Element, class Pixel>
INLINE void transform_patch(Pixel d, const Tiles<Element> &tiles, int tile, int channel) {
    using namespace winograd;
    Vec columns[PATCH][PATCH];
#pragma GCC unroll 6
    for (int x = 0; x < PATCH; x++) {
        Vec in[PATCH], out[PATCH];
#pragma GCC unroll 6
        for (int y = 0; y < PATCH; y++) in[y] = d(y, x);
        input(in, out);
#pragma GCC unroll 6
        for (int y = 0; y < PATCH; y++) columns[y][x] = out[y];
    }
#pragma GCC unroll 6
    for (int y = 0; y < PATCH; y++) {
        Vec out[PATCH];
        input(columns[y], out);
#pragma GCC unroll 6
        for (int x = 0; x < PATCH; x++) store(tiles.at(y * PATCH + x, tile) + channel, out[x]);
    }
}

// Of a map whose patch lies partly outside: zeros there.
template <class Element, class Pixel>
INLINE void transform_patch_at_edge(Pixel d, int height, int width, int y0, int x0, const Tiles<Element> &tiles, int tile,
                                    int channel) {
    auto inside = [&](int y, int x) {
        const bool in = (unsigned)(y0 + y) < (unsigned)height && (unsigned)(x0 + x) < (unsigned)width;
        return in ? d(y, x) : Vec{};
    };
    transform_patch(inside, tiles, tile, channel);
}

// Tile (ty, tx) of a map that is taken as it is.
template <class Storage, class Element>
void load_plain(const Map<Storage> &map, int ty, int tx, const Tiles<Element> &tiles, int tile) {
    const int y0 = winograd::TILE * ty - 1, x0 = winograd::TILE * tx - 1;
    const bool inner = y0 >= 0 && x0 >= 0 && y0 + winograd::PATCH <= map.height && x0 + winograd::PATCH <= map.width;
    const ptrdiff_t stride = map.stride();
    for (int channel = 0; channel < CHANNELS; channel += LANES) {
        const Storage *from = map.memory.data() + y0 * stride + (ptrdiff_t)x0 * CHANNELS + channel;
        auto pixel = [&](int y, int x) { return load(from + y * stride + (ptrdiff_t)x * CHANNELS); };
        if (inner)
            transform_patch(pixel, tiles, tile, channel);
        else
            transform_patch_at_edge(pixel, map.height, map.width, y0, x0, tiles, tile, channel);
    }
}

// Tile (ty, tx) of a skip connection: normalised, and times its gate; into channels `to` and up.
template <class Storage, class Element>
void load_gated(const Map<Storage> &map, const float *gate, int ty, int tx, const Tiles<Element> &tiles, int tile, int to) {
    const int y0 = winograd::TILE * ty - 1, x0 = winograd::TILE * tx - 1;
    const bool inner = y0 >= 0 && x0 >= 0 && y0 + winograd::PATCH <= map.height && x0 + winograd::PATCH <= map.width;
    const ptrdiff_t stride = map.stride(), width = map.width;
    const float *gates = gate + y0 * width + x0;
    for (int channel = 0; channel < CHANNELS; channel += LANES) {
        const Storage *from = map.memory.data() + y0 * stride + (ptrdiff_t)x0 * CHANNELS + channel;
        const Vec scale = load(map.scale + channel), shift = load(map.shift + channel);
        auto pixel = [&](int y, int x) {
            return leaky(load(from + y * stride + (ptrdiff_t)x * CHANNELS) * scale + shift) * gates[y * width + x];
        };
        if (inner)
            transform_patch(pixel, tiles, tile, to + channel);
        else
            transform_patch_at_edge(pixel, map.height, map.width, y0, x0, tiles, tile, to + channel);
    }
}

// Tile (ty, tx) of a map upsampled by 2: normalised, then both axes' composed matrices; into channels 0 and up.
template <class Storage, class Element>
void load_upsampled(const Map<Storage> &map, const Axis &rows, const Axis &columns, int ty, int tx,
                    const Tiles<Element> &tiles, int tile) {
    using namespace winograd;
    const float *vertical = &rows.matrix[(size_t)ty * PATCH * TILE], *horizontal = &columns.matrix[(size_t)tx * PATCH * TILE];
    for (int channel = 0; channel < CHANNELS; channel += LANES) {
        const Vec scale = load(map.scale + channel), shift = load(map.shift + channel);
        Vec wide[TILE][PATCH];
#pragma GCC unroll 4
        for (int y = 0; y < TILE; y++) {
            const Storage *from = map.at(rows.base[ty] + y, columns.base[tx]) + channel;
            Vec in[TILE];
#pragma GCC unroll 4
            for (int x = 0; x < TILE; x++) in[x] = leaky(load(from + x * CHANNELS) * scale + shift);
#pragma GCC unroll 6
            for (int x = 0; x < PATCH; x++) {
                const float *m = horizontal + x * TILE;
                wide[y][x] = in[0] * m[0] + in[1] * m[1] + in[2] * m[2] + in[3] * m[3];
            }
        }
#pragma GCC unroll 6
        for (int y = 0; y < PATCH; y++) {
            const float *m = vertical + y * TILE;
#pragma GCC unroll 6
            for (int x = 0; x < PATCH; x++)
                store(tiles.at(y * PATCH + x, tile) + channel,
                      wide[0][x] * m[0] + wide[1][x] * m[1] + wide[2][x] * m[2] + wide[3][x] * m[3]);
        }
    }
}

// A^T m A of one tile, for LANES channels.
INLINE void transform_products(const float *products, int tile, int channel, Vec out[winograd::TILE][winograd::TILE]) {
    using namespace winograd;
    const float *from = products + (size_t)tile * CHANNELS + channel;
    Vec rows[TILE][PATCH];
#pragma GCC unroll 6
    for (int x = 0; x < PATCH; x++) {
        Vec in[PATCH], column[TILE];
#pragma GCC unroll 6
        for (int y = 0; y < PATCH; y++) in[y] = load(from + (y * PATCH + x) * matrix_size<float>(CHANNELS));
        output(in, column);
#pragma GCC unroll 4
        for (int y = 0; y < TILE; y++) rows[y][x] = column[y];
    }
#pragma GCC unroll 4
    for (int y = 0; y < TILE; y++) output(rows[y], out[y]);
}

// The sums for a norm, of LANES channels.
struct Moments {
    Vec expected, sum{}, squares{};

    explicit Moments(const float *of) : expected(load(of)) {}
    INLINE void add(Vec value) {
        const Vec difference = value - expected;
        sum += difference;
        squares += difference * difference;
    }
    void add_to(double *sums) const {
        add_lanes(sums, sum);
        add_lanes(sums + CHANNELS, squares);
    }
};

// Tile (ty, tx), LANES channels, written to the map where it lies inside, and added to the sums.
template <class Storage>
INLINE void store_tile(const float *products, const Map<Storage> &map, int ty, int tx, int tile, int channel,
                       Moments &moments) {
    using namespace winograd;
    Vec out[TILE][TILE];
    transform_products(products, tile, channel, out);
    const int high = std::min(TILE, map.height - TILE * ty), wide = std::min(TILE, map.width - TILE * tx);
    for (int y = 0; y < high; y++)
        for (int x = 0; x < wide; x++) {
            store(map.at(TILE * ty + y, TILE * tx + x) + channel, out[y][x]);
            moments.add(out[y][x]);
        }
}

// The same for 2 * LANES channels of a tile that lies inside, around the caches.
template <class Storage>
INLINE void stream_tile(const float *products, const Map<Storage> &map, int ty, int tx, int tile, int channel,
                        Moments moments[2]) {
    using namespace winograd;
    Vec out[2][TILE][TILE];
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        transform_products(products, tile, channel + half * LANES, out[half]);
#pragma GCC unroll 16
        for (int at = 0; at < TILE * TILE; at++) moments[half].add(out[half][at / TILE][at % TILE]);
    }
#pragma GCC unroll 16
    for (int at = 0; at < TILE * TILE; at++) {
        const int y = at / TILE, x = at % TILE;
        store_line(map.at(TILE * ty + y, TILE * tx + x) + channel, out[0][y][x], out[1][y][x], true);
    }
}

// Memory of one thread.
struct Scratch {
    Buffer<float> tiles, products, rows;
};

// load(ty, tx, tiles, tile) brings a tile's transformed input; filters as `transform_filters` makes them; expected as
// `expect` does.
template <class Element, class Storage, class Load>
void convolve(Pool &pool, std::vector<Scratch> &scratch, const Block &block, const Element *filters,
              const float *expected, Map<Storage> &map, Load load) {
    using namespace winograd;
    const int across = (map.width + TILE - 1) / TILE, count = across * ((map.height + TILE - 1) / TILE);
    // Small maps are cut in two, whatever the number of threads: sums are to be the same with any.
    const int size = count >= 2 * BLOCK_TILES ? BLOCK_TILES : std::max(6, (count + 1) / 2);
    const int blocks = (count + size - 1) / size;
    Sums sums(blocks);
    const bool streams = map.outgrows_caches() && map.height % TILE == 0 && map.width % TILE == 0;
    pool.run(blocks, [&](int index, int worker) {
        const int first = index * size, tiles = std::min(size, count - first);
        const Tiles<Element> inputs{reinterpret_cast<Element *>(scratch[worker].tiles.data()), block.inputs};
        float *products = scratch[worker].products.data();
        for (int tile = 0; tile < tiles; tile++) load((first + tile) / across, (first + tile) % across, inputs, tile);
        [[maybe_unused]] const TileRegisters registers;
        for (int point = 0; point < POINTS; point++)
            multiply<CHANNELS>(inputs.at(point, 0), block.inputs, filters + point * filters_size<Element>(block.inputs),
                               block.inputs, products + point * matrix_size<float>(CHANNELS), tiles);
        auto each_tile = [&](auto work) {
            for (int tile = 0; tile < tiles; tile++) work((first + tile) / across, (first + tile) % across, tile);
        };
        if (streams) {
            for (int channel = 0; channel < CHANNELS; channel += 2 * LANES) {
                Moments moments[2] = {Moments(expected + channel), Moments(expected + channel + LANES)};
                each_tile([&](int ty, int tx, int tile) { stream_tile(products, map, ty, tx, tile, channel, moments); });
                for (int half = 0; half < 2; half++) moments[half].add_to(sums.of(index) + channel + half * LANES);
            }
            fence();
        } else {
            for (int channel = 0; channel < CHANNELS; channel += LANES) {
                Moments moments(expected + channel);
                each_tile([&](int ty, int tx, int tile) { store_tile(products, map, ty, tx, tile, channel, moments); });
                moments.add_to(sums.of(index) + channel);
            }
        }
    });
    set_norm(block, expected, sums.total(), map);
}
