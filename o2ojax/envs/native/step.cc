// MuJoCo's C library, called by XLA: one decision of a batch of environments.
//
// A row of the batch is a state (qpos, qvel, act, warm start), its control and the index
// of its model, as float32; the answer is the state after `frame_skip` steps and the
// positions of the tracked bodies. The numbers are those of `physics.c_physics`.

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>

#include "mujoco/mujoco.h"
#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// This thread's alone. MuJoCo's own Python package needs it, too, and for the same.
extern "C" mjfLogHandler _mjPRIVATE_setTlsLogHandler(mjfLogHandler);

namespace {

namespace ffi = xla::ffi;

// An error of MuJoCo leaves its C code by a jump, since the default is to exit.
thread_local std::jmp_buf* on_error = nullptr;
thread_local mjfLogHandler others = nullptr;  // before ours
thread_local char error_said[1024];

void on_message(const mjLogMessage* told) {
  if (told->level == mjLOG_ERROR && on_error) {
    std::strncpy(error_said, told->subject, sizeof(error_said) - 1);
    std::longjmp(*on_error, 1);
  }
  _mjPRIVATE_setTlsLogHandler(others);  // a warning goes where it would have gone
  mju_message(told);
  _mjPRIVATE_setTlsLogHandler(on_message);
}

// XLA's threads flush denormal numbers to zero, and others do not: here, none does.
class PlainArithmetic {
#if defined(__x86_64__)
 public:
  PlainArithmetic() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~0x8040u); }
  ~PlainArithmetic() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
 public:
  PlainArithmetic() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ & ~(uint64_t{1} << 24)));
  }
  ~PlainArithmetic() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  uint64_t before_;
#else
 public:
  PlainArithmetic() {}
#endif
};

// What XLA, which flushes them, would take for zero, is zero.
double flushed(float x) { return std::fabs(x) < FLT_MIN ? 0.0 * x : x; }

// Models that differ in their numbers only, and workspaces that all of them can use.
class Simulation {
 public:
  Simulation(const mjModel* const* models, int num_models, int frame_skip,
             const int* tracked, int num_tracked)
      : models_(models, models + num_models),
        frame_skip_(frame_skip),
        tracked_(tracked, tracked + num_tracked) {}

  int64_t width_in() const { return width_state() + models_[0]->nu + 1; }
  int64_t width_out() const { return width_state() + 3 * tracked_.size(); }

  mjData* borrow() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!idle_.empty()) {
        mjData* data = idle_.back();
        idle_.pop_back();
        return data;
      }
    }
    std::jmp_buf here;
    on_error = &here;
    mjData* made = setjmp(here) ? nullptr : mj_makeData(models_[0]);
    on_error = nullptr;
    return made;  // nullptr if there is no memory
  }

  void give_back(mjData* data) {
    std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(data);
  }

  // One decision. Returns whether it went well; else `error_said` says why not.
  bool step(mjData* data, const float* in, float* out) const {
    float variant = in[width_in() - 1];
    if (!(variant >= 0 && variant < models_.size())) {
      std::strcpy(error_said, "there is no such variant of the model");
      return false;
    }
    const mjModel* m = models_[static_cast<size_t>(variant)];
    in = read(in, data->qpos, m->nq);
    in = read(in, data->qvel, m->nv);
    in = read(in, data->act, m->na);
    in = read(in, data->qacc_warmstart, m->nv);
    read(in, data->ctrl, m->nu);
    std::jmp_buf here;
    on_error = &here;
    if (setjmp(here)) {
      on_error = nullptr;
      return false;
    }
    for (int i = 0; i < frame_skip_; ++i) mj_step(m, data);
    on_error = nullptr;
    out = write(data->qpos, out, m->nq);
    out = write(data->qvel, out, m->nv);
    out = write(data->act, out, m->na);
    out = write(data->qacc_warmstart, out, m->nv);
    for (int body : tracked_) {  // -1 is the centre of mass
      out = write(body < 0 ? data->subtree_com : data->xpos + 3 * body, out, 3);
    }
    return true;
  }

 private:
  int64_t width_state() const {
    const mjModel* m = models_[0];
    return m->nq + 2 * m->nv + m->na;
  }

  static const float* read(const float* from, mjtNum* to, int64_t size) {
    for (int64_t i = 0; i < size; ++i) to[i] = flushed(from[i]);
    return from + size;
  }

  static float* write(const mjtNum* from, float* to, int64_t size) {
    for (int64_t i = 0; i < size; ++i) to[i] = flushed(static_cast<float>(from[i]));
    return to + size;
  }

  std::vector<const mjModel*> models_;
  int frame_skip_;
  std::vector<int> tracked_;
  std::mutex mutex_;
  std::vector<mjData*> idle_;
};

// Rows to step, of which each thread that takes part takes the next chunk.
struct Batch {
  Simulation* simulation;
  const float* in;
  float* out;
  int64_t num_rows, chunk;
  std::atomic<int64_t> next{0};
  std::atomic<int> inside{0};  // helpers at work
  std::mutex mutex;
  bool failed = false;
  std::string error;

  bool has_work() const { return next.load(std::memory_order_relaxed) < num_rows; }

  void work() {
    PlainArithmetic plain;
    others = _mjPRIVATE_setTlsLogHandler(on_message);
    std::strcpy(error_said, "there is no memory for another simulation");
    mjData* data = simulation->borrow();
    bool well = data != nullptr;
    while (well) {
      int64_t row = next.fetch_add(chunk), end = std::min(row + chunk, num_rows);
      if (row >= num_rows) break;
      for (; row < end && well; ++row) {
        well = simulation->step(data, in + row * simulation->width_in(),
                                out + row * simulation->width_out());
      }
    }
    _mjPRIVATE_setTlsLogHandler(others);
    if (well) {
      simulation->give_back(data);
      return;
    }
    std::lock_guard<std::mutex> lock(mutex);
    failed = true;
    error = error_said;
    next = num_rows;
    if (data) mj_deleteData(data);  // what it was left in is not known
  }
};

// Threads that help whoever calls. One that sleeps takes some 40 us to come, so where
// calls follow each other closely, as in random play, it stays awake between them.
class Helpers {
 public:
  explicit Helpers(int num) {
    try {
      for (; num_ < num; ++num_) std::thread([this] { live(); }).detach();
    } catch (const std::system_error&) {  // as many as may be
    }
  }

  void run(Batch& batch) {
    bool alone = num_ == 0 || batch.num_rows <= batch.chunk;
    if (!alone) {
      std::lock_guard<std::mutex> lock(mutex_);
      batches_.push_back(&batch);
      came_.store(Clock::now());
      ++news_;
    }
    if (!alone && asleep_.load() > 0) wake_.notify_all();
    batch.work();
    if (alone) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);  // from here on, nobody comes in
      for (auto at = batches_.begin(); at != batches_.end(); ++at) {
        if (*at == &batch) {
          batches_.erase(at);
          break;
        }
      }
    }
    while (batch.inside.load(std::memory_order_acquire) > 0) std::this_thread::yield();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kClose = std::chrono::microseconds(200);

  void live() {
    bool close = false;
    for (int64_t seen = 0;;) {
      close = wait_for_news(seen, close);
      while (Batch* batch = enter(seen)) {
        batch->work();
        batch->inside.fetch_sub(1, std::memory_order_release);
      }
    }
  }

  // Returns whether the news came soon, as the next are expected to.
  bool wait_for_news(int64_t seen, bool expect_close) {
    auto begin = Clock::now();
    while (news_.load(std::memory_order_acquire) == seen) {
#if defined(__x86_64__)
      _mm_pause();
#endif
      if (expect_close && Clock::now() - begin < kClose) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      ++asleep_;
      wake_.wait(lock, [&] { return news_.load() != seen; });
      --asleep_;
    }
    return came_.load() - begin < kClose;
  }

  Batch* enter(int64_t& seen) {
    std::lock_guard<std::mutex> lock(mutex_);
    seen = news_.load();
    for (Batch* batch : batches_) {
      if (!batch->has_work()) continue;
      batch->inside.fetch_add(1, std::memory_order_relaxed);
      return batch;
    }
    return nullptr;
  }

  int num_ = 0;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Batch*> batches_;
  std::atomic<int64_t> news_{0};
  std::atomic<Clock::time_point> came_{Clock::time_point()};  // the newest of them
  std::atomic<int> asleep_{0};
};

struct Library {
  Helpers* helpers = nullptr;
  std::mutex mutex;
  std::unordered_map<int64_t, Simulation*> simulations;
};

Library& library() {
  static Library* made = new Library;  // threads may outlive what is static
  return *made;
}

ffi::Error step(ffi::Buffer<ffi::F32> in, ffi::ResultBuffer<ffi::F32> out, int64_t handle) {
  Library& lib = library();
  Simulation* simulation = nullptr;
  {
    std::lock_guard<std::mutex> lock(lib.mutex);
    auto found = lib.simulations.find(handle);
    if (found != lib.simulations.end()) simulation = found->second;
  }
  if (!simulation) return ffi::Error::Internal("no model of this handle is known here");
  auto given = in.dimensions(), asked = out->dimensions();
  if (given.back() != simulation->width_in() || asked.back() != simulation->width_out()) {
    return ffi::Error::Internal("the rows are not those of the model");
  }
  Batch batch;
  batch.simulation = simulation;
  batch.in = in.typed_data();
  batch.out = out->typed_data();
  batch.num_rows = in.element_count() / given.back();
  batch.chunk = std::max<int64_t>(1, batch.num_rows / 64);
  lib.helpers->run(batch);
  if (!batch.failed) return ffi::Error::Success();
  return ffi::Error::Internal("MuJoCo: " + batch.error);
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(Step, step,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("handle"));

extern "C" void start(int num_helpers) {
  Library& lib = library();
  std::lock_guard<std::mutex> lock(lib.mutex);
  if (!lib.helpers) lib.helpers = new Helpers(num_helpers);
}

extern "C" void add(int64_t handle, const mjModel* const* models, int num_models,
                    int frame_skip, const int* tracked, int num_tracked) {
  Library& lib = library();
  std::lock_guard<std::mutex> lock(lib.mutex);
  auto& place = lib.simulations[handle];
  if (!place) place = new Simulation(models, num_models, frame_skip, tracked, num_tracked);
}
