// A thread pool for parallel loops.  Indices are scheduled dynamically, but each index computes the same values and sums are
// reduced in index order, so results do not depend on the number of threads.
//
// Several images may be processed concurrently, each by a calling thread.  Callers count towards the pool's size: a single
// image uses all threads, and two images on two threads use one each, without synchronising at the end of every loop.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dasnet {

class ThreadPool {
  public:
    explicit ThreadPool(int threads) : size_(threads) {
        for (int worker = 1; worker < threads; worker++) threads_.emplace_back([this, worker] { serve(worker); });
    }

    ~ThreadPool() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stopping_ = true;
        }
        begun_.notify_all();
        for (auto &thread : threads_) thread.join();
    }

    int size() const { return size_; }

    // Scope guard: an image is being processed while an object exists.
    class Caller {
      public:
        explicit Caller(ThreadPool &pool) : pool_(pool) { pool_.callers_.fetch_add(1); }
        ~Caller() {
            {
                std::lock_guard<std::mutex> lock(pool_.mutex_);
                pool_.callers_.fetch_sub(1);
            }
            pool_.begun_.notify_all();
        }
        Caller(const Caller &) = delete;

      private:
        ThreadPool &pool_;
    };

    // Call work(index, worker) for every index < count; requires a Caller.  worker < size() selects the thread's scratch memory.
    void run(int count, const std::function<void(int, int)> &work) {
        Job job{work, count};
        if (count < 2 || size_ == 1) return take(job, 0);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            jobs_.push_back(&job);
            posted_.fetch_add(1, std::memory_order_release);
        }
        if (helps(1)) begun_.notify_all();
        take(job, 0);
        {
            std::lock_guard<std::mutex> lock(mutex_);
            jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
        }
        for (int spin = 0; job.helpers.load(std::memory_order_acquire) && spin < SPINS; spin++) pause();
        std::unique_lock<std::mutex> lock(mutex_);
        ended_.wait(lock, [&job] { return job.helpers.load(std::memory_order_acquire) == 0; });
    }

  private:
    struct Job {
        const std::function<void(int, int)> &work;
        const int count;
        std::atomic<int> next{0}, helpers{0};
    };

    static constexpr int SPINS = 4000;  // tens of microseconds, shorter than waking a sleeping thread

    static void pause() { __builtin_ia32_pause(); }

    bool helps(int worker) const { return worker <= size() - callers_.load(std::memory_order_relaxed); }

    void take(Job &job, int worker) {
        while (!worker || helps(worker)) {
            const int index = job.next.fetch_add(1, std::memory_order_relaxed);
            if (index >= job.count) return;
            job.work(index, worker);
        }
    }

    // The job with the fewest helpers that has indices left; call with the mutex held.
    Job *job_for(int worker) const {
        Job *best = nullptr;
        for (Job *job : jobs_)
            if (job->next.load(std::memory_order_relaxed) < job->count && (!best || job->helpers < best->helpers)) best = job;
        return helps(worker) ? best : nullptr;
    }

    void serve(int worker) {
        unsigned seen = 0;
        for (;;) {
            for (int spin = 0; posted_.load(std::memory_order_acquire) == seen && helps(worker) && spin < SPINS; spin++)
                pause();
            Job *job = nullptr;
            {
                std::unique_lock<std::mutex> lock(mutex_);
                begun_.wait(lock, [&] { return stopping_ || (job = job_for(worker)); });
                if (stopping_) return;
                seen = posted_.load(std::memory_order_relaxed);
                job->helpers.fetch_add(1, std::memory_order_relaxed);
            }
            take(*job, worker);
            if (job->helpers.fetch_sub(1, std::memory_order_acq_rel) == 1) {  // the job may be destroyed from here on
                std::lock_guard<std::mutex> lock(mutex_);
                ended_.notify_all();
            }
        }
    }

    const int size_;  // including one caller
    std::mutex mutex_;
    std::condition_variable begun_, ended_;
    std::vector<Job *> jobs_;  // of the images being processed
    bool stopping_ = false;
    std::atomic<int> callers_{0};
    std::atomic<unsigned> posted_{0};
    std::vector<std::thread> threads_;
};

}  // namespace dasnet
