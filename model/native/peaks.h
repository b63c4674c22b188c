// The highest local maxima of an image over the noise of its cells.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "motion.h"

namespace dasnet::motion {

// The inputs between which each output of an enlarged axis lies, and the second one's weight, as OpenCV's INTER_LINEAR.
struct Enlarged {
    std::vector<int> first, second;
    std::vector<float> weight;

    Enlarged(int inputs, int outputs) : first(outputs), second(outputs), weight(outputs) {
        const double scale = (double)inputs / outputs;
        for (int i = 0; i < outputs; i++) {
            const float place = (float)((i + 0.5) * scale - 0.5), whole = std::floor(place);
            first[i] = std::clamp((int)whole, 0, inputs - 1);
            second[i] = std::min(first[i] + 1, inputs - 1);
            weight[i] = whole < 0 || first[i] == second[i] ? 0 : place - whole;
        }
    }
};

struct Peak {
    float score;
    int row, column;

    bool is_less(const Peak &other) const {  // of equal ones, the first in the image is the best
        if (score != other.score) return score < other.score;
        return row != other.row ? row > other.row : column > other.column;
    }
};

class Peaks {
  public:
    // level.cells: the noise of each cell.  Replaces the level's image by the scores: itself over the noise.
    Peaks(const Level &level, float min_score) : level_(level), min_score_(min_score), flags_(level.width + 8) {
        score();
        for (int y = 0; y < level.height; y++) add_maxima(y);
    }

    // Write the best of those that none within `reach` exceeds, at most `most`, best first; return how many.
    int best(int reach, int most, Peak *out) {
        const auto is_less = [](const Peak &a, const Peak &b) { return a.is_less(b); };
        std::make_heap(maxima_.begin(), maxima_.end(), is_less);
        int count = 0;
        while (count < most && !maxima_.empty()) {
            std::pop_heap(maxima_.begin(), maxima_.end(), is_less);
            if (is_highest(maxima_.back(), reach)) out[count++] = maxima_.back();
            maxima_.pop_back();
        }
        return count;
    }

  private:
    const Level level_;
    const float min_score_;
    std::vector<uint8_t> flags_;
    std::vector<Peak> maxima_;  // of their eight neighbours

    float *row(int y) const { return level_.image + (size_t)y * level_.width; }

    void score() {
        const int width = level_.width;
        const Enlarged rows(level_.rows, level_.height), columns(level_.columns, width);
        std::vector<float> wide((size_t)2 * width);
        float *above = wide.data(), *below = above + width;
        int first = -1, second = -1;
        const auto widen = [&](int cell_row, float *to) {
            const float *from = level_.cells + (size_t)cell_row * level_.columns;
            for (int x = 0; x < width; x++) {
                const float left = from[columns.first[x]];
                to[x] = left * (1 - columns.weight[x]) + from[columns.second[x]] * columns.weight[x];
            }
        };
        for (int y = 0; y < level_.height; y++) {
            if (rows.first[y] == second) {
                std::swap(above, below);
                std::swap(first, second);
            }
            if (rows.first[y] != first) widen(first = rows.first[y], above);
            if (rows.second[y] != second) widen(second = rows.second[y], below);
            const float own = 1 - rows.weight[y], other = rows.weight[y];
            float *to = row(y);
            for (int x = 0; x < width; x++) to[x] /= above[x] * own + below[x] * other;
        }
    }

    void add_maxima(int y) {
        const int width = level_.width;
        const float *own = row(y), *above = row(std::max(y - 1, 0)), *below = row(std::min(y + 1, level_.height - 1));
        uint8_t *flags = flags_.data();
        for (int x = 1; x < width - 1; x++) {
            const float beside = std::max(own[x - 1], own[x + 1]),
                        up = std::max(std::max(above[x - 1], above[x]), above[x + 1]);
            const float down = std::max(std::max(below[x - 1], below[x]), below[x + 1]);
            flags[x] = (own[x] > min_score_) & (own[x] >= std::max(std::max(beside, up), down));
        }
        flags[0] = own[0] > min_score_;  // these are compared with their neighbours later
        flags[width - 1] = own[width - 1] > min_score_;
        for (int x = 0; x < width; x += 8) {
            uint64_t eight;
            std::memcpy(&eight, flags + x, sizeof(eight));
            for (int at = x; eight && at < std::min(x + 8, width); at++)
                if (flags[at]) maxima_.push_back({own[at], y, at});
        }
    }

    bool is_highest(const Peak &peak, int reach) const {
        const int x0 = std::max(peak.column - reach, 0), x1 = std::min(peak.column + reach + 1, level_.width);
        for (int y = std::max(peak.row - reach, 0); y < std::min(peak.row + reach + 1, level_.height); y++)
            for (int x = x0; x < x1; x++)
                if (row(y)[x] > peak.score) return false;
        return true;
    }
};

}  // namespace dasnet::motion
