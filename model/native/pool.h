// Threads that share a loop.  Which thread takes which index is left open; what an index computes is not: sums are kept
// an index and added up in order, so that a result does not depend on the number of threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

class Pool {
  public:
    explicit Pool(int threads) {
        for (int worker = 1; worker < threads; worker++) threads_.emplace_back([this, worker] { serve(worker); });
    }

    ~Pool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        begun_.notify_all();
        for (auto &thread : threads_) thread.join();
    }

    int size() const { return (int)threads_.size() + 1; }

    // work(index, worker) for every index below count; worker < size() numbers the thread, for its scratch memory.
    void run(int count, const std::function<void(int, int)> &work) {
        if (threads_.empty() || count < 2) {
            for (int index = 0; index < count; index++) work(index, 0);
            return;
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            work_ = &work;
            count_ = count;
            next_.store(0, std::memory_order_relaxed);
            busy_.store((int)threads_.size(), std::memory_order_relaxed);
            round_.fetch_add(1, std::memory_order_release);
        }
        begun_.notify_all();
        take(work, count, 0);
        for (int spin = 0; busy_.load(std::memory_order_acquire) && spin < SPINS; spin++) pause();
        std::unique_lock<std::mutex> lock(mutex_);
        ended_.wait(lock, [this] { return busy_.load(std::memory_order_acquire) == 0; });
    }

  private:
    static constexpr int SPINS = 4000;  // some tens of microseconds: a stage takes longer than a sleeping thread's wake-up

    static void pause() { __builtin_ia32_pause(); }

    void take(const std::function<void(int, int)> &work, int count, int worker) {
        for (int index; (index = next_.fetch_add(1, std::memory_order_relaxed)) < count;) work(index, worker);
    }

    void serve(int worker) {
        unsigned seen = 0;
        for (;;) {
            for (int spin = 0; round_.load(std::memory_order_acquire) == seen && spin < SPINS; spin++) pause();
            const std::function<void(int, int)> *work;
            int count;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                begun_.wait(lock, [&] { return stopping_ || round_.load(std::memory_order_relaxed) != seen; });
                if (stopping_) return;
                seen = round_.load(std::memory_order_relaxed);
                work = work_;
                count = count_;
            }
            take(*work, count, worker);
            if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
                std::lock_guard<std::mutex> lock(mutex_);
                ended_.notify_one();
            }
        }
    }

    std::vector<std::thread> threads_;
    std::mutex mutex_;
    std::condition_variable begun_, ended_;
    const std::function<void(int, int)> *work_ = nullptr;
    int count_ = 0;
    bool stopping_ = false;
    std::atomic<int> next_{0}, busy_{0};
    std::atomic<unsigned> round_{0};
};
