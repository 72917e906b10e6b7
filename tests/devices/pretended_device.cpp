// A device on a machine without one: its tensors lie in the memory of the CPU, which computes with them.
//
// What differs from the CPU is what differs on a GPU. Tensors of two devices do not mix, except for single
// numbers. A backward runs in a thread of its own. What a GPU would make Python wait for is noted: reads of
// values, and copies from and to the CPU.

#include <torch/extension.h>

#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace {

constexpr auto kDevice = c10::DeviceType::PrivateUse1;
constexpr auto kKey = c10::DispatchKey::PrivateUse1;

std::mutex lock;  // a backward reads in another thread
std::vector<std::string> reads;

void note_read(const std::string& name) {
  const std::lock_guard<std::mutex> guard(lock);
  reads.push_back(name);
}

// ---- memory ----

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr own = c10::GetCPUAllocator()->allocate(bytes);
    void* data = own.get();
    auto* held = new c10::DataPtr(std::move(own));
    return {data, held, &release, c10::Device(kDevice, 0)};
  }
  static void release(void* held) { delete static_cast<c10::DataPtr*>(held); }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Memory memory;

void lie_as(const at::Tensor& t, const at::Tensor& other) {
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(other.sizes(), other.strides());
  impl->set_storage_offset(other.storage_offset());
  if (other.is_complex()) impl->_set_conj(other.is_conj());
  impl->_set_neg(other.is_neg());
}

// A tensor of the same memory on another device.
at::Tensor elsewhere(const at::Tensor& t, c10::Device device, c10::DispatchKey key, c10::Allocator* allocator) {
  const c10::Storage& storage = t.storage();
  auto* held = new c10::Storage(storage);
  c10::DataPtr data(
      const_cast<void*>(storage.data()), held, [](void* p) { delete static_cast<c10::Storage*>(p); }, device);
  c10::Storage own(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), allocator, true);
  auto result = at::detail::make_tensor<c10::TensorImpl>(std::move(own), c10::DispatchKeySet(key), t.dtype());
  lie_as(result, t);
  return result;
}

at::Tensor on_host(const at::Tensor& t) {
  return elsewhere(t, c10::Device(c10::kCPU), c10::DispatchKey::CPU, c10::GetCPUAllocator());
}

at::Tensor here(const at::Tensor& t) { return elsewhere(t, c10::Device(kDevice, 0), kKey, &memory); }

bool is_here(const at::Tensor& t) { return t.defined() && t.device().type() == kDevice; }

// ---- calls ----

struct Moved {
  at::Tensor here;
  at::Tensor host;
};

// The arguments of a call, on the host.
struct Arguments {
  std::vector<Moved> moved;
  std::vector<at::Tensor> others;

  at::Tensor operator()(const at::Tensor& t) {
    if (!is_here(t)) {
      if (t.defined()) others.push_back(t);
      return t;
    }
    for (const Moved& each : moved) {
      if (each.here.unsafeGetTensorImpl() == t.unsafeGetTensorImpl()) return each.host;
    }
    moved.push_back({t, on_host(t)});
    return moved.back().host;
  }

  // A result on the device: an argument that was written to, a view of one, or a tensor of its own.
  at::Tensor back(const at::Tensor& t) {
    if (!t.defined() || t.device().type() == kDevice || !t.has_storage()) return t;
    for (const Moved& each : moved) {
      if (each.host.unsafeGetTensorImpl() == t.unsafeGetTensorImpl()) return each.here;
    }
    for (const Moved& each : moved) {
      if (each.host.storage().unsafeGetStorageImpl() == t.storage().unsafeGetStorageImpl()) {
        auto view = at::detail::make_tensor<c10::TensorImpl>(
            c10::TensorImpl::VIEW, c10::Storage(each.here.storage()), each.here.key_set(), t.dtype());
        lie_as(view, t);
        return view;
      }
    }
    return here(t);
  }
};

const std::set<std::string> reading = {
    "aten::_local_scalar_dense", "aten::equal",       "aten::nonzero",       "aten::masked_select",
    "aten::_unique2",            "aten::unique_dim",  "aten::bincount",      "aten::unique_consecutive",
    "aten::repeat_interleave",   "aten::_unique",
};

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string& name = schema.name();
  const size_t count = schema.arguments().size(), first = stack->size() - count;
  Arguments arguments;
  bool asked_for_device = false;
  bool has_indices_of_cpu = false, writes_to_cpu = false;
  for (size_t i = 0; i < count; ++i) {
    c10::IValue& value = (*stack)[first + i];
    if (value.isTensor()) {
      const auto* alias = schema.arguments()[i].alias_info();
      writes_to_cpu |= alias && alias->isWrite() && !is_here(value.toTensor());
      value = arguments(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> moved;
      for (const at::Tensor& t : value.toTensorVector()) moved.push_back(arguments(t));
      value = moved;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> moved;
      for (const auto& each : value.toOptionalTensorList()) {
        std::optional<at::Tensor> t = each;
        if (t.has_value() && is_here(*t) && (t->scalar_type() == at::kBool || t->scalar_type() == at::kByte)) {
          note_read(name + " by a mask");
        }
        const bool index_of_cpu = t.has_value() && t->defined() && !is_here(*t);
        has_indices_of_cpu |= index_of_cpu;
        moved.push_back(t.has_value() && !index_of_cpu ? std::optional<at::Tensor>(arguments(*t)) : t);
      }
      value = moved;
    } else if (value.isDevice() && value.toDevice().type() == kDevice) {
      value = c10::Device(c10::kCPU);
      asked_for_device = true;
    }
  }
  for (const at::Tensor& other : arguments.others) {
    TORCH_CHECK(
        arguments.moved.empty() || (other.dim() == 0 && !writes_to_cpu),
        "Expected all tensors to be on the same device, but ", name, " got a tensor of shape ", other.sizes(), " on ",
        other.device(), " beside one on ", c10::Device(kDevice, 0));
  }
  // A GPU takes indices on the CPU, and copies them.
  if (has_indices_of_cpu && !arguments.moved.empty()) note_read(name + " by indices on the CPU");
  if (reading.count(name)) note_read(name);
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  const bool is_result_here = !arguments.moved.empty() || asked_for_device;
  for (size_t i = stack->size() - schema.returns().size(); is_result_here && i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = arguments.back(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<at::Tensor> moved;
      for (const at::Tensor& t : value.toTensorVector()) moved.push_back(arguments.back(t));
      value = moved;
    }
  }
  // What was resized, as an empty `out` is, has other memory.
  for (const Moved& each : arguments.moved) {
    if (each.host.sizes() == each.here.sizes() && each.host.storage().data() == each.here.storage().data()) continue;
    each.here.unsafeGetTensorImpl()->set_storage_keep_dtype(here(each.host).storage());
    lie_as(each.here, each.host);
  }
}

at::Tensor empty(
    c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(
      C10_AS_INTARRAYREF_SLOW(size), &memory, c10::DispatchKeySet(kKey), c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(
    c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
    std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory, c10::DispatchKeySet(kKey),
      c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (is_here(from) != is_here(to)) note_read(is_here(to) ? "a copy from the CPU" : "a copy to the CPU");
  (is_here(to) ? on_host(to) : to).copy_(is_here(from) ? on_host(from) : from);
  return to;
}

at::Tensor& set_part(
    at::Tensor& self, at::Storage source, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(source));
  impl->set_storage_offset(offset.expect_int());
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
  return self;
}

at::Tensor& set_whole(at::Tensor& self, at::Storage source) {
  const auto count = c10::SymInt(static_cast<int64_t>(source.nbytes() / self.itemsize()));
  return set_part(self, std::move(source), 0, {count}, {c10::SymInt(1)});
}

// Torch has its own names for the convolutions of other devices.

at::Tensor convolution(
    const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups) {
  TORCH_CHECK(
      is_here(x) && is_here(weight) && (!bias || !bias->defined() || is_here(*bias)),
      "Expected all tensors to be on the same device, but a convolution got others");
  std::optional<at::Tensor> b = bias && bias->defined() ? std::optional(on_host(*bias)) : std::nullopt;
  return here(at::convolution_symint(
      on_host(x), on_host(weight), b, stride, padding, dilation, transposed, output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& weight, c10::SymIntArrayRef stride,
    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
    c10::SymInt groups, std::array<bool, 3> wanted) {
  TORCH_CHECK(
      is_here(gradient) && is_here(x) && is_here(weight),
      "Expected all tensors to be on the same device, but a convolution got others");
  const std::array<c10::SymInt, 1> outputs{transposed ? weight.sym_size(1) * groups : weight.sym_size(0)};
  auto [of_x, of_weight, of_bias] = at::convolution_backward_symint(
      on_host(gradient), on_host(x), on_host(weight), c10::SymIntArrayRef(outputs), stride, padding, dilation, transposed,
      output_padding, groups, wanted);
  auto back = [](const at::Tensor& t) { return t.defined() ? here(t) : t; };
  return {back(of_x), back(of_weight), back(of_bias)};
}

// ---- the device ----

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kDevice; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Device getDevice() const override { return {kDevice, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isAvailable() const override { return true; }
};

Hooks hooks;

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("set_.source_Storage", &set_whole);
  m.impl("set_.source_Storage_storage_offset", &set_part);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  c10::SetAllocator(kDevice, &memory, 1);
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.def("reads", [] {
    const std::lock_guard<std::mutex> guard(lock);
    return reads;
  });
  m.def("forget", [] {
    const std::lock_guard<std::mutex> guard(lock);
    reads.clear();
  });
}

// A copy resolves what is conjugated or negated. Torch would make a copy first, without end.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
