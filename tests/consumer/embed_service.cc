// A small service: reads sentences as lines of token ids, answers each with its embedding. Two workers share one model.
//   embed_service model.onnx < ids.txt
#include <chrono>
#include <iostream>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "sprun/sprun.h"

namespace {

std::mutex io_mutex;
int next_line = 0;

// The next request, or false at the end of the input.
bool read_request(int* line, std::vector<int64_t>* ids) {
  const std::lock_guard lock(io_mutex);
  std::string text;
  if (!std::getline(std::cin, text)) return false;
  *line = next_line++;
  std::istringstream words(text);
  ids->clear();
  for (int64_t id = 0; words >> id;) ids->push_back(id);
  return true;
}

void answer(int line, const std::string& text) {
  const std::lock_guard lock(io_mutex);
  std::cout << line << ": " << text << "\n";
}

sprun::Result<std::string> embed(sprun::Session& session, const std::vector<int64_t>& ids) {
  const sprun::Shape shape = {1, static_cast<int64_t>(ids.size())};
  const std::vector<int64_t> ones(ids.size(), 1), zeros(ids.size(), 0);
  // The session reads the vectors where they are: no copies.
  SPRUN_TRY(session.bind_input("input_ids", {ids.data(), sprun::DType::kS64, shape}));
  SPRUN_TRY(session.bind_input("attention_mask", {ones.data(), sprun::DType::kS64, shape}));
  SPRUN_TRY(session.bind_input("token_type_ids", {zeros.data(), sprun::DType::kS64, shape}));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  SPRUN_TRY(session.run({.stop = {}, .deadline = deadline}));
  SPRUN_ASSIGN(const sprun::ConstTensorView embedding, session.output("sentence_embedding"));
  std::ostringstream text;
  for (int64_t i = 0; i < embedding.num_elements(); ++i) text << (i > 0 ? " " : "") << embedding.as<float>()[i];
  return text.str();
}

void work(std::shared_ptr<const sprun::Model> model) {
  auto session = sprun::Session::create(model, {.num_threads = 1}).value();
  int line = 0;
  for (std::vector<int64_t> ids; read_request(&line, &ids);) {
    const auto result = embed(session, ids);
    answer(line, result.ok() ? *result : "error: " + result.status().message());
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) throw sprun::Error(sprun::Code::kUsage, "usage: embed_service MODEL.onnx");
  const auto model = sprun::Model::load(argv[1]).value();  // .value() throws sprun::Error
  std::jthread first(work, model), second(work, model);
  return 0;
} catch (const sprun::Error& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
