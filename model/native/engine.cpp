// The C interface, called through ctypes by model/native_backend.py.  One engine is used by one thread at a time.
#include <exception>
#include <string>

#include "network.h"

namespace {

class Reader {  // of the weights in the order in which native_backend.packed_weights writes them
  public:
    Reader(const float *at, size_t count) : at_(at), end_(at + count) {}

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

Block read_block(Reader &reader, int inputs) {
    Block block;
    block.inputs = inputs;
    block.hidden = inputs == COLOURS ? KERNELS : inputs / 4 + 1;
    block.reduce = reader.take((size_t)block.hidden * inputs);
    block.expand = reader.take((size_t)KERNELS * block.hidden);
    block.bias = reader.take(KERNELS);
    const std::vector<float> kernels = reader.take((size_t)KERNELS * CHANNELS * inputs * TAPS);
    block.kernels.resize(kernels.size());
    size_t from = 0;
    for (int k = 0; k < KERNELS; k++)
        for (int out = 0; out < CHANNELS; out++)
            for (int in = 0; in < inputs; in++)
                for (int tap = 0; tap < TAPS; tap++)
                    block.kernels[(((size_t)k * inputs + in) * TAPS + tap) * CHANNELS + out] = kernels[from++];
    block.gain = reader.take(CHANNELS);
    block.offset = reader.take(CHANNELS);
    return block;
}

Weights read_weights(Reader &reader, int levels, int classes) {
    Weights weights;
    for (int level = 0; level <= levels; level++)
        weights.encoder.push_back(read_block(reader, level ? CHANNELS : COLOURS));
    for (int stage = 0; stage < levels; stage++) weights.decoder.push_back(read_block(reader, 2 * CHANNELS));
    for (int stage = 0; stage < levels; stage++) {
        Gate gate;
        gate.of_guide = Matrix(reader.take((size_t)HIDDEN * CHANNELS), HIDDEN, CHANNELS, HIDDEN);
        gate.of_skip = Matrix(reader.take((size_t)HIDDEN * CHANNELS), HIDDEN, CHANNELS, HIDDEN);
        gate.psi = reader.take(HIDDEN);
        weights.gates.push_back(gate);
    }
    Output &output = weights.output;
    output.classes = classes;
    const std::vector<float> taps = reader.take((size_t)classes * CHANNELS * TAPS);  // (classes, CHANNELS, TAPS)
    std::vector<float> rows(taps.size());  // (TAPS, classes, CHANNELS)
    for (int k = 0; k < classes; k++)
        for (int c = 0; c < CHANNELS; c++)
            for (int tap = 0; tap < TAPS; tap++)
                rows[((size_t)tap * classes + k) * CHANNELS + c] = taps[((size_t)k * CHANNELS + c) * TAPS + tap];
    output.taps = Matrix(rows, classes * TAPS, CHANNELS, output.columns());
    output.bias = reader.take(classes);
    output.bias.resize(CLASS_LANES, 0.0f);
    if (!reader.is_at_end()) throw std::length_error("too many weights");
    return weights;
}

struct Engine {
    Weights weights;
    Pool pool;
    std::unique_ptr<Network> network;
    int height = 0, width = 0;

    Engine(Weights w, int threads, bool bf16) : weights(std::move(w)), pool(threads) {
        if (bf16)
            network = std::make_unique<StoredNetwork<bfloat16>>(weights, pool);
        else
            network = std::make_unique<StoredNetwork<float>>(weights, pool);
    }

    void resize(int h, int w) {
        if (h == height && w == width) return;
        height = width = 0;  // should memory be short, the next call starts anew
        network->resize(h, w);
        height = h;
        width = w;
    }
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
void *dasnet_create(const float *weights, size_t count, int levels, int classes, int threads, int bf16) {
    return guarded(
        [&]() -> void * {
            if (levels < 1 || levels > 12 || classes < 1 || classes > MOST_CLASSES || threads < 1)
                throw std::invalid_argument("levels 1 to 12, classes 1 to 8, threads 1 and more are allowed");
            Reader reader(weights, count);
            return new Engine(read_weights(reader, levels, classes), threads, bf16 != 0);
        },
        nullptr);
}

// images (count, 3, height, width) -> logits (count, classes, height, width).  0: done.
int dasnet_run(void *handle, const float *images, int count, int height, int width, float *logits) {
    return guarded(
        [&] {
            Engine &engine = *static_cast<Engine *>(handle);
            const int multiple = std::min(1 << engine.weights.levels(), MOST_MULTIPLE);
            if (count < 0 || height < multiple || width < multiple || height % multiple || width % multiple)
                throw std::invalid_argument("sides that are multiples of " + std::to_string(multiple) + " are allowed");
            engine.resize(height, width);
            const size_t plane = (size_t)height * width;
            for (int i = 0; i < count; i++)
                engine.network->run(images + i * COLOURS * plane, logits + i * engine.weights.output.classes * plane);
            return 0;
        },
        1);
}

void dasnet_destroy(void *handle) { delete static_cast<Engine *>(handle); }
}
