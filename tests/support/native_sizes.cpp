// Runs the native engine over many sizes on random weights, or as `native_sizes together` several pictures at once, for the
// sanitizers: see test_native.py.
#include "../../model/native/engine.cpp"

#include <cmath>
#include <cstdio>
#include <random>
#include <thread>

namespace {

struct Depth {
    int levels, classes;
};

size_t weights_of(int levels, int classes) {
    constexpr size_t c = dasnet::CHANNELS;
    auto block = [](size_t in, size_t hidden) { return hidden * in + 2 * hidden + 2 + 2 * c * in * 9 + 2 * c; };
    return block(3, 2) + levels * (block(c, c / 4 + 1) + block(2 * c, c / 2 + 1) + c * c + c / 2) +
           classes * (9 * c + 1 + c + 1);
}

std::vector<float> normals(size_t count, std::mt19937 &random) {
    std::normal_distribution<float> normal(0, 0.1f);
    std::vector<float> values(count);
    for (float &value : values) value = normal(random);
    return values;
}

// Four callers, three threads and two lanes: callers wait for a lane, and the pool's threads change sides.
int together() {
    constexpr int levels = 3, callers = 4, pictures = 6;
    std::mt19937 random(1);
    const std::vector<float> weights = normals(weights_of(levels, 1), random), image = normals(3 * 128 * 128, random);
    void *engine = dasnet_create(weights.data(), weights.size(), levels, 1, 3, 2, 0);
    if (!engine) return std::fprintf(stderr, "%s\n", dasnet_error()), 1;
    auto side = [](int number) { return 64 + 8 * (number % 5); };
    auto picture = [&](int number) {
        std::vector<float> logits((size_t)side(number) * side(number));
        const float limit = number % 2 ? 0 : dasnet::EVERYWHERE;  // every other one sparse
        if (dasnet_run(engine, image.data(), 1, side(number), side(number), limit, logits.data())) logits.clear();
        return logits;
    };
    std::vector<std::vector<float>> alone;
    for (int number = 0; number < pictures; number++) alone.push_back(picture(number));
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int caller = 0; caller < callers; caller++)
        threads.emplace_back([&, caller] {
            for (int number = 0; number < pictures; number++) {
                const int which = (number + caller) % pictures;
                if (picture(which) != alone[which]) wrong++;
            }
        });
    for (auto &thread : threads) thread.join();
    dasnet_destroy(engine);
    return wrong ? 4 : 0;
}

}  // namespace

int main(int count, char **) {
    if (!dasnet_usable()) return std::fprintf(stderr, "the system does not let this program use the registers\n"), 1;
    if (count > 1) {
        if (const int wrong = together()) return wrong;
        std::puts("done");
        return 0;
    }
    std::mt19937 random(1);
    std::uniform_real_distribution<float> uniform(0, 1);
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (const Depth depth : {Depth{3, 1}, Depth{3, 4}, Depth{3, 8}, Depth{7, 2}}) {
            const auto [levels, classes] = depth;
            const std::vector<float> weights = normals(weights_of(levels, classes), random);
            void *engine = dasnet_create(weights.data(), weights.size(), levels, classes, 1 + classes % 3, 1, bf16);
            if (!engine) return std::fprintf(stderr, "%s\n", dasnet_error()), 1;
            auto run = [&](int rows, int columns) {
                const int multiple = std::min(1 << levels, dasnet::MAX_MULTIPLE), height = rows * multiple,
                          width = columns * multiple;
                // Exactly as large as it must be, so that one step further is a fault.
                std::vector<float> image((size_t)3 * height * width), logits((size_t)classes * height * width);
                for (float &value : image) value = uniform(random);
                for (size_t i = 0, plane = (size_t)height * width; rows == columns && i < plane; i++)
                    image[i + plane] = image[i + 2 * plane] = image[i];          // a grey picture
                for (float limit : {dasnet::EVERYWHERE, 3 * uniform(random)}) {  // all of the last stage; a part
                    if (dasnet_run(engine, image.data(), 1, height, width, limit, logits.data())) return 2;
                    for (float value : logits)
                        if (!std::isfinite(value)) return 3;
                }
                return 0;
            };
            for (int rows : {1, 2, 3, 4, 5, 7, 9})
                for (int columns : {1, 2, 3, 5, 6, 7, 10, 13})
                    if (const int wrong = levels == 3 || rows < 6 ? run(rows, columns) : 0) return wrong;
            if (const int wrong = levels == 3 ? run(32, 33) : 0) return wrong;  // large enough to be written around the caches
            dasnet_destroy(engine);
        }
    std::puts("done");
}
