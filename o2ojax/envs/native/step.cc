// MuJoCo's C library, called by XLA: one decision of a batch of environments.
//
// A row of the batch is a state (qpos, qvel, act, warm start), its control and the index
// of its model, as float32; the answer is the state after `frame_skip` steps and the
// positions of the tracked bodies. The numbers are those of `physics.host_step`.

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
#include <thread>
#include <unordered_map>
#include <vector>

#include "mujoco/mujoco.h"
#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Ours alone in this thread, while it steps; MuJoCo's own Python package uses it, too.
extern "C" __attribute__((weak)) mjfLogHandler _mjPRIVATE_setTlsLogHandler(mjfLogHandler);

namespace {

namespace ffi = xla::ffi;

// An error of MuJoCo leaves its C code by a jump, since the default is to exit.
thread_local std::jmp_buf* on_error = nullptr;
thread_local char message[1024];

void heed(const mjLogMessage* told) {
  if (told->level == mjLOG_ERROR && on_error) {
    std::strncpy(message, told->subject, sizeof(message) - 1);
    std::longjmp(*on_error, 1);
  }
  _mjPRIVATE_setTlsLogHandler(nullptr);  // a warning goes where it would have gone
  mju_message(told);
  _mjPRIVATE_setTlsLogHandler(heed);
}

// XLA's threads flush denormal numbers to zero, and others do not: here, none does.
class PlainArithmetic {
#if defined(__x86_64__)
 public:
  PlainArithmetic() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~0x8040u); }
  ~PlainArithmetic() { _mm_setcsr(before_); }

 private:
  unsigned before_;
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
    return mj_makeData(models_[0]);
  }

  void give_back(mjData* data) {
    std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(data);
  }

  // One decision. Returns nullptr, or what MuJoCo says went wrong.
  const char* step(mjData* data, const float* in, float* out) const {
    const mjModel* m = models_[static_cast<size_t>(in[width_in() - 1])];
    in = read(in, data->qpos, m->nq);
    in = read(in, data->qvel, m->nv);
    in = read(in, data->act, m->na);
    in = read(in, data->qacc_warmstart, m->nv);
    read(in, data->ctrl, m->nu);
    std::jmp_buf here;
    on_error = &here;
    if (setjmp(here)) {
      on_error = nullptr;
      return message;
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
    return nullptr;
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
struct Call {
  Simulation* simulation;
  const float* in;
  float* out;
  int64_t num_rows, chunk;
  std::atomic<int64_t> next{0};
  std::atomic<int> inside{0};  // helpers at work
  std::mutex mutex;
  std::string error;

  bool has_work() const { return next.load(std::memory_order_relaxed) < num_rows; }

  void work() {
    PlainArithmetic plain;
    mjfLogHandler before = nullptr;
    if (_mjPRIVATE_setTlsLogHandler) before = _mjPRIVATE_setTlsLogHandler(heed);
    mjData* data = simulation->borrow();
    const char* failed = nullptr;
    while (!failed) {
      int64_t row = next.fetch_add(chunk), end = std::min(row + chunk, num_rows);
      if (row >= num_rows) break;
      for (; row < end && !failed; ++row) {
        failed = simulation->step(data, in + row * simulation->width_in(),
                                  out + row * simulation->width_out());
      }
    }
    if (failed) {
      std::lock_guard<std::mutex> lock(mutex);
      error = failed;
      next = num_rows;
      mj_deleteData(data);  // what it was left in is not known
    } else {
      simulation->give_back(data);
    }
    if (_mjPRIVATE_setTlsLogHandler) _mjPRIVATE_setTlsLogHandler(before);
  }
};

// Threads that help whoever calls. One that sleeps takes some 40 us to come, so where
// calls follow each other closely, as in random play, it stays awake between them.
class Helpers {
 public:
  explicit Helpers(int num) : num_(num) {
    for (int i = 0; i < num; ++i) std::thread([this] { live(); }).detach();
  }

  void run(Call& call) {
    bool alone = num_ == 0 || call.num_rows <= call.chunk;
    if (!alone) {
      std::lock_guard<std::mutex> lock(mutex_);
      calls_.push_back(&call);
      came_.store(Clock::now());
      ++news_;
    }
    if (!alone && asleep_.load() > 0) wake_.notify_all();
    call.work();
    if (alone) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);  // from here on, nobody comes in
      for (auto at = calls_.begin(); at != calls_.end(); ++at) {
        if (*at == &call) {
          calls_.erase(at);
          break;
        }
      }
    }
    while (call.inside.load(std::memory_order_acquire) > 0) std::this_thread::yield();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kClose = std::chrono::microseconds(200);

  void live() {
    bool close = false;
    for (int64_t seen = 0;;) {
      close = wait_for_news(seen, close);
      while (Call* call = enter(seen)) {
        call->work();
        call->inside.fetch_sub(1, std::memory_order_release);
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

  Call* enter(int64_t& seen) {
    std::lock_guard<std::mutex> lock(mutex_);
    seen = news_.load();
    for (Call* call : calls_) {
      if (!call->has_work()) continue;
      call->inside.fetch_add(1, std::memory_order_relaxed);
      return call;
    }
    return nullptr;
  }

  int num_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Call*> calls_;
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
  Call call;
  call.simulation = simulation;
  call.in = in.typed_data();
  call.out = out->typed_data();
  call.num_rows = in.element_count() / given.back();
  call.chunk = std::max<int64_t>(1, call.num_rows / 64);
  lib.helpers->run(call);
  if (call.error.empty()) return ffi::Error::Success();
  return ffi::Error::Internal("MuJoCo: " + call.error);
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
