// The sparse last stage: which tiles of the decoder's last map are computed, and what stands in for the output elsewhere.
//
// A deep-supervision head on the map before says where a target can be: in cells of 16x16 pixels in which one of its
// probabilities exceeds a limit, and in those beside them.  Elsewhere the head's own logits are the output.  GroupNorm needs
// the statistics of the whole map: they are those of the active tiles, which hold what stands out, and of a sample of the
// others that counts for all of them.
#pragma once

#include "output.h"

namespace dasnet {

struct Head {
    Matrix taps;              // (CHANNELS x HEAD_COLUMNS)
    std::vector<float> bias;  // (classes)
};
constexpr int HEAD_COLUMNS = 16;
constexpr int CELL = 16;                      // pixels
constexpr int SAMPLED = 8, SAMPLE_SHIFT = 3;  // one tile in so many, shifted by so many from row to row
constexpr double WORTH_IT = 0.5;              // above this share of active cells, the whole map is computed

struct Coarse {
    int height = 0, width = 0;
    std::vector<float> logits;  // (classes, height, width)
};

// The head's logits of a map.  Element is the type of the matrix products.
template <class Element, class Storage>
void head_logits(ThreadPool &pool, std::vector<Scratch> &scratch, const Head &head, const FeatureMap<Storage> &map,
                 Coarse &coarse) {
    const int classes = (int)head.bias.size();
    coarse.height = map.height;
    coarse.width = map.width;
    coarse.logits.resize((size_t)classes * map.height * map.width);
    const Norm norm(map);
    pool.run(map.height, [&](int y, int worker) {
        Element *pixels = reinterpret_cast<Element *>(scratch[worker].tiles.data());
        float *products = scratch[worker].products.data();
        [[maybe_unused]] const TileRegisters registers;
        for (int x0 = 0; x0 < map.width; x0 += STRIP) {
            const int count = std::min(STRIP, map.width - x0);
            for (int x = 0; x < count; x++) UNROLL(8)
            for (int part = 0; part < PARTS; part++)
                store(pixels + x * CHANNELS + part * LANES, norm.of(map.at(y, x0 + x), part));
            multiply<HEAD_COLUMNS>(pixels, CHANNELS, head.taps.as(Element{}), CHANNELS, products, count);
            for (int k = 0; k < classes; k++) {
                float *to = &coarse.logits[((size_t)k * map.height + y) * map.width + x0];
                for (int x = 0; x < count; x++) to[x] = products[x * HEAD_COLUMNS + k] + head.bias[k];
            }
        }
    });
}

// The cells of a map, of which the coarse map is half the size, and the tiles to compute.
class ActiveCells {
  public:
    ActiveCells() = default;

    ActiveCells(const Coarse &coarse, int height, int width, float limit)
        : height_(height), width_(width), rows_((height + CELL - 1) / CELL), columns_((width + CELL - 1) / CELL),
          active_((size_t)rows_ * columns_) {
        const int pixels = coarse.height * coarse.width;
        for (int at = 0; at < (int)coarse.logits.size(); at++)
            if (coarse.logits[at] > limit) activate(at % pixels / coarse.width * 2 / CELL, at % coarse.width * 2 / CELL);
        share_ = (double)std::count(active_.begin(), active_.end(), (char)true) / (double)active_.size();
        const int down = (height + TILE - 1) / TILE, across = (width + TILE - 1) / TILE;
        for (int ty = 0; ty < down; ty++)
            for (int tx = 0; tx < across; tx++) {
                if (is_needed(TILE * ty, TILE * tx))
                    tiles_.push_back(ty * across + tx);
                else if ((tx + SAMPLE_SHIFT * ty) % SAMPLED == 0)
                    sample_.push_back(ty * across + tx);
            }
    }

    bool any() const { return !tiles_.empty(); }
    bool pays() const { return share_ < WORTH_IT && !sample_.empty(); }  // if not, the whole map is computed
    const std::vector<int> &tiles() const { return tiles_; }    // that the output of active cells needs, in ascending order
    const std::vector<int> &sample() const { return sample_; }  // of the other tiles, likewise

    // Call work(begin, end) for each run of columns that are active in pixel row y.
    template <class Work> void runs(int y, Work work) const {
        const char *row = &active_[(size_t)(y / CELL) * columns_];
        for (int column = 0, begin; column < columns_; column++) {
            if (!row[column]) continue;
            for (begin = column; column < columns_ && row[column];) column++;
            work(begin * CELL, std::min(column * CELL, width_));
        }
    }

  private:
    static constexpr int TILE = winograd::TILE;

    void activate(int y, int x) {
        for (int row = std::max(0, y - 1); row <= std::min(rows_ - 1, y + 1); row++)
            for (int column = std::max(0, x - 1); column <= std::min(columns_ - 1, x + 1); column++)
                active_[(size_t)row * columns_ + column] = true;
    }

    // Whether a pixel of the tile at pixel (y, x) is one of an active cell, or beside one.
    bool is_needed(int y, int x) const {
        const int top = std::max(0, y - 1) / CELL, bottom = std::min(height_ - 1, y + TILE) / CELL;
        const int left = std::max(0, x - 1) / CELL, right = std::min(width_ - 1, x + TILE) / CELL;
        for (int row = top; row <= bottom; row++)
            for (int column = left; column <= right; column++)
                if (active_[(size_t)row * columns_ + column]) return true;
        return false;
    }

    int height_ = 0, width_ = 0, rows_ = 0, columns_ = 0;
    std::vector<char> active_;
    std::vector<int> tiles_, sample_;
    double share_ = 0;
};

// Write the coarse logits to all pixels of the output, each to the nearest ones.
inline void fill_output(ThreadPool &pool, const Coarse &coarse, int width, float *logits) {
    const int rows = (int)coarse.logits.size() / coarse.width;  // of all classes
    pool.run(rows, [&](int row, int) {
        const float *from = &coarse.logits[(size_t)row * coarse.width];
        float *first = logits + (size_t)row * 2 * width, *second = first + width;
        for (int x = 0; x < width; x++) first[x] = second[x] = from[x / 2];
    });
}

}  // namespace dasnet
