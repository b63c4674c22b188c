// The C interface, called through ctypes by model/native_backend.py.  Of an engine, as many threads as it has lanes run
// pictures at once; more wait.
#include <exception>
#include <string>

#include "network.h"

namespace dasnet {
namespace {

class WeightReader {  // of the weights in the order in which native_backend.packed_weights writes them
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

// Its kernels are put where `at` points, which then points behind them.
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
        gate.w_g = Matrix(reader.take((size_t)HIDDEN * CHANNELS), HIDDEN, CHANNELS, HIDDEN);
        gate.w_x = Matrix(reader.take((size_t)HIDDEN * CHANNELS), HIDDEN, CHANNELS, HIDDEN);
        gate.psi = reader.take(HIDDEN);
        weights.gates.push_back(gate);
    }
    Output &output = weights.output;
    output.classes = classes;
    transform_taps(reader.take((size_t)classes * CHANNELS * TAPS), output);
    output.bias = reader.take(classes);
    output.bias.resize(CLASS_LANES, 0.0f);
    if (!reader.is_at_end()) throw std::length_error("too many weights");
    return weights;
}

// The memory of one picture under way.
struct ExecutionContext {
    std::unique_ptr<Network> network;
    int height = 0, width = 0;
    bool taken = false;

    void resize(int h, int w) {
        if (h == height && w == width) return;
        height = width = 0;  // should memory be short, the next call starts anew
        network->resize(h, w);
        height = h;
        width = w;
    }
};

struct Engine {
    Weights weights;
    ThreadPool pool;
    std::vector<ExecutionContext> lanes;
    std::mutex mutex;
    std::condition_variable freed;

    Engine(Weights w, int threads, int count, bool bf16) : weights(std::move(w)), pool(threads), lanes(count) {
        for (ExecutionContext &lane : lanes)
            if (bf16)
                lane.network = std::make_unique<StoredNetwork<bfloat16>>(weights, pool);
            else
                lane.network = std::make_unique<StoredNetwork<float>>(weights, pool);
    }

    // The first that is free, so that the others take no memory before they are needed.
    ExecutionContext &take() {
        std::unique_lock<std::mutex> lock(mutex);
        auto is_free = [](const ExecutionContext &lane) { return !lane.taken; };
        auto found = lanes.end();
        freed.wait(lock, [&] { return (found = std::find_if(lanes.begin(), lanes.end(), is_free)) != lanes.end(); });
        found->taken = true;
        return *found;
    }

    void give_back(ExecutionContext &lane) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            lane.taken = false;
        }
        freed.notify_one();
    }
};

// One picture after another, in a lane of the engine.
class Run {
  public:
    explicit Run(Engine &engine) : engine_(engine), lane_(engine.take()), caller_(engine.pool) {}
    ~Run() { engine_.give_back(lane_); }
    Run(const Run &) = delete;
    ExecutionContext *operator->() const { return &lane_; }

  private:
    Engine &engine_;
    ExecutionContext &lane_;
    ThreadPool::Caller caller_;
};

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

// Whether the system lets this process use what the library was built for.
int dasnet_usable() {
#if defined(DASNET_AMX)
    return may_use_tiles();
#else
    return 1;
#endif
}

// Null where it fails; dasnet_error says why.
void *dasnet_create(const float *weights, size_t count, int levels, int classes, int threads, int lanes,
                    int bf16) {
    return guarded(
        [&]() -> void * {
            if (levels < 1 || levels > 12 || classes < 1 || classes > MAX_CLASSES || threads < 1 || lanes < 1)
                throw std::invalid_argument("levels 1 to 12, classes 1 to 8, threads and lanes 1 and more are allowed");
            WeightReader reader(weights, count);
            return new Engine(read_weights(reader, levels, classes), threads, lanes, bf16 != 0);
        },
        nullptr);
}

// images (count, 3, height, width) -> logits (count, classes, height, width).  0: done.
int dasnet_run(void *handle, const float *images, int count, int height, int width, float *logits) {
    return guarded(
        [&] {
            Engine &engine = *static_cast<Engine *>(handle);
            const int multiple = std::min(1 << engine.weights.levels(), MAX_MULTIPLE);
            if (count < 0 || height < multiple || width < multiple || height % multiple || width % multiple)
                throw std::invalid_argument("sides that are multiples of " + std::to_string(multiple) + " are allowed");
            const Run run(engine);
            run->resize(height, width);
            const size_t plane = (size_t)height * width;
            for (int i = 0; i < count; i++)
                run->network->run(images + i * COLOURS * plane, logits + i * engine.weights.output.classes * plane);
            return 0;
        },
        1);
}

void dasnet_destroy(void *handle) { delete static_cast<Engine *>(handle); }
}
