// The C ABI, called through ctypes by model/engine/native.py.  An engine processes as many images concurrently as it has
// execution contexts; further callers wait.
#include <chrono>
#include <exception>
#include <string>

#include "network.h"

namespace dasnet {
namespace {

// Reads weights in the order in which packed_weights (model/engine/native.py) writes them.
class WeightReader {
  public:
    WeightReader(const float *at, size_t count) : at_(at), end_(at + count) {}

    std::vector<float> take(size_t count) {
        if ((size_t)(end_ - at_) < count) throw std::length_error("too few weights");
        std::vector<float> values(at_, at_ + count);
        at_ += count;
        return values;
    }

    bool is_at_end() const { return at_ == end_; }

  private:
    const float *at_, *end_;
};

size_t kernels_size(int inputs) { return (size_t)KERNELS * CHANNELS * inputs * TAPS; }

// Kernels are repacked to `at`, which is advanced past them.
Block read_block(WeightReader &reader, int inputs, float *&at) {
    Block block;
    block.inputs = inputs;
    block.hidden = inputs == COLOURS ? KERNELS : inputs / 4 + 1;
    block.reduce = reader.take((size_t)block.hidden * inputs);
    block.expand = reader.take((size_t)KERNELS * block.hidden);
    block.bias = reader.take(KERNELS);
    const std::vector<float> kernels = reader.take(kernels_size(inputs));
    size_t from = 0;
    for (int k = 0; k < KERNELS; k++)
        for (int out = 0; out < CHANNELS; out++)
            for (int in = 0; in < inputs; in++)
                for (int tap = 0; tap < TAPS; tap++)
                    at[(((size_t)k * inputs + in) * TAPS + tap) * CHANNELS + out] = kernels[from++];
    block.kernels = at;
    at += kernels.size();
    block.gamma = reader.take(CHANNELS);
    block.beta = reader.take(CHANNELS);
    return block;
}

Weights read_weights(WeightReader &reader, int levels, int classes) {
    Weights weights;
    weights.kernels.reserve(kernels_size(COLOURS) + levels * (kernels_size(CHANNELS) + kernels_size(2 * CHANNELS)));
    float *kernels = weights.kernels.data();
    for (int level = 0; level <= levels; level++)
        weights.encoder.push_back(read_block(reader, level ? CHANNELS : COLOURS, kernels));
    for (int stage = 0; stage < levels; stage++) weights.decoder.push_back(read_block(reader, 2 * CHANNELS, kernels));
    for (int stage = 0; stage < levels; stage++) {
        AttentionGate gate;
        constexpr int rows = CHANNELS / 2;
        gate.w_g = Matrix(reader.take((size_t)rows * CHANNELS), rows, CHANNELS, HIDDEN);
        gate.w_x = Matrix(reader.take((size_t)rows * CHANNELS), rows, CHANNELS, HIDDEN);
        gate.psi = reader.take(rows);
        gate.psi.resize(HIDDEN, 0.0f);
        weights.gates.push_back(gate);
    }
    Output &output = weights.output;
    output.classes = classes;
    transform_taps(reader.take((size_t)classes * CHANNELS * TAPS), output);
    output.bias = reader.take(classes);
    output.bias.resize(CLASS_LANES, 0.0f);
    weights.head.taps = Matrix(reader.take((size_t)classes * CHANNELS), classes, CHANNELS, HEAD_COLUMNS);
    weights.head.bias = reader.take(classes);
    if (!reader.is_at_end()) throw std::length_error("too many weights");
    return weights;
}

// The buffers of one image being processed.
struct ExecutionContext {
    std::unique_ptr<Network> network;
    int height = 0, width = 0;
    bool taken = false;

    void resize(int h, int w) {
        if (h == height && w == width) return;
        height = width = 0;  // if allocation fails, the next call retries
        network->resize(h, w);
        height = h;
        width = w;
    }
};

struct Engine {
    Weights weights;
    ThreadPool pool;
    std::vector<ExecutionContext> contexts;
    std::mutex mutex;
    std::condition_variable freed;

    Engine(Weights w, int threads, int count, bool bf16) : weights(std::move(w)), pool(threads), contexts(count) {
        for (ExecutionContext &context : contexts)
            if (bf16)
                context.network = std::make_unique<StoredNetwork<bfloat16>>(weights, pool);
            else
                context.network = std::make_unique<StoredNetwork<float>>(weights, pool);
    }

    // Acquire the first free context; later ones allocate no memory until they are needed.
    ExecutionContext &take() {
        std::unique_lock<std::mutex> lock(mutex);
        auto is_free = [](const ExecutionContext &context) { return !context.taken; };
        auto found = contexts.end();
        freed.wait(lock, [&] { return (found = std::find_if(contexts.begin(), contexts.end(), is_free)) != contexts.end(); });
        found->taken = true;
        return *found;
    }

    void give_back(ExecutionContext &context) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            context.taken = false;
        }
        freed.notify_one();
    }
};

// Scope guard: holds an execution context.
class ContextLease {
  public:
    explicit ContextLease(Engine &engine) : engine_(engine), context_(engine.take()), caller_(engine.pool) {}
    ~ContextLease() { engine_.give_back(context_); }
    ContextLease(const ContextLease &) = delete;
    ExecutionContext *operator->() const { return &context_; }

  private:
    Engine &engine_;
    ExecutionContext &context_;
    ThreadPool::Caller caller_;
};

template <class Element> double peak_macs(double duration_s) {
    using Clock = std::chrono::steady_clock;
    constexpr int rows = BLOCK_TILES, depth = 2 * CHANNELS;
    Buffer<Element> a, b;
    Buffer<float> c;
    a.reserve((size_t)(rows + ROW_PADDING) * depth);
    b.reserve((size_t)depth * CHANNELS);
    c.reserve((size_t)(rows + ROW_PADDING) * CHANNELS);
    [[maybe_unused]] const TileRegisters registers;
    double macs = 0, elapsed_s = 0;
    for (const auto begin = Clock::now(); elapsed_s < duration_s;) {
        for (int repeat = 0; repeat < 1000; repeat++) multiply<CHANNELS>(a.data(), depth, b.data(), depth, c.data(), rows);
        macs += 1000.0 * rows * depth * CHANNELS;
        elapsed_s = std::chrono::duration<double>(Clock::now() - begin).count();
    }
    return macs / elapsed_s;
}

thread_local std::string last_error;

template <class Work> auto guarded(Work work, decltype(work()) failed) {
    try {
        return work();
    } catch (const std::exception &error) {
        last_error = error.what();
        return failed;
    }
}

}  // namespace
}  // namespace dasnet

using namespace dasnet;

extern "C" {

const char *dasnet_error() { return last_error.c_str(); }

int dasnet_lanes() { return LANES; }

// Whether the operating system permits the instructions that the library was built for.
int dasnet_usable() {
#if defined(DASNET_AMX)
    return may_use_tiles();
#else
    return 1;
#endif
}

// Returns null on failure; dasnet_error() gives the reason.
void *dasnet_create(const float *weights, size_t count, int levels, int classes, int threads, int contexts, int bf16) {
    return guarded(
        [&]() -> void * {
            if (levels < 1 || levels > 12 || classes < 1 || classes > MAX_CLASSES || threads < 1 || contexts < 1)
                throw std::invalid_argument("levels must be 1 to 12, classes 1 to 8, threads and contexts at least 1");
            WeightReader reader(weights, count);
            return new Engine(read_weights(reader, levels, classes), threads, contexts, bf16 != 0);
        },
        nullptr);
}

// images (count, 3, height, width) -> logits (count, classes, height, width); returns 0 on success.  Where the coarse logits do
// not exceed `limit` they are the output (sparse.h); minus infinity: nowhere.
int dasnet_run(void *handle, const float *images, int count, int height, int width, float limit, float *logits) {
    return guarded(
        [&] {
            Engine &engine = *static_cast<Engine *>(handle);
            const int multiple = std::min(1 << engine.weights.levels(), MAX_MULTIPLE);
            if (count < 0 || height < multiple || width < multiple || height % multiple || width % multiple)
                throw std::invalid_argument("height and width must be multiples of " + std::to_string(multiple));
            const ContextLease context(engine);
            context->resize(height, width);
            const size_t plane = (size_t)height * width;
            for (int i = 0; i < count; i++)
                context->network->run(images + i * COLOURS * plane, logits + i * engine.weights.output.classes * plane, limit);
            return 0;
        },
        1);
}

// Average time of each stage in seconds over `rounds` runs of one image, for scripts/bench_native_stages.py.  `seconds` holds
// 3 * levels + 2 values.  Returns 0 on success.
int dasnet_time_stages(void *handle, const float *image, int height, int width, int rounds, double *seconds) {
    return guarded(
        [&] {
            using Clock = std::chrono::steady_clock;
            Engine &engine = *static_cast<Engine *>(handle);
            const int stages = 3 * engine.weights.levels() + 2;
            const ContextLease context(engine);
            context->resize(height, width);
            std::vector<float> logits((size_t)engine.weights.output.classes * height * width);
            context->network->run(image, logits.data());  // warm-up
            std::fill(seconds, seconds + stages, 0.0);
            for (int round = 0; round < rounds; round++) {
                auto begin = Clock::now();
                context->network->run(image, logits.data(), EVERYWHERE, [&](int stage) {
                    const auto now = Clock::now();
                    seconds[stage] += std::chrono::duration<double>(now - begin).count() / rounds;
                    begin = now;
                });
            }
            return 0;
        },
        1);
}

// Multiply-accumulate operations per second of one thread in the matrix-product kernel with operands in cache: the peak that
// stages are compared with.
double dasnet_peak_macs(int bf16, double duration_s) {
    return bf16 ? peak_macs<bfloat16>(duration_s) : peak_macs<float>(duration_s);
}

void dasnet_destroy(void *handle) { delete static_cast<Engine *>(handle); }
}
