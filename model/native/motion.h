// The pixel work of motion candidates (pipeline/segmentation/motion.py): differences, their reductions, scores and peaks.
//
// Frames pass row by row, so that what one step writes the next one finds in the cache; plain loops, which the compiler
// makes vectors of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dasnet::motion {

constexpr int AHEAD = 4;             // rows that are fetched from memory before they are needed
constexpr float LEVEL = 1.0f / 256;  // of images in which a grey level has so many steps

// A past frame, and where its background is now: moved by whole pixels (right, down) and a part of one (across, along).
// Within x0 <= x < x1, y0 <= y < y1 it saw what the newest frame shows.
struct Past {
    const uint16_t *image;
    float across, along;
    int right, down, x0, x1, y0, y1;
};

// The rows and columns of `count` pixels, in the order of an image.
struct Pixels {
    const int64_t *rows, *columns;
    int64_t count;

    template <class Use> void in_row(int64_t row, Use use) const {
        for (const int64_t *at = std::lower_bound(rows, rows + count, row); at < rows + count && *at == row; at++)
            use(columns[at - rows]);
    }
};

// One axis of an image reduced by averaging, as OpenCV's INTER_AREA does it.
struct Axis {
    int taps = 0;
    std::vector<int> first, end;  // of the inputs of each output; weights has `taps` values for each
    std::vector<float> weights;

    Axis(int inputs, int outputs) : first(outputs), end(outputs) {
        const double scale = (double)inputs / outputs;
        std::vector<std::vector<float>> shares(outputs);
        for (int i = 0; i < outputs; i++) {
            const double begin = i * scale, width = std::min(scale, inputs - begin);
            int from = (int)std::ceil(begin), to = std::min((int)std::floor(begin + scale), inputs - 1);
            from = std::min(from, to);
            first[i] = from;
            if (from - begin > 1e-3) {
                first[i] = from - 1;
                shares[i].push_back((float)((from - begin) / width));
            }
            for (int at = from; at < to; at++) shares[i].push_back((float)(1 / width));
            if (begin + scale - to > 1e-3)
                shares[i].push_back((float)(std::min(std::min(begin + scale - to, 1.0), width) / width));
            end[i] = first[i] + (int)shares[i].size();
            taps = std::max(taps, (int)shares[i].size());
        }
        weights.resize((size_t)outputs * taps);
        for (int i = 0; i < outputs; i++) std::copy(shares[i].begin(), shares[i].end(), weights.begin() + (size_t)i * taps);
    }
};

// An image reduced by averaging while its rows arrive.
class Reduction {
  public:
    Reduction(int height, int width, int rows, int columns)
        : rows_(height, rows), columns_(width, columns), sums_(width + columns_.taps) {}

    // `out`: (rows, columns).  Call with y = 0, 1, ...
    void add(int y, const float *values, float *out) {
        if (y == 0) next_ = 0;
        const int width = (int)sums_.size() - columns_.taps, count = (int)columns_.first.size();
        while (next_ < (int)rows_.first.size() && y >= rows_.first[next_]) {
            const float weight = rows_.weights[(size_t)next_ * rows_.taps + y - rows_.first[next_]];
            float *sums = sums_.data();
            if (y == rows_.first[next_])
                for (int x = 0; x < width; x++) sums[x] = weight * values[x];
            else
                for (int x = 0; x < width; x++) sums[x] += weight * values[x];
            if (y + 1 < rows_.end[next_]) return;
            reduce_row(out + (size_t)next_ * count);
            next_++;
        }
    }

  private:
    Axis rows_, columns_;
    std::vector<float> sums_;
    int next_ = 0;

    void reduce_row(float *to) const {
        switch (columns_.taps) {  // so that the innermost loop is unrolled
        case 4:
            return reduce_row<4>(to, 4);
        case 5:
            return reduce_row<5>(to, 5);
        default:
            return reduce_row<0>(to, columns_.taps);
        }
    }

    template <int TAPS> void reduce_row(float *to, int taps) const {
        const float *weights = columns_.weights.data(), *sums = sums_.data();
        const int *first = columns_.first.data();
        for (int i = 0, count = (int)columns_.first.size(); i < count; i++, weights += TAPS ? TAPS : taps) {
            float sum = 0;
            for (int tap = 0; tap < (TAPS ? TAPS : taps); tap++) sum += weights[tap] * sums[first[i] + tap];
            to[i] = sum;
        }
    }
};

// The newest frame minus a past one.
class Difference {
  public:
    Difference(const uint16_t *newest, const Past &past, int height, int width, int sampled_px, const Pixels &overlay)
        : newest_(newest), past_(past), height_(height), width_(width), overlay_(overlay), line_(width + 2) {
        step_ = past.x0 < past.x1 && past.y0 < past.y1 ? median(sampled_px) : 0;
    }

    // Write a row; it is 0 where either frame shows an overlay, and where the past frame did not see.
    void row(int y, float *out) {
        std::fill_n(out, width_, 0.0f);
        if (y < past_.y0 || y >= past_.y1) return;
        const uint16_t *newest = newest_ + (size_t)y * width_;
        const float *line = moved_along(y - past_.down) + 1 - past_.right;
        const float other = std::fabs(past_.across), own = 1 - other, step = step_;
        const int beside = past_.across > 0 ? -1 : 1;
        if (other > 0)
            for (int x = past_.x0; x < past_.x1; x++)
                out[x] = newest[x] * LEVEL - (line[x] * own + line[x + beside] * other) - step;
        else
            for (int x = past_.x0; x < past_.x1; x++) out[x] = newest[x] * LEVEL - line[x] - step;
        overlay_.in_row(y, [&](int64_t x) { out[x] = 0; });
        overlay_.in_row(y - past_.down, [&](int64_t x) {  // the past frame's moves with its background
            if (x + past_.right >= 0 && x + past_.right < width_) out[x + past_.right] = 0;
        });
    }

  private:
    const uint16_t *newest_;
    const Past past_;
    const int height_, width_;
    const Pixels overlay_;
    std::vector<float> line_;  // a row of the past frame, and a pixel more at each end
    float step_;

    const uint16_t *source(int y) const { return past_.image + (size_t)std::clamp(y, 0, height_ - 1) * width_; }

    int neighbour() const { return past_.along > 0 ? -1 : 1; }

    const float *moved_along(int y) {
        const uint16_t *row = source(y), *beside = source(y + neighbour());
        const float other = std::fabs(past_.along) * LEVEL, own = LEVEL - other;
        float *line = line_.data() + 1;
        for (int x = 0; x < width_; x += 32) __builtin_prefetch(source(y + AHEAD) + x);
        if (other > 0)
            for (int x = 0; x < width_; x++) line[x] = row[x] * own + beside[x] * other;
        else
            for (int x = 0; x < width_; x++) line[x] = row[x] * LEVEL;
        line[-1] = line[0];
        line[width_] = line[width_ - 1];
        return line_.data();
    }

    // The median difference of samples: a step of gain control moves every pixel.
    float median(int sampled_px) {
        std::vector<float> samples;
        const float other = std::fabs(past_.across), own = 1 - other;
        const int beside = past_.across > 0 ? -1 : 1;
        for (int y = 0; y < height_; y += sampled_px) {
            const float *line = moved_along(std::clamp(y - past_.down, 0, height_ - 1)) + 1;
            for (int x = 0; x < width_; x += sampled_px) {
                const int from = std::clamp(x - past_.right, 0, width_ - 1);
                const float value = other > 0 ? line[from] * own + line[from + beside] * other : line[from];
                samples.push_back(newest_[(size_t)y * width_ + x] * LEVEL - value);
            }
        }
        const auto middle = samples.begin() + samples.size() / 2;
        std::nth_element(samples.begin(), middle, samples.end());
        if (samples.size() % 2) return *middle;
        return (*std::max_element(samples.begin(), middle) + *middle) / 2;
    }
};

// An image and the means of its cells.
struct Level {
    int height, width, rows, columns;
    float *image, *cells;  // (height, width), (rows, columns)
};

inline void least(const float *first, const float *second, float *out, int count) {
    for (int x = 0; x < count; x++) out[x] = std::min(std::fabs(first[x]), std::fabs(second[x]));
}

// Write the smaller absolute difference to two past frames and its cells' means, in the image's size and reduced.
inline void differences(const uint16_t *newest, const Past past[2], const Pixels &overlay, int sampled_px, const Level &whole,
                        const Level &reduced) {
    const int height = whole.height, width = whole.width;
    Difference first(newest, past[0], height, width, sampled_px, overlay);
    Difference second(newest, past[1], height, width, sampled_px, overlay);
    Reduction cells(height, width, whole.rows, whole.columns);
    Reduction reduced_first(height, width, reduced.height, reduced.width), reduced_second = reduced_first;
    std::vector<float> rows(2 * width), other((size_t)reduced.height * reduced.width);
    for (int y = 0; y < height; y++) {
        float *to = whole.image + (size_t)y * width;
        first.row(y, rows.data());
        second.row(y, rows.data() + width);
        reduced_first.add(y, rows.data(), reduced.image);
        reduced_second.add(y, rows.data() + width, other.data());
        least(rows.data(), rows.data() + width, to, width);
        cells.add(y, to, whole.cells);
    }
    Reduction reduced_cells(reduced.height, reduced.width, reduced.rows, reduced.columns);
    for (int y = 0; y < reduced.height; y++) {
        float *to = reduced.image + (size_t)y * reduced.width;
        least(to, other.data() + (size_t)y * reduced.width, to, reduced.width);
        reduced_cells.add(y, to, reduced.cells);
    }
}

}  // namespace dasnet::motion
