#include "graph/ir/attr.h"

#include <cstdio>

namespace sprun::graph {

const Attr* AttrMap::find(std::string_view name) const {
  for (const auto& [key, value] : items_) {
    if (key == name) return &value;
  }
  return nullptr;
}

void AttrMap::set(std::string name, Attr value) {
  for (auto& item : items_) {
    if (item.first == name) {
      item.second = std::move(value);
      return;
    }
  }
  items_.emplace_back(std::move(name), std::move(value));
}

void AttrMap::erase(std::string_view name) {
  std::erase_if(items_, [&](const auto& item) { return item.first == name; });
}

namespace {
template <class T>
const T* get_if(const AttrMap& map, std::string_view name) {
  const Attr* attr = map.find(name);
  return attr ? std::get_if<T>(attr) : nullptr;
}

template <class T>
const std::vector<T>& get_list(const AttrMap& map, std::string_view name) {
  static const std::vector<T> empty;
  const auto* list = get_if<std::vector<T>>(map, name);
  return list ? *list : empty;
}

uint64_t hash_bytes(const void* data, int64_t size) {
  const auto* p = static_cast<const unsigned char*>(data);
  uint64_t h = 14695981039346656037ull;
  for (int64_t i = 0; i < size; ++i) h = (h ^ p[i]) * 1099511628211ull;
  return h;
}

template <class T>
std::string list_to_string(const std::vector<T>& list) {
  std::string text = "[";
  for (const T& item : list) {
    if (text.size() > 1) text += ',';
    text += to_string(Attr(item));
  }
  return text + "]";
}
}  // namespace

int64_t AttrMap::get_int(std::string_view name, int64_t fallback) const {
  const auto* v = get_if<int64_t>(*this, name);
  return v ? *v : fallback;
}

float AttrMap::get_float(std::string_view name, float fallback) const {
  const auto* v = get_if<float>(*this, name);
  return v ? *v : fallback;
}

std::string_view AttrMap::get_string(std::string_view name, std::string_view fallback) const {
  const auto* v = get_if<std::string>(*this, name);
  return v ? std::string_view(*v) : fallback;
}

const std::vector<int64_t>& AttrMap::get_ints(std::string_view name) const { return get_list<int64_t>(*this, name); }
const std::vector<float>& AttrMap::get_floats(std::string_view name) const { return get_list<float>(*this, name); }
const Tensor* AttrMap::get_tensor(std::string_view name) const { return get_if<Tensor>(*this, name); }

std::shared_ptr<const Graph> AttrMap::get_graph(std::string_view name) const {
  const auto* v = get_if<std::shared_ptr<const Graph>>(*this, name);
  return v ? *v : nullptr;
}

std::string to_string(const Attr& attr) {
  struct Printer {
    std::string operator()(int64_t v) const { return std::to_string(v); }
    std::string operator()(float v) const {
      char buffer[32];
      std::snprintf(buffer, sizeof(buffer), "%.9g", static_cast<double>(v));
      return buffer;
    }
    std::string operator()(const std::string& v) const { return '"' + v + '"'; }
    std::string operator()(const std::vector<int64_t>& v) const { return list_to_string(v); }
    std::string operator()(const std::vector<float>& v) const { return list_to_string(v); }
    std::string operator()(const std::vector<std::string>& v) const { return list_to_string(v); }
    std::string operator()(const Tensor& v) const {
      char buffer[64];
      std::snprintf(buffer, sizeof(buffer), "#%016llx",
                    static_cast<unsigned long long>(hash_bytes(v.data(), v.size_bytes())));
      return std::string(dtype_name(v.dtype())) + v.shape().to_string() + buffer;
    }
    std::string operator()(const std::shared_ptr<const Graph>& v) const {
      char buffer[32];
      std::snprintf(buffer, sizeof(buffer), "graph@%p", static_cast<const void*>(v.get()));
      return buffer;
    }
  };
  return std::visit(Printer{}, attr);
}

}  // namespace sprun::graph
