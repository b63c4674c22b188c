// Camera motion (pipeline/segmentation/camera_motion.py): how well a small image fits another, and where it fits best.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace dasnet::registration {

struct Image {
    const float *pixels;
    int height, width;

    const float *row(int y) const { return pixels + (size_t)y * width; }
};

// Return the median absolute difference where the two overlap, the reference moved by whole pixels; infinite where they
// do not.
inline double residual(const Image &reference, const Image &image, int x, int y) {
    const int x0 = std::max(x, 0), x1 = image.width + std::min(x, 0);
    std::vector<float> values;
    values.reserve((size_t)image.height * image.width);
    for (int at = std::max(y, 0); at < image.height + std::min(y, 0) && x0 < x1; at++) {
        const size_t count = values.size();
        values.resize(count + x1 - x0);
        const float *own = image.row(at), *other = reference.row(at - y) - x;
        for (int i = x0; i < x1; i++) values[count + i - x0] = std::fabs(own[i] - other[i]);
    }
    if (values.empty()) return INFINITY;
    const size_t upper = values.size() / 2, lower = (values.size() - 1) / 2;
    // Counted by size first, so that few must be put in order.
    constexpr int BINS = 2048;
    const auto bin = [](float value) { return std::min((int)(value * 8), BINS - 1); };
    int counts[BINS] = {}, first = 0, last = 0;
    for (float value : values) counts[bin(value)]++;
    size_t before = 0, sum = counts[0];
    for (; sum <= lower; sum += counts[++first]) before = sum;
    for (last = first; sum <= upper; sum += counts[++last]) continue;
    std::vector<float> few;
    for (float value : values)
        if (bin(value) >= first && bin(value) <= last) few.push_back(value);
    std::sort(few.begin(), few.end());
    return (few[lower - before] + few[upper - before]) / 2;
}

struct Fit {
    int iterations;
    double converged_px, outlier_ratio, error_px, reach_px;
};

// Where a moved image's pixels come from: whole pixels beside, and the part of one.
struct Origin {
    int whole;
    float part;

    explicit Origin(double shift) : whole((int)std::floor(-shift)), part((float)(-shift - std::floor(-shift))) {}
};

// Least squares on the gradients (Lucas and Kanade, 1981) at one position.
class Step {
  public:
    Step(const Image &reference, const Image &image, double x, double y)
        : image_(image), moved_((size_t)image.height * image.width) {
        left_ = (int)std::fabs(x) + 3, top_ = (int)std::fabs(y) + 3;
        right_ = image.width - left_, bottom_ = image.height - top_;
        if (!is_large()) return;
        const Origin across(x), along(y);
        for (int row = top_ - 1; row <= bottom_; row++) {
            const float *upper = reference.row(row + along.whole) + across.whole,
                        *lower = upper + (along.part ? image.width : 0);
            const int beside = across.part ? 1 : 0;
            float *to = moved_.data() + (size_t)row * image.width;
            for (int at = left_ - 1; at <= right_; at++) {
                const float above = upper[at] * (1 - across.part) + upper[at + beside] * across.part;
                const float below = lower[at] * (1 - across.part) + lower[at + beside] * across.part;
                to[at] = above * (1 - along.part) + below * along.part;
            }
        }
    }

    bool is_large() const { return left_ < right_ && top_ < bottom_ && (right_ - left_) * (bottom_ - top_) >= image_.width; }

    // Write by how much the position must change; return false where there is too little contrast.
    bool solve(const Fit &fit, double &step_x, double &step_y) const {
        const double count = (double)(right_ - left_) * (bottom_ - top_);
        double sum = 0, deviation = 0;
        for_rows([&](const float *own, const float *moved) { sum += total([&](int x) { return own[x] - moved[x]; }); });
        const float mean = (float)(sum / count);
        for_rows([&](const float *own, const float *moved) {
            deviation += total([&](int x) { return std::fabs(own[x] - moved[x] - mean); });
        });
        // What moves by itself, as a target, is left out.
        const float most = (float)(fit.outlier_ratio * (deviation / count) + 1e-3);
        double xx = 0, xy = 0, yy = 0, x_rest = 0, y_rest = 0, rest_rest = 0, inliers = 0;
        for_rows([&](const float *own, const float *moved) {
            float of_xx = 0, of_xy = 0, of_yy = 0, of_x = 0, of_y = 0, of_rest = 0, of_inliers = 0;
#pragma omp simd reduction(+ : of_xx, of_xy, of_yy, of_x, of_y, of_rest, of_inliers)
            for (int x = left_; x < right_; x++) {
                const float rest = own[x] - moved[x] - mean, inlier = std::fabs(rest) < most ? 1.0f : 0.0f;
                const float gx = inlier * 0.5f * (moved[x + 1] - moved[x - 1]);
                const float gy = inlier * 0.5f * (moved[x + image_.width] - moved[x - image_.width]);
                of_xx += gx * gx, of_xy += gx * gy, of_yy += gy * gy;
                of_x += gx * rest, of_y += gy * rest, of_rest += inlier * rest * rest, of_inliers += inlier;
            }
            xx += of_xx, xy += of_xy, yy += of_yy, x_rest += of_x, y_rest += of_y, rest_rest += of_rest, inliers += of_inliers;
        });
        const double smallest = (xx + yy) / 2 - std::sqrt((xx - yy) * (xx - yy) / 4 + xy * xy);
        if (smallest <= 0 || rest_rest / inliers / smallest > fit.error_px * fit.error_px) return false;
        const double determinant = xx * yy - xy * xy;
        step_x = (xy * y_rest - yy * x_rest) / determinant;
        step_y = (xy * x_rest - xx * y_rest) / determinant;
        return true;
    }

  private:
    const Image image_;
    int left_, right_, top_, bottom_;  // the part that is compared
    std::vector<float> moved_;         // the reference, in that part and a pixel around it

    template <class Use> void for_rows(Use use) const {
        for (int y = top_; y < bottom_; y++) use(image_.row(y), moved_.data() + (size_t)y * image_.width);
    }

    template <class Value> double total(Value value) const {
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int x = left_; x < right_; x++) sum += value(x);
        return sum;
    }
};

// Move (x, y) to where the image fits the reference best; leave it where there is too little contrast.
inline void refine(const Image &reference, const Image &image, const Fit &fit, double &x, double &y) {
    double found_x = x, found_y = y;
    for (int iteration = 0; iteration < fit.iterations; iteration++) {
        const Step step(reference, image, found_x, found_y);
        double step_x = 0, step_y = 0;
        if (!step.is_large() || !step.solve(fit, step_x, step_y)) return;
        found_x += step_x, found_y += step_y;
        if (std::max(std::fabs(found_x - x), std::fabs(found_y - y)) > fit.reach_px) return;
        if (std::max(std::fabs(step_x), std::fabs(step_y)) < fit.converged_px) break;
    }
    x = found_x, y = found_y;
}

}  // namespace dasnet::registration
