// Bilinear upsampling (align_corners) to twice the size, or one pixel less, along one axis, composed with the Winograd input
// transform.
//
// Both are linear, so a transformed 6-pixel patch of the large map is a 6x4 matrix times 4 pixels of the small one: the
// upsampled map is never materialised.  The matrix depends on the tile's position.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "winograd.h"

namespace dasnet {

struct UpsampleAxis {
    std::vector<int> low;         // (large) first of the two source pixels
    std::vector<float> fraction;  // (large) weight of the second source pixel
    std::vector<float> weight;    // (small) weight of each source pixel in the large map's average
    std::vector<int> base;        // (tiles) first of the 4 source pixels of a tile
    std::vector<float> matrix;    // (tiles, 6, 4)

    UpsampleAxis() = default;

    UpsampleAxis(int small, int large) {
        using namespace winograd;
        const int tiles = (large + TILE - 1) / TILE;
        low.assign(large, 0);
        fraction.assign(large, 0.0f);
        weight.assign(small, 0.0f);
        base.assign(tiles, 0);
        matrix.assign((size_t)tiles * PATCH * TILE, 0.0f);
        std::vector<double> share(small, 0.0);
        for (int at = 0; at < large && small > 1; at++) {
            const double position = (double)at * (small - 1) / (large - 1);  // in double: a float has 15 bits left at 512
            // On an exact source pixel, use it as the second of the two: a patch then never needs a fifth source pixel.
            low[at] = std::min(std::max((int)std::ceil(position) - 1, 0), small - 2);
            fraction[at] = (float)(position - low[at]);
        }
        for (int at = 0; at < large; at++) {
            share[low[at]] += (1 - (double)fraction[at]) / large;
            if (small > 1) share[low[at] + 1] += (double)fraction[at] / large;
        }
        for (int at = 0; at < small; at++) weight[at] = (float)share[at];
        for (int tile = 0; tile < tiles; tile++) compose(tile, small, large);
    }

  private:
    void compose(int tile, int small, int large) {
        using namespace winograd;
        base[tile] = std::max(0, std::min(2 * tile - 1, small - 4));
        double spread[PATCH][TILE] = {};
        for (int j = 0; j < PATCH; j++) {
            const int at = TILE * tile - 1 + j;  // the patch begins one pixel before its tile
            if (at < 0 || at >= large) continue;
            spread[j][low[at] - base[tile]] += 1 - (double)fraction[at];
            if (small > 1) spread[j][low[at] + 1 - base[tile]] += fraction[at];
        }
        for (int i = 0; i < PATCH; i++)
            for (int k = 0; k < TILE; k++) {
                double sum = 0;
                for (int j = 0; j < PATCH; j++) sum += INPUT[i][j] * spread[j][k];
                matrix[((size_t)tile * PATCH + i) * TILE + k] = (float)sum;
            }
    }
};

}  // namespace dasnet
