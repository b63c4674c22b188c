// Runs the native judge and the work on images over many sizes, for the sanitizers: see test_native.py.
#include "../../model/native/judge.cpp"
#include "../../model/native/pixels.cpp"

#include <cmath>
#include <cstdio>
#include <memory>
#include <random>

namespace {

std::mt19937 source(1);

std::vector<float> normals(size_t count) {
    std::normal_distribution<float> normal(0, 0.1f);
    std::vector<float> values(count);
    for (float &value : values) value = normal(source);
    return values;
}

bool are_finite(const std::vector<float> &values) {
    return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

// All memory is exactly as large as it must be, so that one step further is a fault.
bool judged(int frames, int count) {
    const std::vector<float> weights = normals(Network::weights(frames));
    std::vector<uint8_t> chips((size_t)count * frames * 48 * 48);
    for (uint8_t &value : chips) value = (uint8_t)source();
    std::vector<float> features((size_t)count * 256);
    void *judge = dasnet_judge_create(weights.data(), weights.size(), frames);
    const bool done = judge && !dasnet_judge_run(judge, chips.data(), count, features.data());
    dasnet_judge_destroy(judge);
    return done && are_finite(features) && !dasnet_judge_create(weights.data(), weights.size() - 1, frames);
}

struct Memory {
    std::vector<float> image, cells;
    Level level;

    Memory(int height, int width, int cell)
        : image((size_t)height * width), cells((size_t)std::max(1, height / cell) * std::max(1, width / cell)),
          level{height, width, std::max(1, height / cell), std::max(1, width / cell), image.data(), cells.data()} {}
};

std::vector<uint16_t> blurred(int height, int width) {
    std::vector<uint8_t> image((size_t)height * width), crop(48 * 48);
    for (uint8_t &value : image) value = (uint8_t)source();
    std::vector<uint16_t> out(image.size());
    const float kernel[3] = {0.4f, 0.2f, 0.1f};
    const chips::Image of_all{image.data(), height, width};
    if (dasnet_blur(&of_all, kernel, out.data())) out.clear();
    for (const double x : {-30.2, 0.0, 3.5, 200.7}) {
        const double origin[2] = {x, -x / 2};
        if (dasnet_cut(&of_all, 1, origin, 1, 48, crop.data())) out.clear();
    }
    return out;
}

bool registered(int height, int width, int x, int y) {
    const std::vector<float> reference = normals((size_t)height * width), image = normals(reference.size());
    double residual = 0, position[2] = {x + 0.4, y - 0.3};
    const registration::Fit fit{2, 0.02, 2.5, 1e9, 1};
    return !dasnet_residual(reference.data(), image.data(), height, width, x, y, &residual) && residual >= 0 &&
           !dasnet_refine(reference.data(), image.data(), height, width, &fit, position) && std::isfinite(position[0]);
}

bool moved(int height, int width, float across, float along, int right, int down, bool has_overlay) {
    const std::vector<uint16_t> newest = blurred(height, width), first = blurred(height, width),
                                second = blurred(height, width);
    std::vector<int64_t> rows, columns;
    for (int64_t y = 0; has_overlay && y < height; y += 3)
        for (int64_t x = y % 2; x < width; x += 2) rows.push_back(y), columns.push_back(x);
    const Pixels overlay{rows.data(), columns.data(), (int64_t)rows.size()};
    const auto past = [&](const std::vector<uint16_t> &image, int to_right, int to_bottom) {
        const int x0 = std::max(to_right, 0), y0 = std::max(to_bottom, 0);
        return Past{image.data(),
                    across,
                    along,
                    to_right,
                    to_bottom,
                    x0,
                    std::max(x0, width + std::min(to_right, 0)),
                    y0,
                    std::max(y0, height + std::min(to_bottom, 0))};
    };
    const Past both[2] = {past(first, right, down), past(second, -right, 0)};
    Memory whole(height, width, 4), reduced(std::max(1, height / 3), std::max(1, width / 3), 4);
    if (dasnet_motion_differences(newest.data(), both, &overlay, 8, &whole.level, &reduced.level)) return false;
    for (Memory *memory : {&whole, &reduced}) {
        if (!are_finite(memory->image) || !are_finite(memory->cells)) return false;
        for (float &noise : memory->cells) noise = std::fabs(noise) + 0.01f;
        std::vector<Peak> peaks(12);
        const int found = dasnet_motion_peaks(&memory->level, 0.1f, 4, (int)peaks.size(), peaks.data());
        if (found < 0 || found > (int)peaks.size() || !are_finite(memory->image)) return false;
    }
    return true;
}

}  // namespace

int main() {
    for (int frames : {1, 5})
        for (int count : {0, 1, 7, 13})
            if (!judged(frames, count)) return 1;
    for (int height : {1, 2, 3, 5, 8, 33, 96})
        for (int width : {1, 2, 3, 7, 9, 40, 131})
            for (int right : {0, 1, -3, 200})
                for (float across : {0.0f, 0.4f, -0.5f})
                    if (!registered(height, width, right, -right / 2) ||
                        !moved(height, width, across, -across / 2, right, -right / 2, right == 1))
                        return 2;
    std::puts("done");
}
