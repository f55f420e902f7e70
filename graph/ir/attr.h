// Attributes of a node: a small name -> value map with typed getters that take the default.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "sprun/tensor.h"

namespace sprun::graph {

class Graph;

using Attr = std::variant<int64_t, float, std::string, std::vector<int64_t>, std::vector<float>,
                          std::vector<std::string>, Tensor, std::shared_ptr<const Graph>>;

// Insertion-ordered. A getter returns the default when the name is absent or has another type: the importer
// checks types against nothing, so an op that must have an attribute asks find() and reports.
class AttrMap {
 public:
  const Attr* find(std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }
  void set(std::string name, Attr value);
  void erase(std::string_view name);

  int64_t get_int(std::string_view name, int64_t fallback) const;
  float get_float(std::string_view name, float fallback) const;
  std::string_view get_string(std::string_view name, std::string_view fallback) const;
  // Empty when absent.
  const std::vector<int64_t>& get_ints(std::string_view name) const;
  const std::vector<float>& get_floats(std::string_view name) const;
  // nullptr when absent.
  const Tensor* get_tensor(std::string_view name) const;
  std::shared_ptr<const Graph> get_graph(std::string_view name) const;

  const std::vector<std::pair<std::string, Attr>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, Attr>> items_;
};

// A stable text form for printing and for common-subexpression keys. Tensors print dtype, shape and a
// content hash; subgraphs print their address.
std::string to_string(const Attr& attr);

}  // namespace sprun::graph
