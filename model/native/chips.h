// Chips (pipeline/segmentation/chips.py): square crops of a grey image at places between its pixels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace dasnet::chips {

struct Image {
    const uint8_t *pixels;
    int height, width;
};

// Return the line that is seen at a place outside the image, which is reflected at its edges without repeating them.
inline int reflected(int at, int side) {
    if (side == 1) return 0;
    while (at < 0 || at >= side) at = at < 0 ? -at : 2 * (side - 1) - at;
    return at;
}

// The rows of a part of an image, a pixel wider than what is cut, reflected at its edges.
class Rows {
  public:
    Rows(const Image &image, int left, int count) : image_(image), left_(left), columns_(count), line_(count) {
        is_inside_ = left >= 0 && left + count <= image.width;
        for (int x = 0; x < count; x++) columns_[x] = reflected(left + x, image.width);
    }

    // Valid until the next call.
    const uint8_t *at(int y) {
        const uint8_t *row = image_.pixels + (size_t)reflected(y, image_.height) * image_.width;
        if (is_inside_) return row + left_;
        for (size_t x = 0; x < line_.size(); x++) line_[x] = row[columns_[x]];
        return line_.data();
    }

  private:
    const Image image_;
    const int left_;
    bool is_inside_;
    std::vector<int> columns_;
    std::vector<uint8_t> line_;
};

// Write the crop (side, side) whose first pixel lies at (x, y), interpolated linearly.
inline void cut(const Image &image, double x, double y, int side, uint8_t *out) {
    const int left = (int)std::floor(x), top = (int)std::floor(y);
    const float across = (float)(x - left), along = (float)(y - top);
    Rows rows(image, left, side + 1);
    std::vector<float> lines(2 * side);
    float *upper = lines.data(), *lower = upper + side;
    const auto interpolate = [&](const uint8_t *row, float *to) {
        for (int i = 0; i < side; i++) to[i] = row[i] + across * ((float)row[i + 1] - row[i]);
    };
    interpolate(rows.at(top), upper);
    for (int row = 0; row < side; row++, out += side) {
        interpolate(rows.at(top + row + 1), lower);
        for (int i = 0; i < side; i++) out[i] = (uint8_t)(int)std::nearbyint(upper[i] + along * (lower[i] - upper[i]));
        std::swap(upper, lower);
    }
}

}  // namespace dasnet::chips
