// TfIdfVectorizer: how often each n-gram of a pool occurs in a row of words or numbers, with gaps up to a limit between them.
#include <algorithm>
#include <map>

#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

/// The pool as a tree: a path of words leads to an n-gram's output, -1 where the path is only the beginning of one.
template <class Word> struct Branch {
  std::map<Word, Branch> next;
  int64_t output = -1;
};

struct Settings {
  int64_t shortest, longest, skips, columns;
  bool counts, weighs;  ///< TF: counts; IDF: 1 or 0; TFIDF: counts by weights
  std::vector<double> weights;
};

Settings settings_of(const Node& node, const std::vector<int64_t>& outputs) {
  const std::string mode = node.s("mode", "");
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF") malformed("TfIdfVectorizer in the mode '" + mode + "'");
  Settings s{node.i("min_gram_length", 1), node.i("max_gram_length", 1), node.i("max_skip_count", 0), 0, mode != "IDF", mode != "TF", {}};
  for (int64_t o : outputs) {
    if (o < 0 || o > (int64_t{1} << 40)) malformed("TfIdfVectorizer with the output " + std::to_string(o) + " in ngram_indexes");
    s.columns = std::max(s.columns, o + 1);
  }
  for (float w : node.floats("weights")) s.weights.push_back(w);
  if (s.shortest < 1 || s.longest < s.shortest || s.skips < 0) malformed("TfIdfVectorizer's gram lengths or skips are out of range");
  if (!s.weights.empty() && s.weights.size() != outputs.size()) malformed("TfIdfVectorizer has another number of weights than of n-grams");
  return s;
}

/// `counts` says where in the pool the 1-grams, 2-grams… begin.
template <class Word>
Branch<Word> tree_of(const std::vector<Word>& pool, const std::vector<int64_t>& counts, const std::vector<int64_t>& outputs) {
  Branch<Word> root;
  size_t gram = 0;
  for (size_t n = 1; n <= counts.size(); ++n) {
    const int64_t begin = counts[n - 1], end = n < counts.size() ? counts[n] : static_cast<int64_t>(pool.size());
    if (begin < 0 || end < begin || end > static_cast<int64_t>(pool.size()) || at(end - begin) % n)
      malformed("TfIdfVectorizer's ngram_counts don't fit its pool");
    for (size_t i = at(begin); i < at(end); i += n, ++gram) {
      if (gram >= outputs.size()) malformed("TfIdfVectorizer has more n-grams than ngram_indexes");
      Branch<Word>* branch = &root;
      for (size_t k = 0; k < n; ++k) branch = &branch->next[pool[i + k]];
      branch->output = static_cast<int64_t>(gram);
    }
  }
  return root;
}

/// Calls found(gram) for every n-gram in the row that counts.
template <class Word, class F>
void find_grams(const Branch<Word>& root, const Word* row, int64_t n, const Settings& s, F&& found) {
  const int64_t steps = s.longest == 1 ? 1 : std::min(s.skips, n) + 1;
  for (int64_t step = 1; step <= steps; ++step)
    for (int64_t start = 0; start < n; ++start) {
      const Branch<Word>* branch = &root;
      int64_t place = start;
      for (int64_t length = 1; length <= s.longest; ++length) {
        const auto it = branch->next.find(row[place]);
        if (it == branch->next.end()) break;
        branch = &it->second;
        // Single words don't know gaps: they count once.
        if (branch->output >= 0 && length >= s.shortest && (length > 1 || step == 1)) found(at(branch->output));
        if (step >= n - place) break;
        place += step;
      }
    }
}

template <class Word>
void vectorize(KernelContext& c, const Branch<Word>& root, const std::vector<Word>& words, const Settings& s, const std::vector<int64_t>& outputs) {
  const Tensor& x = c.in(0);
  if (x.rank() > 2) malformed("TfIdfVectorizer of a tensor of shape " + to_string(x.shape()));
  const int64_t rows = x.rank() == 2 ? x.dim(0) : 1, n = x.rank() == 0 ? 1 : x.dim(-1);
  Tensor y = Tensor::zeros(DType::F32, x.rank() == 2 ? Shape{rows, s.columns} : Shape{s.columns});
  for (int64_t r = 0; r < rows; ++r) {
    float* to = y.mutable_data<float>() + r * s.columns;
    std::vector<double> weight(at(s.columns), 1.0);
    find_grams(root, words.data() + r * n, n, s, [&](size_t gram) {
      const int64_t column = outputs[gram];
      if (s.weighs && !s.weights.empty()) weight[at(column)] = s.weights[gram];
      to[column] = s.counts ? to[column] + 1 : 1;
    });
    for (int64_t k = 0; k < s.columns; ++k) to[k] = static_cast<float>(to[k] * weight[at(k)]);
  }
  c.set(0, std::move(y));
}

std::unique_ptr<Kernel> tfidf_vectorizer(const KernelSpec& spec) {
  const std::vector<int64_t> outputs = spec.node.ints("ngram_indexes"), counts = spec.node.ints("ngram_counts");
  const Settings s = settings_of(spec.node, outputs);
  if (const auto* pool = spec.node.get<std::vector<std::string>>("pool_strings"); pool && !pool->empty())
    return make_kernel([=, root = tree_of(*pool, counts, outputs)](KernelContext& c) {
      if (c.in(0).dtype() != DType::String) malformed("TfIdfVectorizer with a pool of strings and an input of " + std::string(name_of(c.in(0).dtype())));
      vectorize(c, root, c.in(0).strings(), s, outputs);
    });
  return make_kernel([=, root = tree_of(spec.node.ints("pool_int64s"), counts, outputs)](KernelContext& c) {
    vectorize(c, root, integers(c.in(0)), s, outputs);
  });
}

}  // namespace

std::vector<OpDef> op_tfidf_vectorizer() { return {{.name = "TfIdfVectorizer", .since = 9, .cpu = &tfidf_vectorizer}}; }

}  // namespace infopt
