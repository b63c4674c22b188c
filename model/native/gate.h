// The attention gate on a skip connection (Oktay et al., "Attention U-Net", 2018):
// gate = sigmoid(psi . relu(W_g g + W_x x)), one value per pixel, where g is the upsampled decoder map (the gating signal).
//
// W_g is a 1x1 convolution and commutes with the upsampling, so it is computed on the low-resolution map.
#pragma once

#include "convolve.h"
#include "encode.h"

namespace dasnet {

struct AttentionGate {
    Matrix w_g, w_x;         // (CHANNELS x HIDDEN)
    std::vector<float> psi;  // (HIDDEN)
};

// Gating signal W_g g of a low-resolution map, (height, width, HIDDEN); returns the averages of the map once upsampled.
// Element is the type of the matrix products.
template <class Element, class Storage>
std::vector<double> compute_gating_signal(ThreadPool &pool, std::vector<Scratch> &scratch, const AttentionGate &gate,
                                          const FeatureMap<Storage> &map, const UpsampleAxis &rows, const UpsampleAxis &columns,
                                          float *gating_signal) {
    Sums sums(map.height, CHANNELS);
    const Norm norm(map);
    pool.run(map.height, [&](int y, int worker) {
        Element *pixels = reinterpret_cast<Element *>(scratch[worker].tiles.data());
        float *products = scratch[worker].products.data();
        [[maybe_unused]] const TileRegisters registers;
        for (int x0 = 0; x0 < map.width; x0 += STRIP) {
            const int count = std::min(STRIP, map.width - x0);
            Vec sum[PARTS] = {};
            for (int x = 0; x < count; x++) UNROLL(8)
            for (int part = 0; part < PARTS; part++) {
                const Vec value = norm.of(map.at(y, x0 + x), part);
                store(pixels + x * CHANNELS + part * LANES, value);
                sum[part] += value * columns.weight[x0 + x];
            }
            for (int part = 0; part < PARTS; part++) add_lanes(sums.of(y) + part * LANES, sum[part], rows.weight[y]);
            multiply<HIDDEN>(pixels, CHANNELS, gate.w_g.as(Element{}), CHANNELS, products, count);
            std::memcpy(gating_signal + ((size_t)y * map.width + x0) * HIDDEN, products, sizeof(float) * count * HIDDEN);
        }
    });
    return sums.total();
}

// Gate map of a skip connection, one value per pixel; returns the averages of the gated skip.
template <class Element, class Storage>
std::vector<double> compute_gate_map(ThreadPool &pool, std::vector<Scratch> &scratch, const AttentionGate &gate,
                                     const FeatureMap<Storage> &map, const float *gating_signal, const UpsampleAxis &rows,
                                     const UpsampleAxis &columns, float *gates) {
    const int small = halved(map.width);
    Sums sums(map.height, CHANNELS);
    const Norm norm(map);
    pool.run(map.height, [&](int y, int worker) {
        Element *pixels = reinterpret_cast<Element *>(scratch[worker].tiles.data());
        float *products = scratch[worker].products.data();
        [[maybe_unused]] const TileRegisters registers;
        float *line = scratch[worker].line.data();
        // Interpolate the gating signal's two nearest rows; pixel `small` is read with weight 0 where the map is one pixel wide.
        const float *upper = gating_signal + (size_t)rows.low[y] * small * HIDDEN, *lower = upper + (size_t)small * HIDDEN;
        const float down = rows.fraction[y];
        for (int at = 0; at < small * HIDDEN; at += LANES) {
            const Vec first = load(upper + at);
            store(line + at, down == 0 ? first : first + (load(lower + at) - first) * down);
        }
        for (int x0 = 0; x0 < map.width; x0 += STRIP) {
            const int count = std::min(STRIP, map.width - x0);
            for (int x = 0; x < count; x++) UNROLL(8)
            for (int part = 0; part < PARTS; part++)
                store(pixels + x * CHANNELS + part * LANES, norm.of(map.at(y, x0 + x), part));
            multiply<HIDDEN>(pixels, CHANNELS, gate.w_x.as(Element{}), CHANNELS, products, count);
            float *gate_row = gates + (size_t)y * map.width + x0;
            float scores[STRIP + LANES];
            const Storage *next = map.at(y, x0 + STRIP);  // prefetched meanwhile
            for (int x = 0; x < count; x++) {
                prefetch(next + x * CHANNELS);
                const float *left = line + (size_t)columns.low[x0 + x] * HIDDEN, right = columns.fraction[x0 + x];
                Vec score{};
                for (int at = 0; at < HIDDEN; at += LANES) {
                    const Vec first = load(left + at), guided = first + (load(left + HIDDEN + at) - first) * right;
                    score += larger(guided + load(products + x * HIDDEN + at), Vec{}) * load(&gate.psi[at]);
                }
                scores[x] = sum_of(score);
            }
            for (int x = count; x < count + LANES; x++) scores[x] = 0;
            for (int x = 0; x < count; x += LANES) store(scores + x, sigmoid(load(scores + x)));
            std::memcpy(gate_row, scores, sizeof(float) * count);
            Vec sum[PARTS] = {};
            for (int x = 0; x < count; x++) UNROLL(8)
            for (int part = 0; part < PARTS; part++) sum[part] += load(pixels + x * CHANNELS + part * LANES) * scores[x];
            for (int part = 0; part < PARTS; part++) add_lanes(sums.of(y) + part * LANES, sum[part]);
        }
    });
    std::vector<double> averages = sums.total();
    for (double &average : averages) average /= (double)map.height * map.width;
    return averages;
}

}  // namespace dasnet
