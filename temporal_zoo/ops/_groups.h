// Distributes the groups of rows of one problem over threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

// In `extern "C"`: Python compares the size of a struct with that of its mirror before it passes one.
#define EXPORT_SIZE(Struct) int64_t size_of_##Struct() { return sizeof(Struct); }

extern "C" {

typedef void (*GroupFunction)(const void* problem, int64_t group);
// `GOMP_parallel` of an OpenMP runtime: runs a function once in each of a number of threads.
typedef void (*Parallel)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

// Calls `function` for every group, in up to `threads` threads.  If `parallel` is given, its threads are
// used: torch's threads spin for a while after each operation, and additional threads would wait for a processor.
void run_groups(GroupFunction function, const void* problem, int64_t groups, int64_t threads, Parallel parallel) {
    struct Work {
        GroupFunction function;
        const void* problem;
        int64_t groups;
        std::atomic<int64_t> next{0};
    } work{function, problem, groups};
    auto worker = [](void* data) {
        Work& work = *static_cast<Work*>(data);
        for (int64_t group; (group = work.next++) < work.groups;) work.function(work.problem, group);
    };
    if (threads < 2) return worker(&work);
    if (parallel) return parallel(worker, &work, (unsigned)threads, 0);
    std::vector<std::thread> others;
    for (int64_t i = 1; i < threads; i++) others.emplace_back(worker, &work);
    worker(&work);
    for (std::thread& each : others) each.join();
}
}
